//! The answers' shapes, borrowed from the bytes they are read from.
//!
//! Every field may be missing or null: servers differ in all of them.

use std::borrow::Cow;

use opossum_core::answer::{FinishReason, Usage};
use opossum_core::class::FailureClass;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::BackendError;
use crate::http::classify::{ErrorBody, Quirks, classify_in_band};

/// A string that is borrowed where it has no escapes; `Option<Cow<str>>` alone would always copy.
#[derive(Deserialize, Debug)]
#[serde(transparent)]
pub(super) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Text<'a> {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn into_owned(self) -> String {
        self.0.into_owned()
    }
}

/// A whole answer or a chunk of a stream, of a chat or a completion.
#[derive(Deserialize, Debug)]
pub(super) struct Completion<'a> {
    #[serde(borrow)]
    pub(super) model: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) choices: Option<Vec<Choice<'a>>>,
    pub(super) usage: Option<UsageBody>,
    #[serde(borrow)]
    pub(super) object: Option<Text<'a>>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

impl Completion<'_> {
    /// The error that the server put in the place of an answer, if it did.
    pub(super) fn error(&self, body: &[u8]) -> Option<BackendError> {
        let is_error = self.object.as_ref().is_some_and(|object| object.as_str() == "error");
        if self.error.is_none() && !is_error {
            return None;
        }
        Some(classify_in_band(&ErrorBody::parse(body), Quirks::default()))
    }
}

#[derive(Deserialize, Debug)]
pub(super) struct Choice<'a> {
    #[serde(default)]
    pub(super) index: u32,
    /// Of a chat's chunk.
    #[serde(borrow)]
    pub(super) delta: Option<Message<'a>>,
    /// Of a whole chat.
    #[serde(borrow)]
    pub(super) message: Option<Message<'a>>,
    /// Of a completion.
    #[serde(borrow)]
    pub(super) text: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) finish_reason: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) logprobs: Option<&'a RawValue>,
}

impl Choice<'_> {
    /// Why the choice ended, where it did.
    ///
    /// # Errors
    /// `ServerError` where the server itself gave up.
    pub(super) fn finish(&self) -> Result<Option<FinishReason>, BackendError> {
        let Some(reason) = &self.finish_reason else { return Ok(None) };
        Ok(Some(match reason.as_str() {
            // Sent by some servers with every chunk.
            "" | "null" => return Ok(None),
            "length" | "max_tokens" => FinishReason::Length,
            "tool_calls" | "function_call" => FinishReason::ToolCalls,
            "content_filter" => FinishReason::ContentFilter,
            "error" | "abort" => {
                return Err(BackendError::new(
                    FailureClass::ServerError,
                    "the server gave up its own answer",
                ));
            }
            _ => FinishReason::Stop,
        }))
    }
}

#[derive(Deserialize, Debug)]
pub(super) struct Message<'a> {
    #[serde(borrow)]
    pub(super) content: Option<Text<'a>>,
    /// DeepSeek's name, also that of vLLM before 0.12, SGLang and llama-server.
    #[serde(borrow)]
    reasoning_content: Option<Text<'a>>,
    /// The name of newer vLLM and of OpenRouter.
    #[serde(borrow)]
    reasoning: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) refusal: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) tool_calls: Option<Vec<ToolCall<'a>>>,
}

impl<'a> Message<'a> {
    /// The reasoning, if there is any.
    pub(super) fn reasoning(&self) -> Option<&str> {
        let reasoning = self.reasoning_content.as_ref().or(self.reasoning.as_ref());
        reasoning.map(Text::as_str).filter(|text| !text.is_empty())
    }

    pub(super) fn take_reasoning(&mut self) -> Option<Text<'a>> {
        // Some servers send the same text under both names.
        self.reasoning_content.take().or_else(|| self.reasoning.take())
    }
}

#[derive(Deserialize, Debug)]
pub(super) struct ToolCall<'a> {
    pub(super) index: Option<u32>,
    #[serde(borrow)]
    pub(super) id: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) function: Option<Function<'a>>,
    #[serde(borrow)]
    extra_content: Option<ExtraContent<'a>>,
}

impl ToolCall<'_> {
    pub(super) fn signature(&self) -> Option<String> {
        Some(self.extra_content.as_ref()?.google.as_ref()?.thought_signature.as_ref()?.as_str().to_owned())
    }
}

#[derive(Deserialize, Debug)]
struct ExtraContent<'a> {
    #[serde(borrow)]
    google: Option<Google<'a>>,
}

#[derive(Deserialize, Debug)]
struct Google<'a> {
    #[serde(borrow)]
    thought_signature: Option<Text<'a>>,
}

#[derive(Deserialize, Debug)]
pub(super) struct Function<'a> {
    #[serde(borrow)]
    pub(super) name: Option<Text<'a>>,
    /// JSON text; some servers send the object itself.
    #[serde(borrow, default, deserialize_with = "json_text")]
    pub(super) arguments: Option<Cow<'a, str>>,
}

fn json_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Cow<'de, str>>, D::Error> {
    let Some(raw) = Option::<&RawValue>::deserialize(deserializer)? else { return Ok(None) };
    if raw.get().starts_with('"') {
        let text: Text<'de> = serde_json::from_str(raw.get()).map_err(serde::de::Error::custom)?;
        return Ok(Some(text.0));
    }
    Ok(Some(Cow::Borrowed(raw.get())))
}

#[derive(Deserialize, Debug)]
pub(super) struct UsageBody {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<CompletionDetails>,
    /// SGLang's place for it.
    reasoning_tokens: Option<u64>,
}

#[derive(Deserialize, Debug)]
struct PromptDetails {
    cached_tokens: Option<u64>,
}

#[derive(Deserialize, Debug)]
struct CompletionDetails {
    reasoning_tokens: Option<u64>,
}

impl From<UsageBody> for Usage {
    fn from(body: UsageBody) -> Self {
        let reasoning = body.completion_tokens_details.and_then(|details| details.reasoning_tokens);
        Self {
            prompt: body.prompt_tokens.unwrap_or(0),
            completion: body.completion_tokens.unwrap_or(0),
            cached: body.prompt_tokens_details.and_then(|details| details.cached_tokens).unwrap_or(0),
            reasoning: reasoning.or(body.reasoning_tokens).unwrap_or(0),
        }
    }
}

/// The list of models.
#[derive(Deserialize, Debug)]
pub(super) struct Models<'a> {
    #[serde(borrow)]
    pub(super) data: Vec<Model<'a>>,
}

#[derive(Deserialize, Debug)]
pub(super) struct Model<'a> {
    #[serde(borrow)]
    pub(super) id: Cow<'a, str>,
    /// vLLM and SGLang.
    max_model_len: Option<u32>,
    /// OpenRouter, LM Studio and others.
    context_length: Option<u32>,
    /// Groq.
    context_window: Option<u32>,
    /// llama-server.
    meta: Option<Meta>,
}

#[derive(Deserialize, Debug)]
struct Meta {
    n_ctx_train: Option<u32>,
}

impl Model<'_> {
    pub(super) fn context_tokens(&self) -> Option<u32> {
        let meta = || self.meta.as_ref()?.n_ctx_train;
        self.max_model_len.or(self.context_length).or(self.context_window).or_else(meta)
    }
}
