//! A model in memory: weights, tokenizer, chat template.

mod attention;
mod config;
mod kv_cache;
mod linear;
mod llama;
mod load;
mod rope;
#[cfg(test)]
mod tests;

use burn::tensor::{Device, Tensor};

pub use config::LlamaConfig;
pub use kv_cache::KvCache;
pub use load::LoadOptions;

use crate::template::ChatTemplate;
use crate::tokenizer::{Guard, Tokenizer};
use crate::{InferenceError, ModelInfo, Prompt, TemplateError};

/// Most prompt tokens computed in one step, so that a long prompt does not stall other sequences.
pub const PREFILL_CHUNK: usize = 128;

/// A model ready to compute.
#[derive(Debug)]
pub struct LoadedModel {
    decoder: llama::Llama,
    tokenizer: Tokenizer,
    template: Result<ChatTemplate, TemplateError>,
    info: ModelInfo,
    device: Device,
}

/// Which positions' logits a step is to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rows {
    /// Only those of the last token: all that generating needs.
    Last,
    /// Those of every token.
    All,
}

impl LoadedModel {
    /// Loads a model on the calling thread.
    ///
    /// # Errors
    /// [`InferenceError::ModelInvalid`] for a file that breaks the format, has another SHA-256 than
    /// [`LoadOptions::sha256`], or needs what this build lacks; [`InferenceError::ModelUnavailable`] when file, device
    /// or memory are not there.
    pub fn load(options: &LoadOptions) -> Result<Self, InferenceError> {
        load::load(options)
    }

    /// What the model is.
    #[must_use]
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// The model's tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// An empty KV cache for one sequence of this model.
    #[must_use]
    pub fn new_cache(&self) -> KvCache {
        KvCache::new(self.decoder.config(), self.info.context_length, &self.device)
    }

    /// The tokens of a prompt. `nonce` must be fresh random bits: see [`Guard`].
    ///
    /// # Errors
    /// [`InferenceError::Template`], [`InferenceError::BadParameter`] for an empty prompt, and
    /// [`InferenceError::ContextLengthExceeded`] when no token of answer would fit.
    pub fn encode(&self, prompt: &Prompt, nonce: u64) -> Result<Vec<u32>, InferenceError> {
        let tokens = match prompt {
            Prompt::Raw(text) => {
                self.refuse_hopeless(text.len())?;
                self.tokenizer.encode_text(text)?
            }
            Prompt::Chat { messages, add_generation_prompt } => {
                self.refuse_hopeless(messages.iter().map(|message| message.content.len()).sum())?;
                let template = self.template.as_ref().map_err(Clone::clone)?;
                let guard = Guard::new(self.tokenizer.control_texts(), nonce);
                let text = template.render(messages, *add_generation_prompt, &self.tokenizer, &guard)?;
                self.tokenizer.encode_template(&text, &guard)?
            }
        };
        let max = self.info.context_length;
        match tokens.len() {
            0 => Err(InferenceError::BadParameter { name: "prompt", reason: "is empty".into() }),
            prompt if prompt >= max => Err(InferenceError::ContextLengthExceeded { prompt, max }),
            _ => Ok(tokens),
        }
    }

    /// Refuses text that is too long whatever its tokens are, before time is spent on it.
    fn refuse_hopeless(&self, bytes: usize) -> Result<(), InferenceError> {
        let max = self.info.context_length;
        if bytes <= self.tokenizer.longest_text(max) {
            return Ok(());
        }
        Err(InferenceError::ContextLengthExceeded { prompt: bytes / self.tokenizer.longest_text(1), max })
    }

    /// Computes `tokens` after what `cache` holds and answers the logits of the last one, `vocab` numbers.
    ///
    /// # Errors
    /// [`InferenceError::ContextLengthExceeded`], [`InferenceError::BadParameter`] for a token outside the
    /// vocabulary, [`InferenceError::EnginePanicked`] when the device fails.
    pub fn step(&self, tokens: &[u32], cache: &mut KvCache) -> Result<Vec<f32>, InferenceError> {
        self.compute(tokens, cache, Rows::Last)
    }

    /// Teacher forcing: the logits after every one of `tokens`, in order, `tokens.len() * vocab` numbers.
    ///
    /// # Errors
    /// As [`LoadedModel::step`].
    pub fn logits(&mut self, tokens: &[u32]) -> Result<Vec<f32>, InferenceError> {
        let mut cache = self.new_cache();
        let mut all = Vec::with_capacity(tokens.len() * self.info.vocab);
        for chunk in tokens.chunks(PREFILL_CHUNK) {
            all.extend(self.compute(chunk, &mut cache, Rows::All)?);
        }
        Ok(all)
    }

    fn compute(&self, tokens: &[u32], cache: &mut KvCache, rows: Rows) -> Result<Vec<f32>, InferenceError> {
        if let Some(id) = tokens.iter().find(|&&id| id as usize >= self.info.vocab) {
            return Err(InferenceError::BadParameter { name: "tokens", reason: format!("{id} is no token") });
        }
        let wanted = cache.len() + tokens.len();
        if wanted > self.info.context_length {
            return Err(InferenceError::ContextLengthExceeded {
                prompt: wanted,
                max: self.info.context_length,
            });
        }
        if tokens.is_empty() {
            return Ok(Vec::new());
        }
        let logits: Tensor<2> = self.decoder.forward(tokens, cache, rows);
        logits
            .try_into_vec_as::<f32>()
            .map_err(|error| InferenceError::EnginePanicked { message: format!("reading logits: {error}") })
    }
}
