//! A request of the domain as a body of `generateContent`.
//!
//! The body is a borrowing tree written straight into one buffer: texts, base64 images and JSON schemas are
//! copied once. Fields that Gemini has no place for (speaker names, image detail, the strictness of a
//! schema, the end-user label) are hints and left out; whatever changes the answer is either translated here
//! or kept away by the arm's abilities.

use opossum_core::class::FailureClass;
use opossum_core::request::{GenerateRequest, Prompt, ResponseFormat, Tool, ToolChoice};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::signatures::SignatureStore;
use super::thinking::{self, Family, ThinkingConfig};
use super::turns::{Turn, Turns};
use crate::{BackendError, Call};

/// Writes the body of a call.
///
/// # Errors
/// `CallerError` for what the protocol cannot carry: a raw prompt, an image by URL, a tool turn that answers
/// no call, an unknown `reasoning_effort`.
pub(super) fn body(call: &Call, signatures: &SignatureStore, now: Instant) -> Result<Vec<u8>, BackendError> {
    let request = &*call.request;
    let Prompt::Chat(messages) = &request.prompt else {
        return Err(caller_error("gemini takes chat messages, not a raw prompt"));
    };
    let family = Family::of(call.model.as_str());
    let turns = Turns::of(messages, family, signatures, now)?;
    let body = Body {
        system_instruction: turns.system,
        contents: turns.contents,
        tools: tools(&request.tools),
        tool_config: tool_config(request),
        generation_config: generation_config(call)?,
    };
    serde_json::to_vec(&body).map_err(|e| caller_error(&format!("request cannot be written: {e}")))
}

/// An error for what the protocol cannot carry.
pub(super) fn caller_error(detail: &str) -> BackendError {
    BackendError::new(FailureClass::CallerError, detail)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    system_instruction: Option<Turn<'a>>,
    contents: Vec<Turn<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tools: Option<[ToolSet<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_config: Option<ToolConfig<'a>>,
    generation_config: GenerationConfig<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ToolSet<'a> {
    function_declarations: Vec<FunctionDeclaration<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FunctionDeclaration<'a> {
    name: &'a str,
    // The field is required; a caller's missing description is an empty one.
    description: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters_json_schema: Option<&'a RawValue>,
}

fn tools(tools: &[Tool]) -> Option<[ToolSet<'_>; 1]> {
    if tools.is_empty() {
        return None;
    }
    Some([ToolSet { function_declarations: tools.iter().map(FunctionDeclaration::of).collect() }])
}

impl<'a> FunctionDeclaration<'a> {
    fn of(tool: &'a Tool) -> Self {
        Self {
            name: &tool.name,
            description: tool.description.as_deref().unwrap_or_default(),
            parameters_json_schema: tool.parameters.as_deref(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ToolConfig<'a> {
    function_calling_config: CallingConfig<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CallingConfig<'a> {
    mode: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed_function_names: Option<[&'a str; 1]>,
}

fn tool_config(request: &GenerateRequest) -> Option<ToolConfig<'_>> {
    if request.tools.is_empty() {
        return None;
    }
    let (mode, only) = match &request.tool_choice {
        ToolChoice::Auto => return None,
        ToolChoice::None => ("NONE", None),
        ToolChoice::Required => ("ANY", None),
        ToolChoice::Function(name) => ("ANY", Some([name.as_str()])),
    };
    Some(ToolConfig { function_calling_config: CallingConfig { mode, allowed_function_names: only } })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GenerationConfig<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_output_tokens: Option<u32>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop_sequences: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    candidate_count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presence_penalty: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frequency_penalty: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_mime_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_json_schema: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking_config: Option<ThinkingConfig>,
}

fn generation_config(call: &Call) -> Result<GenerationConfig<'_>, BackendError> {
    let params = &call.request.params;
    let (mime, schema) = match call.response_format() {
        ResponseFormat::Text => (None, None),
        ResponseFormat::JsonObject => (Some("application/json"), None),
        ResponseFormat::JsonSchema { schema, .. } => (Some("application/json"), Some(&**schema)),
    };
    let effort = params.reasoning_effort.as_deref();
    // A penalty of zero is the default, and some models refuse the mere field.
    let penalty = |p: Option<f32>| p.filter(|p| *p != 0.0);
    Ok(GenerationConfig {
        temperature: call.temperature(),
        top_p: call.top_p(),
        top_k: call.top_k(),
        max_output_tokens: call.max_tokens(),
        stop_sequences: &params.stop,
        seed: params.seed.map(seed),
        candidate_count: (params.n > 1).then_some(params.n),
        presence_penalty: penalty(params.presence_penalty),
        frequency_penalty: penalty(params.frequency_penalty),
        response_mime_type: mime,
        response_json_schema: schema,
        thinking_config: effort.map(|effort| thinking::config(effort, call.model.as_str())).transpose()?,
    })
}

/// Gemini's seed has 32 bits: the halves of a longer one are folded, so that equal seeds stay equal and a
/// seed that fits is itself.
fn seed(seed: i64) -> i32 {
    i32::try_from(seed).unwrap_or_else(|_| {
        let bytes = seed.to_le_bytes();
        let half = |at: usize| i32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        half(0) ^ half(4)
    })
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
