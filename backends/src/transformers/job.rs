//! A request of the domain as a job of the engine.

use opossum_core::class::FailureClass;
use opossum_core::request::{self, Message, Params};
use opossum_inference::{GenerationParams, Prompt, PromptMessage};

use super::{LocalJob, TransformersBackend};
use crate::{BackendError, Call};

/// Translates a call.
///
/// # Errors
/// `CallerError` naming the field that a local model cannot honour.
pub(super) fn translate(call: &Call) -> Result<LocalJob, BackendError> {
    if let Some(param) = call.request.needs().first_missing(TransformersBackend::CAN) {
        let detail = format!("the embedded model cannot honour {param}");
        return Err(BackendError::new(FailureClass::CallerError, detail));
    }
    let prompt = match &call.request.prompt {
        request::Prompt::Chat(messages) => {
            Prompt::Chat { messages: messages.iter().map(turn).collect(), add_generation_prompt: true }
        }
        request::Prompt::Text { prompt, .. } => Prompt::Raw(prompt.clone()),
    };
    Ok(LocalJob { model: call.model.clone(), prompt, params: params(call, &call.request.params) })
}

fn turn(message: &Message) -> PromptMessage {
    PromptMessage {
        role: message.role.as_str().to_owned(),
        content: message.content.joined_text().into_owned(),
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
    }
}
