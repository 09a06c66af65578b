//! The error contract: one table in code, the same in the documentation, the same on the wire.

#![expect(clippy::unwrap_used, reason = "tests")]

use actix_web::ResponseError;
use actix_web::body::{MessageBody, to_bytes};
use serde_json::{Value, json};

use super::*;

#[test]
fn codes_are_distinct_and_listed_once() {
    let mut names: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
    assert!(Code::ALL.is_sorted_by_key(|code| code.status()));
    // The last variant's place: a variant that is added but not listed shows here.
    assert_eq!(Code::DeadlineExceeded as usize + 1, count);
}

#[test]
fn the_type_follows_the_status() {
    for code in Code::ALL {
        let expected = match code.status() {
            401 => "authentication_error",
            403 => "permission_error",
            429 => "rate_limit_error",
            500 | 503 => "server_error",
            502 | 504 => "upstream_error",
            _ => "invalid_request_error",
        };
        assert_eq!(code.kind(), expected, "{}", code.as_str());
    }
}

/// The rows of the table in the documentation: code, status, type.
fn documented() -> Vec<(String, u16, String)> {
    let text = include_str!("../../../docs/errors.md");
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> =
            row.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        assert_eq!(cells.len(), 5, "{row}");
        assert!(cells.iter().all(|cell| !cell.is_empty()), "{row}");
        (cells[0].to_owned(), cells[1].parse().unwrap(), cells[2].to_owned())
    })
    .collect()
}

#[test]
fn the_documentation_lists_every_code_as_it_is() {
    let in_code: Vec<_> = Code::ALL
        .iter()
        .map(|code| (code.as_str().to_owned(), code.status(), code.kind().to_owned()))
        .collect();
    assert_eq!(documented(), in_code);
}

#[test]
fn all_five_keys_are_always_there() {
    for code in Code::ALL {
        let body: Value = serde_json::from_slice(&ApiError::of(code).body("req-7")).unwrap();
        let expected = json!({"error": {"message": code.default_message(), "type": code.kind(), "param": null,
            "code": code.as_str(), "request_id": "req-7"}});
        assert_eq!(body, expected);
    }
    let named = ApiError::unsupported("top_k");
    let body: Value = serde_json::from_slice(&named.body("")).unwrap();
    assert_eq!((&body["error"]["param"], &body["error"]["request_id"]), (&json!("top_k"), &json!(null)));
}

#[test]
fn a_wait_is_named_on_every_429_and_503_and_never_rounded_down() {
    for code in Code::ALL {
        let seconds = ApiError::of(code).retry_after_seconds();
        assert_eq!(seconds, matches!(code.status(), 429 | 503).then_some(1), "{}", code.as_str());
    }
    for (delay, seconds) in
        [(0, 1), (1, 1), (1000, 1), (1001, 2), (59_999, 60), (u64::MAX, u64::MAX / 1000 + 1)]
    {
        let error = ApiError::of(Code::Overloaded).with_retry_after(Duration::from_millis(delay));
        assert_eq!(error.retry_after_seconds(), Some(seconds));
    }
    let longest = ApiError::of(Code::Overloaded).with_retry_after(Duration::MAX);
    assert_eq!(longest.retry_after_seconds(), Some(u64::MAX));
}

fn header<'r>(response: &'r actix_web::HttpResponse, name: &str) -> Option<&'r str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

#[actix_rt::test]
async fn a_response_carries_what_a_client_acts_on() {
    let response = ApiError::of(Code::InvalidApiKey).response("req-1");
    assert_eq!(response.status().as_u16(), 401);
    assert_eq!(header(&response, "www-authenticate"), Some("Bearer"));
    assert_eq!(header(&response, "retry-after"), None);

    let error =
        ApiError::from(PipelineError::BackendsUnavailable { retry_after: Duration::from_millis(2500) });
    let response = error.response("req-1");
    assert_eq!(response.status().as_u16(), 503);
    assert_eq!(header(&response, "content-type"), Some("application/json"));
    assert_eq!(header(&response, "x-request-id"), Some("req-1"));
    assert_eq!(header(&response, "retry-after"), Some("3"));
    assert_eq!(header(&response, "x-should-retry"), Some("false"));
    assert_eq!(to_bytes(response.into_body()).await.unwrap(), error.body("req-1"));
}

#[test]
fn every_status_is_one_that_http_knows() {
    for code in Code::ALL {
        let response = ApiError::of(code).error_response();
        assert_eq!(response.status().as_u16(), code.status());
        assert_eq!(header(&response, "x-request-id"), None);
        assert!(matches!(response.body().size(), actix_web::body::BodySize::Sized(1..)));
    }
}

/// Each way the path can fail, with the label it has in metrics.
fn failures() -> Vec<PipelineError> {
    let retry_after = Duration::from_secs(7);
    vec![
        PipelineError::Unsupported { param: "tools", reason: None },
        PipelineError::Unsupported { param: "tools", reason: Some("the keyword is not supported".into()) },
        PipelineError::Invalid { param: Some("n"), message: "too many".into() },
        PipelineError::ModelNotFound { model: "no\r\n\u{1b}[31m".into() },
        PipelineError::ContextLength,
        PipelineError::ContentFilter,
        PipelineError::Overloaded { retry_after },
        PipelineError::Draining { retry_after },
        PipelineError::BackendsUnavailable { retry_after },
        PipelineError::UpstreamRateLimited { retry_after },
        PipelineError::ModelUnavailable { retry_after },
        PipelineError::Template,
        PipelineError::UpstreamError,
        PipelineError::UpstreamBadResponse,
        PipelineError::UpstreamTimeout,
        PipelineError::UpstreamStalled,
        PipelineError::UpstreamTruncated,
        PipelineError::DeadlineExceeded,
        PipelineError::Cancelled,
        PipelineError::Internal,
    ]
}

#[test]
fn failures_of_the_path_keep_their_names_and_waits() {
    for failure in failures() {
        let label = failure.label();
        let error = ApiError::from(failure);
        assert_eq!(error.code().as_str(), label);
        let waits = matches!(error.status(), 429 | 503).then_some(7);
        assert_eq!(error.retry_after_seconds(), waits, "{label}");
        assert!(!error.message.chars().any(char::is_control), "{label}");
        let spent = matches!(error.status(), 502 | 504)
            || ["backends_unavailable", "template_error"].contains(&label);
        assert_eq!(error.should_retry, spent.then_some(false), "{label}");
    }
}

#[test]
fn a_callers_text_is_repeated_short_and_harmless() {
    assert_eq!(quoted("a\r\nb\u{1b}[31m\0"), "a\\r\\nb\\u{1b}[31m\\0");
    assert_eq!(quoted("plain/model:7b-é"), "plain/model:7b-é");
    let long = quoted(&"x".repeat(10_000));
    assert_eq!(long.chars().count(), QUOTE_LIMIT + 1);
    let error = ApiError::model_not_found(&"\u{1b}".repeat(10_000));
    assert!(error.message.len() < 1000);
}
