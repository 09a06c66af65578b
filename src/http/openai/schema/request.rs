//! Request bodies.

use utoipa::ToSchema;

use super::either::{CompletionPrompt, EmbeddingInput, MessageContent, Stop};

/// The body of a chat request. A field that no candidate can honour is a 400 that names it.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChatRequest {
    /// `auto`, an alias, or `service/model`.
    #[schema(min_length = 1, max_length = 256, examples("auto"))]
    pub model: String,
    /// The conversation so far.
    #[schema(min_items = 1, max_items = 4096)]
    pub messages: Vec<ChatMessage>,
    /// True for server-sent events.
    pub stream: Option<bool>,
    /// Only with `stream`.
    pub stream_options: Option<StreamOptions>,
    /// 0 takes the likeliest token every time.
    #[schema(minimum = 0, maximum = 2)]
    pub temperature: Option<f64>,
    /// Nucleus mass.
    #[schema(exclusive_minimum = 0, maximum = 1)]
    pub top_p: Option<f64>,
    /// Number of candidate tokens kept. An extension of the dialect.
    #[schema(minimum = 1, maximum = 2147483647)]
    pub top_k: Option<i64>,
    /// Most tokens to generate. The older name of `max_completion_tokens`.
    #[schema(minimum = 1, maximum = 2147483647)]
    pub max_tokens: Option<i64>,
    /// Most tokens to generate. Together with `max_tokens` only when both are the same.
    #[schema(minimum = 1, maximum = 2147483647)]
    pub max_completion_tokens: Option<i64>,
    /// Strings that end the answer.
    pub stop: Option<Stop>,
    /// Seed of the sampler.
    pub seed: Option<i64>,
    /// Number of choices.
    #[schema(minimum = 1, maximum = 16, default = 1)]
    pub n: Option<i64>,
    /// Lowers the chance of tokens that were there at all.
    #[schema(minimum = -2, maximum = 2)]
    pub presence_penalty: Option<f64>,
    /// Lowers the chance of tokens by how often they were there.
    #[schema(minimum = -2, maximum = 2)]
    pub frequency_penalty: Option<f64>,
    /// Whether log probabilities of the chosen tokens are wanted.
    pub logprobs: Option<bool>,
    /// Log probabilities of how many other tokens; only with `logprobs`.
    #[schema(minimum = 0, maximum = 20)]
    pub top_logprobs: Option<i64>,
    /// Biases from -100 to 100 by token id.
    #[schema(value_type = Option<Object>)]
    pub logit_bias: Option<()>,
    /// Effort of reasoning models.
    pub reasoning_effort: Option<ReasoningEffort>,
    /// The shape of the answer's text.
    pub response_format: Option<ResponseFormat>,
    /// Functions the model may call; their names must differ.
    #[schema(max_items = 256)]
    pub tools: Option<Vec<Tool>>,
    /// Which tool must be called.
    pub tool_choice: Option<ToolChoice>,
    /// False forbids several calls in one turn.
    #[schema(default = true)]
    pub parallel_tool_calls: Option<bool>,
    /// The caller's own label of its end user; passed on to backends that take it.
    #[schema(max_length = 256)]
    pub user: Option<String>,
    /// Without effect on the answer.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<()>,
    /// Only false: nothing is stored.
    pub store: Option<bool>,
    /// Only `auto` and `default`; without effect.
    pub service_tier: Option<String>,
    /// Without effect on the answer.
    pub safety_identifier: Option<String>,
    /// Without effect on the answer.
    pub prompt_cache_key: Option<String>,
    /// Only `["text"]`.
    #[schema(max_items = 16)]
    pub modalities: Option<Vec<String>>,
}

/// One turn.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChatMessage {
    /// Who speaks.
    pub role: Role,
    /// What is said; null only in an assistant turn with tool calls or a refusal.
    pub content: Option<MessageContent>,
    /// The speaker's name.
    #[schema(max_length = 256)]
    pub name: Option<String>,
    /// The calls an assistant turn made.
    pub tool_calls: Option<Vec<ToolCall>>,
    /// The call that a tool turn answers; required there.
    pub tool_call_id: Option<String>,
    /// An earlier refusal, as it came.
    pub refusal: Option<String>,
    /// Earlier reasoning, as it came; without effect.
    #[schema(value_type = Option<Value>)]
    pub reasoning_content: Option<()>,
    /// Earlier reasoning under another name; without effect.
    #[schema(value_type = Option<Value>)]
    pub reasoning: Option<()>,
    /// Earlier annotations, as they came; without effect.
    #[schema(value_type = Option<Value>)]
    pub annotations: Option<()>,
    /// A mark of other dialects; without effect.
    #[schema(value_type = Option<Value>)]
    pub cache_control: Option<()>,
}

/// Who speaks; `developer` is the newer name of `system`.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum Role {
    System,
    Developer,
    User,
    Assistant,
    Tool,
}

/// A piece of a turn: text, an image, or an earlier refusal. At most 8 images in a request.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ContentPart {
    /// Which piece.
    #[schema(rename = "type")]
    pub kind: PartType,
    /// The text of a text part.
    pub text: Option<String>,
    /// The image of an image part.
    pub image_url: Option<ImageUrl>,
    /// The text of a refusal part.
    pub refusal: Option<String>,
    /// A mark of other dialects; without effect.
    #[schema(value_type = Option<Value>)]
    pub cache_control: Option<()>,
}

/// Which piece of a turn.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum PartType {
    Text,
    ImageUrl,
    Refusal,
}

/// Where an image is.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageUrl {
    /// `data:image/png;base64,...` (also jpeg, webp and still gif; at most 16.7 million pixels), or an `https`
    /// URL of a public host, which the backend fetches.
    pub url: String,
    /// `low`, `high` or `auto`.
    pub detail: Option<ImageDetail>,
}

/// How closely an image is to be looked at.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum ImageDetail {
    Low,
    High,
    Auto,
}

/// A call the model made.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ToolCall {
    /// The call's identity.
    #[schema(min_length = 1)]
    pub id: String,
    /// Always `function`.
    #[schema(rename = "type")]
    pub kind: Option<ToolType>,
    /// What is called.
    pub function: CalledFunction,
    /// What a vendor attached to the call; send it back as it came.
    pub extra_content: Option<ExtraContent>,
    /// The call's place in a stream; without effect in a request.
    pub index: Option<i64>,
}

/// What kind of tool.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the name is the documentation")]
pub enum ToolType {
    Function,
}

/// The function of a call.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CalledFunction {
    /// Its name.
    #[schema(min_length = 1)]
    pub name: String,
    /// Its arguments: JSON text as the model wrote it, which need not be valid.
    pub arguments: String,
}

/// What vendors attach to a call.
#[derive(Debug, ToSchema)]
pub struct ExtraContent {
    /// What Gemini attaches.
    pub google: Option<GoogleExtra>,
}

/// What Gemini attaches to a call.
#[derive(Debug, ToSchema)]
pub struct GoogleExtra {
    /// Opaque; the next turn needs it.
    pub thought_signature: Option<String>,
}

/// A function the model may call.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// Always `function`.
    #[schema(rename = "type")]
    pub kind: ToolType,
    /// The function.
    pub function: FunctionDefinition,
    /// A mark of other dialects; without effect.
    #[schema(value_type = Option<Value>)]
    pub cache_control: Option<()>,
}

/// The definition of a function.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FunctionDefinition {
    /// Its name.
    #[schema(pattern = "^[A-Za-z0-9_-]{1,64}$")]
    pub name: String,
    /// What it does.
    pub description: Option<String>,
    /// JSON schema of its arguments; passed on as written.
    #[schema(value_type = Option<Object>)]
    pub parameters: Option<()>,
    /// Whether the arguments must follow the schema exactly.
    pub strict: Option<bool>,
    /// A mark of other dialects; without effect.
    #[schema(value_type = Option<Value>)]
    pub cache_control: Option<()>,
}

/// Which tool must be called.
#[derive(Debug, ToSchema)]
#[serde(untagged)]
pub enum ToolChoice {
    /// `none`, `auto` or `required`.
    Mode(ToolMode),
    /// This one.
    Function(NamedTool),
}

/// Whether tools may or must be called.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum ToolMode {
    None,
    Auto,
    Required,
}

/// The tool that must be called; one of `tools`.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NamedTool {
    /// Always `function`.
    #[schema(rename = "type")]
    pub kind: ToolType,
    /// The function.
    pub function: NamedFunction,
}

/// A function by name.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NamedFunction {
    /// Its name.
    pub name: String,
}

/// The shape of the answer's text.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResponseFormat {
    /// Which shape.
    #[schema(rename = "type")]
    pub kind: FormatType,
    /// The schema, for `json_schema`.
    pub json_schema: Option<JsonSchemaFormat>,
}

/// Which shape the answer's text has.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum FormatType {
    Text,
    JsonObject,
    JsonSchema,
}

/// A schema that the answer follows.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JsonSchemaFormat {
    /// Its name.
    #[schema(pattern = "^[A-Za-z0-9_-]{1,64}$")]
    pub name: String,
    /// What it is for; without effect.
    pub description: Option<String>,
    /// The JSON schema; passed on as written.
    #[schema(value_type = Object)]
    pub schema: (),
    /// Whether it must be followed exactly.
    pub strict: Option<bool>,
}

/// Options of a stream.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamOptions {
    /// Whether the stream ends with a frame that holds the usage.
    pub include_usage: Option<bool>,
    /// Only false: frames are not padded.
    pub include_obfuscation: Option<bool>,
}

/// Effort of reasoning models.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum ReasoningEffort {
    None,
    Minimal,
    Low,
    Medium,
    High,
    Xhigh,
}

/// The body of a completion request.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CompletionRequest {
    /// `auto`, an alias, or `service/model`.
    #[schema(min_length = 1, max_length = 256, examples("auto"))]
    pub model: String,
    /// The text to go on from: a string, or an array of exactly one.
    pub prompt: CompletionPrompt,
    /// The text that comes after, for models that fill in.
    pub suffix: Option<String>,
    /// Whether the answer starts with the prompt.
    pub echo: Option<bool>,
    /// True for server-sent events.
    pub stream: Option<bool>,
    /// Only with `stream`.
    pub stream_options: Option<StreamOptions>,
    /// 0 takes the likeliest token every time.
    #[schema(minimum = 0, maximum = 2)]
    pub temperature: Option<f64>,
    /// Nucleus mass.
    #[schema(exclusive_minimum = 0, maximum = 1)]
    pub top_p: Option<f64>,
    /// Number of candidate tokens kept. An extension of the dialect.
    #[schema(minimum = 1, maximum = 2147483647)]
    pub top_k: Option<i64>,
    /// Most tokens to generate.
    #[schema(minimum = 1, maximum = 2147483647)]
    pub max_tokens: Option<i64>,
    /// Strings that end the answer.
    pub stop: Option<Stop>,
    /// Seed of the sampler.
    pub seed: Option<i64>,
    /// Number of choices.
    #[schema(minimum = 1, maximum = 16, default = 1)]
    pub n: Option<i64>,
    /// Only 1.
    #[schema(minimum = 1, maximum = 1)]
    pub best_of: Option<i64>,
    /// Lowers the chance of tokens that were there at all.
    #[schema(minimum = -2, maximum = 2)]
    pub presence_penalty: Option<f64>,
    /// Lowers the chance of tokens by how often they were there.
    #[schema(minimum = -2, maximum = 2)]
    pub frequency_penalty: Option<f64>,
    /// Log probabilities of the chosen tokens and of this many others.
    #[schema(minimum = 0, maximum = 5)]
    pub logprobs: Option<i64>,
    /// Biases from -100 to 100 by token id.
    #[schema(value_type = Option<Object>)]
    pub logit_bias: Option<()>,
    /// The caller's own label of its end user; passed on to backends that take it.
    #[schema(max_length = 256)]
    pub user: Option<String>,
}

/// The body of an embedding request.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EmbeddingRequest {
    /// `auto`, an alias, or `service/model`. `auto` is one embedding model for as long as the service runs.
    #[schema(min_length = 1, max_length = 256, examples("auto"))]
    pub model: String,
    /// What is to be embedded.
    pub input: EmbeddingInput,
    /// How vectors are written: as numbers, or as base64 of little-endian 32-bit floats.
    pub encoding_format: Option<EncodingFormat>,
    /// The length that vectors are to have, for models that can shorten theirs.
    #[schema(minimum = 1, maximum = 65536)]
    pub dimensions: Option<i64>,
    /// The caller's own label of its end user; passed on to backends that take it.
    #[schema(max_length = 256)]
    pub user: Option<String>,
}

/// How vectors are written.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum EncodingFormat {
    Float,
    Base64,
}
