//! The shape of a Llama-family decoder.

use crate::InferenceError;
use crate::gguf::{GgufFile, Metadata};

/// Most layers, heads or such a model may claim; sizes beyond are a damaged file.
const MAX_COUNT: u64 = 1 << 20;

/// Hyper-parameters of a Llama-family decoder, checked to be consistent with each other.
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaConfig {
    /// Decoder layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Width of the feed-forward layer.
    pub feed_forward: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Numbers in one head.
    pub head_dim: usize,
    /// Entries in the vocabulary.
    pub vocab: usize,
    /// Tokens the model was trained to see.
    pub context_length: usize,
    /// Base of the rotary position frequencies.
    pub rope_base: f64,
    /// Added to the mean square in RMSNorm.
    pub norm_epsilon: f64,
}

impl LlamaConfig {
    /// Reads the shape from a file's metadata.
    ///
    /// # Errors
    /// [`InferenceError::ModelInvalid`] when it is incomplete, inconsistent, or needs what this build lacks.
    pub fn read(file: &GgufFile) -> Result<Self, InferenceError> {
        let metadata = &file.header().metadata;
        refuse_unsupported(metadata)?;
        let heads = count(metadata, "attention.head_count")?;
        let width = count(metadata, "embedding_length")?;
        let head_dim = match metadata.unsigned("llama.attention.key_length") {
            Some(_) => count(metadata, "attention.key_length")?,
            None => width / heads,
        };
        let config = Self {
            layers: count(metadata, "block_count")?,
            width,
            feed_forward: count(metadata, "feed_forward_length")?,
            heads,
            kv_heads: match metadata.get("llama.attention.head_count_kv") {
                Some(_) => count(metadata, "attention.head_count_kv")?,
                None => heads,
            },
            head_dim,
            vocab: file.tensor("token_embd.weight")?.dims.get(1).copied().unwrap_or(0),
            context_length: count(metadata, "context_length")?,
            rope_base: metadata.float("llama.rope.freq_base").unwrap_or(10_000.0),
            norm_epsilon: metadata.float("llama.attention.layer_norm_rms_epsilon").unwrap_or(1e-5),
        };
        config.check(metadata)?;
        Ok(config)
    }

    fn check(&self, metadata: &Metadata) -> Result<(), InferenceError> {
        let rotated = metadata.unsigned("llama.rope.dimension_count").unwrap_or(self.head_dim as u64);
        let positive = |number: f64| number.is_finite() && number > 0.0;
        let consistent = self.vocab > 0
            && self.head_dim > 0
            && self.head_dim.is_multiple_of(2)
            && self.heads.is_multiple_of(self.kv_heads)
            && rotated == self.head_dim as u64
            && positive(self.rope_base)
            && positive(self.norm_epsilon);
        if consistent {
            Ok(())
        } else {
            Err(InferenceError::invalid("the model's sizes contradict each other"))
        }
    }

    /// Bytes of keys and values one token leaves in a cache.
    #[must_use]
    pub fn cache_bytes_per_token(&self) -> u64 {
        let numbers = 2 * self.layers as u64 * self.kv_heads as u64 * self.head_dim as u64;
        numbers * size_of::<f32>() as u64
    }
}

fn count(metadata: &Metadata, key: &str) -> Result<usize, InferenceError> {
    let key = format!("llama.{key}");
    match metadata.unsigned(&key) {
        Some(number @ 1..=MAX_COUNT) => Ok(number as usize),
        Some(number) => Err(InferenceError::invalid(format!("{key} is {number}"))),
        None => Err(InferenceError::invalid(format!("{key} is missing"))),
    }
}

/// Running a model without a part it was trained with gives fluent nonsense, so what is not known is refused.
fn refuse_unsupported(metadata: &Metadata) -> Result<(), InferenceError> {
    let architecture = metadata.string("general.architecture").unwrap_or("none");
    if architecture != "llama" {
        return Err(InferenceError::invalid(format!("architecture {architecture:?} is not supported")));
    }
    if metadata.unsigned("llama.expert_count").unwrap_or(0) > 0 {
        return Err(InferenceError::invalid("mixture-of-experts models are not supported"));
    }
    let scaling = metadata.string("llama.rope.scaling.type").unwrap_or("none");
    if scaling != "none" {
        return Err(InferenceError::invalid(format!("RoPE scaling {scaling:?} is not supported")));
    }
    Ok(())
}
