//! A whole answer, from the dialect to the domain.

use opossum_core::answer::{Answer, Choice, FinishReason, StreamEvent};
use opossum_core::class::FailureClass;
use opossum_core::ids::ModelName;
use opossum_core::request::ToolCall;

use super::wire;
use crate::{BackendError, json};

/// Reads a whole answer; `asked` is the model that was asked for.
///
/// # Errors
/// `BadResponse` for what is no answer, or the class of the error that the server reported with status 200.
pub(super) fn whole(body: &[u8], asked: &ModelName) -> Result<Answer, BackendError> {
    let completion: wire::Completion<'_> = json::read(body)?;
    if let Some(error) = completion.error(body) {
        return Err(error);
    }
    let choices = completion.choices.unwrap_or_default();
    if choices.is_empty() {
        return Err(BackendError::new(FailureClass::BadResponse, "the answer has no choice"));
    }
    let mut choices = choices.into_iter().map(choice).collect::<Result<Vec<_>, _>>()?;
    choices.sort_by_key(|choice| choice.index);
    Ok(Answer {
        model: completion.model.map_or_else(|| asked.to_string(), wire::Text::into_owned),
        choices,
        usage: completion.usage.map(Into::into),
    })
}

fn choice(choice: wire::Choice<'_>) -> Result<Choice, BackendError> {
    let finish = choice.finish()?;
    let logprobs = choice.logprobs.map(ToOwned::to_owned);
    let index = choice.index;
    let mut text = choice.text.map(wire::Text::into_owned);
    let mut reasoning = None;
    let mut refusal = None;
    let mut tool_calls = Vec::new();
    if let Some(mut message) = choice.message {
        reasoning = some_text(message.take_reasoning());
        refusal = some_text(message.refusal);
        text = message.content.map(wire::Text::into_owned);
        let calls = message.tool_calls.unwrap_or_default();
        tool_calls =
            calls.into_iter().enumerate().map(|(place, call)| tool_call(index, place, call)).collect();
    }
    // A whole answer that came whole is complete, even where the server does not say why it ended.
    let natural = if tool_calls.is_empty() { FinishReason::Stop } else { FinishReason::ToolCalls };
    let finish = finish.unwrap_or(natural);
    Ok(Choice { index, text, reasoning, refusal, tool_calls, finish, logprobs })
}

fn some_text(text: Option<wire::Text<'_>>) -> Option<String> {
    text.map(wire::Text::into_owned).filter(|text| !text.is_empty())
}

fn tool_call(choice: u32, place: usize, call: wire::ToolCall<'_>) -> ToolCall {
    let signature = call.signature();
    let id = some_text(call.id).unwrap_or_else(|| made_up_id(choice, place));
    let (name, arguments) = match call.function {
        Some(function) => (some_text(function.name), function.arguments.map(Into::into)),
        None => (None, None),
    };
    ToolCall { id, name: name.unwrap_or_default(), arguments: arguments.unwrap_or_default(), signature }
}

/// An identity for a tool call whose server gave none, unique within the answer.
pub(super) fn made_up_id(choice: u32, place: usize) -> String {
    format!("call_{choice}_{place}_{:08x}", rand::random::<u32>())
}

/// A whole answer as the events of a stream, for a server that does not stream.
pub(super) fn events(answer: Answer, asked: &ModelName) -> Vec<StreamEvent> {
    let mut events = Vec::new();
    if answer.model != asked.as_str() {
        events.push(StreamEvent::Model(answer.model));
    }
    for choice in answer.choices {
        let index = choice.index;
        if let Some(text) = choice.reasoning {
            events.push(StreamEvent::Reasoning { index, text });
        }
        if let Some(text) = choice.text.filter(|text| !text.is_empty()) {
            events.push(StreamEvent::Text { index, text, logprobs: choice.logprobs });
        }
        if let Some(text) = choice.refusal {
            events.push(StreamEvent::Refusal { index, text });
        }
        events.extend(choice.tool_calls.into_iter().zip(0..).map(|(call, place)| StreamEvent::ToolCall {
            index,
            call: place,
            id: Some(call.id),
            name: Some(call.name),
            arguments: call.arguments,
            signature: call.signature,
        }));
        events.push(StreamEvent::Finish { index, reason: choice.finish });
    }
    events.extend(answer.usage.map(StreamEvent::Usage));
    events
}

#[cfg(test)]
mod tests;
