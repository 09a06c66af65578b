//! The routes of batches.

use super::*;

pub(super) fn create() -> OperationBuilder {
    let operation = described("batches", "createBatch", "Have a file of requests answered")
        .request_body(Some(body("BatchRequest")))
        .response("200", found("The batch, whose file is read next.", "Batch"));
    errors(operation, &[400, 401, 403, 405, 408, 413, 415, 431, 500, 503])
}

pub(super) fn list() -> OperationBuilder {
    let operation = described("batches", "listBatches", "List batches, the newest first")
        .parameter(query("after", Type::String, "The id after which the page begins."))
        .parameter(query("limit", Type::Integer, "At most so many, 1 to 100; 20 where nothing is said."))
        .parameter(query("order", Type::String, "`desc` or `asc`, by the time of creation."))
        .response("200", found("A page of batches.", "BatchList"));
    errors(operation, &[400, 401, 503])
}

pub(super) fn get() -> OperationBuilder {
    let operation = described("batches", "retrieveBatch", "Say where a batch stands")
        .parameter(id("A batch's id."))
        .response("200", found("The batch.", "Batch"));
    errors(operation, &[401, 404, 503])
}

pub(super) fn cancel() -> OperationBuilder {
    let operation = described("batches", "cancelBatch", "Call off a batch that is not over")
        .parameter(id("A batch's id."))
        .response("200", found("The batch as it is then; one that is over stays as it is.", "Batch"));
    errors(operation, &[401, 404, 503])
}
