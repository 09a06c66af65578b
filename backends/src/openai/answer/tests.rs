#![expect(clippy::unwrap_used, reason = "tests")]

use opossum_core::answer::Usage;

use super::*;

fn read(body: &str) -> Result<Answer, BackendError> {
    whole(body.as_bytes(), &"m".into())
}

fn class(body: &str) -> FailureClass {
    read(body).unwrap_err().class
}

#[test]
fn every_field_of_a_chat_is_read() {
    let answer = read(
        r#"{"id":"x","model":"m-2026","system_fingerprint":null,"choices":[
            {"index":1,"message":{"role":"assistant","content":null,"refusal":"no","tool_calls":null},"finish_reason":"content_filter"},
            {"index":0,"message":{"content":"a\u00e4","reasoning_content":"r","refusal":null,"annotations":[]},
             "logprobs":{"content": []},"finish_reason":"length","stop_reason":null}],
           "usage":{"prompt_tokens":3,"completion_tokens":5,"completion_tokens_details":null,"reasoning_tokens":2,
                    "prompt_tokens_details":{"cached_tokens":null}}}"#,
    )
    .unwrap();
    assert_eq!(answer.model, "m-2026");
    let [first, second] = &answer.choices[..] else { unreachable!() };
    assert_eq!((first.text.as_deref(), first.reasoning.as_deref()), (Some("aä"), Some("r")));
    assert_eq!((first.index, first.finish, &first.refusal), (0, FinishReason::Length, &None));
    assert_eq!(first.logprobs.as_ref().unwrap().get(), r#"{"content": []}"#);
    assert_eq!((second.text.as_deref(), second.refusal.as_deref()), (None, Some("no")));
    assert_eq!(second.finish, FinishReason::ContentFilter);
    assert_eq!(answer.usage, Some(Usage { prompt: 3, completion: 5, cached: 0, reasoning: 2 }));
}

#[test]
fn tool_calls_keep_their_arguments_as_written() {
    let answer = read(
        r#"{"choices":[{"message":{"content":null,"tool_calls":[
            {"id":"a","type":"function","function":{"name":"f","arguments":"{\"x\": 1}"},
             "extra_content":{"google":{"thought_signature":"sig"}}},
            {"function":{"name":"g","arguments":{"y": [1, 2]}}},
            {"id":"","function":{"name":"h","arguments":null}}]}}]}"#,
    )
    .unwrap();
    let choice = &answer.choices[0];
    assert_eq!(choice.finish, FinishReason::ToolCalls);
    let [first, second, third] = &choice.tool_calls[..] else { unreachable!() };
    assert_eq!((first.id.as_str(), first.arguments.as_str()), ("a", r#"{"x": 1}"#));
    assert_eq!(first.signature.as_deref(), Some("sig"));
    assert_eq!((second.name.as_str(), second.arguments.as_str()), ("g", r#"{"y": [1, 2]}"#));
    assert_eq!(third.arguments, "");
    assert!(second.id.starts_with("call_") && second.id != third.id);
}

#[test]
fn a_completion_is_text_and_the_model_asked_for() {
    let answer =
        read(r#"{"choices":[{"text":"t","index":0,"logprobs":null,"finish_reason":"stop"}]}"#).unwrap();
    assert_eq!((answer.model.as_str(), answer.choices[0].text.as_deref()), ("m", Some("t")));
    assert!(answer.usage.is_none() && answer.choices[0].logprobs.is_none());
}

#[test]
fn what_is_no_answer_has_its_class() {
    for body in
        ["", "null", "[]", "{}", "<html>", r#"{"choices":[]}"#, r#"{"choices":[{"message":{"content":5}}]}"#]
    {
        assert_eq!(class(body), FailureClass::BadResponse, "{body}");
    }
    assert_eq!(class(r#"{"error":{"message":"m","code":429}}"#), FailureClass::RateLimited);
    assert_eq!(class(r#"{"object":"error","message":"m","code":401}"#), FailureClass::BadCredential);
    assert_eq!(class(r#"{"choices":[{"message":{},"finish_reason":"error"}]}"#), FailureClass::ServerError);
    for body in ["<html>secret", r#"{"choices":"secret"}"#, r#"{"choices":[{"index":"secret"}]}"#] {
        let error = read(body).unwrap_err();
        assert!(!error.detail.contains("secret"), "{error}");
    }
}

#[test]
fn as_events_a_whole_answer_says_the_same() {
    let answer = read(
        r#"{"model":"other","choices":[{"message":{"content":"c","reasoning":"r",
            "tool_calls":[{"id":"a","function":{"name":"f","arguments":"{}"}}]},"finish_reason":"tool_calls"}],
           "usage":{"prompt_tokens":1,"completion_tokens":1}}"#,
    )
    .unwrap();
    let events = events(answer, &"m".into());
    assert!(matches!(&events[0], StreamEvent::Model(model) if model == "other"));
    assert!(matches!(&events[1], StreamEvent::Reasoning { text, .. } if text == "r"));
    assert!(matches!(&events[2], StreamEvent::Text { text, .. } if text == "c"));
    assert!(matches!(&events[3], StreamEvent::ToolCall { call: 0, id: Some(id), .. } if id == "a"));
    assert!(matches!(events[4], StreamEvent::Finish { reason: FinishReason::ToolCalls, .. }));
    assert!(matches!(events[5], StreamEvent::Usage(usage) if usage.total() == 2));
}
