//! The routes of files.

use super::*;

const FORM: &str = "multipart/form-data";

pub(super) fn upload() -> OperationBuilder {
    let form = RequestBodyBuilder::new().required(Some(Required::True)).content(FORM, content("FileRequest"));
    let operation = described("files", "createFile", "Keep a file that a batch will read")
        .request_body(Some(form.build()))
        .response("200", found("The file.", "File"));
    errors(operation, &[400, 401, 403, 405, 408, 413, 415, 431, 500, 503])
}

pub(super) fn list() -> OperationBuilder {
    let operation = described("files", "listFiles", "List files, the newest first")
        .parameter(query("after", Type::String, "The id after which the page begins."))
        .parameter(query("limit", Type::Integer, "At most so many, 1 to 10000; 10000 where nothing is said."))
        .parameter(query("order", Type::String, "`desc` or `asc`, by the time of creation."))
        .parameter(query("purpose", Type::String, "Only files for this."))
        .response("200", found("A page of files.", "FileList"));
    errors(operation, &[400, 401, 503])
}

pub(super) fn get() -> OperationBuilder {
    let operation = described("files", "retrieveFile", "Describe a file")
        .parameter(id("A file's id."))
        .response("200", found("The file.", "File"));
    errors(operation, &[401, 404, 503])
}

pub(super) fn delete() -> OperationBuilder {
    let operation = described("files", "deleteFile", "Delete a file")
        .parameter(id("A file's id."))
        .response("200", found("It is gone.", "FileDeleted"));
    errors(operation, &[400, 401, 404, 503])
}

pub(super) fn download() -> OperationBuilder {
    let bytes = Content::new(Some(typed(Type::String)));
    let found = ResponseBuilder::new()
        .description("The file's bytes.")
        .content("application/octet-stream", bytes)
        .build();
    let operation = described("files", "downloadFile", "Give a file's content")
        .parameter(id("A file's id."))
        .response("200", found);
    errors(operation, &[401, 404, 503])
}
