//! Joining events that arrived together.

use opossum_core::answer::StreamEvent;

/// Appends an event, or joins it with the last one where both continue the same text or the same tool call.
///
/// When an upstream outruns us, many tokens arrive at once; joined, they cost one event and one frame towards
/// the caller. Text with log probabilities stays apart, since each belongs to its own tokens.
pub(crate) fn push_merged(out: &mut Vec<StreamEvent>, event: StreamEvent) {
    match (out.last_mut(), &event) {
        (
            Some(StreamEvent::Text { index: last, text: all, logprobs: None }),
            StreamEvent::Text { index, text, logprobs: None },
        ) if last == index => all.push_str(text),
        (Some(StreamEvent::Reasoning { index: last, text: all }), StreamEvent::Reasoning { index, text })
            if last == index =>
        {
            all.push_str(text);
        }
        (Some(StreamEvent::Refusal { index: last, text: all }), StreamEvent::Refusal { index, text })
            if last == index =>
        {
            all.push_str(text);
        }
        (
            Some(StreamEvent::ToolCall { index: last, call: last_call, arguments: all, .. }),
            StreamEvent::ToolCall { index, call, id: None, name: None, arguments, signature: None },
        ) if last == index && last_call == call => all.push_str(arguments),
        _ => out.push(event),
    }
}

/// The same for plain text, which is copied only once.
pub(crate) fn push_text(out: &mut Vec<StreamEvent>, index: u32, text: &str) {
    match out.last_mut() {
        Some(StreamEvent::Text { index: last, text: all, logprobs: None }) if *last == index => {
            all.push_str(text);
        }
        _ => out.push(StreamEvent::Text { index, text: text.to_owned(), logprobs: None }),
    }
}

/// The same for reasoning, which is copied only once.
pub(crate) fn push_reasoning(out: &mut Vec<StreamEvent>, index: u32, text: &str) {
    match out.last_mut() {
        Some(StreamEvent::Reasoning { index: last, text: all }) if *last == index => all.push_str(text),
        _ => out.push(StreamEvent::Reasoning { index, text: text.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(index: u32, text: &str) -> StreamEvent {
        StreamEvent::Text { index, text: text.into(), logprobs: None }
    }

    fn merged(events: impl IntoIterator<Item = StreamEvent>) -> String {
        let mut out = Vec::new();
        for event in events {
            push_merged(&mut out, event);
        }
        format!("{out:?}")
    }

    #[test]
    fn the_same_text_is_joined_and_nothing_else() {
        assert_eq!(merged([text(0, "a"), text(0, "b")]), merged([text(0, "ab")]));
        let mut out = Vec::new();
        push_text(&mut out, 0, "a");
        push_text(&mut out, 0, "b");
        push_reasoning(&mut out, 0, "c");
        push_reasoning(&mut out, 0, "d");
        push_text(&mut out, 1, "e");
        let reasoning = StreamEvent::Reasoning { index: 0, text: "cd".into() };
        assert_eq!(format!("{out:?}"), merged([text(0, "ab"), reasoning, text(1, "e")]));
        assert_eq!(merged([text(0, "a"), text(1, "b"), text(0, "c")]).matches("Text").count(), 3);
        let reasoning = StreamEvent::Reasoning { index: 0, text: "r".into() };
        assert_eq!(merged([text(0, "a"), reasoning]).matches("index").count(), 2);
    }

    #[test]
    fn text_with_log_probabilities_stays_apart() {
        let with = || StreamEvent::Text {
            index: 0,
            text: "a".into(),
            logprobs: serde_json::value::RawValue::from_string("{}".into()).ok(),
        };
        assert_eq!(merged([with(), with(), text(0, "b")]).matches("Text").count(), 3);
    }

    #[test]
    fn a_new_call_is_not_joined_with_the_one_before() {
        let call = |call, id: Option<&str>| StreamEvent::ToolCall {
            index: 0,
            call,
            id: id.map(Into::into),
            name: id.map(Into::into),
            arguments: "{".into(),
            signature: None,
        };
        assert_eq!(merged([call(0, Some("a")), call(0, None)]).matches("ToolCall").count(), 1);
        assert_eq!(merged([call(0, Some("a")), call(1, Some("b"))]).matches("ToolCall").count(), 2);
    }
}
