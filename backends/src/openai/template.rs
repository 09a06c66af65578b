//! Reading the next token without parsing its JSON again.
//!
//! The chunks of one stream are mostly the same document with another string in one place. So the bytes before
//! and after that string are kept from the last chunk that was parsed; a chunk that begins and ends with the
//! same bytes, and whose middle holds nothing that could end or escape a JSON string, is by the grammar the
//! same document but for that string. Anything else is parsed.

use super::wire::{Completion, Text};

/// Which text of a choice varies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// Content of a chat, text of a completion.
    #[default]
    Text,
    /// Reasoning.
    Reasoning,
}

/// The last chunk around its text.
#[derive(Debug, Default)]
pub(super) struct Template {
    before: Vec<u8>,
    after: Vec<u8>,
    choice: u32,
    kind: Kind,
}

impl Template {
    /// Keeps the shape of a chunk, if it carries one piece of text and nothing else; else forgets.
    pub(super) fn learn(&mut self, event: &[u8], chunk: &Completion<'_>) {
        self.forget();
        let Some((choice, kind, text)) = only_text(chunk) else { return };
        // Text with escapes was copied, and has no place in the event.
        let Some(start) = (text.as_ptr().addr()).checked_sub(event.as_ptr().addr()) else { return };
        let Some((before, rest)) = event.split_at_checked(start) else { return };
        let Some(after) = rest.get(text.len()..) else { return };
        self.before.extend_from_slice(before);
        self.after.extend_from_slice(after);
        (self.choice, self.kind) = (choice, kind);
    }

    /// The choice that the learnt chunk belongs to.
    pub(super) fn choice(&self) -> u32 {
        self.choice
    }

    /// Until the next chunk is learnt, nothing matches.
    pub(super) fn forget(&mut self) {
        self.before.clear();
        self.after.clear();
    }

    /// The text of a chunk that differs from the learnt one in nothing else: its choice, kind and bytes.
    pub(super) fn fill<'a>(&self, event: &'a [u8]) -> Option<(u32, Kind, &'a str)> {
        if self.before.is_empty() {
            return None;
        }
        let text = event.strip_prefix(&*self.before)?.strip_suffix(&*self.after)?;
        let plain = |byte: &u8| *byte >= b' ' && *byte != b'"' && *byte != b'\\';
        if text.is_empty() || !text.iter().all(plain) {
            return None;
        }
        Some((self.choice, self.kind, std::str::from_utf8(text).ok()?))
    }
}

/// The one piece of text of a chunk that carries nothing else.
fn only_text<'a>(chunk: &'a Completion<'_>) -> Option<(u32, Kind, &'a str)> {
    let [choice] = chunk.choices.as_deref()? else { return None };
    let nothing_else = chunk.usage.is_none()
        && choice.logprobs.is_none()
        && choice.finish_reason.as_ref().is_none_or(|reason| reason.as_str().is_empty());
    if !nothing_else {
        return None;
    }
    let filled = |text: &'a Option<Text<'_>>| text.as_ref().map(Text::as_str).filter(|text| !text.is_empty());
    let Some(delta) = &choice.delta else {
        return choice
            .message
            .is_none()
            .then(|| filled(&choice.text))
            .flatten()
            .map(|text| (choice.index, Kind::Text, text));
    };
    if delta.refusal.is_some() || delta.tool_calls.is_some() || choice.text.is_some() {
        return None;
    }
    match (filled(&delta.content), delta.reasoning()) {
        (Some(text), None) => Some((choice.index, Kind::Text, text)),
        (None, Some(text)) => Some((choice.index, Kind::Reasoning, text)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    fn learnt(event: &str) -> Template {
        let mut template = Template::default();
        template.learn(event.as_bytes(), &serde_json::from_str(event).unwrap());
        template
    }

    fn chunk(text: &str) -> String {
        format!(
            r#"{{"id":"a","choices":[{{"index":2,"delta":{{"content":{}}},"finish_reason":null}}]}}"#,
            serde_json::json!(text)
        )
    }

    #[test]
    fn the_same_document_with_another_text_is_filled_in() {
        let template = learnt(&chunk("ab"));
        assert_eq!(template.fill(chunk("cdé").as_bytes()), Some((2, Kind::Text, "cdé")));
        let reasoning = r#"{"choices":[{"delta":{"content":"","reasoning":"x"}}]}"#;
        let next = reasoning.replace('x', "yz");
        assert_eq!(learnt(reasoning).fill(next.as_bytes()), Some((0, Kind::Reasoning, "yz")));
        let completion = r#"{"choices":[{"text":"_","finish_reason":null}]}"#;
        let next = completion.replace("_\"", "yz\"");
        assert_eq!(learnt(completion).fill(next.as_bytes()), Some((0, Kind::Text, "yz")));
    }

    #[test]
    fn anything_else_is_not() {
        let template = learnt(&chunk("ab"));
        for text in ["", "a\"b", "a\\b", "a\nb"] {
            assert_eq!(template.fill(chunk(text).as_bytes()), None, "{text:?}");
        }
        // Raw control characters are no JSON, whatever is around them.
        assert_eq!(template.fill(chunk("XX").replace("XX", "\u{1}").as_bytes()), None);
        assert_eq!(template.fill(chunk("ab").replace("null", "\"stop\"").as_bytes()), None);
        assert_eq!(template.fill(b""), None);
        assert_eq!(Template::default().fill(chunk("x").as_bytes()), None);
    }

    #[test]
    fn chunks_that_carry_more_are_not_learnt() {
        for event in [
            r#"{"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}]}"#,
            r#"{"choices":[{"delta":{"content":"x"},"logprobs":{"content":[]}}]}"#,
            r#"{"choices":[{"delta":{"content":"x"}}],"usage":{"completion_tokens":1}}"#,
            r#"{"choices":[{"delta":{"content":"x"}},{"index":1,"delta":{"content":"y"}}]}"#,
            r#"{"choices":[{"delta":{"content":"x","reasoning":"y"}}]}"#,
            r#"{"choices":[{"delta":{"content":"x","tool_calls":[]}}]}"#,
            r#"{"choices":[{"delta":{"content":"\u0061"}}]}"#,
            r#"{"choices":[]}"#,
        ] {
            assert_eq!(learnt(event).fill(event.as_bytes()), None, "{event}");
        }
    }

    proptest! {
        /// Whatever is filled in is what parsing gives.
        #[test]
        fn filling_in_agrees_with_parsing(first in "[a-z ]{1,4}", next in "[ -~é\n]{0,6}", junk in "[ -~]{0,6}") {
            let template = learnt(&chunk(&first));
            let honest = chunk(&next);
            let forged = chunk("@@").replace("@@", &junk);
            for event in [honest, forged] {
                let Some((choice, _, text)) = template.fill(event.as_bytes()) else { continue };
                let parsed: Completion<'_> = serde_json::from_str(&event).unwrap();
                prop_assert_eq!(only_text(&parsed), Some((choice, Kind::Text, text)));
            }
        }
    }
}
