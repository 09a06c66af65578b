//! What Google's errors mean.
//!
//! The body is `google.rpc.Status` as JSON: `{"error":{"code","message","status","details":[…]}}`, now and
//! then wrapped in an array. The details decide where the status alone would mislead: a 429 of a daily quota
//! must not be waited for although a `RetryInfo` of some seconds stands beside it, an invalid key comes as
//! 400, and a 500 may say that the input is too long.

use std::time::Duration;

use opossum_core::class::FailureClass;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::BackendError;

/// `google.rpc.Status` as far as it is looked at.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RpcError {
    code: Option<u16>,
    message: Option<String>,
    status: Option<String>,
    details: Option<Vec<Box<RawValue>>>,
}

/// One detail of any of the types that matter; fields of the others are absent.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Detail {
    #[serde(rename = "@type")]
    kind: String,
    violations: Vec<Violation>,
    retry_delay: Option<String>,
    reason: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Violation {
    quota_id: String,
    quota_value: Option<String>,
}

#[derive(Deserialize)]
struct Envelope {
    error: RpcError,
}

/// What the details say together.
#[derive(Default)]
struct Hints {
    spent: bool,
    retry_delay: Option<Duration>,
    bad_key: bool,
}

/// The error object in a body, wrapped in an array or not.
pub(super) fn parse(body: &[u8]) -> Option<RpcError> {
    if body.trim_ascii_start().starts_with(b"[") {
        let all: Vec<Envelope> = serde_json::from_slice(body).ok()?;
        return all.into_iter().next().map(|envelope| envelope.error);
    }
    serde_json::from_slice(body).ok().map(|envelope: Envelope| envelope.error)
}

/// Classifies an answer whose status is not a success.
///
/// `header_wait` is the wait of a `Retry-After` header, where there was one.
pub(super) fn classify(status: u16, header_wait: Option<Duration>, body: &[u8]) -> BackendError {
    let mut error = parse(body).unwrap_or_default();
    // The transport's own status is the truth; the body's copy is for errors inside a stream.
    error.code = Some(status);
    error.classify(header_wait)
}

impl RpcError {
    /// Classifies the error by its code, status name, details and message.
    pub(super) fn classify(&self, header_wait: Option<Duration>) -> BackendError {
        let code = self.code.filter(|c| (100..600).contains(c)).unwrap_or_else(|| self.code_by_name());
        let hints = self.hints();
        let class = self.class(code, &hints);
        let wait = (class == FailureClass::RateLimited).then(|| hints.retry_delay.max(header_wait)).flatten();
        let name = self.status.as_deref().unwrap_or("no status name");
        let message = self.message.as_deref().unwrap_or("no message");
        BackendError::new(class, format!("gemini {code} {name}: {message}"))
            .with_status(code)
            .with_retry_after(wait)
    }

    fn class(&self, code: u16, hints: &Hints) -> FailureClass {
        match code {
            429 if hints.spent => FailureClass::QuotaExhausted,
            429 => FailureClass::RateLimited,
            402 => FailureClass::QuotaExhausted,
            401 | 403 => FailureClass::BadCredential,
            400 if hints.bad_key => FailureClass::BadCredential,
            // Not a wrong request but a wrong place or account: the region is not served, billing is off.
            400 if self.status.as_deref() == Some("FAILED_PRECONDITION") => FailureClass::BadCredential,
            404 => FailureClass::ModelMissing,
            400 | 413 | 422 if self.says_too_long() => FailureClass::ContextLength,
            400 | 413 | 422 => FailureClass::CallerError,
            500 if self.says_too_long() => FailureClass::ContextLength,
            408 | 409 | 425 | 499 | 500.. => FailureClass::ServerError,
            // Redirects are never followed, and whoever answers anything else is not Gemini.
            _ => FailureClass::BadResponse,
        }
    }

    fn code_by_name(&self) -> u16 {
        match self.status.as_deref() {
            Some("INVALID_ARGUMENT" | "FAILED_PRECONDITION" | "OUT_OF_RANGE") => 400,
            Some("UNAUTHENTICATED") => 401,
            Some("PERMISSION_DENIED") => 403,
            Some("NOT_FOUND") => 404,
            Some("RESOURCE_EXHAUSTED") => 429,
            Some("UNAVAILABLE") => 503,
            Some("DEADLINE_EXCEEDED") => 504,
            _ => 500,
        }
    }

    fn hints(&self) -> Hints {
        let mut hints = Hints::default();
        for raw in self.details.iter().flatten() {
            // A detail of another shape says nothing to us.
            let Ok(detail) = serde_json::from_str::<Detail>(raw.get()) else { continue };
            if detail.kind.ends_with("google.rpc.QuotaFailure") {
                hints.spent |= detail.violations.iter().any(Violation::is_spent);
            } else if detail.kind.ends_with("google.rpc.RetryInfo") {
                hints.retry_delay = detail.retry_delay.as_deref().and_then(seconds);
            } else if detail.kind.ends_with("google.rpc.ErrorInfo") {
                hints.bad_key |= detail.reason.is_some_and(|r| r.starts_with("API_KEY_"));
            }
        }
        hints.bad_key |= self.message_has("api key not valid") || self.message_has("api key expired");
        hints
    }

    fn says_too_long(&self) -> bool {
        (self.message_has("token count") && self.message_has("exceeds"))
            || self.message_has("input context is too long")
            || self.message_has("context length")
            || self.message_has("exceeds the maximum number of tokens")
    }

    fn message_has(&self, phrase: &str) -> bool {
        self.message.as_deref().is_some_and(|m| m.to_ascii_lowercase().contains(phrase))
    }
}

impl Violation {
    /// Whether waiting a minute cannot help: the day's allowance is gone, or there never was one.
    fn is_spent(&self) -> bool {
        self.quota_id.contains("PerDay") || self.quota_value.as_deref() == Some("0")
    }
}

/// A protobuf duration in JSON: decimal seconds and an `s`, such as `3.5s`.
fn seconds(text: &str) -> Option<Duration> {
    let number: f64 = text.trim().strip_suffix('s')?.parse().ok()?;
    Duration::try_from_secs_f64(number).ok()
}

#[cfg(test)]
#[path = "errors_tests.rs"]
mod tests;
