//! Answers of the OpenAI dialect, written straight into bytes in one pass.
//!
//! Whole answers are here, streams in [`StreamEncoder`], vectors in [`write_embeddings`].

mod embeddings;
mod stream;
#[cfg(test)]
mod tests;

use opossum_core::answer::{Answer, Choice, Usage};
use opossum_core::request::ToolCall;
use serde_json::value::RawValue;

pub use self::embeddings::write_embeddings;
pub use self::stream::{KEEP_ALIVE, StreamEncoder};

/// What every body and frame of one answer begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    /// Identity of the completion, such as `chatcmpl-...`; stays the same over all frames.
    pub id: &'a str,
    /// When it was made, in seconds since the Unix epoch.
    pub created: u64,
    /// The model to name when the backend names none.
    pub model: &'a str,
}

/// Which of the two dialects of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `POST /v1/chat/completions`.
    Chat,
    /// `POST /v1/completions`.
    Completion,
}

impl Kind {
    /// The `object` of a whole answer.
    fn object(self) -> &'static str {
        match self {
            Kind::Chat => "chat.completion",
            Kind::Completion => "text_completion",
        }
    }
}

/// Appends a chat answer as one JSON object.
pub fn write_chat(answer: &Answer, head: &Head<'_>, out: &mut Vec<u8>) {
    write_answer(answer, head, Kind::Chat, out, chat_choice);
}

/// Appends a completion answer as one JSON object. Reasoning, refusals and tool calls have no place in it.
pub fn write_completion(answer: &Answer, head: &Head<'_>, out: &mut Vec<u8>) {
    write_answer(answer, head, Kind::Completion, out, completion_choice);
}

fn write_answer(
    answer: &Answer,
    head: &Head<'_>,
    kind: Kind,
    out: &mut Vec<u8>,
    choice: fn(&Choice, &mut Vec<u8>),
) {
    let texts: usize = answer.choices.iter().filter_map(|choice| choice.text.as_ref()).map(String::len).sum();
    out.reserve(512 + texts + texts / 8);
    let model = if answer.model.is_empty() { head.model } else { &answer.model };
    begin(out, head, kind.object(), model);
    out.extend_from_slice(b",\"choices\":[");
    for (index, one) in answer.choices.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        choice(one, out);
    }
    out.push(b']');
    if let Some(usage) = &answer.usage {
        out.extend_from_slice(b",\"usage\":");
        write_usage(usage, out);
    }
    out.push(b'}');
}

/// `{"id":…,"object":…,"created":…,"model":…`, without an end.
fn begin(out: &mut Vec<u8>, head: &Head<'_>, object: &str, model: &str) {
    out.extend_from_slice(b"{\"id\":");
    string(head.id, out);
    out.extend_from_slice(b",\"object\":");
    string(object, out);
    out.extend_from_slice(b",\"created\":");
    number(head.created, out);
    out.extend_from_slice(b",\"model\":");
    string(model, out);
}

fn chat_choice(choice: &Choice, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"index\":");
    number(choice.index.into(), out);
    out.extend_from_slice(b",\"message\":{\"role\":\"assistant\",\"content\":");
    optional(choice.text.as_deref(), out);
    if let Some(reasoning) = &choice.reasoning {
        out.extend_from_slice(b",\"reasoning_content\":");
        string(reasoning, out);
    }
    out.extend_from_slice(b",\"refusal\":");
    optional(choice.refusal.as_deref(), out);
    if !choice.tool_calls.is_empty() {
        out.extend_from_slice(b",\"tool_calls\":[");
        for (index, call) in choice.tool_calls.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            tool_call(call, out);
        }
        out.push(b']');
    }
    out.push(b'}');
    end_choice(choice, out);
}

fn completion_choice(choice: &Choice, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"index\":");
    number(choice.index.into(), out);
    out.extend_from_slice(b",\"text\":");
    string(choice.text.as_deref().unwrap_or_default(), out);
    end_choice(choice, out);
}

fn end_choice(choice: &Choice, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"logprobs\":");
    raw(choice.logprobs.as_deref(), out);
    out.extend_from_slice(b",\"finish_reason\":\"");
    out.extend_from_slice(choice.finish.as_str().as_bytes());
    out.extend_from_slice(b"\"}");
}

fn tool_call(call: &ToolCall, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"id\":");
    string(&call.id, out);
    out.extend_from_slice(b",\"type\":\"function\",\"function\":{\"name\":");
    string(&call.name, out);
    out.extend_from_slice(b",\"arguments\":");
    string(&call.arguments, out);
    out.push(b'}');
    signature(call.signature.as_deref(), out);
    out.push(b'}');
}

/// Gemini's opaque token, in the place where its own OpenAI-compatible front puts it.
fn signature(signature: Option<&str>, out: &mut Vec<u8>) {
    if let Some(signature) = signature {
        out.extend_from_slice(b",\"extra_content\":{\"google\":{\"thought_signature\":");
        string(signature, out);
        out.extend_from_slice(b"}}");
    }
}

/// The usage object, with its details.
fn write_usage(usage: &Usage, out: &mut Vec<u8>) {
    let fields: [(&[u8], u64, &[u8]); 5] = [
        (b"{\"prompt_tokens\":", usage.prompt, b""),
        (b",\"completion_tokens\":", usage.completion, b""),
        (b",\"total_tokens\":", usage.total(), b""),
        (b",\"prompt_tokens_details\":{\"cached_tokens\":", usage.cached, b"}"),
        (b",\"completion_tokens_details\":{\"reasoning_tokens\":", usage.reasoning, b"}}"),
    ];
    for (name, value, end) in fields {
        out.extend_from_slice(name);
        number(value, out);
        out.extend_from_slice(end);
    }
}

/// A JSON string, escaped.
fn string(text: &str, out: &mut Vec<u8>) {
    // A string into memory cannot fail to serialise.
    serde_json::to_writer(out, text).ok();
}

/// A JSON number.
fn number(value: u64, out: &mut Vec<u8>) {
    // A number into memory cannot fail to serialise.
    serde_json::to_writer(out, &value).ok();
}

fn optional(text: Option<&str>, out: &mut Vec<u8>) {
    match text {
        Some(text) => string(text, out),
        None => out.extend_from_slice(b"null"),
    }
}

/// JSON as an upstream wrote it, on one line: a line break between two tokens, harmless in JSON, would end a
/// line of a server-sent event. Inside JSON strings line breaks are always escaped.
fn raw(json: Option<&RawValue>, out: &mut Vec<u8>) {
    match json {
        None => out.extend_from_slice(b"null"),
        Some(json) => out.extend(json.get().bytes().map(|byte| match byte {
            b'\n' | b'\r' => b' ',
            byte => byte,
        })),
    }
}
