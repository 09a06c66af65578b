//! A model in memory: weights, tokenizer, chat template.

mod batch;
mod decoder;
mod gemma3;
mod language;
mod llama;
mod load;
mod session;
mod shape;
#[cfg(test)]
mod tests;
mod warm;
mod weights;

use std::sync::Arc;

pub use batch::{BLOCK_TOKENS, BatchEntry, Logits, Rows};
pub use load::LoadOptions;
pub use session::Session;

pub use crate::ops::KvCache;

use crate::ops::{Place, Step};
use crate::tokenizer::Tokenizer;
use crate::{InferenceError, ModelInfo, Prompt};
use batch::Limits;
use decoder::Decoder;
pub(crate) use language::Language;
use shape::Shape;

/// A model ready to compute.
#[derive(Debug)]
pub struct LoadedModel {
    decoder: Box<dyn Decoder>,
    shape: Shape,
    language: Arc<Language>,
    info: ModelInfo,
    place: Place,
    cache_room: Option<u64>,
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

    /// What turns prompts into tokens.
    pub(crate) fn language(&self) -> &Arc<Language> {
        &self.language
    }

    /// The model's tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.language.tokenizer
    }

    /// A cache of `blocks` empty blocks of [`BLOCK_TOKENS`] tokens, for all sequences of this model together.
    ///
    /// # Errors
    /// [`InferenceError::BadParameter`] for more blocks than can be numbered, [`InferenceError::ModelUnavailable`] when there is
    /// no memory for them.
    pub fn new_cache(&self, blocks: usize) -> Result<KvCache, InferenceError> {
        if u32::try_from(blocks).is_err() {
            return Err(InferenceError::BadParameter {
                name: "blocks",
                reason: format!("{blocks} is too many"),
            });
        }
        let shape = &self.shape;
        KvCache::new(shape.layers, shape.kv_heads, shape.head_dim, blocks, &self.place)
    }

    /// Bytes one block of a cache takes, all layers together.
    #[must_use]
    pub fn kv_bytes_per_block(&self) -> u64 {
        load::kv_bytes_per_block(&self.shape, &self.place)
    }

    /// Bytes of a device's own memory that a cache may take; `None` where the device shares the machine's.
    #[must_use]
    pub(crate) fn cache_room(&self) -> Option<u64> {
        self.cache_room
    }

    /// The tokens of a prompt. `nonce` must be fresh random bits: see [`Guard`](crate::tokenizer::Guard).
    ///
    /// # Errors
    /// [`InferenceError::Template`], [`InferenceError::BadParameter`] for an empty prompt, and
    /// [`InferenceError::ContextLengthExceeded`] when no token of answer would fit.
    pub fn encode(&self, prompt: &Prompt, nonce: u64) -> Result<Vec<u32>, InferenceError> {
        self.language.encode(prompt, nonce)
    }

    /// Computes all entries in one pass: matrices see the rows of all of them at once.
    ///
    /// # Errors
    /// [`InferenceError::ContextLengthExceeded`] and [`InferenceError::BadParameter`] for entries that do not fit model
    /// or cache, before anything is computed; [`InferenceError::EnginePanicked`] when the device fails.
    pub fn forward(&self, batch: &[BatchEntry<'_>], cache: &mut KvCache) -> Result<Logits, InferenceError> {
        let (vocab, context_length) = (self.info.vocab, self.info.context_length);
        batch::check(batch, Limits { vocab, context_length, blocks: cache.blocks() })?;
        if batch.is_empty() {
            return Ok(Logits::new(Vec::new(), vocab));
        }
        self.compute(batch, cache)
    }

    /// Calls `task` once with each number below `tasks`, on the threads that the model computes with.
    pub(crate) fn share(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        match &self.place.kernels {
            Some(pool) => pool.run(tasks, task),
            None => (0..tasks).for_each(task),
        }
    }

    /// A pass over entries that were checked.
    fn compute(&self, batch: &[BatchEntry<'_>], cache: &mut KvCache) -> Result<Logits, InferenceError> {
        let vocab = self.info.vocab;
        let step = Step::new(batch, self.decoder.ropes(), self.decoder.windows(), &self.place);
        let wanted = batch::wanted_rows(batch);
        let mut values = match self.decoder.forward(&step, cache, &wanted) {
            None => Vec::new(),
            Some(logits) => logits.try_into_vec_as::<f32>().map_err(|error| {
                InferenceError::EnginePanicked { message: format!("reading logits: {error}") }
            })?,
        };
        // Rows that only fill a bucket come last.
        values.truncate(wanted.len() * vocab);
        Ok(Logits::new(values, vocab))
    }
}
