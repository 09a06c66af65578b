//! Google's errors as they come, and what they must mean.

use opossum_core::class::FailureClass as Class;

use super::*;

fn rpc(code: u16, status: &str, message: &str, details: &str) -> String {
    format!(
        r#"{{"error":{{"code":{code},"message":"{message}","status":"{status}","details":[{details}]}}}}"#
    )
}

fn quota(id: &str) -> String {
    format!(
        r#"{{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{{"quotaMetric":"generativelanguage.googleapis.com/generate_content_free_tier_requests","quotaId":"{id}","quotaDimensions":{{"location":"global"}},"quotaValue":"20"}}]}}"#
    )
}

const RETRY_12: &str = r#"{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"12s"}"#;
const HELP: &str = r#"{"@type":"type.googleapis.com/google.rpc.Help","links":[{"url":"https://a.example"}]}"#;

fn limited(details: &[&str]) -> BackendError {
    let body = rpc(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota", &details.join(","));
    classify(429, None, body.as_bytes())
}

#[test]
fn a_daily_quota_is_spent_even_beside_a_retry_delay() {
    let error = limited(&[&quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier"), HELP, RETRY_12]);
    assert_eq!((error.class, error.retry_after), (Class::QuotaExhausted, None));
}

#[test]
fn a_minute_quota_waits_as_told() {
    let error = limited(&[&quota("GenerateRequestsPerMinutePerProjectPerModel-FreeTier"), RETRY_12]);
    assert_eq!((error.class, error.retry_after), (Class::RateLimited, Some(Duration::from_secs(12))));
}

#[test]
fn an_allowance_of_nothing_is_spent() {
    let none = quota("GenerateRequestsPerMinutePerProjectPerModel").replace(r#""20""#, r#""0""#);
    assert_eq!(limited(&[&none]).class, Class::QuotaExhausted);
}

#[test]
fn a_429_without_details_is_a_limit_and_the_header_counts() {
    let error = classify(429, Some(Duration::from_secs(7)), b"Too Many Requests");
    assert_eq!((error.class, error.retry_after), (Class::RateLimited, Some(Duration::from_secs(7))));
    assert_eq!(limited(&[HELP]).class, Class::RateLimited);
}

#[test]
fn retry_delays_in_all_forms() {
    for (text, wait) in [
        ("12s", Some(Duration::from_secs(12))),
        ("3.5s", Some(Duration::from_millis(3500))),
        ("0s", Some(Duration::ZERO)),
        ("-1s", None),
        ("1e400s", None),
        ("NaNs", None),
        ("12", None),
        ("", None),
    ] {
        assert_eq!(seconds(text), wait, "{text}");
    }
}

#[test]
fn one_row_a_status() {
    for (code, status, message, details, class) in [
        (
            400,
            "INVALID_ARGUMENT",
            "API key not valid. Please pass a valid API key.",
            "",
            Class::BadCredential,
        ),
        (
            400,
            "INVALID_ARGUMENT",
            "Bad",
            r#"{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID"}"#,
            Class::BadCredential,
        ),
        (
            400,
            "FAILED_PRECONDITION",
            "User location is not supported for the API use.",
            "",
            Class::BadCredential,
        ),
        (400, "INVALID_ARGUMENT", "Invalid value at 'contents[0]'", "", Class::CallerError),
        (
            400,
            "INVALID_ARGUMENT",
            "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
            "",
            Class::ContextLength,
        ),
        (401, "UNAUTHENTICATED", "x", "", Class::BadCredential),
        (403, "PERMISSION_DENIED", "x", "", Class::BadCredential),
        (404, "NOT_FOUND", "models/x is not found for API version v1beta", "", Class::ModelMissing),
        (408, "CANCELLED", "x", "", Class::ServerError),
        (413, "INVALID_ARGUMENT", "Request payload size exceeds the limit", "", Class::CallerError),
        (500, "INTERNAL", "An internal error has occurred.", "", Class::ServerError),
        (500, "INTERNAL", "Your input context is too long.", "", Class::ContextLength),
        (503, "UNAVAILABLE", "The model is overloaded.", "", Class::ServerError),
        (504, "DEADLINE_EXCEEDED", "x", "", Class::ServerError),
        (302, "", "x", "", Class::BadResponse),
    ] {
        let error = classify(code, None, rpc(code, status, message, details).as_bytes());
        assert_eq!((error.class, error.status), (class, Some(code)), "{code} {message}");
    }
}

#[test]
fn an_error_in_an_array_or_without_a_code_is_understood() {
    let inner = r#"{"error":{"message":"The model is overloaded","status":"UNAVAILABLE"}}"#;
    for body in [inner.to_owned(), format!("[{inner}]"), format!("[{inner},\n{inner}]")] {
        let error = parse(body.as_bytes()).map(|e| e.classify(None));
        assert_eq!(error.map(|e| (e.class, e.status)), Some((Class::ServerError, Some(503))), "{body}");
    }
    assert!(parse(br#"{"candidates":[]}"#).is_none());
    assert!(parse(b"[]").is_none());
}

#[test]
fn odd_details_do_not_hide_the_error() {
    let body = rpc(429, "RESOURCE_EXHAUSTED", "slow down", &format!("7,null,{{\"@type\":3}},{RETRY_12}"));
    let error = classify(429, None, body.as_bytes());
    assert_eq!((error.class, error.retry_after), (Class::RateLimited, Some(Duration::from_secs(12))));
}
