//! What comes back, in no vendor's dialect: a whole answer, or the events of a stream.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::request::ToolCall;

/// Why a choice ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// A natural end or a stop string.
    Stop,
    /// The token limit.
    Length,
    /// The model calls tools.
    ToolCalls,
    /// The upstream refused or cut the text for its policy.
    ContentFilter,
}

impl FinishReason {
    /// The reason's name in the OpenAI dialect.
    pub fn as_str(self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::ToolCalls => "tool_calls",
            FinishReason::ContentFilter => "content_filter",
        }
    }
}

/// Tokens used, in the counting of the OpenAI dialect: `completion` includes `reasoning`, `prompt` includes
/// `cached`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt: u64,
    /// Tokens generated.
    pub completion: u64,
    /// Prompt tokens that the upstream had cached.
    pub cached: u64,
    /// Generated tokens that were reasoning.
    pub reasoning: u64,
}

impl Usage {
    /// Prompt and completion together.
    pub fn total(&self) -> u64 {
        self.prompt.saturating_add(self.completion)
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The model that answered, as the upstream names it.
    pub model: String,
    /// One or more choices, by index.
    pub choices: Vec<Choice>,
    /// Tokens used, where the upstream says.
    pub usage: Option<Usage>,
}

/// One choice of a whole answer.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Its place among the choices, from 0.
    pub index: u32,
    /// The text; `None` for a turn of tool calls only.
    pub text: Option<String>,
    /// The model's visible reasoning, where the upstream gives it.
    pub reasoning: Option<String>,
    /// The refusal's text, where the model refused.
    pub refusal: Option<String>,
    /// Tools called.
    pub tool_calls: Vec<ToolCall>,
    /// Why it ended.
    pub finish: FinishReason,
    /// Log probabilities in the OpenAI shape, as the upstream gave them.
    pub logprobs: Option<Box<RawValue>>,
}

impl Choice {
    /// A choice of plain text.
    pub fn text(index: u32, text: impl Into<String>, finish: FinishReason) -> Self {
        Self {
            index,
            text: Some(text.into()),
            reasoning: None,
            refusal: None,
            tool_calls: Vec::new(),
            finish,
            logprobs: None,
        }
    }
}

/// One event of a stream.
#[derive(Clone, Debug)]
pub enum StreamEvent {
    /// More text of a choice.
    Text {
        /// The choice.
        index: u32,
        /// What is added; never empty.
        text: String,
        /// Log probabilities of it in the OpenAI shape.
        logprobs: Option<Box<RawValue>>,
    },
    /// More visible reasoning of a choice.
    Reasoning {
        /// The choice.
        index: u32,
        /// What is added; never empty.
        text: String,
    },
    /// More of a refusal.
    Refusal {
        /// The choice.
        index: u32,
        /// What is added; never empty.
        text: String,
    },
    /// A tool call begins or goes on.
    ToolCall {
        /// The choice.
        index: u32,
        /// Which call of this choice, from 0.
        call: u32,
        /// The call's identity, in its first event.
        id: Option<String>,
        /// The function's name, in its first event.
        name: Option<String>,
        /// More of the arguments' JSON text; may be empty in the first event.
        arguments: String,
        /// The upstream's opaque token for this call.
        signature: Option<String>,
    },
    /// A choice ended.
    Finish {
        /// The choice.
        index: u32,
        /// Why.
        reason: FinishReason,
    },
    /// Tokens used so far; the last one counts (some upstreams send running totals).
    Usage(Usage),
    /// The model that answers, as the upstream names it; sent once, where it differs from what was asked.
    Model(String),
}

impl StreamEvent {
    /// Whether this event is content: it commits the answer and resets the stall clock. Role-only deltas,
    /// usage and comments do not.
    pub fn is_content(&self) -> bool {
        match self {
            StreamEvent::Text { .. }
            | StreamEvent::Reasoning { .. }
            | StreamEvent::Refusal { .. }
            | StreamEvent::ToolCall { .. }
            | StreamEvent::Finish { .. } => true,
            StreamEvent::Usage(_) | StreamEvent::Model(_) => false,
        }
    }
}
