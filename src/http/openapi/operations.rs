//! The routes: what each takes and what it answers with.

mod batches;
mod files;
mod jobs;

use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::{
    HttpMethod, Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn, PathItem, Paths,
    PathsBuilder,
};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{Content, ContentBuilder, Ref, Required, SecurityRequirement};

use crate::http::error::Code;

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";

/// A header: its name, the type of its value, what it says.
type HeaderRow = (&'static str, Type, &'static str);

/// The headers of every answer of a model.
pub(super) const ANSWER_HEADERS: [HeaderRow; 13] = [
    ("x-request-id", Type::String, "Identity of the request; finds it in logs and traces."),
    ("x-opossum-backend", Type::String, "The service that answered."),
    ("x-opossum-model", Type::String, "The model that answered, as that service names it."),
    ("x-opossum-attempts", Type::Integer, "Calls to backends made for this request; 0 for a cached answer."),
    ("x-opossum-cache", Type::String, "`miss`, `hit`, `bypass`, or `semantic; similarity=0.97`."),
    ("x-opossum-degraded", Type::String, "`true` when a fallback below the asked-for quality answered."),
    ("server-timing", Type::String, "Milliseconds in `queue`, `cache`, `route` and `upstream`."),
    ("x-ratelimit-limit-requests", Type::Integer, "Requests a minute; only where the key has a limit."),
    ("x-ratelimit-limit-tokens", Type::Integer, "Tokens a minute; only where the key has a limit."),
    ("x-ratelimit-remaining-requests", Type::Integer, "Requests left now."),
    ("x-ratelimit-remaining-tokens", Type::Integer, "Tokens left now."),
    ("x-ratelimit-reset-requests", Type::String, "Time until all requests are back, such as `1s` or `6m0s`."),
    ("x-ratelimit-reset-tokens", Type::String, "Time until all tokens are back."),
];

const TRACEPARENT: HeaderRow = ("traceparent", Type::String, "W3C trace context.");

/// The headers that steer a request.
const REQUEST_HEADERS: [HeaderRow; 4] = [
    ("x-opossum-timeout-ms", Type::Integer, "One deadline over queue, retries and stream, in milliseconds."),
    ("x-opossum-cache", Type::String, "`bypass`: neither read nor store; `refresh`: do not read, but store."),
    ("x-opossum-route", Type::String, "Names of services, separated by commas: only these may answer."),
    TRACEPARENT,
];

pub(super) fn paths() -> Paths {
    let routes: [(&str, HttpMethod, OperationBuilder); 23] = [
        ("/v1/chat/completions", HttpMethod::Post, chat()),
        ("/v1/completions", HttpMethod::Post, completions()),
        ("/v1/embeddings", HttpMethod::Post, embeddings()),
        ("/v1/models", HttpMethod::Get, models()),
        ("/v1/models/{id}", HttpMethod::Get, model()),
        ("/v1/jobs", HttpMethod::Post, jobs::submit()),
        ("/v1/jobs/{id}", HttpMethod::Get, jobs::get()),
        ("/v1/jobs/{id}", HttpMethod::Delete, jobs::cancel()),
        ("/v1/jobs/{id}/events", HttpMethod::Get, jobs::events()),
        ("/v1/files", HttpMethod::Get, files::list()),
        ("/v1/files", HttpMethod::Post, files::upload()),
        ("/v1/files/{id}", HttpMethod::Get, files::get()),
        ("/v1/files/{id}", HttpMethod::Delete, files::delete()),
        ("/v1/files/{id}/content", HttpMethod::Get, files::download()),
        ("/v1/batches", HttpMethod::Get, batches::list()),
        ("/v1/batches", HttpMethod::Post, batches::create()),
        ("/v1/batches/{id}", HttpMethod::Get, batches::get()),
        ("/v1/batches/{id}/cancel", HttpMethod::Post, batches::cancel()),
        ("/health", HttpMethod::Get, health()),
        ("/health/live", HttpMethod::Get, live()),
        ("/health/ready", HttpMethod::Get, ready()),
        ("/metrics", HttpMethod::Get, metrics()),
        ("/openapi.json", HttpMethod::Get, openapi()),
    ];
    let paths = routes.into_iter().fold(PathsBuilder::new(), |paths, (path, method, operation)| {
        let operation: Operation = operation.build();
        paths.path(path, PathItem::new(method, operation))
    });
    paths.build()
}

fn chat() -> OperationBuilder {
    inference("createChatCompletion", "Answer a conversation", "ChatRequest", "ChatCompletion", "ChatChunk")
}

fn completions() -> OperationBuilder {
    inference("createCompletion", "Go on from a text", "CompletionRequest", "Completion", "Completion")
}

fn embeddings() -> OperationBuilder {
    let answered = ResponseBuilder::new()
        .description("The vectors, in the order of the inputs.")
        .content(JSON, content("EmbeddingList"));
    asking("createEmbedding", "Turn inputs into vectors", "EmbeddingRequest", answered)
}

fn inference(id: &str, summary: &str, request: &str, whole: &str, frame: &str) -> OperationBuilder {
    let answered = ResponseBuilder::new()
        .description(
            "The answer. With `stream: true` each event's data is a frame and the last one is `[DONE]`; a stream \
             that fails after its first byte ends with the data of an error and without `[DONE]`.",
        )
        .content(JSON, content(whole))
        .content(EVENTS, frames(frame));
    asking(id, summary, request, answered)
}

/// A route that asks models, with the headers and errors that all of these have.
fn asking(id: &str, summary: &str, request: &str, answered: ResponseBuilder) -> OperationBuilder {
    let answered = ANSWER_HEADERS.iter().fold(answered, |response, row| response.header(row.0, header(row)));
    let operation = with_headers(described("inference", id, summary), &REQUEST_HEADERS)
        .request_body(Some(body(request)))
        .response("200", answered.build());
    errors(operation, &[400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429, 431, 500, 502, 503, 504])
}

fn models() -> OperationBuilder {
    described("models", "listModels", "List what can be asked for")
        .response("200", found("The models.", "ModelList"))
        .response("401", error(401))
}

fn model() -> OperationBuilder {
    described("models", "retrieveModel", "Describe one model")
        .parameter(id("A model's id; may hold slashes."))
        .response("200", found("The model.", "Model"))
        .response("401", error(401))
        .response("404", error(404))
}

fn health() -> OperationBuilder {
    let refresh = query("refresh", Type::Boolean, "True to probe now instead of reading what was last seen.");
    open("health", "Say what works")
        .parameter(refresh)
        .response("200", found("The report, `ok` and `degraded` alike.", "HealthReport"))
}

fn live() -> OperationBuilder {
    open("live", "Say that the event loop turns").response("200", found("It does.", "Liveness"))
}

fn ready() -> OperationBuilder {
    let not_ready = ResponseBuilder::new()
        .description("It cannot.")
        .header("retry-after", retry_after())
        .content(JSON, content("Readiness"))
        .build();
    open("ready", "Say whether work can be admitted")
        .response("200", found("It can.", "Readiness"))
        .response("503", not_ready)
}

fn metrics() -> OperationBuilder {
    let text = Content::new(Some(typed(Type::String)));
    open("metrics", "Metrics in Prometheus text format")
        .response(
            "200",
            ResponseBuilder::new().description("The metrics.").content("text/plain", text).build(),
        )
        .response("500", error(500))
}

fn openapi() -> OperationBuilder {
    let any = Content::new(Some(typed(Type::Object)));
    open("openapi", "This document")
        .response("200", ResponseBuilder::new().description("The document.").content(JSON, any).build())
}

fn described(tag: &str, id: &str, summary: &str) -> OperationBuilder {
    OperationBuilder::new().tag(tag).operation_id(Some(id)).summary(Some(summary))
}

/// A route that needs no key.
fn open(id: &str, summary: &str) -> OperationBuilder {
    described("operation", id, summary).securities(Some([SecurityRequirement::default()]))
}

fn with_headers(operation: OperationBuilder, headers: &[HeaderRow]) -> OperationBuilder {
    headers.iter().fold(operation, |operation, (name, kind, description)| {
        let parameter: Parameter = ParameterBuilder::new()
            .name(*name)
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some(*description))
            .schema(Some(typed(kind.clone())))
            .build();
        operation.parameter(parameter)
    })
}

fn body(schema: &str) -> RequestBody {
    RequestBodyBuilder::new().required(Some(Required::True)).content(JSON, content(schema)).build()
}

fn found(description: &str, schema: &str) -> Response {
    ResponseBuilder::new().description(description).content(JSON, content(schema)).build()
}

fn content(schema: &str) -> Content {
    Content::new(Some(Ref::from_schema_name(schema)))
}

/// The data of one event: a frame, or the error a stream ends with.
fn frames(schema: &str) -> Content {
    let data = OneOfBuilder::new()
        .item(Ref::from_schema_name(schema))
        .item(Ref::from_schema_name("ErrorBody"))
        .description(Some("The data of one event; the last event's data is the text `[DONE]`."))
        .build();
    ContentBuilder::new().schema(Some(Schema::OneOf(data))).build()
}

/// The errors of a status, with all codes it can have.
fn error(status: u16) -> Response {
    let codes: Vec<String> = Code::ALL
        .iter()
        .filter(|code| code.status() == status)
        .map(|code| format!("`{}`", code.as_str()))
        .collect();
    let mut response = ResponseBuilder::new()
        .description(codes.join(", "))
        .header("x-request-id", header(&ANSWER_HEADERS[0]))
        .content(JSON, content("ErrorBody"));
    if matches!(status, 429 | 503) {
        response = response.header("retry-after", retry_after());
    }
    if matches!(status, 502..=504) {
        let row = ("x-should-retry", Type::String, "`false` once the service has spent its own retries.");
        response = response.header(row.0, header(&row));
    }
    response.build()
}

/// The errors of these statuses.
fn errors(operation: OperationBuilder, statuses: &[u16]) -> OperationBuilder {
    statuses
        .iter()
        .fold(operation, |operation, status| operation.response(status.to_string(), error(*status)))
}

/// A parameter of the query.
fn query(name: &str, kind: Type, description: &str) -> ParameterBuilder {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Query)
        .description(Some(description))
        .schema(Some(typed(kind)))
}

/// The id in a path.
fn id(description: &str) -> ParameterBuilder {
    ParameterBuilder::new()
        .name("id")
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some(description))
        .schema(Some(typed(Type::String)))
}

fn retry_after() -> Header {
    header(&("retry-after", Type::Integer, "Seconds to wait, at least 1."))
}

fn header((_, kind, description): &HeaderRow) -> Header {
    HeaderBuilder::new().schema(Some(typed(kind.clone()))).description(Some(*description)).build()
}

fn typed(kind: Type) -> utoipa::openapi::schema::Object {
    ObjectBuilder::new().schema_type(SchemaType::Type(kind)).build()
}
