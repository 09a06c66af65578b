//! The answers' shapes, borrowed from the bytes they are read from.

use std::borrow::Cow;
use std::collections::HashMap;

use opossum_core::answer::Usage;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

/// A whole answer or a line of a stream, of a chat or a raw generation.
#[derive(Deserialize, Debug)]
pub(super) struct Line<'a> {
    #[serde(borrow, default)]
    pub(super) model: Cow<'a, str>,
    /// Of a chat.
    #[serde(borrow)]
    pub(super) message: Option<Message<'a>>,
    /// Of a raw generation.
    #[serde(borrow, default)]
    pub(super) response: Cow<'a, str>,
    /// Of a raw generation.
    #[serde(borrow, default)]
    pub(super) thinking: Cow<'a, str>,
    #[serde(default)]
    pub(super) done: bool,
    #[serde(borrow, default)]
    pub(super) done_reason: Cow<'a, str>,
    prompt_eval_count: Option<u64>,
    eval_count: Option<u64>,
    #[serde(borrow)]
    pub(super) error: Option<&'a RawValue>,
}

impl Line<'_> {
    /// Tokens used; only the last line counts them.
    pub(super) fn usage(&self) -> Option<Usage> {
        if self.prompt_eval_count.is_none() && self.eval_count.is_none() {
            return None;
        }
        Some(Usage {
            prompt: self.prompt_eval_count.unwrap_or(0),
            completion: self.eval_count.unwrap_or(0),
            ..Usage::default()
        })
    }
}

#[derive(Deserialize, Debug)]
pub(super) struct Message<'a> {
    #[serde(borrow, default)]
    pub(super) content: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) thinking: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) tool_calls: Option<Vec<ToolCall<'a>>>,
}

#[derive(Deserialize, Debug)]
pub(super) struct ToolCall<'a> {
    /// Given by newer servers only.
    #[serde(borrow, default)]
    pub(super) id: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) function: Function<'a>,
}

#[derive(Deserialize, Debug)]
pub(super) struct Function<'a> {
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    /// An object.
    #[serde(borrow)]
    pub(super) arguments: Option<&'a RawValue>,
}

#[derive(Deserialize, Debug)]
pub(super) struct Tags<'a> {
    #[serde(borrow)]
    pub(super) models: Vec<Tag<'a>>,
}

#[derive(Deserialize, Debug)]
pub(super) struct Tag<'a> {
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
}

#[derive(Deserialize, Debug)]
pub(super) struct Version<'a> {
    #[serde(borrow, rename = "version")]
    _version: Cow<'a, str>,
}

#[derive(Serialize)]
pub(super) struct ShowRequest<'a> {
    pub(super) model: &'a str,
}

#[derive(Deserialize, Debug)]
pub(super) struct Show {
    pub(super) capabilities: Option<Vec<String>>,
    #[serde(default)]
    model_info: HashMap<String, Value>,
}

impl Show {
    /// The context that the model was trained for; its key begins with the architecture's name.
    pub(super) fn context_tokens(&self) -> Option<u32> {
        let (_, value) = self.model_info.iter().find(|(key, _)| key.ends_with(".context_length"))?;
        u32::try_from(value.as_u64()?).ok()
    }
}
