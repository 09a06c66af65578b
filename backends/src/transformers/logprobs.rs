//! Log probabilities in the OpenAI shapes: one for chat, an older one for completions.

use opossum_core::request::Prompt;
use opossum_inference::{TokenLogprob, TopLogprob};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::value::RawValue;

/// Which shape a request's answer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// `{"content": [{token, logprob, bytes, top_logprobs}]}`
    Chat,
    /// `{"tokens": […], "token_logprobs": […], "top_logprobs": […], "text_offset": […]}`
    Completion,
}

impl Shape {
    /// The shape for an answer to this prompt.
    pub(super) fn of(prompt: &Prompt) -> Self {
        match prompt {
            Prompt::Chat(_) => Shape::Chat,
            Prompt::Text { .. } => Shape::Completion,
        }
    }
}

#[derive(Serialize)]
struct Chat<'a> {
    content: Vec<ChatToken<'a>>,
}

#[derive(Serialize)]
struct ChatToken<'a> {
    #[serde(flatten)]
    chosen: ChatAlternative<'a>,
    top_logprobs: Vec<ChatAlternative<'a>>,
}

#[derive(Serialize)]
struct ChatAlternative<'a> {
    token: std::borrow::Cow<'a, str>,
    logprob: f32,
    bytes: &'a [u8],
}

impl<'a> ChatAlternative<'a> {
    fn of(token: &'a TopLogprob) -> Self {
        Self { token: text(token), logprob: token.logprob, bytes: &token.bytes }
    }
}

#[derive(Serialize)]
struct Completion<'a> {
    tokens: Vec<std::borrow::Cow<'a, str>>,
    token_logprobs: Vec<f32>,
    top_logprobs: Vec<ByToken<'a>>,
    text_offset: Vec<usize>,
}

/// Alternatives as a map from token to log probability, best first.
struct ByToken<'a>(&'a [TopLogprob]);

impl Serialize for ByToken<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for token in self.0 {
            map.serialize_entry(&text(token), &token.logprob)?;
        }
        map.end()
    }
}

/// A token's text; bytes that are no text on their own are shown as replacement characters.
fn text(token: &TopLogprob) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(&token.bytes)
}

/// The JSON of some tokens, of which the first begins at character `offset` of the answer.
pub(super) fn json(shape: Shape, tokens: &[TokenLogprob], offset: usize) -> Option<Box<RawValue>> {
    match shape {
        Shape::Chat => serde_json::value::to_raw_value(&Chat {
            content: tokens
                .iter()
                .map(|token| ChatToken {
                    chosen: ChatAlternative::of(&token.chosen),
                    top_logprobs: token.top.iter().map(ChatAlternative::of).collect(),
                })
                .collect(),
        }),
        Shape::Completion => serde_json::value::to_raw_value(&Completion {
            tokens: tokens.iter().map(|token| text(&token.chosen)).collect(),
            token_logprobs: tokens.iter().map(|token| token.chosen.logprob).collect(),
            top_logprobs: tokens.iter().map(|token| ByToken(&token.top)).collect(),
            text_offset: offsets(tokens, offset),
        }),
    }
    // Numbers and text always have a JSON form.
    .ok()
}

/// Where each token begins, in characters.
fn offsets(tokens: &[TokenLogprob], mut offset: usize) -> Vec<usize> {
    tokens
        .iter()
        .map(|token| {
            let here = offset;
            // Continuation bytes begin no character (UTF-8, RFC 3629).
            offset += token.chosen.bytes.iter().filter(|byte| **byte & 0xC0 != 0x80).count();
            here
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use serde_json::{Value, json};

    use super::*;

    fn alternative(id: u32, bytes: &[u8], logprob: f32) -> TopLogprob {
        TopLogprob { id, bytes: bytes.to_vec(), logprob }
    }

    fn tokens() -> Vec<TokenLogprob> {
        vec![
            TokenLogprob {
                chosen: alternative(1, "ü".as_bytes(), -0.5),
                top: vec![alternative(1, "ü".as_bytes(), -0.5), alternative(2, b"a", -1.0)],
            },
            TokenLogprob { chosen: alternative(3, &[0xE2, 0x82], -2.0), top: Vec::new() },
            TokenLogprob { chosen: alternative(4, &[0xAC], -0.25), top: Vec::new() },
        ]
    }

    fn parsed(shape: Shape, offset: usize) -> Value {
        serde_json::from_str(json(shape, &tokens(), offset).unwrap().get()).unwrap()
    }

    #[test]
    fn the_shape_of_chat() {
        assert_eq!(
            parsed(Shape::Chat, 7),
            json!({"content": [
                {"token": "ü", "logprob": -0.5, "bytes": [195, 188], "top_logprobs": [
                    {"token": "ü", "logprob": -0.5, "bytes": [195, 188]},
                    {"token": "a", "logprob": -1.0, "bytes": [97]},
                ]},
                {"token": "\u{fffd}", "logprob": -2.0, "bytes": [226, 130], "top_logprobs": []},
                {"token": "\u{fffd}", "logprob": -0.25, "bytes": [172], "top_logprobs": []},
            ]})
        );
    }

    #[test]
    fn the_shape_of_completions() {
        assert_eq!(
            parsed(Shape::Completion, 7),
            json!({
                "tokens": ["ü", "\u{fffd}", "\u{fffd}"],
                "token_logprobs": [-0.5, -2.0, -0.25],
                "top_logprobs": [{"ü": -0.5, "a": -1.0}, {}, {}],
                "text_offset": [7, 8, 9],
            })
        );
    }
}
