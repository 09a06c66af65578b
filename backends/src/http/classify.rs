//! What an upstream's error means, for every dialect that reports errors as JSON.
//!
//! The status alone does not tell: a 429 may mean "later" or "never again this month", a 400 may be the
//! caller's fault, a prompt that is too long, or a refusal. So codes and types of the body come first, phrases
//! only where an upstream gives no code, and the status last.

use std::time::SystemTime;

use http::{HeaderMap, StatusCode};
use opossum_core::class::FailureClass;
use serde_json::Value;

use super::retry_after::retry_after;
use crate::BackendError;

/// Where dialects differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quirks {
    /// 503 means "my queue is full, come again", not "I am broken".
    pub busy_503: bool,
}

/// What an error's body says, as far as it is JSON of a known shape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorBody {
    /// The message, or the raw body where it is not JSON.
    pub message: String,
    /// The code, lower case; a number as its digits.
    pub code: String,
    /// The type (or Google's `status`), lower case.
    pub kind: String,
}

impl ErrorBody {
    /// Reads `{"error": {…}}`, `{"error": "…"}`, `{"message": …}`, `{"detail": …}` or such in an array.
    pub fn parse(body: &[u8]) -> Self {
        match serde_json::from_slice::<Value>(body) {
            Ok(value) => Self::from_value(&value),
            Err(_) => Self { message: String::from_utf8_lossy(body).into_owned(), ..Self::default() },
        }
    }

    /// The same from JSON that is parsed already.
    pub fn from_value(value: &Value) -> Self {
        let value = value.get(0).unwrap_or(value);
        let error = value.get("error").unwrap_or(value);
        if let Some(message) = error.as_str() {
            // Some servers put the text in `error` and the rest beside it.
            return Self {
                message: message.to_owned(),
                code: lower(value, "code"),
                kind: lower(value, "type"),
            };
        }
        let message = ["message", "detail"].iter().find_map(|key| error.get(key)).unwrap_or(error);
        let message = message.as_str().map_or_else(|| message.to_string(), str::to_owned);
        let kind = match lower(error, "type") {
            kind if kind.is_empty() => lower(error, "status"),
            kind => kind,
        };
        Self { message, code: lower(error, "code"), kind }
    }

    fn names(&self, names: &[&str]) -> bool {
        names.contains(&self.code.as_str()) || names.contains(&self.kind.as_str())
    }

    fn says(&self, phrases: &[&str]) -> bool {
        let message = self.message.to_ascii_lowercase();
        phrases.iter().any(|phrase| message.contains(phrase))
    }
}

fn lower(value: &Value, key: &str) -> String {
    match value.get(key) {
        Some(Value::String(text)) => text.to_ascii_lowercase(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    }
}

const QUOTA: &[&str] = &[
    "insufficient_quota",
    "insufficient_balance",
    "insufficient_credits",
    "billing_hard_limit_reached",
    "billing_not_active",
    "access_terminated",
];
const RATE: &[&str] = &["rate_limit_exceeded", "rate_limit_error", "slow_down", "too_many_requests"];
const CREDENTIAL: &[&str] = &["invalid_api_key", "authentication_error", "invalid_authentication"];
const MODEL: &[&str] = &["model_not_found", "deployment_not_found", "deploymentnotfound"];
const CONTEXT: &[&str] = &["context_length_exceeded", "exceed_context_size_error", "context_window_exceeded"];
const REFUSED: &[&str] =
    &["content_filter", "content_policy_violation", "responsibleaipolicyviolation", "moderation_blocked"];

const CONTEXT_PHRASES: &[&str] = &[
    "maximum context length",
    "maximum model length",
    "exceeds the available context size",
    "exceeds the context length",
    "exceed context limit",
    "exceeds the context window",
    "longer than the model's context length",
    "prompt is too long",
    "input is too long",
    "exceeds the maximum number of tokens allowed",
];
const REFUSED_PHRASES: &[&str] = &["content management policy", "content policy"];
const CREDENTIAL_PHRASES: &[&str] = &["incorrect api key", "invalid api key", "api key not valid"];

/// The error that an answer with a status other than 2xx stands for.
///
/// `now` is compared with a `Retry-After` that is a date.
pub fn classify_status(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    quirks: Quirks,
    now: SystemTime,
) -> BackendError {
    let error = ErrorBody::parse(body);
    BackendError::new(class_of(status.as_u16(), &error, quirks), &error.message)
        .with_status(status.as_u16())
        .with_retry_after(retry_after(headers, now))
}

/// The error that an error object within an answer of status 200 stands for, such as one in a stream.
pub fn classify_in_band(error: &ErrorBody, quirks: Quirks) -> BackendError {
    // Several servers put the HTTP status into `code`, since the real one has been sent already.
    let status = error.code.parse().ok().filter(|status| (400..600).contains(status));
    let class = class_of(status.unwrap_or(500), error, quirks);
    BackendError { status, ..BackendError::new(class, &error.message) }
}

fn class_of(status: u16, error: &ErrorBody, quirks: Quirks) -> FailureClass {
    by_code(error).or_else(|| by_phrase(status, error)).unwrap_or_else(|| by_status(status, quirks))
}

fn by_code(error: &ErrorBody) -> Option<FailureClass> {
    [
        (QUOTA, FailureClass::QuotaExhausted),
        (CONTEXT, FailureClass::ContextLength),
        (REFUSED, FailureClass::Refused),
        (MODEL, FailureClass::ModelMissing),
        (CREDENTIAL, FailureClass::BadCredential),
        (RATE, FailureClass::RateLimited),
    ]
    .into_iter()
    .find_map(|(names, class)| error.names(names).then_some(class))
}

/// Phrases count only under the statuses with which upstreams send them: the same words in a log excerpt of a
/// 503 mean nothing.
fn by_phrase(status: u16, error: &ErrorBody) -> Option<FailureClass> {
    let about_request = matches!(status, 400 | 413 | 422);
    if (about_request || status == 500) && error.says(CONTEXT_PHRASES) {
        return Some(FailureClass::ContextLength);
    }
    if (about_request || status == 403) && error.says(REFUSED_PHRASES) {
        return Some(FailureClass::Refused);
    }
    if status == 400 && error.says(CREDENTIAL_PHRASES) {
        return Some(FailureClass::BadCredential);
    }
    None
}

fn by_status(status: u16, quirks: Quirks) -> FailureClass {
    match status {
        400 | 413 | 422 => FailureClass::CallerError,
        401 | 403 => FailureClass::BadCredential,
        402 => FailureClass::QuotaExhausted,
        // 405 and 410 are what a wrong base URL or a retired model looks like.
        404 | 405 | 410 => FailureClass::ModelMissing,
        408 | 409 | 425 | 499 => FailureClass::ServerError,
        429 => FailureClass::RateLimited,
        503 if quirks.busy_503 => FailureClass::RateLimited,
        500.. => FailureClass::ServerError,
        // Redirects are never followed (one may point into our own network), and an upstream that answers
        // anything else does not speak our protocol.
        _ => FailureClass::BadResponse,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn class(status: u16, body: &str) -> FailureClass {
        let status = StatusCode::from_u16(status).unwrap();
        classify_status(status, &HeaderMap::new(), body.as_bytes(), Quirks::default(), SystemTime::UNIX_EPOCH)
            .class
    }

    #[test]
    fn statuses_without_a_body_have_their_class() {
        use FailureClass as F;
        for (status, expected) in [
            (302, F::BadResponse),
            (400, F::CallerError),
            (401, F::BadCredential),
            (402, F::QuotaExhausted),
            (403, F::BadCredential),
            (404, F::ModelMissing),
            (408, F::ServerError),
            (413, F::CallerError),
            (415, F::BadResponse),
            (422, F::CallerError),
            (429, F::RateLimited),
            (500, F::ServerError),
            (502, F::ServerError),
            (503, F::ServerError),
            (504, F::ServerError),
            (529, F::ServerError),
        ] {
            assert_eq!(class(status, ""), expected, "{status}");
        }
    }

    #[test]
    fn the_body_outranks_the_status() {
        use FailureClass as F;
        for (status, body, expected) in [
            (429, r#"{"error":{"code":"insufficient_quota","message":"m"}}"#, F::QuotaExhausted),
            (429, r#"{"error":{"type":"insufficient_quota","code":null,"message":"m"}}"#, F::QuotaExhausted),
            (400, r#"{"error":{"code":"context_length_exceeded","message":"m"}}"#, F::ContextLength),
            (
                400,
                r#"{"object":"error","message":"This model's maximum context length is 16 tokens","code":40303}"#,
                F::ContextLength,
            ),
            (
                400,
                r#"{"error":{"code":400,"message":"the request exceeds the available context size","type":"exceed_context_size_error"}}"#,
                F::ContextLength,
            ),
            (500, r#"{"error":"the input exceeds the context length"}"#, F::ContextLength),
            (503, r#"{"error":"the input exceeds the context length"}"#, F::ServerError),
            (400, r#"{"error":{"code":"content_filter","message":"m"}}"#, F::Refused),
            (400, r#"{"error":{"code":"content_policy_violation"}}"#, F::Refused),
            (403, r#"{"error":{"code":"model_not_found","message":"no access"}}"#, F::ModelMissing),
            (400, r#"{"error":"Incorrect API key provided: xy"}"#, F::BadCredential),
            (503, r#"{"error":{"code":"slow_down"}}"#, F::RateLimited),
            (
                400,
                r#"[{"error":{"code":400,"message":"wrong","status":"INVALID_ARGUMENT"}}]"#,
                F::CallerError,
            ),
            (422, r#"{"detail":[{"loc":["body","n"],"msg":"too small"}]}"#, F::CallerError),
            (502, "<html>bad gateway</html>", F::ServerError),
        ] {
            assert_eq!(class(status, body), expected, "{status} {body}");
        }
    }

    #[test]
    fn busy_is_no_failure_where_the_dialect_says_so() {
        let quirks = Quirks { busy_503: true };
        let busy = ErrorBody { message: "server busy".into(), ..ErrorBody::default() };
        assert_eq!(class_of(503, &busy, quirks), FailureClass::RateLimited);
        assert_eq!(class_of(503, &busy, Quirks::default()), FailureClass::ServerError);
    }

    #[test]
    fn errors_in_a_stream_are_told_by_their_code() {
        let in_band = |json: &str| classify_in_band(&ErrorBody::parse(json.as_bytes()), Quirks::default());
        assert_eq!(in_band(r#"{"error":{"message":"m","code":429}}"#).class, FailureClass::RateLimited);
        assert_eq!(in_band(r#"{"error":{"message":"m","code":"429"}}"#).status, Some(429));
        assert_eq!(in_band(r#"{"error":{"message":"m"}}"#).class, FailureClass::ServerError);
        assert_eq!(in_band(r#"{"error":{"code":"content_filter"}}"#).class, FailureClass::Refused);
    }

    #[test]
    fn the_message_is_found_in_every_shape() {
        for body in [
            r#"{"error":{"message":"boo"}}"#,
            r#"{"error":"boo"}"#,
            r#"{"message":"boo"}"#,
            r#"{"detail":"boo"}"#,
            r#"[{"error":{"message":"boo"}}]"#,
            "boo",
        ] {
            assert_eq!(ErrorBody::parse(body.as_bytes()).message, "boo", "{body}");
        }
    }
}
