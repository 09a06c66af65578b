#![expect(clippy::unwrap_used, reason = "tests")]

use opossum_core::answer::{FinishReason, Usage};
use proptest::prelude::*;

use super::*;

fn decoder() -> Decoder {
    Decoder::new("m".into(), Endpoint::new("http://h/v1", None).unwrap())
}

/// Everything that a stream of these chunks gives, ended or not by the body's end.
fn decode(chunks: &[&[u8]]) -> (Vec<StreamEvent>, Result<(), BackendError>) {
    let mut decoder = decoder();
    let mut out = Vec::new();
    let mut result = Ok(());
    for chunk in chunks {
        if result.is_ok() && !decoder.is_done() {
            result = decoder.feed(chunk, &mut out);
        }
    }
    if result.is_ok() && !decoder.is_done() {
        result = decoder.end(&mut out);
    }
    (out, result)
}

fn sse(chunks: &[&str]) -> String {
    chunks.iter().map(|chunk| format!("data: {chunk}\n\n")).collect()
}

fn good(chunks: &[&str]) -> Vec<StreamEvent> {
    let (events, result) = decode(&[sse(chunks).as_bytes()]);
    result.unwrap();
    events
}

fn bad(chunks: &[&str]) -> FailureClass {
    decode(&[sse(chunks).as_bytes()]).1.unwrap_err().class
}

fn text_of(events: &[StreamEvent]) -> String {
    let text = |event: &StreamEvent| match event {
        StreamEvent::Text { text, .. } => text.clone(),
        _ => String::new(),
    };
    events.iter().map(text).collect()
}

const HELLO: &str =
    r#"{"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#;
const HEL: &str = r#"{"choices":[{"index":0,"delta":{"content":"Hel"}}],"usage":null}"#;
const LO: &str = r#"{"choices":[{"delta":{"content":"lo \u00e4\n"},"finish_reason":""}]}"#;
const STOP: &str = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
const USAGE: &str = r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5,"total_tokens":8,"prompt_tokens_details":{"cached_tokens":2},"completion_tokens_details":{"reasoning_tokens":1}}}"#;

#[test]
fn a_stream_becomes_merged_text_finish_and_usage() {
    let events = good(&[HELLO, HEL, LO, STOP, USAGE, "[DONE]"]);
    assert_eq!(events.len(), 3, "{events:?}");
    assert!(
        matches!(&events[0], StreamEvent::Text { index: 0, text, logprobs: None } if text == "Hello ä\n")
    );
    assert!(matches!(events[1], StreamEvent::Finish { index: 0, reason: FinishReason::Stop }));
    let usage = Usage { prompt: 3, completion: 5, cached: 2, reasoning: 1 };
    assert!(matches!(events[2], StreamEvent::Usage(u) if u == usage));
}

#[test]
fn nothing_is_added_to_a_choice_that_ended() {
    let events = good(&[HEL, STOP, HEL, HEL, HEL]);
    assert_eq!(text_of(&events), "Hel");
}

#[test]
fn an_end_without_the_mark_is_good_only_after_every_finish() {
    assert_eq!(text_of(&good(&[HEL, LO, STOP])), "Hello ä\n");
    assert_eq!(bad(&[HEL, LO]), FailureClass::Truncated);
    assert_eq!(bad(&[]), FailureClass::BadResponse);
    let second = r#"{"choices":[{"index":1,"delta":{"content":"x"}}]}"#;
    assert_eq!(bad(&[HEL, second, STOP]), FailureClass::Truncated);
}

#[test]
fn an_end_mark_behind_a_cut_answer_does_not_make_it_whole() {
    assert_eq!(bad(&[HEL, "[DONE]"]), FailureClass::Truncated);
    assert_eq!(bad(&["[DONE]"]), FailureClass::Truncated);
}

#[test]
fn a_last_event_cut_in_two_is_a_cut() {
    let whole = sse(&[HEL, LO]);
    let (events, result) = decode(&[&whole.as_bytes()[..whole.len() - 20]]);
    assert_eq!(text_of(&events), "Hel");
    assert_eq!(result.unwrap_err().class, FailureClass::Truncated);
}

#[test]
fn a_missing_last_blank_line_is_forgiven() {
    let text = sse(&[HEL, STOP, "[DONE]"]);
    let (events, result) = decode(&[text.trim_end().as_bytes()]);
    result.unwrap();
    assert_eq!(text_of(&events), "Hel");
}

#[test]
fn nothing_after_the_end_mark_is_read() {
    let events = good(&[HEL, STOP, "[DONE]", HEL, "junk"]);
    assert_eq!(text_of(&events), "Hel");
}

#[test]
fn errors_in_the_stream_have_their_own_class() {
    assert_eq!(
        bad(&[HEL, r#"{"error":{"message":"m","code":"rate_limit_exceeded"}}"#]),
        FailureClass::RateLimited
    );
    assert_eq!(bad(&[HEL, r#"{"error":{"message":"m","type":"server_error"}}"#]), FailureClass::ServerError);
    assert_eq!(bad(&[r#"{"object":"error","message":"m","code":503}"#]), FailureClass::ServerError);
    assert_eq!(bad(&[r#"{"error":"boom"}"#]), FailureClass::ServerError);
    assert_eq!(bad(&[r#"{"choices":[{"delta":{},"finish_reason":"error"}]}"#]), FailureClass::ServerError);
    assert_eq!(bad(&["<html>"]), FailureClass::BadResponse);
    let named = b"event: error\ndata: {\"message\":\"m\",\"code\":429}\n\n";
    assert_eq!(decode(&[named]).1.unwrap_err().class, FailureClass::RateLimited);
}

#[test]
fn reasoning_has_two_names_and_refusals_their_own_event() {
    let events = good(&[
        r#"{"choices":[{"delta":{"reasoning_content":"a","reasoning":"a"}}]}"#,
        r#"{"choices":[{"delta":{"reasoning":"b"}}]}"#,
        r#"{"choices":[{"delta":{"refusal":"no","content":null},"finish_reason":"content_filter"}],"prompt_filter_results":[{}]}"#,
    ]);
    assert!(matches!(&events[0], StreamEvent::Reasoning { text, .. } if text == "ab"));
    assert!(matches!(&events[1], StreamEvent::Refusal { text, .. } if text == "no"));
    assert!(matches!(events[2], StreamEvent::Finish { reason: FinishReason::ContentFilter, .. }));
}

#[test]
fn completions_stream_too_and_log_probabilities_pass_as_given() {
    let events = good(&[
        r#"{"choices":[{"text":"a","logprobs":{"tokens": ["a"]},"finish_reason":null}]}"#,
        r#"{"choices":[{"text":"b","logprobs":null,"finish_reason":"length"}]}"#,
    ]);
    assert!(
        matches!(&events[0], StreamEvent::Text { logprobs: Some(raw), .. } if raw.get() == r#"{"tokens": ["a"]}"#)
    );
    assert!(matches!(&events[1], StreamEvent::Text { text, logprobs: None, .. } if text == "b"));
    assert!(matches!(events[2], StreamEvent::Finish { reason: FinishReason::Length, .. }));
}

#[test]
fn another_models_name_is_told_once() {
    let named = r#"{"model":"m-2026","choices":[{"delta":{"content":"x"}}]}"#;
    let events = good(&[named, named, STOP]);
    assert!(matches!(&events[0], StreamEvent::Model(name) if name == "m-2026"));
    assert_eq!(events.len(), 3);
}

/// The calls as (number, id, name, arguments), joined.
fn calls(chunks: &[&str]) -> Vec<(u32, String, String, String)> {
    let mut calls: Vec<(u32, String, String, String)> = Vec::new();
    for event in good(chunks) {
        let StreamEvent::ToolCall { call, id, name, arguments, .. } = event else { continue };
        if id.is_some() || name.is_some() {
            calls.push((call, id.unwrap(), name.unwrap(), String::new()));
        }
        calls.iter_mut().find(|known| known.0 == call).unwrap().3.push_str(&arguments);
    }
    calls
}

const CALLED: &str = r#"{"choices":[{"delta":{},"finish_reason":"tool_calls"}]}"#;

#[test]
fn tool_calls_are_joined_by_index() {
    let calls = calls(&[
        r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":""}}]}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"x\""}}]}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"arguments":":1}"}}]}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"index":1,"id":"b","function":{"name":"g","arguments":"{}"}}]}}]}"#,
        CALLED,
    ]);
    let expected = [(0, "a", "f", "{\"x\":1}"), (1, "b", "g", "{}")];
    assert_eq!(calls, expected.map(|(n, id, name, args)| (n, id.into(), name.into(), args.into())));
}

#[test]
fn tool_calls_without_an_index_or_with_the_same_one_are_told_apart() {
    let no_index = calls(&[
        r#"{"choices":[{"delta":{"tool_calls":[{"function":{"name":"f","arguments":{"x":1}}}]}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"function":{"name":"f","arguments":"{}"}}]}}]}"#,
        CALLED,
    ]);
    assert_eq!(no_index.len(), 2);
    assert_eq!(no_index[0].3, "{\"x\":1}");
    assert!(no_index[0].1.starts_with("call_") && no_index[0].1 != no_index[1].1);
    let same_index = calls(&[
        r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}]}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"b","function":{"name":"f","arguments":"{}"}}]}}]}"#,
        CALLED,
    ]);
    assert_eq!(same_index.iter().map(|call| call.0).collect::<Vec<_>>(), [0, 1]);
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_text(cuts in proptest::collection::vec(0usize..700, 0..30)) {
        let text = sse(&[HELLO, HEL, LO, STOP, USAGE, "[DONE]"]);
        let bytes = text.as_bytes();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        let (events, result) = decode(&chunks);
        prop_assert!(result.is_ok());
        prop_assert_eq!(text_of(&events), "Hello ä\n");
        prop_assert_eq!(events.len(), 3);
    }
}
