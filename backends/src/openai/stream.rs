//! A streamed answer, from the dialect to the domain.

use opossum_core::answer::StreamEvent;
use opossum_core::class::FailureClass;
use opossum_core::ids::ModelName;
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::answer::made_up_id;
use super::template::{Kind, Template};
use super::wire;
use crate::http::classify::{ErrorBody, Quirks, classify_in_band};
use crate::http::{Decode, Endpoint};
use crate::merge::{push_merged, push_reasoning, push_text};
use crate::sse::{SseEvent, SseSplitter};
use crate::{BackendError, json};

/// The decoder of one stream.
pub(super) struct Decoder {
    splitter: SseSplitter,
    state: State,
    endpoint: Endpoint,
}

/// What must be remembered between two chunks.
struct State {
    asked: ModelName,
    told_model: bool,
    /// Something of the protocol was seen.
    begun: bool,
    choices: SmallVec<[ChoiceState; 1]>,
    template: Template,
    done: bool,
}

struct ChoiceState {
    index: u32,
    finished: bool,
    /// The tool calls begun; a call's place here is its number.
    calls: Vec<CallState>,
}

struct CallState {
    /// The index by which the server names it.
    index: Option<u32>,
    id: String,
}

impl Decoder {
    pub(super) fn new(asked: ModelName, endpoint: Endpoint) -> Self {
        let state = State {
            asked,
            told_model: false,
            begun: false,
            choices: SmallVec::new(),
            template: Template::default(),
            done: false,
        };
        Self { splitter: SseSplitter::default(), state, endpoint }
    }
}

impl Decode for Decoder {
    fn feed(&mut self, bytes: &[u8], out: &mut Vec<StreamEvent>) -> Result<(), BackendError> {
        let state = &mut self.state;
        self.splitter.feed(bytes, |event| state.take(event, out))
    }

    fn is_done(&self) -> bool {
        self.state.done
    }

    fn end(&mut self, out: &mut Vec<StreamEvent>) -> Result<(), BackendError> {
        let state = &mut self.state;
        let rest = std::mem::take(&mut self.splitter).finish(|event| state.take(event, out));
        if state.done || state.is_complete() {
            return rest;
        }
        // A last event that is cut in two is a sign of the same cut, not of a server that talks nonsense;
        // an error that it reported as its last word, however, counts.
        match rest {
            Err(error) if error.class != FailureClass::BadResponse || !state.begun => Err(error),
            Ok(()) if !state.begun => {
                Err(BackendError::new(FailureClass::BadResponse, "the answer is empty"))
            }
            _ => Err(truncated("the stream ended before its choices did")),
        }
    }

    fn scrub(&self, error: BackendError) -> BackendError {
        self.endpoint.scrub(error)
    }
}

impl State {
    fn take(&mut self, event: SseEvent<'_>, out: &mut Vec<StreamEvent>) -> Result<(), BackendError> {
        // What follows the end mark is nobody's answer.
        if self.done || event.data.is_empty() {
            return Ok(());
        }
        if event.data == b"[DONE]" {
            return self.take_done();
        }
        if event.name == b"error" {
            return Err(classify_in_band(&ErrorBody::parse(event.data), Quirks::default()));
        }
        if let Some((index, kind, text)) = self.template.fill(event.data) {
            match kind {
                Kind::Text => push_text(out, index, text),
                Kind::Reasoning => push_reasoning(out, index, text),
            }
            return Ok(());
        }
        let chunk: wire::Completion<'_> = json::read(event.data)?;
        if let Some(error) = chunk.error(event.data) {
            return Err(error);
        }
        self.begun = true;
        if let Some(model) = &chunk.model
            && !self.told_model
        {
            self.told_model = true;
            if model.as_str() != self.asked.as_str() {
                out.push(StreamEvent::Model(model.as_str().to_owned()));
            }
        }
        self.template.learn(event.data, &chunk);
        let filled = self.template.choice();
        if self.choices.iter().any(|choice| choice.finished && choice.index == filled) {
            // What follows a choice's end is not passed on.
            self.template.forget();
        }
        for choice in chunk.choices.into_iter().flatten() {
            self.take_choice(choice, out)?;
        }
        out.extend(chunk.usage.map(|usage| StreamEvent::Usage(usage.into())));
        Ok(())
    }

    /// A proxy in between may have put the end mark behind an answer that was cut, so the mark alone does not
    /// make it whole.
    fn take_done(&mut self) -> Result<(), BackendError> {
        if !self.is_complete() {
            return Err(truncated("the end mark came before the choices ended"));
        }
        self.done = true;
        Ok(())
    }

    fn is_complete(&self) -> bool {
        !self.choices.is_empty() && self.choices.iter().all(|choice| choice.finished)
    }

    fn take_choice(
        &mut self,
        choice: wire::Choice<'_>,
        out: &mut Vec<StreamEvent>,
    ) -> Result<(), BackendError> {
        let index = choice.index;
        let place = match self.choices.iter().position(|known| known.index == index) {
            Some(place) => place,
            None => {
                self.choices.push(ChoiceState { index, finished: false, calls: Vec::new() });
                self.choices.len() - 1
            }
        };
        let state = &mut self.choices[place];
        if state.finished {
            return Ok(());
        }
        let finish = choice.finish()?;
        let logprobs = choice.logprobs;
        let mut text = choice.text;
        if let Some(delta) = choice.delta.or(choice.message) {
            if let Some(reasoning) = delta.reasoning() {
                push_reasoning(out, index, reasoning);
            }
            if let Some(refusal) = not_empty(delta.refusal) {
                push_merged(out, StreamEvent::Refusal { index, text: refusal });
            }
            text = delta.content.or(text);
            push_content(out, index, text, logprobs);
            for call in delta.tool_calls.into_iter().flatten() {
                state.take_call(call, out);
            }
        } else {
            push_content(out, index, text, logprobs);
        }
        if let Some(reason) = finish {
            state.finished = true;
            out.push(StreamEvent::Finish { index, reason });
        }
        Ok(())
    }
}

impl ChoiceState {
    fn take_call(&mut self, call: wire::ToolCall<'_>, out: &mut Vec<StreamEvent>) {
        let signature = call.signature();
        let server_index = call.index;
        let id = not_empty(call.id);
        let (name, arguments) = match call.function {
            Some(function) => (not_empty(function.name), function.arguments),
            None => (None, None),
        };
        let known = self.known_call(server_index, id.as_deref(), name.is_some());
        let is_new = known.is_none();
        let place = known.unwrap_or(self.calls.len());
        let mut first_id = None;
        if is_new {
            let id = id.unwrap_or_else(|| made_up_id(self.index, place));
            first_id = Some(id.clone());
            self.calls.push(CallState { index: server_index, id });
        }
        let event = StreamEvent::ToolCall {
            index: self.index,
            call: u32::try_from(place).unwrap_or(u32::MAX),
            id: first_id,
            name: is_new.then(|| name.unwrap_or_default()),
            arguments: arguments.map(Into::into).unwrap_or_default(),
            signature,
        };
        push_merged(out, event);
    }

    /// The call that a delta goes on with; `None` when it begins one.
    ///
    /// Servers disagree on how a delta names its call: most by `index`, some by nothing at all and one whole
    /// call per chunk, some with index 0 for every call but an identity of its own for each.
    fn known_call(&self, server_index: Option<u32>, id: Option<&str>, has_name: bool) -> Option<usize> {
        let place = match server_index {
            Some(_) => self.calls.iter().rposition(|call| call.index == server_index)?,
            None => self.calls.len().checked_sub(1)?,
        };
        let same = match id {
            Some(id) => self.calls[place].id == id,
            None => server_index.is_some() || !has_name,
        };
        same.then_some(place)
    }
}

fn push_content(
    out: &mut Vec<StreamEvent>,
    index: u32,
    text: Option<wire::Text<'_>>,
    logprobs: Option<&RawValue>,
) {
    // A token without text (a part of a character) has no event to carry its log probabilities.
    let Some(text) = text.filter(|text| !text.as_str().is_empty()) else { return };
    match logprobs {
        None => push_text(out, index, text.as_str()),
        Some(raw) => {
            out.push(StreamEvent::Text { index, text: text.into_owned(), logprobs: Some(raw.to_owned()) });
        }
    }
}

fn not_empty(text: Option<wire::Text<'_>>) -> Option<String> {
    text.filter(|text| !text.as_str().is_empty()).map(wire::Text::into_owned)
}

fn truncated(detail: &str) -> BackendError {
    BackendError::new(FailureClass::Truncated, detail)
}

#[cfg(test)]
mod tests;
