//! One trait, many upstreams.
//!
//! A backend turns a request of the domain into its upstream's native protocol and the upstream's answer
//! back into the domain. It neither retries nor chooses nor counts: whoever calls it owns the deadline, and
//! dropping the future or the stream cancels the work upstream at once.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`openai`] | OpenAI, vLLM, SGLang, llama-server and all that speak the same |
//! | [`ollama`] | an Ollama server, natively |
//! | [`gemini`] | Google's Gemini API, natively |
//! | [`transformers`] | the embedded engine, behind a seam |
//! | [`fake`] | a script |
//! | [`http`], [`sse`], [`ndjson`] | what the remote ones share: client, classes of errors, framing |
//! | [`models`] | the catalogue of embedded models and how they are pulled |

pub mod fake;
pub mod gemini;
pub mod http;
mod json;
mod merge;
pub mod models;
pub mod ndjson;
pub mod ollama;
pub mod openai;
pub mod sse;
pub mod transformers;
mod vectors;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use futures::future::BoxFuture;
use opossum_core::answer::{Answer, StreamEvent};
use opossum_core::class::FailureClass;
use opossum_core::embed::{EmbedRequest, Embeddings};
use opossum_core::ids::{ModelName, ServiceName};
use opossum_core::needs::Needs;
use opossum_core::request::{GenerateRequest, ResponseFormat};

/// One upstream, by its native protocol.
pub trait Backend: Send + Sync + 'static {
    /// The name that configuration, metrics and health use.
    fn service(&self) -> &ServiceName;

    /// Answers a chat or completion: whole, or as a stream when the request asks for one.
    ///
    /// A `Reply::Stream` is returned once the upstream accepted the request (its head was good); the first
    /// content may still be far away. Dropping the future or the stream aborts the upstream's work.
    fn generate(&self, call: Call) -> BoxFuture<'static, Result<Reply, BackendError>>;

    /// The vectors of inputs: as many as there are inputs, of the length that the request asks for.
    ///
    /// Dropping the future aborts the upstream's work. Only arms that can embed are asked; the others of a
    /// backend may leave this as it is.
    fn embed(&self, call: EmbedCall) -> BoxFuture<'static, Result<Embeddings, BackendError>> {
        drop(call);
        let error =
            BackendError::new(FailureClass::CallerError, "this backend does not embed").about("model");
        Box::pin(std::future::ready(Err(error)))
    }

    /// What the upstream says it can serve.
    fn models(&self) -> BoxFuture<'static, Result<Vec<UpstreamModel>, BackendError>>;

    /// A cheap sign of life, without generating anything.
    fn probe(&self) -> BoxFuture<'static, Result<(), BackendError>>;
}

/// One attempt's order.
#[derive(Debug)]
pub struct Call<R = GenerateRequest> {
    /// What is asked.
    pub request: Arc<R>,
    /// The model, by the upstream's name.
    pub model: ModelName,
    /// Values for what the request leaves open.
    pub defaults: Arc<ParamDefaults>,
    /// Our request id, for correlation in logs.
    pub request_id: Arc<str>,
    /// W3C trace context of the span that makes this call, to be sent on.
    pub traceparent: Option<Box<str>>,
}

/// One attempt's order for vectors.
pub type EmbedCall = Call<EmbedRequest>;

impl<R> Clone for Call<R> {
    fn clone(&self) -> Self {
        Self {
            request: Arc::clone(&self.request),
            model: self.model.clone(),
            defaults: Arc::clone(&self.defaults),
            request_id: Arc::clone(&self.request_id),
            traceparent: self.traceparent.clone(),
        }
    }
}

/// Values for parameters that the request leaves open: an alias's, else the service's.
///
/// Unlike the request's own values, a default that an upstream does not know is left out.
#[derive(Clone, Debug, Default)]
pub struct ParamDefaults {
    /// 0 to 2.
    pub temperature: Option<f32>,
    /// Above 0 to 1.
    pub top_p: Option<f32>,
    /// At least 1.
    pub top_k: Option<u32>,
    /// At least 1.
    pub max_tokens: Option<u32>,
    /// True when an answer must be a JSON object unless the request says otherwise.
    pub json_object: bool,
}

impl Call {
    /// The temperature that counts.
    pub fn temperature(&self) -> Option<f32> {
        self.request.params.temperature.or(self.defaults.temperature)
    }

    /// The nucleus mass that counts.
    pub fn top_p(&self) -> Option<f32> {
        self.request.params.top_p.or(self.defaults.top_p)
    }

    /// The `top_k` that counts.
    pub fn top_k(&self) -> Option<u32> {
        self.request.params.top_k.or(self.defaults.top_k)
    }

    /// The token limit that counts.
    pub fn max_tokens(&self) -> Option<u32> {
        self.request.params.max_tokens.or(self.defaults.max_tokens)
    }

    /// The response format that counts.
    pub fn response_format(&self) -> &ResponseFormat {
        match &self.request.params.response_format {
            ResponseFormat::Text if self.defaults.json_object => &ResponseFormat::JsonObject,
            asked => asked,
        }
    }
}

/// A backend's answer.
pub enum Reply {
    /// All of it.
    Whole(Box<Answer>),
    /// As it comes.
    Stream(EventStream),
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reply::Whole(answer) => f.debug_tuple("Whole").field(answer).finish(),
            Reply::Stream(_) => f.write_str("Stream"),
        }
    }
}

/// The events of a stream, in batches of what arrived together; a batch may hold no content.
///
/// A good stream yields a `Finish` for every choice and then ends. An upstream that ends without its own
/// end mark yields an error of class `Truncated`. After an error the stream is over.
pub type EventStream = Pin<Box<dyn Stream<Item = Result<Vec<StreamEvent>, BackendError>> + Send>>;

/// A model as its upstream describes it.
#[derive(Clone, Debug)]
pub struct UpstreamModel {
    /// The upstream's name for it.
    pub name: ModelName,
    /// What it can do, where the upstream says; else what its protocol can carry.
    pub can: Needs,
    /// Longest context in tokens, where the upstream says.
    pub context_tokens: Option<u32>,
}

/// Why an attempt failed.
///
/// `detail` is for the operator's log and may quote the upstream; a caller is only shown what is `told`.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{} ({}): {detail}", class.label(), status.map_or_else(|| "no status".to_owned(), |s| s.to_string()))]
pub struct BackendError {
    /// What kind of failure it was: this decides all that follows.
    pub class: FailureClass,
    /// The upstream's HTTP status, where there was one.
    pub status: Option<u16>,
    /// How long the upstream asked to be left alone.
    pub retry_after: Option<Duration>,
    /// The request's field that the upstream cannot honour, where it is known.
    pub param: Option<&'static str>,
    /// What happened, in one line, at most 512 bytes, without control characters or credentials.
    pub detail: String,
    /// What the caller is told of the field: words of ours about the caller's own request, none of an upstream's.
    pub told: Option<String>,
}

impl BackendError {
    /// An error of a class, with what happened.
    pub fn new(class: FailureClass, detail: impl AsRef<str>) -> Self {
        let detail = one_line(detail.as_ref());
        Self { class, status: None, retry_after: None, param: None, detail, told: None }
    }

    /// The same with the upstream's status.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    /// The same, of a field of the request.
    #[must_use]
    pub fn about(mut self, param: &'static str) -> Self {
        self.param = Some(param);
        self
    }

    /// The same, where the caller may read what happened.
    #[must_use]
    pub fn told(mut self) -> Self {
        self.told = Some(self.detail.clone());
        self
    }

    /// The same with the upstream's wish to be left alone for a while.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Option<Duration>) -> Self {
        self.retry_after = wait;
        self
    }
}

/// Cuts a text to one line of at most 512 bytes, so that an upstream cannot write into our log at will.
fn one_line(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(512).collect();
    let mut end = clean.len().min(512);
    while !clean.is_char_boundary(end) {
        end -= 1;
    }
    clean[..end].to_owned()
}
