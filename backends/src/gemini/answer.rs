//! Gemini's answers as events.
//!
//! A whole answer and a stream's chunk are the same message, so one translation serves both: [`ReaderState`]
//! takes chunk after chunk and gives events, and a whole answer is the events of one chunk put together.
//!
//! What is particular here: usage counts are running totals; thoughts are counted beside the answer's tokens
//! and belong to the completion; a candidate's finish reason says `STOP` for tool calls too; and a blocked
//! prompt is a success without candidates.

use std::borrow::Cow;

use opossum_core::answer::{Answer, Choice, FinishReason, StreamEvent, Usage};
use opossum_core::class::FailureClass;
use opossum_core::request::ToolCall;
use rand::RngExt;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::signatures::SignatureStore;
use super::wire::{Candidate, Chunk, Part, PromptFeedback, Text};
use crate::BackendError;

/// Candidates beyond this index are refused: the protocol allows 8.
const MAX_CANDIDATES: u32 = 128;

/// What a stream remembers between chunks.
#[derive(Debug, Default)]
pub(super) struct ReaderState {
    /// The model that was asked for, until the answer named its own.
    asked: Option<Box<str>>,
    candidates: Vec<CandidateState>,
    usage: Option<Usage>,
}

#[derive(Debug)]
struct CandidateState {
    index: u32,
    calls: u32,
    finish: Option<FinishReason>,
}

impl ReaderState {
    /// A reader's beginning, for an answer of the model asked for.
    pub(super) fn new(asked: &str) -> Self {
        Self { asked: Some(asked.into()), candidates: Vec::new(), usage: None }
    }

    /// Takes one chunk's JSON and appends its events.
    ///
    /// # Errors
    /// `BadResponse` for anything that is not a chunk, `Refused` for a blocked prompt, and the class of an
    /// error object. After an error the answer is over.
    pub(super) fn read(
        &mut self,
        json: &[u8],
        signatures: &SignatureStore,
        now: Instant,
        events: &mut Vec<StreamEvent>,
    ) -> Result<(), BackendError> {
        // Counts come with every chunk. Taken off here and put back at the end, they do not stand between
        // texts that can be one event.
        let counted = events.pop_if(|event| matches!(event, StreamEvent::Usage(_)));
        let before = self.usage;
        let result = self.read_chunk(json, signatures, now, events);
        if self.usage != before {
            events.extend(self.usage.map(StreamEvent::Usage));
        } else {
            events.extend(counted);
        }
        result
    }

    fn read_chunk(
        &mut self,
        json: &[u8],
        signatures: &SignatureStore,
        now: Instant,
        events: &mut Vec<StreamEvent>,
    ) -> Result<(), BackendError> {
        let chunk: Chunk<'_> = serde_json::from_slice(json)
            .map_err(|e| BackendError::new(FailureClass::BadResponse, format!("not a gemini answer: {e}")))?;
        if let Some(error) = chunk.error {
            return Err(error.classify(None));
        }
        self.usage = chunk.usage_metadata.map(|u| u.usage()).or(self.usage);
        self.read_model(chunk.model_version, events);
        let candidates = chunk.candidates.unwrap_or_default();
        if let (true, Some(reason)) = (candidates.is_empty(), blocked(chunk.prompt_feedback.as_ref())) {
            return Err(BackendError::new(FailureClass::Refused, format!("prompt blocked: {reason}")));
        }
        for candidate in candidates {
            self.read_candidate(candidate, signatures, now, events)?;
        }
        Ok(())
    }

    /// The answer has come to its end: appends the finishes.
    ///
    /// # Errors
    /// `Truncated` when a candidate, or all of it, is missing its finish reason.
    pub(super) fn end(&self, events: &mut Vec<StreamEvent>) -> Result<(), BackendError> {
        if self.candidates.is_empty() {
            return Err(BackendError::new(FailureClass::Truncated, "the answer ended without a candidate"));
        }
        for candidate in &self.candidates {
            let Some(reason) = candidate.finish else {
                return Err(BackendError::new(
                    FailureClass::Truncated,
                    "the answer ended without a finish reason",
                ));
            };
            let calls = candidate.calls > 0 && reason == FinishReason::Stop;
            let reason = if calls { FinishReason::ToolCalls } else { reason };
            events.push(StreamEvent::Finish { index: candidate.index, reason });
        }
        Ok(())
    }

    fn read_model(&mut self, version: Option<Text<'_>>, events: &mut Vec<StreamEvent>) {
        let Some(version) = version else { return };
        if let Some(asked) = self.asked.take()
            && *asked != *version.0
        {
            events.push(StreamEvent::Model(version.0.into_owned()));
        }
    }

    fn read_candidate(
        &mut self,
        candidate: Candidate<'_>,
        signatures: &SignatureStore,
        now: Instant,
        events: &mut Vec<StreamEvent>,
    ) -> Result<(), BackendError> {
        let state = self.candidate(candidate.index.unwrap_or(0))?;
        for part in candidate.content.and_then(|c| c.parts).unwrap_or_default() {
            state.read_part(part, signatures, now, events);
        }
        // Some models say a reason with every chunk, so the end of the answer, not the reason, finishes.
        if let Some(reason) = candidate.finish_reason {
            state.finish = finish_reason(&reason.0)?.or(state.finish);
        }
        Ok(())
    }

    fn candidate(&mut self, index: u32) -> Result<&mut CandidateState, BackendError> {
        if index >= MAX_CANDIDATES {
            return Err(BackendError::new(FailureClass::BadResponse, "candidate index out of range"));
        }
        let at = match self.candidates.iter().position(|c| c.index == index) {
            Some(at) => at,
            None => {
                self.candidates.push(CandidateState { index, calls: 0, finish: None });
                self.candidates.len() - 1
            }
        };
        Ok(&mut self.candidates[at])
    }
}

impl CandidateState {
    fn read_part(
        &mut self,
        part: Part<'_>,
        signatures: &SignatureStore,
        now: Instant,
        events: &mut Vec<StreamEvent>,
    ) {
        if let Some(text) = part.text.filter(|t| !t.0.is_empty()) {
            push_text(self.index, text.0, part.thought == Some(true), events);
        }
        let Some(call) = part.function_call else { return };
        let id = match call.id {
            Some(id) if !id.0.is_empty() => id.0.into_owned(),
            _ => new_call_id(),
        };
        let name = call.name.0.into_owned();
        let signature = part.thought_signature.map(|s| s.0.into_owned());
        if let Some(signature) = &signature {
            signatures.put(&id, &name, signature, now);
        }
        events.push(StreamEvent::ToolCall {
            index: self.index,
            call: self.calls,
            id: Some(id),
            name: Some(name),
            arguments: call.args.map_or("{}", RawValue::get).to_owned(),
            signature,
        });
        self.calls += 1;
    }
}

/// Appends text, to the event before it where that is the same kind of text of the same candidate.
fn push_text(index: u32, text: Cow<'_, str>, thought: bool, events: &mut Vec<StreamEvent>) {
    match events.last_mut() {
        Some(StreamEvent::Text { index: last, text: so_far, .. }) if !thought && *last == index => {
            so_far.push_str(&text);
        }
        Some(StreamEvent::Reasoning { index: last, text: so_far }) if thought && *last == index => {
            so_far.push_str(&text);
        }
        _ if thought => events.push(StreamEvent::Reasoning { index, text: text.into_owned() }),
        _ => events.push(StreamEvent::Text { index, text: text.into_owned(), logprobs: None }),
    }
}

fn blocked<'a>(feedback: Option<&'a PromptFeedback<'_>>) -> Option<&'a str> {
    let reason = &feedback?.block_reason.as_ref()?.0;
    (**reason != *"BLOCK_REASON_UNSPECIFIED").then_some(&**reason)
}

/// A finish reason in our terms; `None` for one that says nothing.
///
/// An answer that ended for a reason we do not know may be cut short, so it never passes as complete.
fn finish_reason(reason: &str) -> Result<Option<FinishReason>, BackendError> {
    Ok(match reason {
        "" | "FINISH_REASON_UNSPECIFIED" => None,
        "STOP" => Some(FinishReason::Stop),
        "MAX_TOKENS" => Some(FinishReason::Length),
        "SAFETY"
        | "RECITATION"
        | "LANGUAGE"
        | "BLOCKLIST"
        | "PROHIBITED_CONTENT"
        | "SPII"
        | "MODEL_ARMOR"
        | "IMAGE_SAFETY"
        | "IMAGE_PROHIBITED_CONTENT"
        | "IMAGE_RECITATION" => Some(FinishReason::ContentFilter),
        other => {
            let detail = format!("the answer ended with {other}");
            return Err(BackendError::new(FailureClass::BadResponse, detail));
        }
    })
}

/// An identity for a call that came without one: 128 random bits, so that no one can guess another's.
fn new_call_id() -> String {
    let bits: u128 = rand::rng().random();
    format!("call_{bits:032x}")
}

/// A whole answer from the body of `generateContent`.
///
/// # Errors
/// As [`ReaderState::read`] and [`ReaderState::end`].
pub(super) fn whole(
    body: &[u8],
    asked: &str,
    signatures: &SignatureStore,
    now: Instant,
) -> Result<Answer, BackendError> {
    let (mut state, mut events) = (ReaderState::new(asked), Vec::new());
    state.read(body, signatures, now, &mut events)?;
    state.end(&mut events)?;
    let mut answer = Answer { model: asked.to_owned(), choices: Vec::new(), usage: None };
    for event in events {
        fold(event, &mut answer);
    }
    answer.choices.sort_by_key(|c| c.index);
    Ok(answer)
}

/// Adds one event to a whole answer.
fn fold(event: StreamEvent, answer: &mut Answer) {
    match event {
        StreamEvent::Text { index, text, .. } => {
            choice(answer, index).text.get_or_insert_default().push_str(&text);
        }
        StreamEvent::Reasoning { index, text } => {
            choice(answer, index).reasoning.get_or_insert_default().push_str(&text);
        }
        StreamEvent::Refusal { index, text } => {
            choice(answer, index).refusal.get_or_insert_default().push_str(&text);
        }
        StreamEvent::ToolCall { index, id, name, arguments, signature, .. } => {
            let (id, name) = (id.unwrap_or_default(), name.unwrap_or_default());
            choice(answer, index).tool_calls.push(ToolCall { id, name, arguments, signature });
        }
        StreamEvent::Finish { index, reason } => {
            let choice = choice(answer, index);
            choice.finish = reason;
            if choice.tool_calls.is_empty() {
                choice.text.get_or_insert_default();
            }
        }
        StreamEvent::Usage(usage) => answer.usage = Some(usage),
        StreamEvent::Model(model) => answer.model = model,
    }
}

fn choice(answer: &mut Answer, index: u32) -> &mut Choice {
    let at = match answer.choices.iter().position(|c| c.index == index) {
        Some(at) => at,
        None => {
            let mut choice = Choice::text(index, "", FinishReason::Stop);
            choice.text = None;
            answer.choices.push(choice);
            answer.choices.len() - 1
        }
    };
    &mut answer.choices[at]
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
