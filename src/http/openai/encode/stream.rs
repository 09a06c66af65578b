//! Streams of the OpenAI dialect: stream events into server-sent events.
//!
//! A text event is by far the most frequent one. All that does not change between two of them (identity, time,
//! model, the shape around the text) is laid out once; writing one is two copies and an escape.

use opossum_core::answer::{FinishReason, StreamEvent, Usage};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::{Head, Kind, begin, number, raw, signature, string, write_usage};
use crate::http::error::ApiError;

/// A comment that keeps proxies and clients from giving up on a silent stream.
pub const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

/// Writes one answer as server-sent events.
///
/// The order of calls is [`encode`](Self::encode) any number of times, then either
/// [`finish`](Self::finish) or [`fail`](Self::fail), once.
#[derive(Debug)]
pub struct StreamEncoder {
    id: String,
    created: u64,
    model: String,
    kind: Kind,
    include_usage: bool,
    /// `data: {"id":…,"model":…`: what every frame begins with.
    opening: Vec<u8>,
    /// `opening` and what stands before the text of choice 0.
    before_text: Vec<u8>,
    /// Choices that have begun, by index, and whether they have ended.
    choices: SmallVec<[Option<Progress>; 1]>,
    usage: Option<Usage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Begun,
    Ended,
}

impl StreamEncoder {
    /// An encoder for one answer. With `include_usage` the stream ends with a frame that holds the usage, and
    /// every other frame says `"usage":null`.
    pub fn new(head: &Head<'_>, kind: Kind, include_usage: bool) -> Self {
        let mut encoder = Self {
            id: head.id.to_owned(),
            created: head.created,
            model: head.model.to_owned(),
            kind,
            include_usage,
            opening: Vec::new(),
            before_text: Vec::new(),
            choices: SmallVec::new(),
            usage: None,
        };
        encoder.lay_out();
        encoder
    }

    fn lay_out(&mut self) {
        let object = match self.kind {
            Kind::Chat => "chat.completion.chunk",
            Kind::Completion => "text_completion",
        };
        self.opening.clear();
        self.opening.extend_from_slice(b"data: ");
        let head = Head { id: &self.id, created: self.created, model: &self.model };
        begin(&mut self.opening, &head, object, head.model);
        self.opening.extend_from_slice(b",\"choices\":[");
        self.before_text.clear();
        self.before_text.extend_from_slice(&self.opening);
        self.before_text.extend_from_slice(match self.kind {
            Kind::Chat => b"{\"index\":0,\"delta\":{\"content\":",
            Kind::Completion => b"{\"index\":0,\"text\":",
        });
    }

    /// Appends the frames of these events to `out`.
    pub fn encode(&mut self, events: &[StreamEvent], out: &mut Vec<u8>) {
        for event in events {
            match event {
                StreamEvent::Text { index, text, logprobs } => {
                    self.text(*index, text, logprobs.as_deref(), out);
                }
                StreamEvent::Reasoning { index, text } => {
                    self.side_text(*index, "reasoning_content", text, out);
                }
                StreamEvent::Refusal { index, text } => self.side_text(*index, "refusal", text, out),
                StreamEvent::ToolCall { .. } => self.tool_call(event, out),
                StreamEvent::Finish { index, reason } => self.end_choice(*index, *reason, out),
                StreamEvent::Usage(usage) => self.usage = Some(*usage),
                StreamEvent::Model(model) => {
                    self.model.clone_from(model);
                    self.lay_out();
                }
            }
        }
    }

    /// The last usage seen.
    pub fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// Whether the answer is complete: a choice has begun, and all that have begun have ended.
    pub fn is_complete(&self) -> bool {
        let mut begun = self.choices.iter().flatten().peekable();
        begun.peek().is_some() && begun.all(|progress| *progress == Progress::Ended)
    }

    /// The model that the frames name.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Appends the usage frame, where it was asked for and the usage is known, and `data: [DONE]`. Only for a
    /// stream that [is complete](Self::is_complete).
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if self.include_usage
            && let Some(usage) = &self.usage
        {
            out.extend_from_slice(&self.opening);
            out.extend_from_slice(b"],\"usage\":");
            write_usage(usage, out);
            out.extend_from_slice(b"}\n\n");
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    /// Appends an error frame. The stream ends with it and without `[DONE]`: client libraries raise on the
    /// frame, while a stream that just closes would look complete to them.
    pub fn fail(&mut self, error: &ApiError, request_id: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(b"data: ");
        error.write_body(request_id, out);
        out.extend_from_slice(b"\n\n");
    }

    fn text(&mut self, index: u32, text: &str, logprobs: Option<&RawValue>, out: &mut Vec<u8>) {
        self.begin_choice(index, out);
        if index == 0 {
            out.extend_from_slice(&self.before_text);
        } else {
            self.open_frame(index, out);
            out.extend_from_slice(match self.kind {
                Kind::Chat => b",\"delta\":{\"content\":".as_slice(),
                Kind::Completion => b",\"text\":".as_slice(),
            });
        }
        string(text, out);
        if self.kind == Kind::Chat {
            out.push(b'}');
        }
        out.extend_from_slice(b",\"logprobs\":");
        raw(logprobs, out);
        self.close_frame(None, out);
    }

    /// Text beside the answer's own; raw completions have no place for it.
    fn side_text(&mut self, index: u32, field: &'static str, text: &str, out: &mut Vec<u8>) {
        if self.kind == Kind::Completion {
            return;
        }
        self.begin_choice(index, out);
        self.open_frame(index, out);
        out.extend_from_slice(b",\"delta\":{\"");
        out.extend_from_slice(field.as_bytes());
        out.extend_from_slice(b"\":");
        string(text, out);
        out.extend_from_slice(b"},\"logprobs\":null");
        self.close_frame(None, out);
    }

    fn tool_call(&mut self, event: &StreamEvent, out: &mut Vec<u8>) {
        let StreamEvent::ToolCall { index, call, id, name, arguments, signature: token } = event else {
            return;
        };
        if self.kind == Kind::Completion {
            return;
        }
        self.begin_choice(*index, out);
        self.open_frame(*index, out);
        out.extend_from_slice(b",\"delta\":{\"tool_calls\":[{\"index\":");
        number((*call).into(), out);
        if let Some(id) = id {
            out.extend_from_slice(b",\"id\":");
            string(id, out);
            out.extend_from_slice(b",\"type\":\"function\"");
        }
        out.extend_from_slice(b",\"function\":{");
        if let Some(name) = name {
            out.extend_from_slice(b"\"name\":");
            string(name, out);
            out.push(b',');
        }
        out.extend_from_slice(b"\"arguments\":");
        string(arguments, out);
        out.push(b'}');
        signature(token.as_deref(), out);
        out.extend_from_slice(b"}]},\"logprobs\":null");
        self.close_frame(None, out);
    }

    fn end_choice(&mut self, index: u32, reason: FinishReason, out: &mut Vec<u8>) {
        self.begin_choice(index, out);
        self.choices[index as usize] = Some(Progress::Ended);
        self.open_frame(index, out);
        out.extend_from_slice(match self.kind {
            Kind::Chat => b",\"delta\":{},\"logprobs\":null".as_slice(),
            Kind::Completion => b",\"text\":\"\",\"logprobs\":null".as_slice(),
        });
        self.close_frame(Some(reason), out);
    }

    /// Notes that a choice has begun; in a chat its first frame says who speaks.
    fn begin_choice(&mut self, index: u32, out: &mut Vec<u8>) {
        let place = index as usize;
        if self.choices.get(place).is_some_and(Option::is_some) {
            return;
        }
        if self.choices.len() <= place {
            self.choices.resize(place + 1, None);
        }
        self.choices[place] = Some(Progress::Begun);
        if self.kind == Kind::Chat {
            self.open_frame(index, out);
            out.extend_from_slice(b",\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null");
            self.close_frame(None, out);
        }
    }

    fn open_frame(&self, index: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.opening);
        out.extend_from_slice(b"{\"index\":");
        number(index.into(), out);
    }

    fn close_frame(&self, reason: Option<FinishReason>, out: &mut Vec<u8>) {
        match reason {
            None => out.extend_from_slice(b",\"finish_reason\":null}]"),
            Some(reason) => {
                out.extend_from_slice(b",\"finish_reason\":\"");
                out.extend_from_slice(reason.as_str().as_bytes());
                out.extend_from_slice(b"\"}]");
            }
        }
        out.extend_from_slice(if self.include_usage { b",\"usage\":null}\n\n" } else { b"}\n\n" });
    }
}
