//! Streams cut everywhere, broken in every way that is known, and read the same each time.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::LazyLock;

use opossum_core::answer::FinishReason;
use proptest::prelude::*;
use secrecy::SecretString;

use super::*;
use crate::gemini::signatures::SignatureStore;
use crate::http::{Endpoint, HttpClient, HttpConfig};

const KEY: &str = "AIzaSecretOfTests";

const GOOD: &str = concat!(
    "data: {\"candidates\": [{\"content\": {\"role\": \"model\", \"parts\": [{\"text\": \"Grüß\", \"thought\": true}]}}],",
    "\"usageMetadata\": {\"promptTokenCount\": 5, \"thoughtsTokenCount\": 2}, \"modelVersion\": \"m\"}\r\n\r\n",
    "data: {\"candidates\": [{\"content\": {\"parts\": [{\"text\": \"Ein \\\"Wort\\\" \"}]}}],",
    "\"usageMetadata\": {\"promptTokenCount\": 5, \"thoughtsTokenCount\": 2, \"candidatesTokenCount\": 3}}\r\n\r\n",
    "data: {\"candidates\": [{\"content\": {\"parts\": [{\"text\": \"größer.\"}]}}]}\r\n\r\n",
    "data: {\"candidates\": [{\"content\": {\"parts\": [{\"functionCall\": {\"id\": \"c\", \"name\": \"f\", \"args\": {\"x\": [1]}},",
    "\"thoughtSignature\": \"SIG\"}]}, \"finishReason\": \"STOP\"}],",
    "\"usageMetadata\": {\"promptTokenCount\": 5, \"thoughtsTokenCount\": 2, \"candidatesTokenCount\": 9}}\r\n\r\n",
);

fn shared() -> Arc<Shared> {
    let name = http::HeaderName::from_static("x-goog-api-key");
    let secret = SecretString::from(KEY);
    // Making one reads the system's certificates, which is too slow for every case.
    static CLIENT: LazyLock<HttpClient> = LazyLock::new(|| HttpClient::new(HttpConfig::default()).unwrap());
    Arc::new(Shared {
        service: "gemini".into(),
        client: CLIENT.clone(),
        endpoint: Endpoint::new("http://127.0.0.1:1", Some((name, "", &secret))).unwrap(),
        signatures: SignatureStore::default(),
    })
}

/// Everything a stream says, texts of one kind joined, so that the cuts cannot show.
fn read(pieces: &[&[u8]]) -> Result<Vec<String>, BackendError> {
    let mut decoder = Decoder::new(shared(), "m");
    let mut events = Vec::new();
    for piece in pieces {
        decoder.feed(piece, &mut events)?;
    }
    decoder.end(&mut events)?;
    Ok(told(&events))
}

fn told(events: &[StreamEvent]) -> Vec<String> {
    let (mut text, mut thoughts, mut rest, mut usage) = (String::new(), String::new(), Vec::new(), None);
    for event in events {
        match event {
            StreamEvent::Text { text: more, .. } => text.push_str(more),
            StreamEvent::Reasoning { text: more, .. } => thoughts.push_str(more),
            StreamEvent::Usage(total) => usage = Some(*total),
            other => rest.push(format!("{other:?}")),
        }
    }
    rest.extend([text, thoughts, format!("{usage:?}")]);
    rest
}

fn class(stream: &str) -> FailureClass {
    let whole = read(&[stream.as_bytes()]).unwrap_err();
    let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
    assert_eq!(read(&bytes).unwrap_err().class, whole.class, "byte by byte it is the same");
    whole.class
}

#[test]
fn a_good_stream() {
    let mut decoder = Decoder::new(shared(), "m");
    let mut events = Vec::new();
    decoder.feed(GOOD.as_bytes(), &mut events).unwrap();
    assert!(!events.iter().any(|e| matches!(e, StreamEvent::Finish { .. })), "only the end finishes");
    decoder.end(&mut events).unwrap();
    assert!(matches!(events.last(), Some(StreamEvent::Finish { reason: FinishReason::ToolCalls, .. })));
    let told = told(&events);
    assert!(told.contains(&"Ein \"Wort\" größer.".to_owned()), "{told:?}");
    assert!(told.contains(&"Grüß".to_owned()));
    assert!(told.last().unwrap().contains("prompt: 5, completion: 11, cached: 0, reasoning: 2"), "{told:?}");
    let kept = decoder.shared.signatures.get("c", "f", Instant::now());
    assert_eq!(kept.as_deref(), Some("SIG"));
}

#[test]
fn every_single_cut_reads_the_same() {
    let whole = read(&[GOOD.as_bytes()]).unwrap();
    for at in 0..=GOOD.len() {
        let (a, b) = GOOD.as_bytes().split_at(at);
        assert_eq!(read(&[a, b]).unwrap(), whole, "cut at {at}");
    }
}

#[test]
fn an_end_anywhere_before_the_last_event_is_an_error() {
    let last = GOOD.rfind("data:").unwrap();
    for at in 0..last {
        let error = read(&[&GOOD.as_bytes()[..at]]).unwrap_err();
        assert!(matches!(error.class, FailureClass::Truncated | FailureClass::BadResponse), "{at}: {error}");
        assert!(at == 0 || at < 10 || error.class == FailureClass::Truncated, "{at}: {error}");
    }
}

#[test]
fn a_last_event_without_its_blank_line_still_counts() {
    assert_eq!(read(&[GOOD.trim_end().as_bytes()]).unwrap(), read(&[GOOD.as_bytes()]).unwrap());
}

#[test]
fn errors_after_the_head() {
    let start = "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"a\"}]}}]}\n\n";
    let error = r#"{"error":{"code":503,"message":"overloaded","status":"UNAVAILABLE"}}"#;
    let pretty = "{\n  \"error\": {\n    \"code\": 429,\n    \"message\": \"x\",\n    \"status\": \"RESOURCE_EXHAUSTED\"\n  }\n}\n";
    assert_eq!(class(&format!("{start}data: {error}\n\n")), FailureClass::ServerError);
    assert_eq!(class(&format!("{start}{error}")), FailureClass::ServerError);
    assert_eq!(class(&format!("[{error}]")), FailureClass::ServerError);
    assert_eq!(class(&format!("{start}{pretty}")), FailureClass::RateLimited);
    assert_eq!(class(&format!("[{pretty}]\n")), FailureClass::RateLimited);
    assert_eq!(class(&format!("{start}: {error}\n\n")), FailureClass::Truncated, "a comment is a comment");
}

#[test]
fn an_error_does_not_wait_for_the_body_to_end() {
    let mut decoder = Decoder::new(shared(), "m");
    let error = r#"[{"error":{"status":"UNAVAILABLE"}}]"#;
    assert!(decoder.feed(error.as_bytes(), &mut Vec::new()).is_err());
}

#[test]
fn what_is_no_stream_of_events() {
    assert_eq!(class(""), FailureClass::BadResponse);
    assert_eq!(class("<html><body>hello</body></html>"), FailureClass::BadResponse);
    assert_eq!(class("[{\"candidates\":[]}\n,\n{\"candidates\":[]}]"), FailureClass::BadResponse);
    assert_eq!(class("data: <oops>\n\n"), FailureClass::BadResponse);
    assert_eq!(class("data: [DONE]\n\n"), FailureClass::BadResponse);
    let flood = format!("{{{}", " ".repeat(2 * MAX_BARE_BYTES));
    assert_eq!(class(&flood), FailureClass::BadResponse);
}

#[test]
fn a_key_that_the_upstream_quotes_is_taken_out() {
    let mut decoder = Decoder::new(shared(), "m");
    let error = format!(
        "data: {{\"error\":{{\"code\":403,\"message\":\"Consumer 'api_key:{KEY}' has been suspended.\"}}}}\n\n"
    );
    let error = decoder.feed(error.as_bytes(), &mut Vec::new()).unwrap_err();
    assert!(error.detail.contains(KEY));
    let scrubbed = decoder.scrub(error);
    assert!(!scrubbed.detail.contains(KEY) && scrubbed.detail.contains("suspended"), "{scrubbed}");
}

proptest! {
    #[test]
    fn any_chunking_reads_the_same(cuts in prop::collection::vec(0..GOOD.len(), 0..12)) {
        let mut cuts = cuts;
        cuts.extend([0, GOOD.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &GOOD.as_bytes()[w[0]..w[1]]).collect();
        prop_assert_eq!(read(&pieces).unwrap(), read(&[GOOD.as_bytes()]).unwrap());
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = read(&[&bytes]);
    }
}
