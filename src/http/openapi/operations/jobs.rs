//! The routes of jobs.

use super::*;

/// The request headers that steer a job.
const HEADERS: [HeaderRow; 2] = [
    (
        "x-opossum-timeout-ms",
        Type::Integer,
        "How much time the job has, in milliseconds; 15 minutes at most.",
    ),
    TRACEPARENT,
];

pub(super) fn submit() -> OperationBuilder {
    let location = ("location", Type::String, "Where to ask for the job.");
    let accepted = ResponseBuilder::new()
        .description("The broker has the job on disk; it will be answered.")
        .header(location.0, header(&location))
        .content(JSON, content("Job"))
        .build();
    let operation = with_headers(described("jobs", "createJob", "Queue a request durably"), &HEADERS)
        .request_body(Some(body("JobRequest")))
        .response("202", accepted);
    errors(operation, &[400, 401, 403, 405, 408, 413, 415, 431, 500, 503])
}

pub(super) fn get() -> OperationBuilder {
    let operation = described("jobs", "retrieveJob", "Say where a job stands")
        .parameter(id("A job's id."))
        .response("200", found("The job, with its answer once there is one.", "Job"));
    errors(operation, &[401, 404, 503])
}

pub(super) fn cancel() -> OperationBuilder {
    let operation = described("jobs", "cancelJob", "Cancel a job that is not over")
        .parameter(id("A job's id."))
        .response("200", found("The job as it is then; one that was answered stays answered.", "Job"));
    errors(operation, &[401, 404, 503])
}

pub(super) fn events() -> OperationBuilder {
    let followed = ResponseBuilder::new()
        .description("The job, and again whenever it changes; the stream ends once it is over.")
        .content(EVENTS, content("Job"))
        .build();
    let operation =
        described("jobs", "followJob", "Follow a job").parameter(id("A job's id.")).response("200", followed);
    errors(operation, &[401, 404, 503])
}
