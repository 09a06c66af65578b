//! A request's body, written straight from the domain's types into its bytes.

use std::fmt;

use opossum_core::needs::Needs;
use opossum_core::request::{
    Content, Image, ImageSource, Message, Part, Prompt, ResponseFormat, Tool, ToolCall, ToolChoice,
};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::{MaxTokensField, OpenAiConfig};
use crate::json::{self, Each, entry};
use crate::{BackendError, Call};

/// The body of a call.
///
/// # Errors
/// `Local`, if it cannot be written as JSON, which only a fault of ours can cause.
pub(super) fn body(call: &Call, config: &OpenAiConfig) -> Result<Vec<u8>, BackendError> {
    json::write(&Body { call, config })
}

struct Body<'a> {
    call: &'a Call,
    config: &'a OpenAiConfig,
}

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let request = &*self.call.request;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("model", self.call.model.as_str())?;
        match &request.prompt {
            Prompt::Chat(messages) => {
                let message = |message| MessageBody { message, signatures: self.config.signatures };
                map.serialize_entry("messages", &Each(messages, message))?;
                self.chat_fields(&mut map)?;
            }
            Prompt::Text { prompt, suffix, echo } => {
                map.serialize_entry("prompt", prompt)?;
                entry(&mut map, "suffix", suffix.as_ref())?;
                entry(&mut map, "echo", echo.then_some(true))?;
                entry(&mut map, "max_tokens", self.call.max_tokens())?;
                entry(&mut map, "logprobs", request.params.logprobs)?;
            }
        }
        self.sampling_fields(&mut map)?;
        if request.stream {
            map.serialize_entry("stream", &true)?;
            if self.config.stream_usage {
                map.serialize_entry("stream_options", &IncludeUsage { include_usage: true })?;
            }
        }
        map.end()
    }
}

#[derive(Serialize)]
struct IncludeUsage {
    include_usage: bool,
}

impl Body<'_> {
    fn chat_fields<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        let request = &*self.call.request;
        let limit = match self.config.max_tokens_field {
            MaxTokensField::MaxTokens => "max_tokens",
            MaxTokensField::MaxCompletionTokens => "max_completion_tokens",
        };
        entry(map, limit, self.call.max_tokens())?;
        if let Some(others) = request.params.logprobs {
            map.serialize_entry("logprobs", &true)?;
            map.serialize_entry("top_logprobs", &others)?;
        }
        if !request.tools.is_empty() {
            map.serialize_entry("tools", &Each(&request.tools, ToolBody))?;
            match &request.tool_choice {
                ToolChoice::Auto => {}
                ToolChoice::None => map.serialize_entry("tool_choice", "none")?,
                ToolChoice::Required => map.serialize_entry("tool_choice", "required")?,
                ToolChoice::Function(name) => {
                    map.serialize_entry("tool_choice", &Typed("function", "function", Named { name }))?;
                }
            }
            entry(map, "parallel_tool_calls", (!request.parallel_tool_calls).then_some(false))?;
        }
        Ok(())
    }

    fn sampling_fields<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        let params = &self.call.request.params;
        entry(map, "temperature", self.call.temperature())?;
        entry(map, "top_p", self.call.top_p())?;
        // The request's own value comes only to a server that has the field; a default is left out elsewhere.
        entry(map, "top_k", self.call.top_k().filter(|_| self.config.can.contains(Needs::TOP_K)))?;
        entry(map, "stop", Some(&params.stop).filter(|stop| !stop.is_empty()))?;
        entry(map, "seed", params.seed)?;
        entry(map, "n", Some(params.n).filter(|n| *n != 1))?;
        entry(map, "presence_penalty", params.presence_penalty.filter(|p| *p != 0.0))?;
        entry(map, "frequency_penalty", params.frequency_penalty.filter(|p| *p != 0.0))?;
        entry(map, "logit_bias", params.logit_bias.as_ref())?;
        entry(map, "reasoning_effort", params.reasoning_effort.as_ref())?;
        match self.call.response_format() {
            ResponseFormat::Text => {}
            ResponseFormat::JsonObject if self.lacks_default_json() => {}
            ResponseFormat::JsonObject => {
                map.serialize_entry("response_format", &TypeOnly { kind: "json_object" })?;
            }
            ResponseFormat::JsonSchema { name, schema, strict } => {
                let schema = JsonSchema { name, schema, strict: *strict };
                map.serialize_entry("response_format", &Typed("json_schema", "json_schema", schema))?;
            }
        }
        entry(map, "user", self.call.request.user.as_ref())
    }

    fn lacks_default_json(&self) -> bool {
        let asked = matches!(self.call.request.params.response_format, ResponseFormat::JsonObject);
        !asked && !self.config.can.contains(Needs::JSON_OBJECT)
    }
}

#[derive(Serialize)]
struct TypeOnly {
    #[serde(rename = "type")]
    kind: &'static str,
}

#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct JsonSchema<'a> {
    name: &'a str,
    schema: &'a serde_json::value::RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
}

/// `{"type": T, KEY: VALUE}`, the dialect's way of writing a variant.
struct Typed<T>(&'static str, &'static str, T);

impl<T: Serialize> Serialize for Typed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("type", self.0)?;
        map.serialize_entry(self.1, &self.2)?;
        map.end()
    }
}

struct MessageBody<'a> {
    message: &'a Message,
    signatures: bool,
}

impl Serialize for MessageBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let message = self.message;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("role", message.role.as_str())?;
        match &message.content {
            // Null says "no text, only calls"; anywhere else servers want a string.
            Content::Empty if !message.tool_calls.is_empty() => map.serialize_entry("content", &())?,
            Content::Empty => map.serialize_entry("content", "")?,
            Content::Text(text) => map.serialize_entry("content", text)?,
            Content::Parts(parts) => map.serialize_entry("content", &Each(parts, PartBody))?,
        }
        entry(&mut map, "name", message.name.as_ref())?;
        if !message.tool_calls.is_empty() {
            let call = |call| CallBody { call, signatures: self.signatures };
            map.serialize_entry("tool_calls", &Each(&message.tool_calls, call))?;
        }
        entry(&mut map, "tool_call_id", message.tool_call_id.as_ref())?;
        map.end()
    }
}

struct PartBody<'a>(&'a Part);

impl Serialize for PartBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Part::Text(text) => Typed("text", "text", text).serialize(serializer),
            Part::Image(image) => Typed("image_url", "image_url", ImageBody(image)).serialize(serializer),
        }
    }
}

struct ImageBody<'a>(&'a Image);

impl Serialize for ImageBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match &self.0.source {
            ImageSource::Url(url) => map.serialize_entry("url", url)?,
            ImageSource::Inline { mime, base64 } => map.serialize_entry("url", &DataUrl { mime, base64 })?,
        }
        entry(&mut map, "detail", self.0.detail.as_ref())?;
        map.end()
    }
}

/// A `data:` URL, written without being put together first: images are large.
struct DataUrl<'a> {
    mime: &'a str,
    base64: &'a str,
}

impl fmt::Display for DataUrl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "data:{};base64,{}", self.mime, self.base64)
    }
}

impl Serialize for DataUrl<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

struct CallBody<'a> {
    call: &'a ToolCall,
    signatures: bool,
}

impl Serialize for CallBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &self.call.id)?;
        map.serialize_entry("type", "function")?;
        let function = Function { name: &self.call.name, arguments: &self.call.arguments };
        map.serialize_entry("function", &function)?;
        if let Some(thought_signature) = self.call.signature.as_deref().filter(|_| self.signatures) {
            map.serialize_entry("extra_content", &ExtraContent { google: Google { thought_signature } })?;
        }
        map.end()
    }
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    arguments: &'a str,
}

#[derive(Serialize)]
struct ExtraContent<'a> {
    google: Google<'a>,
}

#[derive(Serialize)]
struct Google<'a> {
    thought_signature: &'a str,
}

struct ToolBody<'a>(&'a Tool);

impl Serialize for ToolBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Typed("function", "function", Definition(self.0)).serialize(serializer)
    }
}

struct Definition<'a>(&'a Tool);

impl Serialize for Definition<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", &self.0.name)?;
        entry(&mut map, "description", self.0.description.as_ref())?;
        entry(&mut map, "parameters", self.0.parameters.as_ref())?;
        entry(&mut map, "strict", self.0.strict)?;
        map.end()
    }
}

#[cfg(test)]
mod tests;
