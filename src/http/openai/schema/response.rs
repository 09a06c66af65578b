//! Answers, whole and in frames.

use utoipa::ToSchema;

use super::either::EmbeddingVector;
use super::request::{CalledFunction, ExtraContent, ToolType};

/// A whole chat answer.
#[derive(Debug, ToSchema)]
pub struct ChatCompletion {
    /// Identity of the answer.
    pub id: String,
    /// Always `chat.completion`.
    #[schema(pattern = "^chat\\.completion$")]
    pub object: String,
    /// When it was made, in seconds since the Unix epoch.
    pub created: u64,
    /// The model that answered.
    pub model: String,
    /// One or more, by index.
    #[schema(min_items = 1)]
    pub choices: Vec<ChatChoice>,
    /// Tokens used; left out where the backend does not say.
    #[schema(required = false)]
    pub usage: Option<Usage>,
}

/// A choice of a whole chat answer.
#[derive(Debug, ToSchema)]
pub struct ChatChoice {
    /// Its place, from 0.
    pub index: u32,
    /// What the model says or calls.
    pub message: AnswerMessage,
    /// Log probabilities, where asked for.
    #[schema(required = true, value_type = Option<Object>)]
    pub logprobs: Option<()>,
    /// Why it ended.
    pub finish_reason: FinishReason,
}

/// The turn of an answer.
#[derive(Debug, ToSchema)]
pub struct AnswerMessage {
    /// Always `assistant`.
    #[schema(pattern = "^assistant$")]
    pub role: String,
    /// The text; null for a turn of tool calls only.
    #[schema(required = true)]
    pub content: Option<String>,
    /// The model's visible reasoning.
    pub reasoning_content: Option<String>,
    /// Why the model refused.
    #[schema(required = true)]
    pub refusal: Option<String>,
    /// The calls the model makes.
    pub tool_calls: Option<Vec<AnswerToolCall>>,
}

/// A call of a whole answer.
#[derive(Debug, ToSchema)]
pub struct AnswerToolCall {
    /// The call's identity.
    pub id: String,
    /// Always `function`.
    #[schema(rename = "type")]
    pub kind: ToolType,
    /// What is called.
    pub function: CalledFunction,
    /// What the vendor attached; send it back with the call.
    pub extra_content: Option<ExtraContent>,
}

/// Why a choice ended.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum FinishReason {
    Stop,
    Length,
    ToolCalls,
    ContentFilter,
}

/// Tokens used.
#[derive(Debug, ToSchema)]
pub struct Usage {
    /// Of the prompt, cached ones included.
    pub prompt_tokens: u64,
    /// Generated, reasoning included.
    pub completion_tokens: u64,
    /// Both together.
    pub total_tokens: u64,
    /// Of which cached.
    pub prompt_tokens_details: PromptTokensDetails,
    /// Of which reasoning.
    pub completion_tokens_details: CompletionTokensDetails,
}

/// Details of the prompt's tokens.
#[derive(Debug, ToSchema)]
pub struct PromptTokensDetails {
    /// Those the upstream had cached.
    pub cached_tokens: u64,
}

/// Details of the generated tokens.
#[derive(Debug, ToSchema)]
pub struct CompletionTokensDetails {
    /// Those of the reasoning.
    pub reasoning_tokens: u64,
}

/// The data of one frame of a chat stream. The stream ends with `data: [DONE]`; one that fails ends with the
/// data of an error instead.
#[derive(Debug, ToSchema)]
pub struct ChatChunk {
    /// Identity of the answer, the same in every frame.
    pub id: String,
    /// Always `chat.completion.chunk`.
    #[schema(pattern = "^chat\\.completion\\.chunk$")]
    pub object: String,
    /// When the answer was begun, in seconds since the Unix epoch.
    pub created: u64,
    /// The model that answers.
    pub model: String,
    /// One; none in the frame that holds the usage.
    #[schema(max_items = 1)]
    pub choices: Vec<ChunkChoice>,
    /// With `stream_options.include_usage`: null, and the usage in the last frame.
    pub usage: Option<Usage>,
}

/// What a frame adds to a choice.
#[derive(Debug, ToSchema)]
pub struct ChunkChoice {
    /// Which choice.
    pub index: u32,
    /// What is added.
    pub delta: Delta,
    /// Log probabilities of what is added, where asked for.
    #[schema(required = true, value_type = Option<Object>)]
    pub logprobs: Option<()>,
    /// Why the choice ended; null until then.
    #[schema(required = true)]
    pub finish_reason: Option<FinishReason>,
}

/// What is added to a turn.
#[derive(Debug, ToSchema)]
pub struct Delta {
    /// `assistant`, in a choice's first frame.
    #[schema(pattern = "^assistant$")]
    pub role: Option<String>,
    /// More text.
    pub content: Option<String>,
    /// More visible reasoning.
    pub reasoning_content: Option<String>,
    /// More of a refusal.
    pub refusal: Option<String>,
    /// More of tool calls.
    pub tool_calls: Option<Vec<DeltaToolCall>>,
}

/// A call that begins, or more of its arguments.
#[derive(Debug, ToSchema)]
pub struct DeltaToolCall {
    /// Which call, from 0.
    pub index: u32,
    /// The call's identity, when it begins.
    pub id: Option<String>,
    /// `function`, when it begins.
    #[schema(rename = "type")]
    pub kind: Option<ToolType>,
    /// What is called.
    pub function: DeltaFunction,
    /// What the vendor attached.
    pub extra_content: Option<ExtraContent>,
}

/// More of a call's function.
#[derive(Debug, ToSchema)]
pub struct DeltaFunction {
    /// Its name, when the call begins.
    pub name: Option<String>,
    /// More of its arguments.
    pub arguments: String,
}

/// A completion: whole, or the data of one frame of its stream.
#[derive(Debug, ToSchema)]
pub struct Completion {
    /// Identity of the answer.
    pub id: String,
    /// Always `text_completion`.
    #[schema(pattern = "^text_completion$")]
    pub object: String,
    /// When it was made, in seconds since the Unix epoch.
    pub created: u64,
    /// The model that answered.
    pub model: String,
    /// One or more, by index; none in the frame that holds the usage.
    pub choices: Vec<CompletionChoice>,
    /// Tokens used.
    pub usage: Option<Usage>,
}

/// A choice of a completion.
#[derive(Debug, ToSchema)]
pub struct CompletionChoice {
    /// Its place, from 0.
    pub index: u32,
    /// The text, or what is added to it.
    pub text: String,
    /// Log probabilities, where asked for.
    #[schema(required = true, value_type = Option<Object>)]
    pub logprobs: Option<()>,
    /// Why it ended; null in a stream until then.
    #[schema(required = true)]
    pub finish_reason: Option<FinishReason>,
}

/// Vectors of inputs.
#[derive(Debug, ToSchema)]
pub struct EmbeddingList {
    /// Always `list`.
    #[schema(pattern = "^list$")]
    pub object: String,
    /// One for each input, in the same order.
    #[schema(min_items = 1)]
    pub data: Vec<Embedding>,
    /// The model that made them. Vectors of different models cannot be compared.
    pub model: String,
    /// Tokens used; left out where the backend does not say.
    #[schema(required = false)]
    pub usage: Option<EmbeddingUsage>,
}

/// The vector of one input.
#[derive(Debug, ToSchema)]
pub struct Embedding {
    /// Always `embedding`.
    #[schema(pattern = "^embedding$")]
    pub object: String,
    /// The input's place, from 0.
    pub index: u64,
    /// The vector.
    pub embedding: EmbeddingVector,
}

/// Tokens that inputs took.
#[derive(Debug, ToSchema)]
pub struct EmbeddingUsage {
    /// Of the inputs.
    pub prompt_tokens: u64,
    /// The same: nothing is generated.
    pub total_tokens: u64,
}
