//! Request bodies of the OpenAI dialect.
//!
//! One pass over the bytes reads the JSON straight into typed fields; a second look at those fields checks
//! ranges and what must go together. Every error names the field as a path. Decisions where the dialect leaves
//! room:
//!
//! - A field that is not known here, or that would change the answer and cannot be honoured, is a 400
//!   `unsupported_parameter`; it is never dropped in silence. Null is the same as absent for every known field.
//! - Accepted without effect on the answer: `metadata`, `service_tier` (`auto`, `default`),
//!   `safety_identifier`, `prompt_cache_key`, `store: false`, `cache_control` marks, the name and description
//!   of a response schema where a backend has no place for them, and those fields of an assistant turn that
//!   clients send back as they got them (`reasoning_content`, `annotations`). `user` goes to upstreams that
//!   take it.
//! - A key that is twice in one object is a 400 `invalid_json`: two readers of one body must not see two
//!   different requests. (Inside schemas, which are passed on as text, keys are not compared.)
//! - Inputs to embed are all texts or all token ids; an empty one is refused, as OpenAI does.
//! - Up to 16 stop strings and 16 choices are taken, where OpenAI takes 4 and 128.

mod embedding;
pub(crate) mod fault;
mod image;
mod message;
mod params;
#[cfg(test)]
mod tests;
mod tools;
mod url;
pub(crate) mod wire;

use opossum_core::request::{GenerateRequest, Prompt};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};

pub use self::embedding::{DecodedEmbedding, VectorFormat, decode_embedding};
use self::fault::{Checked, Fault};
use self::message::Messages;
use self::params::{LogitBias, Sampling, Stop, StreamOptions};
use self::tools::{ResponseFormatField, ToolChoiceField, Tools};
use self::wire::{AnyObject, Anything, Field, Items, Value, WireObject, wire_object};
use crate::http::error::{ApiError, Code};

/// Most images in one request.
pub const MAX_IMAGES: usize = 8;
/// Longest `model` and `user`, in characters.
const MAX_LABEL: usize = 256;

/// A request body after translation.
#[derive(Debug)]
pub struct Decoded {
    /// What is asked; its `stream` is set as well.
    pub request: GenerateRequest,
    /// The model as the caller named it: `auto`, an alias or `service/model`.
    pub model: String,
    /// Whether the caller wants server-sent events.
    pub stream: bool,
    /// Whether a stream ends with a frame that holds the usage.
    pub include_usage: bool,
}

/// Translates the body of `POST /v1/chat/completions`.
///
/// # Errors
/// A 400 with code `invalid_json`, `missing_parameter`, `invalid_value`, `unsupported_parameter`,
/// `invalid_image` or `invalid_image_url`, naming the field wherever there is one to name.
pub fn decode_chat(bytes: &[u8]) -> Result<Decoded, ApiError> {
    let body: ChatBody<'_> = read(bytes)?;
    body.build().map_err(ApiError::from)
}

/// Translates the body of `POST /v1/completions`.
///
/// # Errors
/// As [`decode_chat`].
pub fn decode_completion(bytes: &[u8]) -> Result<Decoded, ApiError> {
    let body: CompletionBody<'_> = read(bytes)?;
    body.build().map_err(ApiError::from)
}

wire_object! {
    /// The body of a chat request.
    ChatBody {
        model: "model" => Field<String>,
        messages: "messages" => Field<Messages>,
        stream: "stream" => Field<bool>,
        stream_options: "stream_options" => Field<StreamOptions>,
        temperature: "temperature" => Field<f64>,
        top_p: "top_p" => Field<f64>,
        top_k: "top_k" => Field<i128>,
        max_tokens: "max_tokens" => Field<i128>,
        max_completion_tokens: "max_completion_tokens" => Field<i128>,
        stop: "stop" => Field<Stop>,
        seed: "seed" => Field<i128>,
        n: "n" => Field<i128>,
        presence_penalty: "presence_penalty" => Field<f64>,
        frequency_penalty: "frequency_penalty" => Field<f64>,
        logprobs: "logprobs" => Field<bool>,
        top_logprobs: "top_logprobs" => Field<i128>,
        logit_bias: "logit_bias" => LogitBias<'de>,
        reasoning_effort: "reasoning_effort" => Field<std::borrow::Cow<'de, str>>,
        response_format: "response_format" => Field<ResponseFormatField>,
        tools: "tools" => Field<Tools>,
        tool_choice: "tool_choice" => Field<ToolChoiceField>,
        parallel_tool_calls: "parallel_tool_calls" => Field<bool>,
        user: "user" => Field<String>,
        metadata: "metadata" => Field<AnyObject>,
        store: "store" => Field<bool>,
        service_tier: "service_tier" => Field<String>,
        safety_identifier: "safety_identifier" => Field<String>,
        prompt_cache_key: "prompt_cache_key" => Field<String>,
        modalities: "modalities" => Field<Items<String, 16>>,
        functions: "functions" => Field<Anything>,
        function_call: "function_call" => Field<Anything>,
        audio: "audio" => Field<Anything>,
        prediction: "prediction" => Field<Anything>,
        web_search_options: "web_search_options" => Field<Anything>,
        verbosity: "verbosity" => Field<Anything>,
    }
}

wire_object! {
    /// The body of a completion request.
    CompletionBody {
        model: "model" => Field<String>,
        prompt: "prompt" => Field<RawPrompt>,
        suffix: "suffix" => Field<String>,
        echo: "echo" => Field<bool>,
        stream: "stream" => Field<bool>,
        stream_options: "stream_options" => Field<StreamOptions>,
        temperature: "temperature" => Field<f64>,
        top_p: "top_p" => Field<f64>,
        top_k: "top_k" => Field<i128>,
        max_tokens: "max_tokens" => Field<i128>,
        stop: "stop" => Field<Stop>,
        seed: "seed" => Field<i128>,
        n: "n" => Field<i128>,
        best_of: "best_of" => Field<i128>,
        presence_penalty: "presence_penalty" => Field<f64>,
        frequency_penalty: "frequency_penalty" => Field<f64>,
        logprobs: "logprobs" => Field<i128>,
        logit_bias: "logit_bias" => LogitBias<'de>,
        user: "user" => Field<String>,
    }
}

impl ChatBody<'_> {
    fn build(mut self) -> Checked<Decoded> {
        self.sound()?;
        self.refuse_legacy()?;
        let model = model(self.model)?;
        let messages = self.messages.need("messages")?.0;
        if messages.is_empty() {
            return Err(Fault::invalid("there must be at least one message.").under("messages"));
        }
        message::limit_images(&messages)?;
        let mut request = GenerateRequest::chat(messages);
        request.params = Sampling {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            max_tokens: self.max_tokens,
            max_completion_tokens: self.max_completion_tokens,
            stop: self.stop,
            seed: self.seed,
            n: self.n,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            logit_bias: self.logit_bias,
        }
        .check()?;
        request.params.logprobs = params::chat_logprobs(self.logprobs, self.top_logprobs)?;
        request.params.reasoning_effort = params::reasoning_effort(self.reasoning_effort)?;
        if let Some(format) = self.response_format.get("response_format")? {
            request.params.response_format = format.0;
        }
        if let Some(tools) = self.tools.get("tools")? {
            request.tools = tools.0;
        }
        if let Some(choice) = self.tool_choice.get("tool_choice")? {
            request.tool_choice = tools::check_choice(choice.0, &request.tools)?;
        }
        request.parallel_tool_calls = self.parallel_tool_calls.get("parallel_tool_calls")?.unwrap_or(true);
        self.metadata.ignore("metadata")?;
        self.safety_identifier.ignore("safety_identifier")?;
        self.prompt_cache_key.ignore("prompt_cache_key")?;
        finish(request, model, self.user, self.stream, self.stream_options)
    }

    /// Fields that exist in the dialect but cannot be honoured with these values.
    fn refuse_legacy(&mut self) -> Checked<()> {
        const USE_TOOLS: &str = "Send 'tools' and 'tool_choice' instead.";
        std::mem::take(&mut self.functions).refuse("functions", USE_TOOLS)?;
        std::mem::take(&mut self.function_call).refuse("function_call", USE_TOOLS)?;
        std::mem::take(&mut self.audio).refuse("audio", "Answers are text.")?;
        std::mem::take(&mut self.prediction).refuse("prediction", "")?;
        std::mem::take(&mut self.web_search_options).refuse("web_search_options", "")?;
        std::mem::take(&mut self.verbosity).refuse("verbosity", "")?;
        if std::mem::take(&mut self.store).get("store")? == Some(true) {
            return Err(Fault::unsupported("Nothing is stored; leave it out or send false.").under("store"));
        }
        if let Some(Items(modalities)) = std::mem::take(&mut self.modalities).get("modalities")?
            && modalities.iter().any(|modality| modality != "text")
        {
            return Err(Fault::unsupported("Only [\"text\"] is.").under("modalities"));
        }
        match std::mem::take(&mut self.service_tier).get("service_tier")?.as_deref() {
            None | Some("auto" | "default") => Ok(()),
            Some(_) => Err(Fault::unsupported("Only 'auto' and 'default' are.").under("service_tier")),
        }
    }
}

/// Tokens of a completion that names no limit.
const COMPLETION_TOKENS: u32 = 16;

impl CompletionBody<'_> {
    fn build(mut self) -> Checked<Decoded> {
        self.sound()?;
        let model = model(self.model)?;
        let prompt = self.prompt.need("prompt")?.0;
        if self.best_of.get("best_of")?.is_some_and(|best| best != 1) {
            return Err(Fault::unsupported("Only 1 is; send 'n' for several choices.").under("best_of"));
        }
        let suffix = self.suffix.get("suffix")?.filter(|suffix| !suffix.is_empty());
        let echo = self.echo.get("echo")?.unwrap_or(false);
        let mut request = GenerateRequest::chat(Vec::new());
        request.prompt = Prompt::Text { prompt, suffix, echo };
        request.params = Sampling {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            max_tokens: self.max_tokens,
            max_completion_tokens: Field::Absent,
            stop: self.stop,
            seed: self.seed,
            n: self.n,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            logit_bias: self.logit_bias,
        }
        .check()?;
        // The dialect's own default. Without a limit a raw prompt would be continued to the end of the context.
        request.params.max_tokens.get_or_insert(COMPLETION_TOKENS);
        request.params.logprobs = params::completion_logprobs(self.logprobs)?;
        finish(request, model, self.user, self.stream, self.stream_options)
    }
}

/// What both bodies end with.
fn finish(
    mut request: GenerateRequest,
    model: String,
    user: Field<String>,
    stream: Field<bool>,
    options: Field<StreamOptions>,
) -> Checked<Decoded> {
    let stream = stream.get("stream")?.unwrap_or(false);
    let options = options.get("stream_options")?;
    if options.is_some() && !stream {
        return Err(Fault::invalid("it may only be there when 'stream' is true.").under("stream_options"));
    }
    request.user = label(user, "user")?;
    request.stream = stream;
    let include_usage = options.is_some_and(|options| options.include_usage);
    Ok(Decoded { request, model, stream, include_usage })
}

/// A label of the caller's own choice.
fn label(field: Field<String>, name: &str) -> Checked<Option<String>> {
    match field.get(name)? {
        Some(label) if label.chars().count() > MAX_LABEL => {
            Err(Fault::invalid(format!("it may have at most {MAX_LABEL} characters.")).under(name))
        }
        label => Ok(label),
    }
}

fn model(field: Field<String>) -> Checked<String> {
    let model = field.need("model")?;
    let fault = if model.is_empty() {
        Fault::invalid("it must not be empty.")
    } else if model.chars().count() > MAX_LABEL {
        Fault::invalid(format!("it may have at most {MAX_LABEL} characters."))
    } else if model.contains("://") {
        // An address in place of a name is an attempt to have this service call a host of the caller's.
        Fault::unsupported("A model is named, not addressed: 'auto', an alias or 'service/model'.")
    } else {
        return Ok(model);
    };
    Err(fault.under("model"))
}

/// The prompt of a completion: a string, or an array of exactly one.
struct RawPrompt(String);

impl<'de> Value<'de> for RawPrompt {
    const EXPECTED: &'static str = "a string";

    fn text(text: std::borrow::Cow<'de, str>) -> Checked<Self> {
        Ok(Self(text.into_owned()))
    }

    fn list<A: serde::de::SeqAccess<'de>>(seq: A) -> Result<Checked<Self>, A::Error> {
        // The same wording for several prompts, none, and arrays of tokens.
        let one = <Items<String, 1>>::list(seq)?.ok().and_then(|Items(mut prompts)| prompts.pop());
        Ok(one.map(Self).ok_or_else(|| Fault::mistyped("a string or an array of exactly one string")))
    }
}

/// Reads the bytes of a body. The bytes are checked to be UTF-8 as a whole first, which is faster than string
/// by string and leaves no corner unchecked.
fn read<'de, B: WireObject<'de>>(bytes: &'de [u8]) -> Result<B, ApiError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        ApiError::new(Code::InvalidJson, format!("The body is not valid UTF-8 at byte {at}."))
    })?;
    let mut body = B::default();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let outcome = Whole(&mut body).deserialize(&mut deserializer).and_then(|()| deserializer.end());
    match outcome {
        Ok(()) => Ok(body),
        Err(error) => Err(broken(&error, body.at())),
    }
}

/// The messages of the parser are fixed texts with a line and a column; they hold nothing of the body.
fn broken(error: &serde_json::Error, at: Option<&'static str>) -> ApiError {
    let message = match at {
        Some(key) => format!("The body is not valid JSON, in '{key}': {error}."),
        None => format!("The body is not valid JSON: {error}."),
    };
    let fault = ApiError::new(Code::InvalidJson, message);
    match at {
        Some(key) => fault.with_param(key),
        None => fault,
    }
}

struct Whole<'b, B>(&'b mut B);

impl<'de, B: WireObject<'de>> DeserializeSeed<'de> for Whole<'_, B> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, B: WireObject<'de>> Visitor<'de> for Whole<'_, B> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.0.fill(&mut map)
    }
}

/// For each documented object: its name, the keys that are read, and those among them that are only read to be
/// refused by name.
#[cfg(test)]
pub(crate) fn keys() -> [(&'static str, &'static [&'static str], &'static [&'static str]); 6] {
    let refused = &["audio", "function_call", "functions", "prediction", "verbosity", "web_search_options"];
    [
        ("ChatRequest", ChatBody::KEYS, refused),
        ("CompletionRequest", CompletionBody::KEYS, &[]),
        ("EmbeddingRequest", embedding::EmbeddingBody::KEYS, &[]),
        ("ChatMessage", message::MessageBody::KEYS, &["audio", "function_call"]),
        ("ContentPart", message::PartBody::KEYS, &["file", "input_audio"]),
        ("StreamOptions", params::StreamOptionsBody::KEYS, &[]),
    ]
}
