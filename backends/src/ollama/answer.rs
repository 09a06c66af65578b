//! Answers, whole and streamed, from Ollama's dialect to the domain.

use std::borrow::Cow;

use opossum_core::answer::{Answer, Choice, FinishReason, StreamEvent};
use opossum_core::class::FailureClass;
use opossum_core::ids::ModelName;
use opossum_core::request::ToolCall;

use super::{QUIRKS, wire};
use crate::http::classify::{ErrorBody, classify_in_band};
use crate::http::{Decode, Endpoint};
use crate::merge::push_merged;
use crate::ndjson::LineSplitter;
use crate::{BackendError, json};

/// The longest line: the last one of a raw generation may hold the whole context as token numbers.
const MAX_LINE_BYTES: usize = 16 * 1024 * 1024;

/// Reads a whole answer; `asked` is the model that was asked for.
///
/// # Errors
/// `BadResponse` for what is no answer, `Truncated` for one that says it goes on, or the class of a reported
/// error.
pub(super) fn whole(body: &[u8], asked: &ModelName) -> Result<Answer, BackendError> {
    let line = read_line(body)?;
    if !line.done {
        return Err(BackendError::new(FailureClass::Truncated, "the answer says that it is not done"));
    }
    let usage = line.usage();
    let model = if line.model.is_empty() { asked.to_string() } else { line.model.clone().into_owned() };
    let calls = line.message.iter().flat_map(|message| message.tool_calls.iter().flatten());
    let tool_calls: Vec<ToolCall> = calls.zip(0..).map(|(call, place)| tool_call(call, place)).collect();
    let finish = finish(&line.done_reason, !tool_calls.is_empty())?;
    let (text, thinking) = match line.message {
        Some(message) => (message.content, message.thinking),
        None => (line.response, line.thinking),
    };
    let text = (!text.is_empty() || tool_calls.is_empty()).then(|| text.into_owned());
    let reasoning = (!thinking.is_empty()).then(|| thinking.into_owned());
    let choice = Choice { index: 0, text, reasoning, refusal: None, tool_calls, finish, logprobs: None };
    Ok(Answer { model, choices: vec![choice], usage })
}

fn read_line(bytes: &[u8]) -> Result<wire::Line<'_>, BackendError> {
    let line: wire::Line<'_> = json::read(bytes)?;
    if line.error.is_some() {
        return Err(classify_in_band(&ErrorBody::parse(bytes), QUIRKS));
    }
    Ok(line)
}

/// Ollama ends a turn of tool calls with `stop`, like any other.
fn finish(reason: &str, called: bool) -> Result<FinishReason, BackendError> {
    match reason {
        "length" => Ok(FinishReason::Length),
        // The server only moved the model in or out of memory.
        "load" | "unload" => Err(BackendError::new(
            FailureClass::BadResponse,
            "the server loaded the model but did not answer",
        )),
        _ if called => Ok(FinishReason::ToolCalls),
        _ => Ok(FinishReason::Stop),
    }
}

fn tool_call(call: &wire::ToolCall<'_>, place: u32) -> ToolCall {
    let id = if call.id.is_empty() {
        format!("call_{place}_{:08x}", rand::random::<u32>())
    } else {
        call.id.clone().into_owned()
    };
    let arguments = call.function.arguments.map_or("{}", |arguments| arguments.get());
    ToolCall {
        id,
        name: call.function.name.clone().into_owned(),
        arguments: arguments.to_owned(),
        signature: None,
    }
}

/// The decoder of one stream.
pub(super) struct Decoder {
    splitter: LineSplitter,
    state: State,
    endpoint: Endpoint,
}

struct State {
    asked: ModelName,
    told_model: bool,
    /// Something of the protocol was seen.
    begun: bool,
    calls: u32,
    done: bool,
}

impl Decoder {
    pub(super) fn new(asked: ModelName, endpoint: Endpoint) -> Self {
        let state = State { asked, told_model: false, begun: false, calls: 0, done: false };
        Self { splitter: LineSplitter::new(MAX_LINE_BYTES), state, endpoint }
    }
}

impl Decode for Decoder {
    fn feed(&mut self, bytes: &[u8], out: &mut Vec<StreamEvent>) -> Result<(), BackendError> {
        let state = &mut self.state;
        self.splitter.feed(bytes, |line| state.take(line, out))
    }

    fn is_done(&self) -> bool {
        self.state.done
    }

    fn end(&mut self, out: &mut Vec<StreamEvent>) -> Result<(), BackendError> {
        let state = &mut self.state;
        let splitter = std::mem::replace(&mut self.splitter, LineSplitter::new(0));
        match splitter.finish(|line| state.take(line, out)) {
            Ok(()) if state.done => Ok(()),
            // A line that is no JSON because it was cut is a cut; a reported error is what it is.
            Err(error) if error.class != FailureClass::BadResponse || !state.begun => Err(error),
            Ok(()) if !state.begun => {
                Err(BackendError::new(FailureClass::BadResponse, "the answer is empty"))
            }
            _ => {
                Err(BackendError::new(FailureClass::Truncated, "the stream ended before the answer was done"))
            }
        }
    }

    fn scrub(&self, error: BackendError) -> BackendError {
        self.endpoint.scrub(error)
    }
}

impl State {
    fn take(&mut self, line: &[u8], out: &mut Vec<StreamEvent>) -> Result<(), BackendError> {
        if self.done {
            return Ok(());
        }
        let line = read_line(line)?;
        self.begun = true;
        if !self.told_model && !line.model.is_empty() {
            self.told_model = true;
            if line.model != self.asked.as_str() {
                out.push(StreamEvent::Model(line.model.clone().into_owned()));
            }
        }
        let usage = line.usage();
        let (text, thinking, calls) = match line.message {
            Some(message) => (message.content, message.thinking, message.tool_calls),
            None => (line.response, line.thinking, None),
        };
        if let Some(text) = not_empty(thinking) {
            push_merged(out, StreamEvent::Reasoning { index: 0, text });
        }
        if let Some(text) = not_empty(text) {
            push_merged(out, StreamEvent::Text { index: 0, text, logprobs: None });
        }
        for call in calls.into_iter().flatten() {
            let ToolCall { id, name, arguments, signature } = tool_call(&call, self.calls);
            let call = self.calls;
            self.calls += 1;
            out.push(StreamEvent::ToolCall {
                index: 0,
                call,
                id: Some(id),
                name: Some(name),
                arguments,
                signature,
            });
        }
        if line.done {
            let reason = finish(&line.done_reason, self.calls > 0)?;
            self.done = true;
            out.push(StreamEvent::Finish { index: 0, reason });
            out.extend(usage.map(StreamEvent::Usage));
        }
        Ok(())
    }
}

fn not_empty(text: Cow<'_, str>) -> Option<String> {
    (!text.is_empty()).then(|| text.into_owned())
}

#[cfg(test)]
mod tests;
