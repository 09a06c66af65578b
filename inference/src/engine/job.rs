//! What goes into the engine and what comes out of it.

use serde_json::Value;

use crate::{GenerationParams, InferenceError, TokenLogprob};

/// One generation: what to continue, how, and who listens.
pub struct Job {
    /// What to continue.
    pub prompt: Prompt,
    /// How to continue it.
    pub params: GenerationParams,
    /// Who receives the tokens. Dropped when the job is over, however it ends.
    pub sink: Box<dyn TokenSink>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The prompt is a caller's private text: logs must not carry it.
        f.debug_struct("Job").field("params", &self.params).finish_non_exhaustive()
    }
}

/// The text a sequence starts from.
#[derive(Clone, PartialEq, Eq)]
pub enum Prompt {
    /// A conversation, laid out by the model's own chat template.
    Chat {
        /// The turns, oldest first.
        messages: Vec<PromptMessage>,
        /// Functions the model is told of, where its template has a place for them.
        tools: Vec<PromptTool>,
        /// Whether the template is to open the assistant's turn.
        add_generation_prompt: bool,
    },
    /// Text taken as it is. Control tokens in it are ordinary text.
    Raw(String),
}

/// One turn of a conversation. Control tokens in any of its texts are ordinary text: a caller cannot end a turn or open
/// another from here.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PromptMessage {
    /// `system`, `user`, `assistant`, `tool`, or what else the template knows.
    pub role: String,
    /// The words.
    pub content: String,
    /// The functions an assistant's turn called.
    pub tool_calls: Vec<PromptToolCall>,
    /// The call a tool's turn answers.
    pub tool_call_id: Option<String>,
    /// The speaker's or function's name.
    pub name: Option<String>,
}

impl PromptMessage {
    /// A turn of plain text.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), ..Self::default() }
    }
}

/// A function the model is told of.
#[derive(Clone, PartialEq, Eq)]
pub struct PromptTool {
    /// Its name.
    pub name: String,
    /// What it does.
    pub description: Option<String>,
    /// JSON schema of its arguments.
    pub parameters: Option<Value>,
}

/// A call in an earlier turn.
#[derive(Clone, PartialEq, Eq)]
pub struct PromptToolCall {
    /// The call's identity in the conversation.
    pub id: String,
    /// The function's name.
    pub name: String,
    /// Its arguments: JSON text.
    pub arguments: String,
}

/// Whether a sink can take an event now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// It can.
    Ready,
    /// Not yet: the sequence waits, the others go on.
    Full,
    /// Nobody listens any more: the sequence is dropped.
    Closed,
}

/// Where a sequence's events go. Called on the engine's thread, so neither method may block.
pub trait TokenSink: Send {
    /// Whether [`TokenSink::send`] would succeed now. Asked between tokens.
    fn ready(&mut self) -> Readiness;

    /// Takes one event; `false` means that nobody listens any more.
    ///
    /// Called when [`TokenSink::ready`] said [`Readiness::Ready`]; [`TokenEvent::Failed`] alone comes unasked, once,
    /// as the last event.
    fn send(&mut self, event: TokenEvent) -> bool;
}

/// What happens in a sequence, in order: one `Started`, any number of `Text`, then one `Done` or `Failed`.
#[derive(Debug, Clone, PartialEq)]
pub enum TokenEvent {
    /// The prompt was accepted and is about to be computed.
    Started {
        /// Tokens in the prompt, special tokens included.
        prompt_tokens: usize,
    },
    /// More text. Always whole characters; text that may be the start of a stop string is held back.
    Text {
        /// The new text, possibly empty when tokens carry no text yet logprobs were asked for.
        text: String,
        /// Tokens this event accounts for.
        tokens: usize,
        /// One entry a token when [`GenerationParams::logprobs`] asked for them, else empty.
        logprobs: Vec<TokenLogprob>,
    },
    /// The sequence ended well.
    Done {
        /// Why it ended.
        finish: FinishReason,
        /// What it consumed.
        usage: TokenUsage,
    },
    /// The sequence ended badly.
    Failed(InferenceError),
}

/// Why a sequence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended its turn, or a stop string was met.
    Stop,
    /// `max_tokens` or the end of the context was reached.
    Length,
}

/// What a sequence consumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenUsage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens generated, the end-of-turn token included.
    pub completion_tokens: usize,
}
