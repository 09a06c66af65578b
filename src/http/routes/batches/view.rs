//! A batch as its owner sees it, in the dialect's fields.

use std::collections::BTreeMap;

use opossum_core::batches::{Batch, Counts, LineFault, Status, Tokens};
use opossum_core::jobs::{Endpoint, UnixMillis};
use opossum_ledger::BatchRecord;
use serde::Serialize;

#[derive(Serialize)]
pub(super) struct View<'a> {
    pub(super) id: &'a str,
    object: &'static str,
    endpoint: Endpoint,
    model: Option<&'a str>,
    errors: Option<Faults<'a>>,
    input_file_id: &'a str,
    completion_window: &'static str,
    status: Status,
    output_file_id: Option<&'a str>,
    error_file_id: Option<&'a str>,
    created_at: i64,
    in_progress_at: Option<i64>,
    expires_at: i64,
    finalizing_at: Option<i64>,
    completed_at: Option<i64>,
    failed_at: Option<i64>,
    expired_at: Option<i64>,
    cancelling_at: Option<i64>,
    cancelled_at: Option<i64>,
    request_counts: Counts,
    usage: Option<Usage>,
    metadata: Option<&'a BTreeMap<String, String>>,
}

#[derive(Serialize)]
struct Faults<'a> {
    object: &'static str,
    data: &'a [LineFault],
}

#[derive(Serialize)]
struct Usage {
    input_tokens: u64,
    input_tokens_details: InputDetails,
    output_tokens: u64,
    output_tokens_details: OutputDetails,
    total_tokens: u64,
}

#[derive(Serialize)]
struct InputDetails {
    cached_tokens: u64,
}

#[derive(Serialize)]
struct OutputDetails {
    reasoning_tokens: u64,
}

impl From<Tokens> for Usage {
    fn from(tokens: Tokens) -> Self {
        let Tokens { input, cached, output, reasoning } = tokens;
        Self {
            input_tokens: input,
            input_tokens_details: InputDetails { cached_tokens: cached },
            output_tokens: output,
            output_tokens_details: OutputDetails { reasoning_tokens: reasoning },
            total_tokens: input.saturating_add(output),
        }
    }
}

impl<'a> View<'a> {
    pub(super) fn of(record: &'a BatchRecord) -> Self {
        let Batch { order, status, counts, faults, times, results } = &record.batch;
        let seconds = |when: Option<UnixMillis>| when.map(|when| when / 1000);
        let results = results.as_ref();
        Self {
            id: &record.key.id,
            object: "batch",
            endpoint: order.endpoint,
            model: results.and_then(|results| results.model.as_deref()),
            errors: (!faults.is_empty()).then_some(Faults { object: "list", data: faults }),
            input_file_id: &order.input_file_id,
            completion_window: "24h",
            status: *status,
            output_file_id: results.and_then(|results| results.output_file_id.as_deref()),
            error_file_id: results.and_then(|results| results.error_file_id.as_deref()),
            created_at: times.created / 1000,
            in_progress_at: seconds(times.in_progress),
            expires_at: times.expires / 1000,
            finalizing_at: seconds(times.finalizing),
            completed_at: seconds(times.completed),
            failed_at: seconds(times.failed),
            expired_at: seconds(times.expired),
            cancelling_at: seconds(times.cancelling),
            cancelled_at: seconds(times.cancelled),
            request_counts: *counts,
            usage: results.map(|results| results.tokens.into()),
            metadata: order.metadata.as_ref(),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::BTreeSet;

    use opossum_core::batches::Order;
    use opossum_core::batches::batch::Results;
    use opossum_ledger::ObjectKey;
    use serde_json::{Value, json};

    use super::*;
    use crate::http::openapi::document;

    fn schema(name: &str) -> Value {
        let document: Value = serde_json::from_str(document()).unwrap();
        document["components"]["schemas"][name].clone()
    }

    fn keys(value: &Value) -> BTreeSet<&str> {
        value.as_object().unwrap().keys().map(String::as_str).collect()
    }

    #[test]
    fn the_documented_fields_are_the_fields_that_are_written() {
        let order = Order {
            endpoint: Endpoint::Chat,
            input_file_id: "file-1".to_owned(),
            metadata: None,
            keep_output_seconds: 3600,
        };
        let fault = LineFault { code: "c".to_owned(), message: "m".to_owned(), param: None, line: Some(1) };
        let batch =
            Batch { faults: vec![fault], results: Some(Results::default()), ..Batch::new(order, 1_999) };
        let record = BatchRecord { key: ObjectKey::new("t", "batch_1"), batch };
        let view = serde_json::to_value(View::of(&record)).unwrap();
        for (name, written) in [
            ("Batch", &view),
            ("BatchErrors", &view["errors"]),
            ("BatchError", &view["errors"]["data"][0]),
            ("BatchCounts", &view["request_counts"]),
            ("BatchUsage", &view["usage"]),
        ] {
            assert_eq!(keys(&schema(name)["properties"]), keys(written), "{name}");
        }
        assert_eq!((&view["created_at"], &view["expires_at"]), (&json!(1), &json!(86_401)));
        assert_eq!(schema("BatchStatus")["enum"], json!(Status::ALL));
    }
}
