//! What is asked, in no vendor's dialect.
//!
//! A front translates its dialect into a [`GenerateRequest`] once; a backend translates that into its
//! upstream's dialect. JSON that we only pass on (tool schemas, response schemas) stays raw text, so that it
//! is neither parsed twice nor reordered.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::needs::Needs;

/// A chat or completion request after validation.
#[derive(Debug, Serialize)]
pub struct GenerateRequest {
    /// Messages or a raw prompt.
    pub prompt: Prompt,
    /// Sampling and shape of the answer.
    pub params: Params,
    /// Tools that the model may call.
    pub tools: Vec<Tool>,
    /// Which tool must be called, if any.
    pub tool_choice: ToolChoice,
    /// False when the caller forbids several tool calls in one turn.
    pub parallel_tool_calls: bool,
    /// True when the caller wants a stream. Not part of the cache key.
    #[serde(skip)]
    pub stream: bool,
    /// The caller's own end-user label, passed on where the upstream takes one. Not part of the cache key.
    #[serde(skip)]
    pub user: Option<String>,
}

/// What is to be answered or continued.
#[derive(Debug, Serialize)]
pub enum Prompt {
    /// A conversation.
    Chat(Vec<Message>),
    /// A raw text to be continued, with the text that comes after it where the model can fill in.
    Text {
        /// The text before.
        prompt: String,
        /// The text after.
        suffix: Option<String>,
        /// True when the answer starts with the prompt itself.
        echo: bool,
    },
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions; `developer` of newer dialects is the same role.
    System,
    /// The person or program that asks.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
}

impl Role {
    /// The role's name in the OpenAI dialect (and in chat templates).
    pub fn as_str(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        }
    }
}

/// One turn of a conversation.
#[derive(Debug, Serialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: Content,
    /// The speaker's name, where given.
    pub name: Option<String>,
    /// The calls an assistant turn makes.
    pub tool_calls: Vec<ToolCall>,
    /// The call that a tool turn answers.
    pub tool_call_id: Option<String>,
}

impl Message {
    /// A turn of plain text.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self {
            role,
            content: Content::Text(text.into()),
            name: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
        }
    }
}

/// The body of a turn.
#[derive(Debug, PartialEq, Serialize)]
pub enum Content {
    /// Nothing (an assistant turn of tool calls only).
    Empty,
    /// Plain text.
    Text(String),
    /// Text and images in order.
    Parts(Vec<Part>),
}

impl Content {
    /// All text, parts joined by newlines; borrowed when there is just one piece.
    pub fn joined_text(&self) -> std::borrow::Cow<'_, str> {
        match self {
            Content::Empty => "".into(),
            Content::Text(text) => text.as_str().into(),
            Content::Parts(parts) => {
                let mut texts = parts.iter().filter_map(|part| match part {
                    Part::Text(text) => Some(text.as_str()),
                    Part::Image(_) => None,
                });
                match (texts.next(), texts.next()) {
                    (None, _) => "".into(),
                    (Some(only), None) => only.into(),
                    (Some(first), Some(second)) => {
                        let mut all = format!("{first}\n{second}");
                        for text in texts {
                            all.push('\n');
                            all.push_str(text);
                        }
                        all.into()
                    }
                }
            }
        }
    }
}

/// A piece of a turn.
#[derive(Debug, PartialEq, Serialize)]
pub enum Part {
    /// Text.
    Text(String),
    /// An image.
    Image(Image),
}

/// An image in a turn.
#[derive(Debug, PartialEq, Serialize)]
pub struct Image {
    /// Where its bytes are.
    pub source: ImageSource,
    /// `low`, `high` or `auto`, where given.
    pub detail: Option<String>,
}

/// Where an image's bytes are.
#[derive(Debug, PartialEq, Serialize)]
pub enum ImageSource {
    /// In the request.
    Inline {
        /// Media type, such as `image/png`.
        mime: String,
        /// Standard base64 with padding, checked to be decodable.
        base64: String,
    },
    /// At an `https` address that the upstream fetches.
    Url(String),
}

/// A function the model may call.
#[derive(Debug, Serialize)]
pub struct Tool {
    /// The function's name.
    pub name: String,
    /// What it does.
    pub description: Option<String>,
    /// JSON schema of its arguments, as given.
    pub parameters: Option<Box<RawValue>>,
    /// Whether arguments must follow the schema exactly.
    pub strict: Option<bool>,
}

/// Which tool must be called.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub enum ToolChoice {
    /// The model decides (or there are no tools).
    #[default]
    Auto,
    /// No tool may be called.
    None,
    /// Some tool must be called.
    Required,
    /// This one must be called.
    Function(String),
}

/// A call the model made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ToolCall {
    /// The call's identity, unique in the conversation.
    pub id: String,
    /// The function's name.
    pub name: String,
    /// Its arguments: JSON text as the model wrote it.
    pub arguments: String,
    /// The upstream's opaque token that must come back with this call (Gemini's thought signature).
    pub signature: Option<String>,
}

/// Sampling and the shape of the answer. `None` leaves it to the backend.
#[derive(Debug, Serialize)]
pub struct Params {
    /// 0 (greedy) to 2.
    pub temperature: Option<f32>,
    /// Nucleus mass, above 0 to 1.
    pub top_p: Option<f32>,
    /// Number of candidates kept, at least 1.
    pub top_k: Option<u32>,
    /// Most tokens to generate, at least 1.
    pub max_tokens: Option<u32>,
    /// Strings that end the answer; at most 16.
    pub stop: Vec<String>,
    /// Seed of the sampler.
    pub seed: Option<i64>,
    /// Number of choices, at least 1.
    pub n: u32,
    /// -2 to 2.
    pub presence_penalty: Option<f32>,
    /// -2 to 2.
    pub frequency_penalty: Option<f32>,
    /// Some(k): log probabilities of the chosen tokens and of the k best others, k from 0 to 20.
    pub logprobs: Option<u8>,
    /// Token biases, passed on as given.
    pub logit_bias: Option<Box<RawValue>>,
    /// Effort of reasoning models, passed on as given.
    pub reasoning_effort: Option<String>,
    /// Text, JSON or JSON by schema.
    pub response_format: ResponseFormat,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            temperature: None,
            top_p: None,
            top_k: None,
            max_tokens: None,
            stop: Vec::new(),
            seed: None,
            n: 1,
            presence_penalty: None,
            frequency_penalty: None,
            logprobs: None,
            logit_bias: None,
            reasoning_effort: None,
            response_format: ResponseFormat::Text,
        }
    }
}

/// The shape of the answer's text.
#[derive(Debug, Default, Serialize)]
pub enum ResponseFormat {
    /// Anything.
    #[default]
    Text,
    /// A JSON object.
    JsonObject,
    /// JSON that follows a schema.
    JsonSchema {
        /// The schema's name.
        name: String,
        /// The schema, as given.
        schema: Box<RawValue>,
        /// Whether it must be followed exactly.
        strict: Option<bool>,
    },
}

impl GenerateRequest {
    /// A chat request with defaults everywhere else.
    pub fn chat(messages: Vec<Message>) -> Self {
        Self {
            prompt: Prompt::Chat(messages),
            params: Params::default(),
            tools: Vec::new(),
            tool_choice: ToolChoice::Auto,
            parallel_tool_calls: true,
            stream: false,
            user: None,
        }
    }

    /// What an arm must be able to do to honour every field of this request.
    pub fn needs(&self) -> Needs {
        let mut needs = self.prompt.needs() | self.params.needs();
        needs.set(Needs::TOOLS, !self.tools.is_empty() || self.prompt.has_tool_turns());
        needs.set(
            Needs::TOOL_CHOICE,
            matches!(self.tool_choice, ToolChoice::Required | ToolChoice::Function(_)),
        );
        needs.set(Needs::SERIAL_TOOLS, !self.parallel_tool_calls && !self.tools.is_empty());
        needs
    }

    /// Whether an answer may be stored without being asked to: it is meant to be the same every time.
    pub fn is_repeatable(&self) -> bool {
        self.params.temperature == Some(0.0) || self.params.seed.is_some()
    }
}

impl Prompt {
    fn needs(&self) -> Needs {
        match self {
            Prompt::Chat(messages) => messages.iter().fold(Needs::CHAT, |needs, m| needs | m.content.needs()),
            Prompt::Text { suffix, echo, .. } => {
                let mut needs = Needs::COMPLETION;
                needs.set(Needs::SUFFIX, suffix.is_some());
                needs.set(Needs::ECHO, *echo);
                needs
            }
        }
    }

    fn has_tool_turns(&self) -> bool {
        match self {
            Prompt::Chat(messages) => {
                messages.iter().any(|m| m.role == Role::Tool || !m.tool_calls.is_empty())
            }
            Prompt::Text { .. } => false,
        }
    }
}

impl Content {
    fn needs(&self) -> Needs {
        let Content::Parts(parts) = self else { return Needs::empty() };
        parts.iter().fold(Needs::empty(), |needs, part| match part {
            Part::Text(_) => needs,
            Part::Image(Image { source: ImageSource::Inline { .. }, .. }) => needs | Needs::IMAGES,
            Part::Image(Image { source: ImageSource::Url(_), .. }) => needs | Needs::IMAGE_URLS,
        })
    }
}

impl Params {
    fn needs(&self) -> Needs {
        let mut needs = Needs::empty();
        needs.set(Needs::STOP, !self.stop.is_empty());
        needs.set(Needs::SEED, self.seed.is_some());
        needs.set(Needs::TOP_K, self.top_k.is_some());
        needs.set(Needs::MANY_CHOICES, self.n > 1);
        needs.set(Needs::LOGPROBS, self.logprobs.is_some());
        needs.set(Needs::LOGIT_BIAS, self.logit_bias.is_some());
        needs.set(Needs::REASONING, self.reasoning_effort.is_some());
        // A penalty of zero is what every backend does anyway.
        let penalised = |p: Option<f32>| p.is_some_and(|p| p != 0.0);
        needs.set(Needs::PENALTIES, penalised(self.presence_penalty) || penalised(self.frequency_penalty));
        match self.response_format {
            ResponseFormat::Text => {}
            ResponseFormat::JsonObject => needs |= Needs::JSON_OBJECT,
            ResponseFormat::JsonSchema { .. } => needs |= Needs::JSON_SCHEMA,
        }
        needs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_chat_needs_only_chat() {
        let request = GenerateRequest::chat(vec![Message::text(Role::User, "hi")]);
        assert_eq!(request.needs(), Needs::CHAT);
        assert!(!request.is_repeatable());
    }

    #[test]
    fn every_special_field_becomes_a_need() {
        let mut request = GenerateRequest::chat(vec![Message {
            content: Content::Parts(vec![
                Part::Text("what is this".into()),
                Part::Image(Image {
                    source: ImageSource::Url("https://a.example/i.png".into()),
                    detail: None,
                }),
            ]),
            ..Message::text(Role::User, "")
        }]);
        request.params.seed = Some(1);
        request.params.presence_penalty = Some(0.0);
        request.tool_choice = ToolChoice::Required;
        let needs = request.needs();
        assert_eq!(needs, Needs::CHAT | Needs::IMAGE_URLS | Needs::SEED | Needs::TOOL_CHOICE);
        assert!(request.is_repeatable());
    }

    #[test]
    fn text_of_parts_is_joined_in_order() {
        let image = Part::Image(Image { source: ImageSource::Url("https://a.example".into()), detail: None });
        let content = Content::Parts(vec![Part::Text("a".into()), image, Part::Text("b".into())]);
        assert_eq!(content.joined_text(), "a\nb");
    }
}
