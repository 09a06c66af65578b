//! Stream events into a whole answer, and a whole answer into stream events.
//!
//! A streamed answer is cached as a whole one, and a cached one can be served as a stream:
//! `collect(replay(answer)) == answer` for every answer that a stream can say. (It cannot say an empty text
//! beside tool calls or a refusal, nor log probabilities of no text; both come back as none.)

mod logprobs;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::answer::{Answer, Choice, FinishReason, StreamEvent, Usage};
use crate::request::ToolCall;
use serde_json::value::RawValue;

/// Folds the events of one stream into an answer.
#[derive(Debug, Default)]
pub struct Collector {
    model: String,
    choices: BTreeMap<u32, Growing>,
    usage: Option<Usage>,
}

#[derive(Debug, Default)]
struct Growing {
    text: String,
    reasoning: String,
    refusal: String,
    tool_calls: BTreeMap<u32, ToolCall>,
    logprobs: Vec<Box<RawValue>>,
    finish: Option<FinishReason>,
}

impl Collector {
    /// A collector for an answer of this model, unless the stream names another one.
    pub fn new(model: impl Into<String>) -> Self {
        Self { model: model.into(), ..Self::default() }
    }

    /// Adds a batch of events.
    pub fn add(&mut self, events: &[StreamEvent]) {
        events.iter().for_each(|event| self.push(event));
    }

    /// Adds one event.
    pub fn push(&mut self, event: &StreamEvent) {
        match event {
            StreamEvent::Text { index, text, logprobs } => {
                let choice = self.choice(*index);
                choice.text.push_str(text);
                choice.logprobs.extend(logprobs.clone());
            }
            StreamEvent::Reasoning { index, text } => self.choice(*index).reasoning.push_str(text),
            StreamEvent::Refusal { index, text } => self.choice(*index).refusal.push_str(text),
            StreamEvent::ToolCall { index, call, id, name, arguments, signature } => {
                let call = self.choice(*index).tool_calls.entry(*call).or_insert_with(|| ToolCall {
                    id: String::new(),
                    name: String::new(),
                    arguments: String::new(),
                    signature: None,
                });
                if let Some(id) = id {
                    call.id.clone_from(id);
                }
                if let Some(name) = name {
                    call.name.clone_from(name);
                }
                call.arguments.push_str(arguments);
                if signature.is_some() {
                    call.signature.clone_from(signature);
                }
            }
            StreamEvent::Finish { index, reason } => self.choice(*index).finish = Some(*reason),
            StreamEvent::Usage(usage) => self.usage = Some(*usage),
            StreamEvent::Model(model) => self.model.clone_from(model),
        }
    }

    fn choice(&mut self, index: u32) -> &mut Growing {
        self.choices.entry(index).or_default()
    }

    /// Whether the answer is complete: a choice has begun, and all that have begun have ended.
    pub fn is_complete(&self) -> bool {
        !self.choices.is_empty() && self.choices.values().all(|choice| choice.finish.is_some())
    }

    /// The whole answer; `None` for a stream that was not complete, which must never look like an answer.
    pub fn finish(self) -> Option<Answer> {
        if self.choices.is_empty() {
            return None;
        }
        let choices = self.choices.into_iter().map(|(index, choice)| choice.finish(index));
        Some(Answer { model: self.model, choices: choices.collect::<Option<_>>()?, usage: self.usage })
    }
}

impl Growing {
    fn finish(self, index: u32) -> Option<Choice> {
        let something = |text: String| (!text.is_empty()).then_some(text);
        let silent = self.tool_calls.is_empty() && self.refusal.is_empty();
        Some(Choice {
            index,
            // A turn that says nothing and calls nothing is an empty text, not a missing one.
            text: if silent { Some(self.text) } else { something(self.text) },
            reasoning: something(self.reasoning),
            refusal: something(self.refusal),
            tool_calls: self.tool_calls.into_values().collect(),
            finish: self.finish?,
            logprobs: logprobs::joined(self.logprobs),
        })
    }
}

/// The events of a stream that says the whole answer at once.
pub fn replay(answer: Answer) -> Vec<StreamEvent> {
    let mut events = Vec::with_capacity(2 + 2 * answer.choices.len());
    events.push(StreamEvent::Model(answer.model));
    for choice in answer.choices {
        replay_choice(choice, &mut events);
    }
    events.extend(answer.usage.map(StreamEvent::Usage));
    events
}

fn replay_choice(choice: Choice, events: &mut Vec<StreamEvent>) {
    let index = choice.index;
    let something = |text: Option<String>| text.filter(|text| !text.is_empty());
    events.extend(something(choice.reasoning).map(|text| StreamEvent::Reasoning { index, text }));
    let logprobs = choice.logprobs;
    events.extend(something(choice.text).map(|text| StreamEvent::Text { index, text, logprobs }));
    events.extend(something(choice.refusal).map(|text| StreamEvent::Refusal { index, text }));
    events.extend(choice.tool_calls.into_iter().zip(0..).map(|(tool, call)| StreamEvent::ToolCall {
        index,
        call,
        id: Some(tool.id),
        name: Some(tool.name),
        arguments: tool.arguments,
        signature: tool.signature,
    }));
    events.push(StreamEvent::Finish { index, reason: choice.finish });
}
