//! Streams into answers and back.

#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

fn raw_json(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.into()).unwrap()
}

fn text(text: &str, logprobs: Option<&str>) -> StreamEvent {
    StreamEvent::Text { index: 0, text: text.into(), logprobs: logprobs.map(raw_json) }
}

fn end(index: u32) -> StreamEvent {
    StreamEvent::Finish { index, reason: FinishReason::Stop }
}

fn collected(events: &[StreamEvent]) -> Option<Answer> {
    let mut collector = Collector::new("asked");
    collector.add(events);
    assert_eq!(collector.is_complete(), collector_finishes(events));
    collector.finish()
}

fn collector_finishes(events: &[StreamEvent]) -> bool {
    let mut collector = Collector::default();
    collector.add(events);
    collector.finish().is_some()
}

/// Everything an answer holds, in a form that can be compared.
fn facts(answer: &Answer) -> String {
    format!("{answer:?}")
}

#[test]
fn pieces_become_one_answer() {
    let piece = |id: Option<&str>, arguments: &str, signature: Option<&str>| StreamEvent::ToolCall {
        index: 1,
        call: 0,
        id: id.map(str::to_owned),
        name: id.map(|_| "f".into()),
        arguments: arguments.into(),
        signature: signature.map(str::to_owned),
    };
    let usage = |completion| Usage { prompt: 1, completion, cached: 0, reasoning: 0 };
    let answer = collected(&[
        StreamEvent::Model("real".into()),
        text("a", None),
        piece(Some("c"), "", Some("s")),
        text("b", None),
        StreamEvent::Usage(usage(1)),
        piece(None, "{}", None),
        StreamEvent::Usage(usage(2)),
        StreamEvent::Finish { index: 1, reason: FinishReason::ToolCalls },
        end(0),
    ])
    .unwrap();
    assert_eq!((answer.model.as_str(), answer.usage), ("real", Some(usage(2))));
    assert_eq!(answer.choices[0].text.as_deref(), Some("ab"));
    let call =
        ToolCall { id: "c".into(), name: "f".into(), arguments: "{}".into(), signature: Some("s".into()) };
    assert_eq!(answer.choices[1].tool_calls, [call]);
    assert_eq!(
        (answer.choices[1].text.as_deref(), answer.choices[1].finish),
        (None, FinishReason::ToolCalls)
    );
}

#[test]
fn a_cut_stream_is_no_answer() {
    assert!(collected(&[]).is_none());
    assert!(collected(&[text("a", None)]).is_none());
    assert!(collected(&[StreamEvent::Usage(Usage::default())]).is_none());
    assert!(collected(&[text("a", None), end(1)]).is_none(), "only one of two choices ended");
}

#[test]
fn an_answer_without_words_is_an_empty_text() {
    let answer = collected(&[end(0)]).unwrap();
    assert_eq!((answer.model.as_str(), answer.choices[0].text.as_deref()), ("asked", Some("")));
}

#[test]
fn log_probabilities_are_joined_entry_by_entry() {
    let chat = collected(&[
        text("a", Some(r#"{"content":[{"token": "a"}],"refusal":null}"#)),
        text("b", None),
        text("c", Some(r#"{"content":[{"token":"b"},{"token":"c"}],"refusal":[]}"#)),
        text("d", Some("null")),
        end(0),
    ])
    .unwrap();
    let joined = chat.choices[0].logprobs.as_ref().unwrap();
    assert_eq!(joined.get(), r#"{"content":[{"token": "a"},{"token":"b"},{"token":"c"}],"refusal":[]}"#);
    let one = collected(&[text("a", Some("{\"content\": []}")), end(0)]).unwrap();
    assert_eq!(one.choices[0].logprobs.as_ref().unwrap().get(), "{\"content\": []}");
    let odd = collected(&[text("a", Some("[1]")), text("b", Some("3")), end(0)]).unwrap();
    assert!(odd.choices[0].logprobs.is_none());
}

fn any_reason() -> impl Strategy<Value = FinishReason> {
    prop::sample::select(vec![
        FinishReason::Stop,
        FinishReason::Length,
        FinishReason::ToolCalls,
        FinishReason::ContentFilter,
    ])
}

fn any_call() -> impl Strategy<Value = ToolCall> {
    (".{0,8}", ".{0,8}", ".{0,20}", prop::option::of(".{0,8}"))
        .prop_map(|(id, name, arguments, signature)| ToolCall { id, name, arguments, signature })
}

/// Any choice that a stream can say.
fn any_choice() -> impl Strategy<Value = Choice> {
    let words = || prop::option::of(".{1,20}");
    let calls = prop::collection::vec(any_call(), 0..3);
    (".{0,20}", words(), words(), calls, any_reason(), any::<bool>()).prop_map(
        |(text, reasoning, refusal, tool_calls, finish, logprobs)| {
            let silent = refusal.is_none() && tool_calls.is_empty();
            let text = (silent || !text.is_empty()).then_some(text);
            let spoken = text.as_ref().is_some_and(|text| !text.is_empty());
            let logprobs = (spoken && logprobs).then(|| raw_json("{\"content\":[ 1 ]}"));
            Choice { index: 0, text, reasoning, refusal, tool_calls, finish, logprobs }
        },
    )
}

proptest! {
    #[test]
    fn a_replayed_answer_is_the_answer(
        model in ".{0,10}",
        mut choices in prop::collection::vec(any_choice(), 1..4),
        usage in prop::option::of((any::<u32>(), any::<u32>())),
    ) {
        choices.iter_mut().zip(0..).for_each(|(choice, index)| choice.index = index);
        let usage = usage.map(|(prompt, completion)| Usage {
            prompt: prompt.into(), completion: completion.into(), cached: 1, reasoning: 2,
        });
        let answer = Answer { model, choices, usage };
        let events = replay(answer.clone());
        for event in &events {
            if let StreamEvent::Text { text, .. } | StreamEvent::Reasoning { text, .. } = event {
                prop_assert!(!text.is_empty());
            }
        }
        prop_assert_eq!(facts(&collected(&events).unwrap()), facts(&answer));
    }
}
