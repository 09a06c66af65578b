//! Documented shapes beside the dialect's own: errors, models, health.

pub mod batches;
pub mod files;

use std::collections::BTreeMap;

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::http::error::Code;

/// Every error, from every route.
#[derive(Debug, ToSchema)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, ToSchema)]
pub struct ErrorDetail {
    /// For a person.
    pub message: String,
    /// The family of the error.
    #[schema(rename = "type")]
    pub kind: ErrorType,
    /// The request field at fault, as a path.
    #[schema(required = true)]
    pub param: Option<String>,
    /// For a program.
    pub code: ErrorCode,
    /// The `x-request-id` header again.
    #[schema(required = true)]
    pub request_id: Option<String>,
}

/// The `code` of every error.
#[derive(Debug)]
pub struct ErrorCode;

impl PartialSchema for ErrorCode {
    fn schema() -> RefOr<Schema> {
        one_of(Code::ALL.iter().map(|code| code.as_str()).collect(), "The `code` of every error.")
    }
}

impl ToSchema for ErrorCode {}

/// The `type` of every error.
#[derive(Debug)]
pub struct ErrorType;

impl PartialSchema for ErrorType {
    fn schema() -> RefOr<Schema> {
        let mut kinds: Vec<_> = Code::ALL.iter().map(|code| code.kind()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        one_of(kinds, "The family of an error.")
    }
}

impl ToSchema for ErrorType {}

fn one_of(names: Vec<&'static str>, description: &str) -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(description))
        .enum_values(Some(names))
        .into()
}

/// A request to be queued.
#[derive(Debug, ToSchema)]
pub struct JobRequest {
    /// The route that would take the body: `/v1/chat/completions`, `/v1/completions` or `/v1/embeddings`.
    #[schema(pattern = "^/v1/(chat/completions|completions|embeddings)$")]
    pub endpoint: String,
    /// What that route takes.
    #[schema(value_type = Object)]
    pub body: (),
    /// The queue; `normal` where nothing is said.
    pub lane: Option<JobLane>,
}

/// Whose turn a job is.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum JobLane {
    High,
    Normal,
    Batch,
}

/// A job.
#[derive(Debug, ToSchema)]
pub struct Job {
    /// Its identity.
    pub id: String,
    /// Where it stands.
    pub status: JobStatus,
    /// The answer, once there is one.
    pub result: Option<JobResult>,
}

/// Where a job stands.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum JobStatus {
    Queued,
    Running,
    Succeeded,
    Failed,
    Cancelled,
}

/// The answer to a job.
#[derive(Debug, ToSchema)]
pub struct JobResult {
    /// The status that it would have had over HTTP.
    pub status: u16,
    /// The body that it would have had: an answer, or an error.
    #[schema(value_type = Object)]
    pub body: (),
}

/// What can be asked for.
#[derive(Debug, ToSchema)]
pub struct ModelList {
    /// Always `list`.
    #[schema(pattern = "^list$")]
    pub object: String,
    /// The models.
    pub data: Vec<Model>,
}

/// One model, alias or `auto`.
#[derive(Debug, ToSchema)]
pub struct Model {
    /// What `model` in a request is set to.
    pub id: String,
    /// Always `model`.
    #[schema(pattern = "^model$")]
    pub object: String,
    /// Seconds since the Unix epoch; 0 where it is not known.
    pub created: u64,
    /// Who offers it.
    pub owned_by: String,
    /// What may answer, best first. An extension of the dialect.
    pub backends: Vec<Candidate>,
}

/// A backend that may answer for a model.
#[derive(Debug, ToSchema)]
pub struct Candidate {
    /// The service's name in configuration, metrics and health.
    pub service: String,
    /// The model as that service names it.
    pub model: String,
    /// Whether it may be asked now.
    pub available: bool,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// Its context in tokens, where it is known.
    pub context_length: Option<u32>,
}

/// What ServiceMonitor last saw.
#[derive(Debug, ToSchema)]
pub struct HealthReport {
    /// `ok`, or `degraded` when a configured dependency or backend is down.
    pub status: HealthStatus,
    /// The running version.
    pub version: String,
    /// When this was written.
    #[schema(format = DateTime)]
    pub timestamp: String,
    /// Dependencies by name, each `ok`, `disabled` or a text that begins with `error`; and under
    /// `model_backends` the backends by name, each `available` or `unavailable`.
    #[schema(value_type = Object)]
    pub services: (),
    /// The actors of the process by name.
    pub actors: Option<BTreeMap<String, ActorState>>,
}

/// Whether all is well.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum HealthStatus {
    Ok,
    Degraded,
}

/// The state of an actor.
#[derive(Debug, ToSchema)]
pub struct ActorState {
    /// Whether it answers.
    pub alive: bool,
    /// How often it was started again.
    pub restarts: u64,
}

/// Whether the process is alive.
#[derive(Debug, ToSchema)]
pub struct Liveness {
    /// Always `ok`.
    pub status: String,
}

/// Whether work can be admitted.
#[derive(Debug, ToSchema)]
pub struct Readiness {
    /// `ready` or `not ready`.
    pub status: String,
    /// Why not.
    pub reason: Option<String>,
}
