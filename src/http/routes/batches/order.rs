//! What a caller wants of a batch, checked field by field.

use std::collections::BTreeMap;

use opossum_core::batches::Order;
use opossum_core::jobs::Endpoint;
use serde_json::value::RawValue;

use crate::http::error::{ApiError, Code};
use crate::http::routes::files::{LONGEST_KEPT, SHORTEST_KEPT};

/// The dialect's bounds on a caller's own words.
const MOST_WORDS: usize = 16;
const LONGEST_KEY: usize = 64;
const LONGEST_VALUE: usize = 512;

/// Reads `{"input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after"}`.
pub(super) fn read(payload: &[u8]) -> Result<Order, ApiError> {
    let mut fields: BTreeMap<String, &RawValue> = serde_json::from_slice(payload).map_err(|error| {
        ApiError::new(Code::InvalidJson, format!("the body is not a JSON object: {error}"))
    })?;
    let input_file_id = text(&mut fields, "input_file_id")?;
    if !(1..=255).contains(&input_file_id.len()) || input_file_id.contains('\0') {
        return Err(wrong("input_file_id", "must be the id of a file"));
    }
    let endpoint = Endpoint::of(&text(&mut fields, "endpoint")?).ok_or_else(|| {
        wrong("endpoint", "must be one of /v1/chat/completions, /v1/completions and /v1/embeddings")
    })?;
    if text(&mut fields, "completion_window")? != "24h" {
        return Err(wrong("completion_window", "must be 24h"));
    }
    let metadata = optional(&mut fields, "metadata").map(metadata).transpose()?;
    let keep_output_seconds =
        optional(&mut fields, "output_expires_after").map_or(Ok(LONGEST_KEPT), keep_output)?;
    match fields.into_keys().next() {
        Some(unknown) => Err(ApiError::unsupported(unknown)),
        None => Ok(Order { endpoint, input_file_id, metadata, keep_output_seconds }),
    }
}

fn metadata(value: &RawValue) -> Result<BTreeMap<String, String>, ApiError> {
    let words: BTreeMap<String, String> = serde_json::from_str(value.get())
        .map_err(|_| wrong("metadata", "must be an object whose values are texts"))?;
    let fits = |(key, value): (&String, &String)| {
        key.chars().count() <= LONGEST_KEY && value.chars().count() <= LONGEST_VALUE
    };
    if words.len() > MOST_WORDS || !words.iter().all(fits) {
        return Err(wrong(
            "metadata",
            "must have at most 16 keys of at most 64 characters, with values of at most 512",
        ));
    }
    Ok(words)
}

fn keep_output(value: &RawValue) -> Result<u64, ApiError> {
    let rule = "must be {\"anchor\": \"created_at\", \"seconds\": 3600 to 2592000}";
    let wrong = || wrong("output_expires_after", rule);
    let mut fields: BTreeMap<String, &RawValue> = serde_json::from_str(value.get()).map_err(|_| wrong())?;
    let anchor = text(&mut fields, "anchor").map_err(|_| wrong())?;
    let seconds = optional(&mut fields, "seconds").and_then(|seconds| seconds.get().parse().ok());
    let seconds = seconds.filter(|seconds| (SHORTEST_KEPT..=LONGEST_KEPT).contains(seconds));
    match seconds {
        Some(seconds) if anchor == "created_at" && fields.is_empty() => Ok(seconds),
        _ => Err(wrong()),
    }
}

fn optional<'a>(fields: &mut BTreeMap<String, &'a RawValue>, name: &str) -> Option<&'a RawValue> {
    fields.remove(name).filter(|value| value.get() != "null")
}

fn text(fields: &mut BTreeMap<String, &RawValue>, name: &'static str) -> Result<String, ApiError> {
    let value = optional(fields, name).ok_or_else(|| {
        ApiError::new(Code::MissingParameter, format!("'{name}' is missing")).with_param(name)
    })?;
    serde_json::from_str(value.get()).map_err(|_| wrong(name, "must be a text"))
}

pub(super) fn wrong(name: &'static str, rule: &str) -> ApiError {
    ApiError::new(Code::InvalidValue, format!("'{name}' {rule}")).with_param(name)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn whole() -> Value {
        json!({
            "input_file_id": "file-1", "endpoint": "/v1/embeddings", "completion_window": "24h",
            "metadata": { "k": "v" }, "output_expires_after": { "anchor": "created_at", "seconds": 3600 },
        })
    }

    #[test]
    fn an_order_is_read() {
        let order = read(whole().to_string().as_bytes()).unwrap();
        assert_eq!((order.endpoint, order.keep_output_seconds), (Endpoint::Embeddings, 3600));
        assert_eq!(order.metadata.unwrap()["k"], "v");
        let mut least = whole();
        least["metadata"] = json!(null);
        least.as_object_mut().unwrap().remove("output_expires_after");
        let order = read(least.to_string().as_bytes()).unwrap();
        assert_eq!((order.metadata, order.keep_output_seconds), (None, LONGEST_KEPT));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let words: Value =
            (0..17).map(|n| (n.to_string(), json!("x"))).collect::<serde_json::Map<_, _>>().into();
        for (name, value, code) in [
            ("input_file_id", json!(null), "missing_parameter"),
            ("input_file_id", json!(7), "invalid_value"),
            ("input_file_id", json!(""), "invalid_value"),
            ("endpoint", json!("/v1/models"), "invalid_value"),
            ("completion_window", json!("1h"), "invalid_value"),
            ("metadata", json!({ "k": 1 }), "invalid_value"),
            ("metadata", json!({ "k": "v".repeat(513) }), "invalid_value"),
            ("metadata", words, "invalid_value"),
            ("output_expires_after", json!({ "anchor": "now", "seconds": 3600 }), "invalid_value"),
            ("output_expires_after", json!({ "anchor": "created_at", "seconds": 3599 }), "invalid_value"),
            ("output_expires_after", json!({ "anchor": "created_at" }), "invalid_value"),
            ("priority", json!(1), "unsupported_parameter"),
        ] {
            let mut order = whole();
            order[name] = value;
            let error = read(order.to_string().as_bytes()).unwrap_err();
            assert_eq!((error.code().as_str(), error.param.as_deref()), (code, Some(name)), "{order}");
        }
        assert_eq!(read(b"[]").unwrap_err().code(), Code::InvalidJson);
    }
}
