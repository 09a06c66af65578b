//! A request's body, written straight from the domain's types into its bytes.

use opossum_core::class::FailureClass;
use opossum_core::request::{
    Content, Image, ImageSource, Message, Part, Prompt, ResponseFormat, Tool, ToolCall, ToolChoice,
};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::{OllamaConfig, PROTOCOL_CAN};
use crate::json::{self, Each, entry};
use crate::{BackendError, Call};

/// The body of a call.
///
/// # Errors
/// `CallerError`, naming the field, for what the protocol cannot carry: dropped in silence it would give an
/// answer to another question.
pub(super) fn body(call: &Call, config: &OllamaConfig) -> Result<Vec<u8>, BackendError> {
    if let Some(field) = call.request.needs().first_missing(PROTOCOL_CAN) {
        return Err(BackendError::new(
            FailureClass::CallerError,
            format!("the protocol cannot carry `{field}`"),
        ));
    }
    json::write(&Body { call, config })
}

struct Body<'a> {
    call: &'a Call,
    config: &'a OllamaConfig,
}

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let request = &*self.call.request;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("model", self.call.model.as_str())?;
        match &request.prompt {
            Prompt::Chat(messages) => {
                let message = |message| MessageBody { message, all: messages };
                map.serialize_entry("messages", &Each(messages, message))?;
                if !request.tools.is_empty() && request.tool_choice != ToolChoice::None {
                    map.serialize_entry("tools", &Each(&request.tools, ToolBody))?;
                }
            }
            Prompt::Text { prompt, suffix, .. } => {
                map.serialize_entry("prompt", prompt)?;
                // A raw prompt bypasses the model's template, and only the template can place a suffix.
                match suffix {
                    Some(suffix) => map.serialize_entry("suffix", suffix)?,
                    None => map.serialize_entry("raw", &true)?,
                }
            }
        }
        match self.call.response_format() {
            ResponseFormat::Text => {}
            ResponseFormat::JsonObject => map.serialize_entry("format", "json")?,
            ResponseFormat::JsonSchema { schema, .. } => map.serialize_entry("format", schema)?,
        }
        if let Some(effort) = &request.params.reasoning_effort {
            map.serialize_entry("think", &Think(effort))?;
        }
        // Streaming is the default here.
        map.serialize_entry("stream", &request.stream)?;
        // Servers that know these report a prompt that does not fit instead of cutting it; others ignore them.
        map.serialize_entry("truncate", &false)?;
        map.serialize_entry("shift", &false)?;
        entry(&mut map, "keep_alive", self.config.keep_alive.as_ref())?;
        map.serialize_entry("options", &Options { call: self.call, num_ctx: self.config.num_ctx })?;
        map.end()
    }
}

struct Options<'a> {
    call: &'a Call,
    num_ctx: Option<u32>,
}

impl Serialize for Options<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let params = &self.call.request.params;
        let mut map = serializer.serialize_map(None)?;
        entry(&mut map, "temperature", self.call.temperature())?;
        entry(&mut map, "top_p", self.call.top_p())?;
        entry(&mut map, "top_k", self.call.top_k())?;
        entry(&mut map, "num_predict", self.call.max_tokens())?;
        entry(&mut map, "stop", Some(&params.stop).filter(|stop| !stop.is_empty()))?;
        entry(&mut map, "seed", params.seed)?;
        entry(&mut map, "presence_penalty", params.presence_penalty)?;
        entry(&mut map, "frequency_penalty", params.frequency_penalty)?;
        entry(&mut map, "num_ctx", self.num_ctx)?;
        map.end()
    }
}

/// `think` is a switch, or a level for models that have levels.
struct Think<'a>(&'a str);

impl Serialize for Think<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            "none" => serializer.serialize_bool(false),
            "minimal" => serializer.serialize_str("low"),
            "xhigh" => serializer.serialize_str("high"),
            level => serializer.serialize_str(level),
        }
    }
}

struct MessageBody<'a> {
    message: &'a Message,
    /// The conversation, in which a tool's turn finds the name of the tool it answers for.
    all: &'a [Message],
}

impl Serialize for MessageBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let message = self.message;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("role", message.role.as_str())?;
        map.serialize_entry("content", &*message.content.joined_text())?;
        if let Content::Parts(parts) = &message.content {
            let images: Vec<&str> = parts.iter().filter_map(inline_image).collect();
            entry(&mut map, "images", Some(images).filter(|images| !images.is_empty()))?;
        }
        if !message.tool_calls.is_empty() {
            map.serialize_entry("tool_calls", &Each(&message.tool_calls, CallBody))?;
        }
        if let Some(id) = &message.tool_call_id {
            entry(&mut map, "tool_name", self.name_of_call(id))?;
            map.serialize_entry("tool_call_id", id)?;
        }
        map.end()
    }
}

impl MessageBody<'_> {
    fn name_of_call(&self, id: &str) -> Option<&str> {
        let calls = self.all.iter().rev().flat_map(|message| &message.tool_calls);
        calls.into_iter().find(|call| call.id == id).map(|call| call.name.as_str())
    }
}

fn inline_image(part: &Part) -> Option<&str> {
    match part {
        Part::Image(Image { source: ImageSource::Inline { base64, .. }, .. }) => Some(base64),
        // Images by URL were refused before: the protocol has no place for them.
        Part::Image(_) | Part::Text(_) => None,
    }
}

struct CallBody<'a>(&'a ToolCall);

impl Serialize for CallBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &self.0.id)?;
        map.serialize_entry(
            "function",
            &Function { name: &self.0.name, arguments: Arguments(&self.0.arguments) },
        )?;
        map.end()
    }
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    arguments: Arguments<'a>,
}

/// The arguments as the object that the protocol wants.
///
/// The text is what some model wrote and a caller kept. Where it is no JSON object it is passed on as the one
/// member `arguments`, so that the conversation can go on and the model sees what it did.
struct Arguments<'a>(&'a str);

impl Serialize for Arguments<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.0.trim();
        match serde_json::from_str::<&RawValue>(text) {
            Ok(object) if object.get().starts_with('{') => object.serialize(serializer),
            _ => {
                let mut map = serializer.serialize_map(None)?;
                if !text.is_empty() {
                    map.serialize_entry("arguments", text)?;
                }
                map.end()
            }
        }
    }
}

struct ToolBody<'a>(&'a Tool);

impl Serialize for ToolBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("type", "function")?;
        map.serialize_entry("function", &Definition(self.0))?;
        map.end()
    }
}

struct Definition<'a>(&'a Tool);

impl Serialize for Definition<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", &self.0.name)?;
        entry(&mut map, "description", self.0.description.as_ref())?;
        entry(&mut map, "parameters", self.0.parameters.as_ref())?;
        map.end()
    }
}

#[cfg(test)]
mod tests;
