//! A request of the domain as a job of the engine.

use opossum_core::class::FailureClass;
use opossum_core::request::{self, Message, Params, ResponseFormat, Tool, ToolChoice};
use opossum_inference::{
    GenerationParams, Grammar, Prompt, PromptMessage, PromptTool, PromptToolCall, ToolRules, ToolSpec,
    ToolSyntax,
};
use serde_json::value::{RawValue, Value};

use super::errors::backend_error;
use super::{LocalJob, LocalModelInfo, abilities};
use crate::{BackendError, Call};

/// A job, and how to read its answer.
#[derive(Debug)]
pub(super) struct Translated {
    pub(super) job: LocalJob,
    /// How tool calls are written in the answer, where there may be any.
    pub(super) calls: Option<ToolSyntax>,
}

/// Translates a call for a model, as far as it is known.
///
/// # Errors
/// `CallerError` naming the field that the model cannot honour.
pub(super) fn translate(call: &Call, model: Option<&LocalModelInfo>) -> Result<Translated, BackendError> {
    if let Some(param) = call.request.needs().first_missing(abilities(model)) {
        let detail = format!("the embedded model cannot honour {param}");
        return Err(BackendError::new(FailureClass::CallerError, detail).about(param));
    }
    let tools = tools(&call.request.tools, &call.request.tool_choice)?;
    let calls = model.and_then(|model| model.tools).filter(|_| !tools.is_empty());
    let params =
        GenerationParams { grammar: grammar(call, calls, &tools)?, ..params(call, &call.request.params) };
    let prompt = match &call.request.prompt {
        request::Prompt::Chat(messages) => {
            Prompt::Chat { messages: messages.iter().map(turn).collect(), tools, add_generation_prompt: true }
        }
        request::Prompt::Text { prompt, .. } => Prompt::Raw(prompt.clone()),
    };
    Ok(Translated { job: LocalJob { model: call.model.clone(), prompt, params }, calls })
}

/// The tools the model is told of: none when it may not call any.
fn tools(tools: &[Tool], choice: &ToolChoice) -> Result<Vec<PromptTool>, BackendError> {
    if *choice == ToolChoice::None {
        return Ok(Vec::new());
    }
    let told = tools.iter().map(|tool| {
        Ok(PromptTool {
            name: tool.name.clone(),
            description: tool.description.clone(),
            parameters: tool.parameters.as_deref().map(|schema| parsed(schema, "tools")).transpose()?,
        })
    });
    told.collect()
}

/// What the answer must look like. `strict` makes no difference: a schema is always followed.
fn grammar(
    call: &Call,
    calls: Option<ToolSyntax>,
    tools: &[PromptTool],
) -> Result<Option<Grammar>, BackendError> {
    let answer = match call.response_format() {
        ResponseFormat::Text => None,
        ResponseFormat::JsonObject => Some(serde_json::json!({"type": "object"})),
        ResponseFormat::JsonSchema { schema, .. } => Some(parsed(schema, "response_format")?),
    };
    let Some(syntax) = calls else {
        let grammar = answer.map(|schema| Grammar::json_schema(&schema)).transpose();
        return grammar.map_err(|error| backend_error(&error));
    };
    let choice = &call.request.tool_choice;
    let may_be_called = |tool: &&PromptTool| match choice {
        ToolChoice::Function(name) => tool.name == *name,
        ToolChoice::Auto | ToolChoice::None | ToolChoice::Required => true,
    };
    let callable = tools.iter().filter(may_be_called);
    let specs: Vec<ToolSpec> = callable
        .map(|tool| ToolSpec { name: tool.name.clone(), parameters: tool.parameters.clone() })
        .collect();
    let rules = ToolRules {
        syntax,
        required: matches!(choice, ToolChoice::Required | ToolChoice::Function(_)),
        parallel: call.request.parallel_tool_calls && !matches!(choice, ToolChoice::Function(_)),
        answer,
    };
    Grammar::tool_calls(&specs, &rules).map(Some).map_err(|error| backend_error(&error))
}

fn parsed(json: &RawValue, field: &'static str) -> Result<Value, BackendError> {
    serde_json::from_str(json.get()).map_err(|error| {
        let detail = format!("the schema is no JSON that can be read: {error}");
        BackendError::new(FailureClass::CallerError, detail).about(field).told()
    })
}

fn turn(message: &Message) -> PromptMessage {
    let calls = message.tool_calls.iter().map(|call| PromptToolCall {
        id: call.id.clone(),
        name: call.name.clone(),
        arguments: call.arguments.clone(),
    });
    PromptMessage {
        tool_calls: calls.collect(),
        tool_call_id: message.tool_call_id.clone(),
        name: message.name.clone(),
        ..PromptMessage::new(message.role.as_str(), message.content.joined_text())
    }
}

fn params(call: &Call, params: &Params) -> GenerationParams {
    let plain = GenerationParams::default();
    GenerationParams {
        max_tokens: call.max_tokens().map(|n| n as usize),
        temperature: call.temperature().unwrap_or(plain.temperature),
        top_p: call.top_p().unwrap_or(plain.top_p),
        top_k: call.top_k().map(|k| k as usize),
        // The bits of a negative seed are a seed as good as any.
        seed: params.seed.map(i64::cast_unsigned),
        presence_penalty: params.presence_penalty.unwrap_or(plain.presence_penalty),
        frequency_penalty: params.frequency_penalty.unwrap_or(plain.frequency_penalty),
        logit_bias: plain.logit_bias,
        stop: params.stop.clone(),
        logprobs: params.logprobs.map(usize::from),
        grammar: None,
    }
}
