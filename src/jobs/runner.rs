//! Answers jobs by the one path.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::future::LocalBoxFuture;
use futures::{FutureExt, StreamExt};
use opossum_core::answer::Answer;
use opossum_core::collect::Collector;
use opossum_core::jobs::{Endpoint, Job, Lane, Refusal, StoredReply};
use opossum_jobs::{Chunks, Fault, Ran, Runner, Task};
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::admission;
use crate::http::error::{ApiError, Code};
use crate::http::openai::decode::{self, Decoded};
use crate::http::openai::encode::{
    Head, Kind, StreamEncoder, write_chat, write_completion, write_embeddings,
};
use crate::http::request_id;
use crate::service::{
    AnswerMeta, AnswerStream, CacheMode, PipelineError, RequestContext, ServedBody, Service,
};

/// Answers jobs by the one path.
pub struct ServiceRunner {
    service: Service,
}

/// Why there is no answer: what the requester is told, and what the path said, where it was the path.
struct Missed {
    error: ApiError,
    cause: Option<PipelineError>,
}

impl From<ApiError> for Missed {
    fn from(error: ApiError) -> Self {
        Self { error, cause: None }
    }
}

impl Missed {
    /// The path's error, of a request whose content is in this field.
    fn in_field(cause: PipelineError, field: &'static str) -> Self {
        let too_long = cause == PipelineError::ContextLength;
        let error = ApiError::from(cause.clone());
        Self { error: if too_long { error.with_param(field) } else { error }, cause: Some(cause) }
    }
}

impl Runner for ServiceRunner {
    fn run<'a>(&'a self, task: Task<'a>) -> LocalBoxFuture<'a, Ran> {
        async move {
            let id = request_id::fresh("req_");
            tracing::debug!(job = %task.job.key, request_id = %id, "a job is run");
            match self.answer(&task, &id).await {
                Ok(reply) => Ran::Reply(reply),
                Err(missed) => missed.ran(&id),
            }
        }
        .boxed_local()
    }

    fn error(&self, fault: &Fault, request_id: &str) -> StoredReply {
        written(&api_error(fault), request_id)
    }
}

impl Missed {
    /// What becomes of the job.
    fn ran(self, id: &str) -> Ran {
        use PipelineError as Why;
        let reply = written(&self.error, id);
        match self.cause {
            Some(Why::Overloaded { retry_after }) => Ran::Busy { retry_after },
            Some(Why::Draining { .. }) => Ran::Leaving,
            Some(
                Why::BackendsUnavailable { retry_after }
                | Why::UpstreamRateLimited { retry_after }
                | Why::ModelUnavailable { retry_after },
            ) => Ran::Failed { reply, retry_after: Some(retry_after) },
            Some(
                Why::UpstreamError
                | Why::UpstreamBadResponse
                | Why::UpstreamTimeout
                | Why::UpstreamStalled
                | Why::UpstreamTruncated
                | Why::Internal,
            ) => Ran::Failed { reply, retry_after: None },
            None
            | Some(
                Why::Unsupported { .. }
                | Why::Invalid { .. }
                | Why::ModelNotFound { .. }
                | Why::ContextLength
                | Why::ContentFilter
                | Why::Template
                | Why::DeadlineExceeded
                | Why::Cancelled,
            ) => Ran::Reply(reply),
        }
    }
}

impl ServiceRunner {
    /// A runner on the path.
    pub fn new(service: Service) -> Self {
        Self { service }
    }

    async fn answer(&self, task: &Task<'_>, id: &Arc<str>) -> Result<StoredReply, Missed> {
        let body = task.job.body.as_bytes();
        match task.job.endpoint {
            Endpoint::Chat => self.generate(task, id, decode::decode_chat(body)?, Kind::Chat).await,
            Endpoint::Completions => {
                self.generate(task, id, decode::decode_completion(body)?, Kind::Completion).await
            }
            Endpoint::Embeddings => self.embed(task, id).await,
        }
    }

    async fn generate(
        &self,
        task: &Task<'_>,
        id: &Arc<str>,
        decoded: Decoded,
        kind: Kind,
    ) -> Result<StoredReply, Missed> {
        let Decoded { mut request, model, include_usage, .. } = decoded;
        // A reply that is only kept has nobody to read its pieces.
        request.stream &= task.chunks.are_wanted();
        let field = match kind {
            Kind::Chat => "messages",
            Kind::Completion => "prompt",
        };
        let served = self.service.generate(context(task, id), request, &model).await;
        let served = served.map_err(|error| Missed::in_field(error, field))?;
        let made = Completion::new(kind);
        let named = served.meta.arm.id.model.as_str();
        let answer = match served.body {
            ServedBody::Whole(answer) => answer,
            ServedBody::Stream(events) => {
                let encoder = StreamEncoder::new(&made.head(named), kind, include_usage);
                Arc::new(pass_on(events, encoder, named, &task.chunks).await?)
            }
        };
        let mut out = Vec::with_capacity(1024);
        match kind {
            Kind::Chat => write_chat(&answer, &made.head(named), &mut out),
            Kind::Completion => write_completion(&answer, &made.head(named), &mut out),
        }
        Ok(StoredReply { status: 200, headers: headers(&served.meta, id), body: Bytes::from(out) })
    }

    async fn embed(&self, task: &Task<'_>, id: &Arc<str>) -> Result<StoredReply, Missed> {
        let decoded = decode::decode_embedding(task.job.body.as_bytes())?;
        let embedded = self.service.embed(context(task, id), decoded.request, &decoded.model).await;
        let embedded = embedded.map_err(|error| Missed::in_field(error, "input"))?;
        let mut out = Vec::new();
        let model = embedded.meta.arm.id.model.as_str();
        write_embeddings(&embedded.vectors, model, decoded.format, &mut out);
        Ok(StoredReply { status: 200, headers: headers(&embedded.meta, id), body: Bytes::from(out) })
    }
}

/// The identity and time of one completion.
struct Completion {
    id: Arc<str>,
    created: u64,
}

impl Completion {
    fn new(kind: Kind) -> Self {
        let id = request_id::fresh(match kind {
            Kind::Chat => "chatcmpl-",
            Kind::Completion => "cmpl-",
        });
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self { id, created }
    }

    fn head<'a>(&'a self, model: &'a str) -> Head<'a> {
        Head { id: &self.id, created: self.created, model }
    }
}

/// Sends the pieces of a stream on and gives the whole of it. A stream that breaks is an attempt that failed:
/// unlike an HTTP caller, this requester has not been given an answer yet.
async fn pass_on(
    mut events: AnswerStream,
    mut encoder: StreamEncoder,
    model: &str,
    chunks: &Chunks,
) -> Result<Answer, Missed> {
    let mut collector = Collector::new(model);
    while let Some(batch) = events.next().await {
        let batch = batch.map_err(|error| Missed::in_field(error, "messages"))?;
        collector.add(&batch);
        let mut frames = Vec::new();
        encoder.encode(&batch, &mut frames);
        for piece in pieces(&frames) {
            chunks.send(piece).await;
        }
    }
    let answer = collector.finish();
    let answer = answer.ok_or_else(|| Missed::in_field(PipelineError::UpstreamTruncated, "messages"))?;
    let mut frames = Vec::new();
    encoder.finish(&mut frames);
    for piece in pieces(&frames).filter(|piece| &piece[..] != DONE) {
        chunks.send(piece).await;
    }
    Ok(answer)
}

/// The mark at the end of a stream over HTTP. A job's stream ends with its reply.
const DONE: &[u8] = b"[DONE]";

/// The JSON of each server-sent event.
fn pieces(frames: &[u8]) -> impl Iterator<Item = Bytes> {
    let text = std::str::from_utf8(frames).unwrap_or_default();
    text.split("\n\n")
        .filter_map(|frame| frame.strip_prefix("data: "))
        .map(|json| Bytes::copy_from_slice(json.as_bytes()))
}

fn context(task: &Task<'_>, id: &Arc<str>) -> RequestContext {
    let job: &Job = task.job;
    RequestContext {
        request_id: Arc::clone(id),
        endpoint: job.endpoint.as_str(),
        tenant: Arc::clone(&job.key.tenant),
        received: Instant::now(),
        deadline: task.deadline,
        lane: match task.lane {
            Lane::High | Lane::Normal => admission::Lane::Live,
            Lane::Batch => admission::Lane::Batch,
        },
        comes_again: true,
        cache: CacheMode::Auto,
        only: SmallVec::new(),
        traceparent: job.traceparent.as_deref().map(Box::from),
    }
}

/// The headers that say who answered and how, as over HTTP.
fn headers(meta: &AnswerMeta, id: &str) -> Vec<(String, String)> {
    let mut headers = vec![
        (request_id::HEADER.to_owned(), id.to_owned()),
        ("x-opossum-backend".to_owned(), meta.arm.id.service.to_string()),
        ("x-opossum-model".to_owned(), meta.arm.id.model.to_string()),
        ("x-opossum-attempts".to_owned(), meta.attempts.to_string()),
        ("x-opossum-cache".to_owned(), meta.cache.as_str().to_owned()),
    ];
    if meta.degraded {
        headers.push(("x-opossum-degraded".to_owned(), "true".to_owned()));
    }
    headers
}

fn written(error: &ApiError, id: &str) -> StoredReply {
    let mut headers = vec![(request_id::HEADER.to_owned(), id.to_owned())];
    if let Some(seconds) = error.retry_after_seconds() {
        headers.push(("retry-after".to_owned(), seconds.to_string()));
    }
    StoredReply { status: error.status(), headers, body: Bytes::from(error.body(id)) }
}

fn api_error(fault: &Fault) -> ApiError {
    match fault {
        Fault::Refused(refusal) => refused(refusal),
        Fault::MessageIdReused => ApiError::of(Code::MessageIdReused).with_param("message_id"),
        Fault::DeadlineExceeded => ApiError::of(Code::DeadlineExceeded),
        Fault::Cancelled => ApiError::of(Code::Cancelled),
        Fault::JobFailed => ApiError::of(Code::JobFailed),
    }
}

fn refused(refusal: &Refusal) -> ApiError {
    let code = match refusal {
        Refusal::MissingReplyTo => Code::MissingParameter,
        Refusal::TooLarge => Code::RequestTooLarge,
        Refusal::UnsupportedMediaType => Code::UnsupportedMediaType,
        Refusal::InvalidJson { .. } => Code::InvalidJson,
        Refusal::ReplyToForbidden | Refusal::BadProperty { .. } | Refusal::UnknownEndpoint => {
            Code::InvalidValue
        }
    };
    let error = ApiError::new(code, refusal.to_string());
    match refusal {
        Refusal::MissingReplyTo | Refusal::ReplyToForbidden => error.with_param("reply_to"),
        Refusal::BadProperty { name, .. } => error.with_param(*name),
        Refusal::UnknownEndpoint => error.with_param("endpoint"),
        Refusal::TooLarge | Refusal::UnsupportedMediaType | Refusal::InvalidJson { .. } => error,
    }
}
