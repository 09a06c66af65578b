//! Gemini's answers as they come, and the events they must become.

#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::{Value, json};

use super::*;

fn read_all(chunks: &[Value]) -> Result<Vec<StreamEvent>, BackendError> {
    let (mut state, store, mut events) = (ReaderState::new("m"), SignatureStore::default(), Vec::new());
    for chunk in chunks {
        state.read(chunk.to_string().as_bytes(), &store, Instant::now(), &mut events)?;
    }
    state.end(&mut events)?;
    Ok(events)
}

fn answer(body: &Value) -> Result<Answer, BackendError> {
    whole(body.to_string().as_bytes(), "m", &SignatureStore::default(), Instant::now())
}

fn text(text: &str) -> Value {
    json!({"candidates": [{"content": {"role": "model", "parts": [{"text": text}]}, "index": 0}]})
}

fn finish(reason: &str) -> Value {
    json!({"candidates": [{"finishReason": reason, "index": 0}]})
}

fn class(result: Result<Vec<StreamEvent>, BackendError>) -> FailureClass {
    result.unwrap_err().class
}

#[test]
fn a_whole_answer() {
    let answer = answer(&json!({
        "candidates": [{
            "content": {"role": "model", "parts": [
                {"text": "I ponder. ", "thought": true}, {"text": "Still."  , "thought": true},
                {"text": "Grüße, \"x\""}, {"text": "!"},
            ]},
            "finishReason": "STOP", "avgLogprobs": -0.1,
        }],
        "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 4, "thoughtsTokenCount": 6,
            "cachedContentTokenCount": 3, "toolUsePromptTokenCount": 5, "totalTokenCount": 25,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 10}]},
        "modelVersion": "gemini-2.5-flash-001", "responseId": "x",
    }))
    .unwrap();
    assert_eq!(answer.model, "gemini-2.5-flash-001");
    let choice = &answer.choices[0];
    assert_eq!(choice.text.as_deref(), Some("Grüße, \"x\"!"));
    assert_eq!(choice.reasoning.as_deref(), Some("I ponder. Still."));
    assert_eq!(choice.finish, FinishReason::Stop);
    assert_eq!(answer.usage, Some(Usage { prompt: 15, completion: 10, cached: 3, reasoning: 6 }));
}

#[test]
fn many_candidates_keep_apart() {
    let candidate = |index: u32, text: &str, reason: &str| json!({"index": index, "content": {"parts": [{"text": text}]}, "finishReason": reason});
    let body = json!({"candidates": [candidate(1, "b", "MAX_TOKENS"), candidate(0, "a", "STOP")]});
    let answer = answer(&body).unwrap();
    let seen: Vec<_> = answer.choices.iter().map(|c| (c.index, c.text.as_deref(), c.finish)).collect();
    assert_eq!(seen, [(0, Some("a"), FinishReason::Stop), (1, Some("b"), FinishReason::Length)]);
    assert_eq!(answer.model, "m");
    assert!(answer.usage.is_none());
}

#[test]
fn function_calls_become_tool_calls() {
    let answer = answer(&json!({"candidates": [{"content": {"parts": [
        {"functionCall": {"name": "f", "args": {"b": 1, "a": [true]}, "id": "call-7"}, "thoughtSignature": "U0lH"},
        {"functionCall": {"name": "g"}},
    ]}, "finishReason": "STOP"}]}))
    .unwrap();
    let choice = &answer.choices[0];
    assert_eq!((choice.text.as_deref(), choice.finish), (None, FinishReason::ToolCalls));
    let (first, second) = (&choice.tool_calls[0], &choice.tool_calls[1]);
    assert_eq!((first.id.as_str(), first.name.as_str()), ("call-7", "f"));
    assert_eq!(serde_json::from_str::<Value>(&first.arguments).unwrap(), json!({"b": 1, "a": [true]}));
    assert_eq!(first.signature.as_deref(), Some("U0lH"));
    assert_eq!((second.name.as_str(), second.arguments.as_str()), ("g", "{}"));
    assert!(second.id.starts_with("call_") && second.id.len() == 37, "{}", second.id);
    assert!(second.signature.is_none());
}

#[test]
fn a_calls_signature_is_remembered() {
    let store = SignatureStore::default();
    let now = Instant::now();
    let body = json!({"candidates": [{"content": {"parts": [
        {"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "SIG"},
    ]}, "finishReason": "STOP"}]});
    let answer = whole(body.to_string().as_bytes(), "m", &store, now).unwrap();
    let id = &answer.choices[0].tool_calls[0].id;
    assert_eq!(store.get(id, "f", now).as_deref(), Some("SIG"));
}

#[test]
fn calls_of_several_chunks_are_numbered_and_finish_as_tool_calls() {
    let call =
        |name: &str| json!({"candidates": [{"content": {"parts": [{"functionCall": {"name": name}}]}}]});
    let events = read_all(&[text("let me see"), call("f"), call("g"), finish("STOP")]).unwrap();
    let calls: Vec<_> = events
        .iter()
        .filter_map(|e| match e {
            StreamEvent::ToolCall { call, name, .. } => Some((*call, name.as_deref())),
            _ => None,
        })
        .collect();
    assert_eq!(calls, [(0, Some("f")), (1, Some("g"))]);
    assert!(matches!(events.last(), Some(StreamEvent::Finish { reason: FinishReason::ToolCalls, .. })));
}

#[test]
fn usage_is_a_running_total_and_told_when_it_changes() {
    let with = |prompt: u64, candidates: u64, thoughts: u64| {
        let mut chunk = text("x");
        chunk["usageMetadata"] = json!({"promptTokenCount": prompt, "candidatesTokenCount": candidates,
            "thoughtsTokenCount": thoughts});
        chunk
    };
    let (mut state, store, mut usages) = (ReaderState::new("m"), SignatureStore::default(), Vec::new());
    for chunk in [with(10, 1, 0), with(10, 1, 0), with(10, 2, 7), finish("STOP")] {
        let mut events = Vec::new();
        state.read(chunk.to_string().as_bytes(), &store, Instant::now(), &mut events).unwrap();
        usages.extend(events.into_iter().filter_map(|e| match e {
            StreamEvent::Usage(usage) => Some((usage.completion, usage.reasoning)),
            _ => None,
        }));
    }
    assert_eq!(usages, [(1, 0), (9, 7)]);
}

#[test]
fn text_that_arrives_together_is_one_event_and_usage_stands_once() {
    let mut tail = text("c");
    tail["usageMetadata"] = json!({"promptTokenCount": 1, "candidatesTokenCount": 3});
    let mut head = text("a");
    head["usageMetadata"] = json!({"promptTokenCount": 1, "candidatesTokenCount": 1});
    let events = read_all(&[text("x"), text("y"), head, tail, finish("STOP")]).unwrap();
    let shape: Vec<_> = events
        .iter()
        .map(|e| match e {
            StreamEvent::Text { text, .. } => text.clone(),
            StreamEvent::Usage(u) => u.completion.to_string(),
            StreamEvent::Finish { reason, .. } => reason.as_str().into(),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(shape, ["xyac", "3", "stop"]);
}

#[test]
fn a_reason_with_every_chunk_finishes_once() {
    let chunk =
        |t: &str| json!({"candidates": [{"content": {"parts": [{"text": t}]}, "finishReason": "STOP"}]});
    let events = read_all(&[chunk("a"), chunk("b")]).unwrap();
    let finishes = events.iter().filter(|e| matches!(e, StreamEvent::Finish { .. })).count();
    assert_eq!(finishes, 1);
    assert!(matches!(events.last(), Some(StreamEvent::Finish { .. })));
}

#[test]
fn finish_reasons() {
    let reason = |name: &str| match read_all(&[text("x"), finish(name)]).map(|mut e| e.pop()) {
        Ok(Some(StreamEvent::Finish { reason, .. })) => Ok(reason),
        Ok(other) => Err(format!("{other:?}")),
        Err(error) => Err(error.class.label().to_owned()),
    };
    assert_eq!(reason("STOP"), Ok(FinishReason::Stop));
    assert_eq!(reason("MAX_TOKENS"), Ok(FinishReason::Length));
    for filtered in
        ["SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY", "MODEL_ARMOR"]
    {
        assert_eq!(reason(filtered), Ok(FinishReason::ContentFilter), "{filtered}");
    }
    for broken in ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "OTHER", "NEVER_HEARD_OF"] {
        assert_eq!(reason(broken), Err("bad_response".into()), "{broken}");
    }
    assert_eq!(reason("FINISH_REASON_UNSPECIFIED"), Err("truncated".into()));
}

#[test]
fn a_filtered_answer_without_text_is_still_an_answer() {
    let answer = answer(&json!({"candidates": [{"finishReason": "SAFETY", "safetyRatings": []}]})).unwrap();
    assert_eq!(answer.choices[0].finish, FinishReason::ContentFilter);
    assert_eq!(answer.choices[0].text.as_deref(), Some(""));
}

#[test]
fn a_blocked_prompt_is_a_refusal() {
    let blocked = json!({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"},
        "usageMetadata": {"promptTokenCount": 4}});
    assert_eq!(class(read_all(&[blocked])), FailureClass::Refused);
    let ratings_only = json!({"promptFeedback": {"safetyRatings": []}});
    assert_eq!(class(read_all(&[ratings_only])), FailureClass::Truncated);
}

#[test]
fn what_does_not_end_is_truncated() {
    assert_eq!(class(read_all(&[])), FailureClass::Truncated);
    assert_eq!(class(read_all(&[text("x")])), FailureClass::Truncated);
    let two = json!({"candidates": [{"index": 0, "finishReason": "STOP"}, {"index": 1}]});
    assert_eq!(class(read_all(&[two])), FailureClass::Truncated);
}

#[test]
fn what_is_not_an_answer_is_a_bad_response() {
    let store = SignatureStore::default();
    for body in [
        "",
        "<html>",
        "[]",
        "7",
        r#"{"candidates":7}"#,
        r#"{"candidates":[{"index":999}]}"#,
        "{\"candidates\":[",
    ] {
        let error = whole(body.as_bytes(), "m", &store, Instant::now()).unwrap_err();
        assert_eq!(error.class, FailureClass::BadResponse, "{body}");
    }
}

#[test]
fn an_error_object_is_classified() {
    let error = json!({"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}});
    assert_eq!(class(read_all(&[text("x"), error])), FailureClass::ServerError);
}

#[test]
fn unknown_parts_and_nulls_pass() {
    let events = read_all(&[
        json!({"candidates": null, "modelVersion": null, "newField": {"a": [1]}}),
        json!({"candidates": [{"content": {"parts": null}}]}),
        json!({"candidates": [{"content": {}}]}),
        json!({"candidates": [{"content": {"parts": [{"executableCode": {"code": "1"}}, {"text": "x"}, {"text": ""}]}}]}),
        json!({"candidates": [{"finishReason": "STOP"}], "modelVersion": "m"}),
    ])
    .unwrap();
    assert_eq!(events.len(), 2, "{events:?}");
}
