//! What a caller wants done, checked before it is promised.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opossum_core::jobs::{Endpoint, Lane, UnixMillis};
use serde_json::value::RawValue;

use crate::http::error::{ApiError, Code};
use crate::http::openai::decode::{decode_chat, decode_completion, decode_embedding};

/// A job to be.
#[derive(Debug)]
pub(super) struct Wish<'a> {
    pub(super) endpoint: Endpoint,
    pub(super) body: &'a RawValue,
    pub(super) lane: Lane,
}

/// Reads `{"endpoint", "body", "lane"}`. The body is read as its route reads it, so that a mistake is told now
/// and not by the job.
pub(super) fn read(payload: &[u8]) -> Result<Wish<'_>, ApiError> {
    let mut fields: BTreeMap<String, &RawValue> = serde_json::from_slice(payload).map_err(|error| {
        ApiError::new(Code::InvalidJson, format!("the body is not a JSON object: {error}"))
    })?;
    let endpoint = required(&mut fields, "endpoint")?;
    let endpoint = text(endpoint).as_deref().and_then(Endpoint::of).ok_or_else(|| {
        let rule = "must be one of /v1/chat/completions, /v1/completions and /v1/embeddings";
        wrong("endpoint", rule)
    })?;
    let lane = match fields.remove("lane") {
        None => Lane::Normal,
        Some(lane) => text(lane)
            .and_then(|name| Lane::ALL.into_iter().find(|lane| lane.as_str() == name))
            .ok_or_else(|| wrong("lane", "must be high, normal or batch"))?,
    };
    let body = required(&mut fields, "body")?;
    if let Some(unknown) = fields.into_keys().next() {
        return Err(ApiError::unsupported(unknown));
    }
    check(endpoint, body.get().as_bytes())?;
    Ok(Wish { endpoint, body, lane })
}

fn check(endpoint: Endpoint, body: &[u8]) -> Result<(), ApiError> {
    let checked = match endpoint {
        Endpoint::Chat => decode_chat(body).map(drop),
        Endpoint::Completions => decode_completion(body).map(drop),
        Endpoint::Embeddings => decode_embedding(body).map(drop),
    };
    checked.map_err(|mut error| {
        let inner = error.param.take();
        error.with_param(inner.map_or_else(|| "body".to_owned(), |inner| format!("body.{inner}")))
    })
}

fn required<'a>(
    fields: &mut BTreeMap<String, &'a RawValue>,
    name: &'static str,
) -> Result<&'a RawValue, ApiError> {
    let field = fields.remove(name).filter(|value| value.get() != "null");
    field
        .ok_or_else(|| ApiError::new(Code::MissingParameter, format!("'{name}' is missing")).with_param(name))
}

fn text(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

fn wrong(name: &'static str, rule: &str) -> ApiError {
    ApiError::new(Code::InvalidValue, format!("'{name}' {rule}")).with_param(name)
}

/// So far from now.
pub(super) fn until(timeout: Duration) -> UnixMillis {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis::try_from(now.saturating_add(timeout).as_millis()).unwrap_or(UnixMillis::MAX)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn fault(wish: &serde_json::Value) -> (&'static str, String) {
        let error = read(wish.to_string().as_bytes()).unwrap_err();
        (error.code().as_str(), error.param.unwrap_or_default().into_owned())
    }

    #[test]
    fn a_wish_is_read_and_its_body_stays_as_it_came() {
        let text = r#"{"endpoint":"/v1/embeddings","lane":"batch","body":{"model":"auto",  "input":"x"}}"#;
        let wish = read(text.as_bytes()).unwrap();
        assert_eq!((wish.endpoint, wish.lane), (Endpoint::Embeddings, Lane::Batch));
        assert_eq!(wish.body.get(), r#"{"model":"auto",  "input":"x"}"#);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let chat = json!({ "model": "auto", "messages": [{ "role": "user", "content": "x" }] });
        let whole = |endpoint: &str, body: &serde_json::Value| json!({ "endpoint": endpoint, "body": body });
        assert_eq!(fault(&json!([])).0, "invalid_json");
        assert_eq!(fault(&json!({ "body": chat })), ("missing_parameter", "endpoint".into()));
        assert_eq!(fault(&whole("/v1/models", &chat)), ("invalid_value", "endpoint".into()));
        assert_eq!(fault(&json!({ "endpoint": "/v1/completions" })), ("missing_parameter", "body".into()));
        let mut odd = whole("/v1/chat/completions", &chat);
        odd["lane"] = json!("express");
        assert_eq!(fault(&odd), ("invalid_value", "lane".into()));
        odd["lane"] = json!("high");
        odd["priority"] = json!(9);
        assert_eq!(fault(&odd), ("unsupported_parameter", "priority".into()));
        let bad = json!({ "model": "auto", "messages": [{ "role": "user", "content": "x" }], "n": 0 });
        assert_eq!(fault(&whole("/v1/chat/completions", &bad)), ("invalid_value", "body.n".into()));
        assert_eq!(fault(&whole("/v1/chat/completions", &json!(7))).1, "body");
    }
}
