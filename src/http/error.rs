//! What a caller is told when there is no answer.
//!
//! One [`Code`] names every error of the service, and one exhaustive match gives each its status, its type
//! and what it says when nothing more exact is known. `docs/errors.md` is the same table for readers, and a
//! test holds the two together. Nothing that an upstream said, no host and no key ever enters a message here:
//! errors are built from what the caller sent and from what this service decided.

mod code;
mod response;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::service::PipelineError;

pub use code::Code;
pub use response::{X_REQUEST_ID, X_SHOULD_RETRY};

/// Longest piece of a caller's own text that a message repeats, in characters.
const QUOTE_LIMIT: usize = 100;

/// An error in the OpenAI shape: what went wrong, where, and whether and when to come again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    code: Code,
    /// One sentence or two for a person.
    pub message: Cow<'static, str>,
    /// The request field at fault, as a path such as `messages[2].content[0].image_url`.
    pub param: Option<Cow<'static, str>>,
    /// When it is worth coming again. A 429 or 503 without it says one second.
    pub retry_after: Option<Duration>,
    /// The `x-should-retry` header: `Some(false)` once the service has spent its own retries, so that a
    /// client library does not multiply them. `None` leaves the header out.
    pub should_retry: Option<bool>,
}

impl ApiError {
    /// The error with a message of its own, which must hold nothing that an upstream said.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), param: None, retry_after: None, should_retry: None }
    }

    /// The error with the code's own message.
    pub fn of(code: Code) -> Self {
        Self::new(code, code.default_message())
    }

    /// Which error it is; gives status and type.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Names the request field at fault.
    #[must_use]
    pub fn with_param(mut self, param: impl Into<Cow<'static, str>>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// Says when it is worth coming again.
    #[must_use]
    pub fn with_retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// Tells client libraries not to retry, because the service already did.
    #[must_use]
    pub fn retries_spent(mut self) -> Self {
        self.should_retry = Some(false);
        self
    }

    /// 404 `model_not_found`, naming the model that was asked for.
    pub fn model_not_found(model: &str) -> Self {
        let message = format!(
            "The model '{}' does not exist or is not available here. GET /v1/models lists what is.",
            quoted(model)
        );
        Self::new(Code::ModelNotFound, message).with_param("model")
    }

    /// 400 `unsupported_parameter` for a field that is known, but that no candidate can honour.
    pub fn unsupported(param: impl Into<Cow<'static, str>>) -> Self {
        let param = param.into();
        let message = match &*param {
            // What a request for embeddings asks of a model as such.
            "model" => "No backend that may answer this request makes embeddings with this model.".to_owned(),
            other => format!("No backend that may answer this request supports '{}'.", quoted(other)),
        };
        Self::new(Code::UnsupportedParameter, message).with_param(param)
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.code.status()
    }

    /// The `type` of the OpenAI shape.
    pub fn kind(&self) -> &'static str {
        self.code.kind()
    }

    /// The error as JSON: `{"error":{"message","type","param","code","request_id"}}`, all five keys present.
    /// An empty `request_id` is written as null.
    pub fn body(&self, request_id: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(160 + self.message.len());
        self.write_body(request_id, &mut out);
        out
    }

    /// Appends [`ApiError::body`] to `out`.
    pub fn write_body(&self, request_id: &str, out: &mut Vec<u8>) {
        let envelope = Envelope {
            error: Shape {
                message: &self.message,
                r#type: self.kind(),
                param: self.param.as_deref(),
                code: self.code.as_str(),
                request_id: (!request_id.is_empty()).then_some(request_id),
            },
        };
        // Strings into memory cannot fail to serialise.
        serde_json::to_writer(out, &envelope).ok();
    }

    /// The value of `retry-after` in whole seconds, rounded up and at least 1; `None` for statuses that carry
    /// none.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        let demanded = matches!(self.status(), 429 | 503);
        if !demanded && self.retry_after.is_none() {
            return None;
        }
        let delay = self.retry_after.unwrap_or_default();
        let seconds = delay.as_secs().saturating_add(u64::from(delay.subsec_nanos() > 0));
        Some(seconds.max(1))
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.message)
    }
}

impl std::error::Error for ApiError {}

#[derive(Serialize)]
struct Envelope<'a> {
    error: Shape<'a>,
}

#[derive(Serialize)]
struct Shape<'a> {
    message: &'a str,
    r#type: &'a str,
    param: Option<&'a str>,
    code: &'a str,
    request_id: Option<&'a str>,
}

/// A caller's own text in a form that is safe in a message and in a log line: short, control characters
/// escaped.
pub fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(QUOTE_LIMIT).flat_map(char::escape_debug).collect();
    if text.chars().nth(QUOTE_LIMIT).is_some() {
        short.push('…');
    }
    short
}

impl From<PipelineError> for ApiError {
    fn from(error: PipelineError) -> Self {
        match error {
            PipelineError::Unsupported { param, reason: None } => Self::unsupported(param),
            PipelineError::Unsupported { param, reason: Some(reason) } => {
                let message = format!("'{param}' cannot be honoured: {reason}.");
                Self::new(Code::UnsupportedParameter, message).with_param(param)
            }
            PipelineError::Invalid { param, message } => {
                let error = Self::new(Code::InvalidValue, message);
                match param {
                    Some(param) => error.with_param(param),
                    None => error,
                }
            }
            PipelineError::ModelNotFound { model } => Self::model_not_found(&model),
            PipelineError::ContextLength => Self::of(Code::ContextLengthExceeded).with_param("messages"),
            PipelineError::ContentFilter => Self::of(Code::ContentFilter),
            PipelineError::Overloaded { retry_after } => {
                Self::of(Code::Overloaded).with_retry_after(retry_after)
            }
            PipelineError::Draining { retry_after } => Self::of(Code::Draining).with_retry_after(retry_after),
            PipelineError::BackendsUnavailable { retry_after } => {
                Self::of(Code::BackendsUnavailable).with_retry_after(retry_after).retries_spent()
            }
            // No `retries_spent`: coming again once the named time has passed is just what is wanted, and
            // until then the candidates get no request at all.
            PipelineError::UpstreamRateLimited { retry_after } => {
                Self::of(Code::UpstreamRateLimited).with_retry_after(retry_after)
            }
            PipelineError::ModelUnavailable { retry_after } => {
                Self::of(Code::ModelUnavailable).with_retry_after(retry_after)
            }
            PipelineError::Template => Self::of(Code::TemplateError).retries_spent(),
            PipelineError::UpstreamError => Self::of(Code::UpstreamError).retries_spent(),
            PipelineError::UpstreamBadResponse => Self::of(Code::UpstreamBadResponse).retries_spent(),
            PipelineError::UpstreamTimeout => Self::of(Code::UpstreamTimeout).retries_spent(),
            PipelineError::UpstreamStalled => Self::of(Code::UpstreamStalled).retries_spent(),
            PipelineError::UpstreamTruncated => Self::of(Code::UpstreamTruncated).retries_spent(),
            PipelineError::DeadlineExceeded => Self::of(Code::DeadlineExceeded).retries_spent(),
            PipelineError::Cancelled => Self::of(Code::Cancelled),
            PipelineError::Internal => Self::of(Code::InternalError),
        }
    }
}
