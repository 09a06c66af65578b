//! What answers look like on the wire.

#![expect(clippy::unwrap_used, reason = "tests")]

use opossum_core::answer::{FinishReason, StreamEvent};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::http::error::{ApiError, Code};

const HEAD: Head<'_> = Head { id: "chatcmpl-1", created: 1_700_000_000, model: "asked/for" };

fn text(index: u32, text: &str) -> StreamEvent {
    StreamEvent::Text { index, text: text.into(), logprobs: None }
}

fn end(index: u32, reason: FinishReason) -> StreamEvent {
    StreamEvent::Finish { index, reason }
}

fn raw_json(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.into()).unwrap()
}

/// The data of each frame, taken apart as an SSE parser does it: by lines, with any of the three line ends.
fn frames(bytes: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(bytes).unwrap();
    assert!(text.ends_with("\n\n") && !text.contains('\r'));
    let frames = text.trim_end_matches('\n').split("\n\n");
    frames.map(|frame| frame.strip_prefix("data: ").unwrap().to_owned()).collect()
}

fn stream(kind: Kind, include_usage: bool, events: &[StreamEvent]) -> (StreamEncoder, Vec<String>) {
    let mut encoder = StreamEncoder::new(&HEAD, kind, include_usage);
    let mut out = Vec::new();
    encoder.encode(events, &mut out);
    encoder.finish(&mut out);
    (encoder, frames(&out))
}

fn json_frames(frames: &[String]) -> Vec<Value> {
    frames
        .iter()
        .filter(|frame| *frame != "[DONE]")
        .map(|frame| serde_json::from_str(frame).unwrap())
        .collect()
}

fn call(call: u32, first: bool, arguments: &str, signature: Option<&str>) -> StreamEvent {
    StreamEvent::ToolCall {
        index: 0,
        call,
        id: first.then(|| format!("call_{call}")),
        name: first.then(|| "get".into()),
        arguments: arguments.into(),
        signature: signature.map(str::to_owned),
    }
}

#[test]
fn a_chat_stream_is_written_as_the_dialect_says() {
    let (encoder, frames) =
        stream(Kind::Chat, false, &[text(0, "He"), text(0, "y"), end(0, FinishReason::Stop)]);
    assert_eq!(frames.last().unwrap(), "[DONE]");
    let chunk = |delta: Value, reason: Value| {
        json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "asked/for",
            "choices": [{"index": 0, "delta": delta, "logprobs": null, "finish_reason": reason}]})
    };
    assert_eq!(
        json_frames(&frames),
        [
            chunk(json!({"role": "assistant", "content": ""}), json!(null)),
            chunk(json!({"content": "He"}), json!(null)),
            chunk(json!({"content": "y"}), json!(null)),
            chunk(json!({}), json!("stop")),
        ]
    );
    assert!(encoder.is_complete());
    assert_eq!(encoder.usage(), None);
}

#[test]
fn usage_comes_last_and_only_when_asked_for() {
    let usage = |completion| Usage { prompt: 9, completion, cached: 4, reasoning: 1 };
    let events = [
        text(0, "a"),
        StreamEvent::Usage(usage(1)),
        StreamEvent::Usage(usage(3)),
        end(0, FinishReason::Length),
    ];
    let (encoder, frames) = stream(Kind::Chat, true, &events);
    assert_eq!(encoder.usage(), Some(usage(3)));
    let frames = json_frames(&frames);
    let (last, before) = frames.split_last().unwrap();
    assert!(before.iter().all(|frame| frame["usage"] == json!(null) && frame.get("usage").is_some()));
    assert_eq!(last["choices"], json!([]));
    assert_eq!(
        last["usage"],
        json!({"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12,
            "prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 1}})
    );
    let (_, frames) = stream(Kind::Chat, false, &events);
    assert!(json_frames(&frames).iter().all(|frame| frame.get("usage").is_none()));
    // A usage that no one told is not made up.
    let (_, frames) = stream(Kind::Chat, true, &[text(0, "a"), end(0, FinishReason::Stop)]);
    assert_eq!(json_frames(&frames).len(), 3);
}

#[test]
fn tool_calls_reasoning_and_refusals_have_their_deltas() {
    let events = [
        StreamEvent::Reasoning { index: 0, text: "hm".into() },
        StreamEvent::Refusal { index: 0, text: "no".into() },
        call(0, true, "", Some("sig")),
        call(0, false, "{\"a\"", None),
        call(1, true, "{}", None),
        end(0, FinishReason::ToolCalls),
    ];
    let (_, frames) = stream(Kind::Chat, false, &events);
    let deltas: Vec<Value> =
        json_frames(&frames).iter().map(|frame| frame["choices"][0]["delta"].clone()).collect();
    assert_eq!(
        deltas,
        [
            json!({"role": "assistant", "content": ""}),
            json!({"reasoning_content": "hm"}),
            json!({"refusal": "no"}),
            json!({"tool_calls": [{"index": 0, "id": "call_0", "type": "function",
                "function": {"name": "get", "arguments": ""},
                "extra_content": {"google": {"thought_signature": "sig"}}}]}),
            json!({"tool_calls": [{"index": 0, "function": {"arguments": "{\"a\""}}]}),
            json!({"tool_calls": [{"index": 1, "id": "call_1", "type": "function",
                "function": {"name": "get", "arguments": "{}"}}]}),
            json!({}),
        ]
    );
    assert_eq!(json_frames(&frames).last().unwrap()["choices"][0]["finish_reason"], "tool_calls");
}

#[test]
fn each_choice_begins_and_ends_by_itself() {
    let mut encoder = StreamEncoder::new(&HEAD, Kind::Chat, false);
    let mut out = Vec::new();
    assert!(!encoder.is_complete());
    encoder.encode(&[text(2, "c"), text(0, "a"), end(0, FinishReason::Stop)], &mut out);
    assert!(!encoder.is_complete());
    encoder.encode(&[end(2, FinishReason::Stop)], &mut out);
    assert!(encoder.is_complete());
    let seen: Vec<(u64, bool)> = json_frames(&frames(&out))
        .iter()
        .map(|frame| {
            (frame["choices"][0]["index"].as_u64().unwrap(), frame["choices"][0]["delta"]["role"].is_string())
        })
        .collect();
    assert_eq!(seen, [(2, true), (2, false), (0, true), (0, false), (0, false), (2, false)]);
}

#[test]
fn a_completion_stream_has_texts_and_no_roles() {
    let events = [
        StreamEvent::Model("real".into()),
        StreamEvent::Reasoning { index: 0, text: "hm".into() },
        text(0, "a"),
        text(1, "b"),
        end(0, FinishReason::Stop),
        end(1, FinishReason::Length),
    ];
    let (_, frames) = stream(Kind::Completion, false, &events);
    let frames = json_frames(&frames);
    assert_eq!(
        frames[0],
        json!({"id": "chatcmpl-1", "object": "text_completion", "created": 1_700_000_000, "model": "real",
            "choices": [{"index": 0, "text": "a", "logprobs": null, "finish_reason": null}]})
    );
    assert_eq!(frames.len(), 4);
    assert_eq!(
        frames[3]["choices"][0],
        json!({"index": 1, "text": "", "logprobs": null, "finish_reason": "length"})
    );
}

#[test]
fn text_that_looks_like_framing_stays_text() {
    let hostile = "\n\ndata: [DONE]\n\n\r\revent: x\r\n: \u{1b}[31m \0 \u{2028} \" \\ 🦝";
    let events = [
        text(0, hostile),
        StreamEvent::Text {
            index: 0,
            text: "b".into(),
            logprobs: Some(raw_json("{\n \"content\": [\r\n\n1]}")),
        },
        call(0, true, hostile, Some(hostile)),
        StreamEvent::Model(hostile.into()),
        end(0, FinishReason::Stop),
    ];
    let (_, frames) = stream(Kind::Chat, false, &events);
    assert_eq!(frames.iter().filter(|frame| *frame == "[DONE]").count(), 1);
    let frames = json_frames(&frames);
    assert_eq!(frames[1]["choices"][0]["delta"]["content"], hostile);
    assert_eq!(frames[2]["choices"][0]["logprobs"], json!({"content": [1]}));
    assert_eq!(frames[3]["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"], hostile);
    assert_eq!(frames[4]["model"], hostile);
}

#[test]
fn a_failed_stream_ends_with_an_error_and_never_looks_complete() {
    let mut encoder = StreamEncoder::new(&HEAD, Kind::Chat, true);
    let mut out = Vec::new();
    encoder.encode(&[text(0, "a")], &mut out);
    encoder.fail(&ApiError::of(Code::UpstreamStalled), "req-1", &mut out);
    assert!(!encoder.is_complete());
    let frames = frames(&out);
    let last: Value = serde_json::from_str(frames.last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "upstream_stalled");
    assert_eq!(last["error"]["request_id"], "req-1");
    assert!(!String::from_utf8(out).unwrap().contains("[DONE]"));
    assert!(frames.iter().all(|frame| !frame.contains("\"finish_reason\":\"")));
}

fn whole(choices: Vec<Choice>) -> Answer {
    let usage = Usage { prompt: 3, completion: 2, cached: 0, reasoning: 0 };
    Answer { model: "real".into(), choices, usage: Some(usage) }
}

fn written(answer: &Answer, write: fn(&Answer, &Head<'_>, &mut Vec<u8>)) -> Value {
    let mut out = Vec::new();
    write(answer, &HEAD, &mut out);
    serde_json::from_slice(&out).unwrap()
}

#[test]
fn a_whole_chat_is_written_as_the_dialect_says() {
    let mut choice = Choice::text(0, "hi \"there\"\n", FinishReason::Stop);
    choice.logprobs = Some(raw_json("{\"content\":[]}"));
    choice.reasoning = Some("because".into());
    assert_eq!(
        written(&whole(vec![choice]), write_chat),
        json!({"id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": "real",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi \"there\"\n",
                "reasoning_content": "because", "refusal": null},
                "logprobs": {"content": []}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5,
                "prompt_tokens_details": {"cached_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 0}}})
    );
}

#[test]
fn tool_calls_of_a_whole_chat_keep_their_signatures() {
    let call = |signature: Option<&str>| ToolCall {
        id: "c".into(),
        name: "f".into(),
        arguments: "{\"x\":1}".into(),
        signature: signature.map(str::to_owned),
    };
    let mut choice = Choice::text(1, "", FinishReason::ToolCalls);
    choice.text = None;
    choice.tool_calls = vec![call(Some("s")), call(None)];
    let mut answer = whole(vec![Choice::text(0, "a", FinishReason::Stop), choice]);
    answer.usage = None;
    answer.model = String::new();
    let written = written(&answer, write_chat);
    assert_eq!(written.get("usage"), None);
    assert_eq!(written["model"], "asked/for");
    let function = json!({"name": "f", "arguments": "{\"x\":1}"});
    assert_eq!(
        written["choices"][1]["message"],
        json!({"role": "assistant", "content": null, "refusal": null, "tool_calls": [
            {"id": "c", "type": "function", "function": function,
             "extra_content": {"google": {"thought_signature": "s"}}},
            {"id": "c", "type": "function", "function": function}]})
    );
}

#[test]
fn a_whole_completion_is_written_as_the_dialect_says() {
    let written = written(&whole(vec![Choice::text(0, "once", FinishReason::Length)]), write_completion);
    assert_eq!(written["object"], "text_completion");
    assert_eq!(
        written["choices"],
        json!([{"index": 0, "text": "once", "logprobs": null, "finish_reason": "length"}])
    );
}

proptest! {
    #[test]
    fn any_text_comes_through_any_number_of_frames(pieces in prop::collection::vec(".{1,20}|[\n\r\u{0}data: ]{1,8}", 1..20)) {
        let mut events: Vec<_> = pieces.iter().map(|piece| text(0, piece)).collect();
        events.push(end(0, FinishReason::Stop));
        for kind in [Kind::Chat, Kind::Completion] {
            let (_, frames) = stream(kind, false, &events);
            let got: String = json_frames(&frames)
                .iter()
                .map(|frame| &frame["choices"][0])
                .map(|choice| match kind {
                    Kind::Chat => choice["delta"]["content"].as_str().unwrap_or_default().to_owned(),
                    Kind::Completion => choice["text"].as_str().unwrap().to_owned(),
                })
                .collect();
            prop_assert_eq!(got, pieces.concat());
        }
    }
}
