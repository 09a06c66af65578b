//! Messages and their parts.

use std::borrow::Cow;

use opossum_core::request::{Content, Image, Message, Part, Role, ToolCall};
use serde::de::{MapAccess, SeqAccess};

use super::fault::{Checked, Fault};
use super::wire::{Anything, Field, Items, Value, WireObject, wire_object};
use super::{MAX_IMAGES, MAX_LABEL, image};

/// Most messages in one request.
pub(super) const MAX_MESSAGES: usize = 4096;

/// `messages`: at least one is demanded by the caller of this.
#[derive(Debug)]
pub(super) struct Messages(pub(super) Vec<Message>);

impl<'de> Value<'de> for Messages {
    const EXPECTED: &'static str = "an array of messages";

    fn list<A: SeqAccess<'de>>(seq: A) -> Result<Checked<Self>, A::Error> {
        let items = <Items<Message, MAX_MESSAGES>>::list(seq)?;
        Ok(items.map(|Items(messages)| Self(messages)))
    }
}

/// Refuses more images in all messages together than a request may hold.
pub(super) fn limit_images(messages: &[Message]) -> Checked<()> {
    let mut count = 0;
    for (index, message) in messages.iter().enumerate() {
        let Content::Parts(parts) = &message.content else { continue };
        count += parts.iter().filter(|part| matches!(part, Part::Image(_))).count();
        if count > MAX_IMAGES {
            let detail = format!("a request may hold at most {MAX_IMAGES} images.");
            return Err(Fault::invalid(detail).under("content").at(index).under("messages"));
        }
    }
    Ok(())
}

wire_object! {
    /// A message as it is sent.
    MessageBody {
        role: "role" => Field<Cow<'de, str>>,
        content: "content" => Field<Content>,
        name: "name" => Field<String>,
        tool_calls: "tool_calls" => Field<Items<ToolCall, { usize::MAX }>>,
        tool_call_id: "tool_call_id" => Field<String>,
        refusal: "refusal" => Field<String>,
        function_call: "function_call" => Field<Anything>,
        audio: "audio" => Field<Anything>,
        // What follows comes back from clients that send our own answers again, or marks a cacheable prefix.
        reasoning_content: "reasoning_content" => Field<Anything>,
        reasoning: "reasoning" => Field<Anything>,
        annotations: "annotations" => Field<Anything>,
        cache_control: "cache_control" => Field<Anything>,
    }
}

impl<'de> Value<'de> for Message {
    const EXPECTED: &'static str = "a message object";

    fn object<A: MapAccess<'de>>(map: A) -> Result<Checked<Self>, A::Error> {
        MessageBody::read(map).map(MessageBody::build)
    }
}

impl MessageBody<'_> {
    fn build(mut self) -> Checked<Message> {
        self.sound()?;
        self.function_call.refuse("function_call", "Send 'tool_calls' instead.")?;
        self.audio.refuse("audio", "")?;
        let role = role(&self.role.need("role")?)?;
        let name = self.name.get("name")?;
        if name.as_ref().is_some_and(|name| name.chars().count() > MAX_LABEL) {
            return Err(Fault::invalid(format!("it may have at most {MAX_LABEL} characters.")).under("name"));
        }
        let tool_calls = self.tool_calls.get("tool_calls")?.map(|Items(calls)| calls).unwrap_or_default();
        if !tool_calls.is_empty() && role != Role::Assistant {
            return Err(Fault::invalid("only an assistant message may hold them.").under("tool_calls"));
        }
        let content = match (self.content.get("content")?, self.refusal.get("refusal")?) {
            (Some(content), _) => content,
            (None, Some(refusal)) if role == Role::Assistant => Content::Text(refusal),
            (None, _) if !tool_calls.is_empty() => Content::Empty,
            (None, _) => return Err(Fault::missing("content")),
        };
        let tool_call_id = tool_call_id(role, self.tool_call_id)?;
        Ok(Message { role, content, name, tool_calls, tool_call_id })
    }
}

fn role(name: &str) -> Checked<Role> {
    let detail = match name {
        "system" | "developer" => return Ok(Role::System),
        "user" => return Ok(Role::User),
        "assistant" => return Ok(Role::Assistant),
        "tool" => return Ok(Role::Tool),
        "function" => "this role is out of date; send 'tool' with a 'tool_call_id'.",
        _ => "expected 'system', 'developer', 'user', 'assistant' or 'tool'.",
    };
    Err(Fault::invalid(detail).under("role"))
}

/// A tool turn must say which call it answers; on other turns the field means nothing and is a mistake.
fn tool_call_id(role: Role, field: Field<String>) -> Checked<Option<String>> {
    let id = field.get("tool_call_id")?;
    match (role, id) {
        (Role::Tool, None) => Err(Fault::missing("tool_call_id")),
        (Role::Tool, Some(id)) if id.is_empty() => {
            Err(Fault::invalid("it must not be empty.").under("tool_call_id"))
        }
        (Role::Tool, Some(id)) => Ok(Some(id)),
        (_, None) => Ok(None),
        (_, Some(_)) => Err(Fault::invalid("only a tool message may hold it.").under("tool_call_id")),
    }
}

impl<'de> Value<'de> for Content {
    const EXPECTED: &'static str = "a string or an array of content parts";

    fn text(text: Cow<'de, str>) -> Checked<Self> {
        Ok(Content::Text(text.into_owned()))
    }

    fn list<A: SeqAccess<'de>>(seq: A) -> Result<Checked<Self>, A::Error> {
        let parts = <Items<Part, { usize::MAX }>>::list(seq)?;
        Ok(parts.and_then(|Items(parts)| match parts.is_empty() {
            true => Err(Fault::invalid("there must be at least one part.")),
            false => Ok(Content::Parts(parts)),
        }))
    }
}

wire_object! {
    /// A content part as it is sent.
    PartBody {
        kind: "type" => Field<Cow<'de, str>>,
        text: "text" => Field<String>,
        refusal: "refusal" => Field<String>,
        image_url: "image_url" => Field<Image>,
        input_audio: "input_audio" => Field<Anything>,
        file: "file" => Field<Anything>,
        cache_control: "cache_control" => Field<Anything>,
    }
}

impl<'de> Value<'de> for Part {
    const EXPECTED: &'static str = "a content part";

    fn object<A: MapAccess<'de>>(map: A) -> Result<Checked<Self>, A::Error> {
        PartBody::read(map).map(PartBody::build)
    }
}

impl PartBody<'_> {
    fn build(mut self) -> Checked<Part> {
        const NO_INPUT: &str = "Parts may be text, images and refusals.";
        self.sound()?;
        self.input_audio.refuse("input_audio", NO_INPUT)?;
        self.file.refuse("file", NO_INPUT)?;
        match &*self.kind.need("type")? {
            "text" => self.text.need("text").map(Part::Text),
            "refusal" => self.refusal.need("refusal").map(Part::Text),
            "image_url" => self.image_url.need("image_url").map(Part::Image),
            "input_audio" | "file" => Err(Fault::unsupported(NO_INPUT).under("type")),
            _ => Err(Fault::invalid("expected 'text', 'image_url' or 'refusal'.").under("type")),
        }
    }
}

wire_object! {
    /// The address of an image as it is sent.
    ImageBody {
        url: "url" => Field<Cow<'de, str>>,
        detail: "detail" => Field<String>,
    }
}

impl<'de> Value<'de> for Image {
    const EXPECTED: &'static str = "an object with a url";

    fn object<A: MapAccess<'de>>(map: A) -> Result<Checked<Self>, A::Error> {
        ImageBody::read(map).map(ImageBody::build)
    }
}

impl ImageBody<'_> {
    fn build(mut self) -> Checked<Image> {
        self.sound()?;
        let detail = self.detail.get("detail")?;
        if !matches!(detail.as_deref(), None | Some("low" | "high" | "auto")) {
            return Err(Fault::invalid("expected 'low', 'high' or 'auto'.").under("detail"));
        }
        // The part is named, not the string in it: the address may be megabytes long.
        let source = image::source(&self.url.need("url")?)?;
        Ok(Image { source, detail })
    }
}
