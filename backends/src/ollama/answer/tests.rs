#![expect(clippy::unwrap_used, reason = "tests")]

use opossum_core::answer::Usage;
use proptest::prelude::*;

use super::*;

fn decode(chunks: &[&[u8]]) -> (Vec<StreamEvent>, Result<(), BackendError>) {
    let mut decoder = Decoder::new("m".into(), Endpoint::new("http://h", None).unwrap());
    let mut out = Vec::new();
    let mut result = Ok(());
    for chunk in chunks {
        if result.is_ok() {
            result = decoder.feed(chunk, &mut out);
        }
    }
    if result.is_ok() && !decoder.is_done() {
        result = decoder.end(&mut out);
    }
    (out, result)
}

fn good(lines: &[&str]) -> Vec<StreamEvent> {
    let (events, result) = decode(&[lines.join("\n").as_bytes()]);
    result.unwrap();
    events
}

fn bad(lines: &[&str]) -> FailureClass {
    decode(&[lines.join("\n").as_bytes()]).1.unwrap_err().class
}

const THINK: &str = r#"{"model":"m","created_at":"t","message":{"role":"assistant","content":"","thinking":"hm"},"done":false}"#;
const HEL: &str = r#"{"model":"m","message":{"role":"assistant","content":"Hel"},"done":false}"#;
const LO: &str = r#"{"model":"m","message":{"role":"assistant","content":"lo \u00e4"},"done":false}"#;
const DONE: &str = r#"{"model":"m","message":{"role":"assistant","content":""},"done_reason":"stop","done":true,"total_duration":1,"prompt_eval_count":3,"eval_count":5}"#;

#[test]
fn a_stream_becomes_reasoning_text_finish_and_usage() {
    let events = good(&[THINK, HEL, LO, DONE]);
    assert_eq!(events.len(), 4, "{events:?}");
    assert!(matches!(&events[0], StreamEvent::Reasoning { text, .. } if text == "hm"));
    assert!(matches!(&events[1], StreamEvent::Text { text, .. } if text == "Hello ä"));
    assert!(matches!(events[2], StreamEvent::Finish { reason: FinishReason::Stop, .. }));
    let usage = Usage { prompt: 3, completion: 5, ..Usage::default() };
    assert!(matches!(events[3], StreamEvent::Usage(u) if u == usage));
}

#[test]
fn a_raw_generation_streams_too() {
    let events = good(&[
        r#"{"model":"m:latest","response":"a","done":false}"#,
        r#"{"model":"m:latest","response":"b","done":true,"done_reason":"length","context":[1,2]}"#,
    ]);
    assert!(matches!(&events[0], StreamEvent::Model(name) if name == "m:latest"));
    assert!(matches!(&events[1], StreamEvent::Text { text, .. } if text == "ab"));
    assert!(matches!(events[2], StreamEvent::Finish { reason: FinishReason::Length, .. }));
    assert_eq!(events.len(), 3);
}

#[test]
fn an_end_before_done_is_a_cut() {
    assert_eq!(bad(&[HEL, LO]), FailureClass::Truncated);
    assert_eq!(bad(&[]), FailureClass::BadResponse);
    assert_eq!(bad(&["<html>"]), FailureClass::BadResponse);
    assert_eq!(bad(&[HEL, &DONE[..40]]), FailureClass::Truncated);
}

#[test]
fn errors_and_nonsense_have_their_class() {
    assert_eq!(bad(&[HEL, r#"{"error":"llama runner process has terminated"}"#]), FailureClass::ServerError);
    assert_eq!(bad(&[HEL, "<html>", DONE]), FailureClass::BadResponse);
    assert_eq!(bad(&[r#"{"model":"m","done":true,"done_reason":"load"}"#, ""]), FailureClass::BadResponse);
}

#[test]
fn tool_calls_come_with_json_text_and_an_identity() {
    let call = r#"{"message":{"content":"","tool_calls":[{"function":{"name":"f","arguments":{"b": 1, "a":"x"}}},{"id":"i2","function":{"name":"g"}}]},"done":false}"#;
    let events = good(&[call, DONE]);
    assert!(
        matches!(&events[0], StreamEvent::ToolCall { call: 0, id: Some(id), name: Some(name), arguments, .. }
        if id.starts_with("call_0_") && name == "f" && arguments == r#"{"b": 1, "a":"x"}"#)
    );
    assert!(matches!(&events[1], StreamEvent::ToolCall { call: 1, id: Some(id), arguments, .. }
        if id == "i2" && arguments == "{}"));
    assert!(matches!(events[2], StreamEvent::Finish { reason: FinishReason::ToolCalls, .. }));
}

#[test]
fn a_whole_answer_is_read_once() {
    let body = r#"{"model":"m2","message":{"role":"assistant","content":"hi","thinking":"t"},"done":true,"done_reason":"stop","prompt_eval_count":1,"eval_count":2}"#;
    let answer = whole(body.as_bytes(), &"m".into()).unwrap();
    assert_eq!(answer.model, "m2");
    assert_eq!(answer.choices[0].text.as_deref(), Some("hi"));
    assert_eq!(answer.choices[0].reasoning.as_deref(), Some("t"));
    assert_eq!(answer.usage.unwrap().total(), 3);
    let class = |body: &str| whole(body.as_bytes(), &"m".into()).unwrap_err().class;
    assert_eq!(class(r#"{"message":{"content":"h"},"done":false}"#), FailureClass::Truncated);
    assert_eq!(class(""), FailureClass::BadResponse);
    assert_eq!(class(r#"{"error":"boom"}"#), FailureClass::ServerError);
}

#[test]
fn a_whole_turn_of_calls_has_no_text() {
    let body =
        r#"{"message":{"content":"","tool_calls":[{"function":{"name":"f","arguments":{}}}]},"done":true}"#;
    let choice = whole(body.as_bytes(), &"m".into()).unwrap().choices.remove(0);
    assert_eq!(choice.text, None);
    assert_eq!(choice.tool_calls[0].arguments, "{}");
    assert_eq!(choice.finish, FinishReason::ToolCalls);
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_answer(cuts in proptest::collection::vec(0usize..500, 0..30)) {
        let text = [THINK, HEL, LO, DONE].join("\n");
        let bytes = text.as_bytes();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        let (events, result) = decode(&chunks);
        prop_assert!(result.is_ok());
        prop_assert_eq!(format!("{events:?}"), format!("{:?}", good(&[THINK, HEL, LO, DONE])));
    }
}
