//! A conversation in Gemini's turns.
//!
//! Roles are `user` and `model`, instructions stand apart, and neighbours of one role are one turn. The
//! results of calls form a turn of their own, since Gemini counts them against the calls of the turn before.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use opossum_core::request::{Content, Image, ImageSource, Message, Part, Role, ToolCall};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::request::caller_error;
use super::signatures::SignatureStore;
use super::thinking::Family;
use crate::BackendError;

/// What Google documents for a call whose signature is unknown because another model, or a person, made it.
pub(super) const NO_SIGNATURE: &str = "skip_thought_signature_validator";

#[derive(Serialize)]
pub(super) struct Turn<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    parts: Vec<WirePart<'a>>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct WirePart<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inline_data: Option<Blob<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function_call: Option<FunctionCall<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function_response: Option<FunctionResponse<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thought_signature: Option<Signature<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Blob<'a> {
    mime_type: &'a str,
    data: &'a str,
}

#[derive(Serialize)]
struct FunctionCall<'a> {
    id: &'a str,
    name: &'a str,
    args: Args<'a>,
}

/// Arguments as the object that Gemini wants.
#[derive(Serialize)]
#[serde(untagged)]
enum Args<'a> {
    Object(&'a RawValue),
    None {},
    /// What a model wrote instead of an object, kept for the next turn to see.
    Other {
        input: &'a str,
    },
}

#[derive(Serialize)]
struct FunctionResponse<'a> {
    id: &'a str,
    name: &'a str,
    response: ToolResult<'a>,
}

/// A tool's result as the object that Gemini wants; `output` is its documented key for anything else.
#[derive(Serialize)]
#[serde(untagged)]
enum ToolResult<'a> {
    Object(&'a RawValue),
    Text { output: Cow<'a, str> },
}

#[derive(Serialize)]
#[serde(untagged)]
enum Signature<'a> {
    Given(&'a str),
    Kept(Arc<str>),
}

/// A conversation in Gemini's turns.
pub(super) struct Turns<'a> {
    pub(super) system: Option<Turn<'a>>,
    pub(super) contents: Vec<Turn<'a>>,
}

/// What kind of turn a message makes; neighbours of one kind become one turn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    User,
    Model,
    /// Function responses, which stand alone between the calls and what the user says next.
    Results,
}

impl<'a> Turns<'a> {
    pub(super) fn of(
        messages: &'a [Message],
        family: Family,
        signatures: &SignatureStore,
        now: Instant,
    ) -> Result<Self, BackendError> {
        let names = call_names(messages);
        let (mut system, mut contents, mut last) = (Vec::new(), Vec::<Turn<'a>>::new(), None);
        for message in messages {
            let mut parts = Vec::new();
            let kind = match message.role {
                Role::System => {
                    push_content(&message.content, &mut system)?;
                    continue;
                }
                Role::User => {
                    push_content(&message.content, &mut parts)?;
                    Kind::User
                }
                Role::Assistant => {
                    push_content(&message.content, &mut parts)?;
                    push_calls(&message.tool_calls, family, signatures, now, &mut parts);
                    Kind::Model
                }
                Role::Tool => {
                    push_result(message, &names, &mut parts)?;
                    Kind::Results
                }
            };
            if parts.is_empty() {
                continue;
            }
            match contents.last_mut() {
                Some(turn) if last == Some(kind) => turn.parts.append(&mut parts),
                _ => contents.push(Turn { role: Some(kind.role()), parts }),
            }
            last = Some(kind);
        }
        Ok(Self::placed(system, contents, family))
    }

    /// Puts the instructions where the model takes them.
    fn placed(system: Vec<WirePart<'a>>, mut contents: Vec<Turn<'a>>, family: Family) -> Self {
        if system.is_empty() {
            return Self { system: None, contents };
        }
        // A request of instructions alone has to ask something, and an early Gemma takes no instructions.
        if contents.is_empty() || family == Family::EarlyGemma {
            match contents.first_mut() {
                Some(first) if first.role == Some(Kind::User.role()) => {
                    first.parts.splice(0..0, system);
                }
                _ => contents.insert(0, Turn { role: Some(Kind::User.role()), parts: system }),
            }
            return Self { system: None, contents };
        }
        Self { system: Some(Turn { role: None, parts: system }), contents }
    }
}

impl Kind {
    fn role(self) -> &'static str {
        match self {
            Kind::User | Kind::Results => "user",
            Kind::Model => "model",
        }
    }
}

/// Function names by call id, from all assistant turns.
fn call_names(messages: &[Message]) -> HashMap<&str, &str> {
    messages.iter().flat_map(|m| &m.tool_calls).map(|c| (c.id.as_str(), c.name.as_str())).collect()
}

fn push_content<'a>(content: &'a Content, parts: &mut Vec<WirePart<'a>>) -> Result<(), BackendError> {
    match content {
        Content::Empty => {}
        Content::Text(text) => push_text(text, parts),
        Content::Parts(all) => {
            for part in all {
                match part {
                    Part::Text(text) => push_text(text, parts),
                    Part::Image(image) => push_image(image, parts)?,
                }
            }
        }
    }
    Ok(())
}

fn push_text<'a>(text: &'a str, parts: &mut Vec<WirePart<'a>>) {
    // An empty part is refused; an empty turn says nothing.
    if !text.is_empty() {
        parts.push(WirePart { text: Some(text), ..WirePart::default() });
    }
}

fn push_image<'a>(image: &'a Image, parts: &mut Vec<WirePart<'a>>) -> Result<(), BackendError> {
    match &image.source {
        ImageSource::Inline { mime, base64 } => {
            let blob = Blob { mime_type: mime, data: base64 };
            parts.push(WirePart { inline_data: Some(blob), ..WirePart::default() });
            Ok(())
        }
        ImageSource::Url(_) => Err(caller_error("gemini takes images as data, not by URL")),
    }
}

/// The calls of one assistant turn, each with the signature it came with.
///
/// Of parallel calls only the first is signed, and a turn with any signature is complete. A turn without
/// any was not made by this model (or long ago), and says so on its first call where the model insists.
fn push_calls<'a>(
    calls: &'a [ToolCall],
    family: Family,
    signatures: &SignatureStore,
    now: Instant,
    parts: &mut Vec<WirePart<'a>>,
) {
    let first = parts.len();
    let mut signed = false;
    for call in calls {
        let signature = match call.signature.as_deref() {
            Some(given) if !given.is_empty() => Some(Signature::Given(given)),
            _ => signatures.get(&call.id, &call.name, now).map(Signature::Kept),
        };
        signed |= signature.is_some();
        parts.push(WirePart {
            function_call: Some(FunctionCall { id: &call.id, name: &call.name, args: args(&call.arguments) }),
            thought_signature: signature,
            ..WirePart::default()
        });
    }
    if !signed
        && family.wants_signatures()
        && let Some(part) = parts.get_mut(first)
    {
        part.thought_signature = Some(Signature::Given(NO_SIGNATURE));
    }
}

fn args(arguments: &str) -> Args<'_> {
    match json_object(arguments) {
        Some(object) => Args::Object(object),
        None if arguments.trim().is_empty() => Args::None {},
        None => Args::Other { input: arguments },
    }
}

/// The text as it is, if it is one JSON object.
fn json_object(text: &str) -> Option<&RawValue> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    serde_json::from_str(text).ok()
}

fn push_result<'a>(
    message: &'a Message,
    names: &HashMap<&str, &'a str>,
    parts: &mut Vec<WirePart<'a>>,
) -> Result<(), BackendError> {
    let id = message.tool_call_id.as_deref().unwrap_or_default();
    let name = names.get(id).copied().or(message.name.as_deref());
    let Some(name) = name else {
        return Err(caller_error("a tool message answers no call of this conversation"));
    };
    let response = match message.content.joined_text() {
        Cow::Borrowed(text) => match json_object(text) {
            Some(object) => ToolResult::Object(object),
            None => ToolResult::Text { output: Cow::Borrowed(text) },
        },
        joined @ Cow::Owned(_) => ToolResult::Text { output: joined },
    };
    let response = FunctionResponse { id, name, response };
    parts.push(WirePart { function_response: Some(response), ..WirePart::default() });
    if let Content::Parts(all) = &message.content {
        for part in all {
            if let Part::Image(image) = part {
                push_image(image, parts)?;
            }
        }
    }
    Ok(())
}
