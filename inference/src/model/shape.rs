//! The sizes of a decoder, as its file states them.

use crate::InferenceError;
use crate::gguf::{GgufFile, Metadata};

/// Most layers, heads or such a model may claim; sizes beyond are a damaged file.
const MAX_COUNT: u64 = 1 << 20;

/// Hyper-parameters that all decoders have, checked to be consistent with each other.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Shape {
    /// Decoder layers.
    pub(super) layers: usize,
    /// Width of the residual stream.
    pub(super) width: usize,
    /// Width of the feed-forward layer.
    pub(super) feed_forward: usize,
    /// Query heads.
    pub(super) heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` query heads.
    pub(super) kv_heads: usize,
    /// Numbers in one head.
    pub(super) head_dim: usize,
    /// Entries in the vocabulary.
    pub(super) vocab: usize,
    /// Tokens the model was trained to see.
    pub(super) context_length: usize,
    /// Base of the rotary position frequencies.
    pub(super) rope_base: f64,
    /// Added to the mean square in RMSNorm.
    pub(super) norm_epsilon: f64,
}

impl Shape {
    /// Reads the sizes from a file's metadata.
    ///
    /// # Errors
    /// [`InferenceError::ModelInvalid`] when they are incomplete or inconsistent.
    pub(super) fn read(file: &GgufFile) -> Result<Self, InferenceError> {
        let keys = Keys::new(&file.header().metadata);
        let heads = keys.count("attention.head_count")?;
        let width = keys.count("embedding_length")?;
        let shape = Self {
            layers: keys.count("block_count")?,
            width,
            feed_forward: keys.count("feed_forward_length")?,
            heads,
            kv_heads: keys.optional_count("attention.head_count_kv")?.unwrap_or(heads),
            head_dim: keys.optional_count("attention.key_length")?.unwrap_or(width / heads),
            vocab: file.tensor("token_embd.weight")?.dims.get(1).copied().unwrap_or(0),
            context_length: keys.count("context_length")?,
            rope_base: keys.float("rope.freq_base").unwrap_or(10_000.0),
            norm_epsilon: keys.float("attention.layer_norm_rms_epsilon").unwrap_or(1e-5),
        };
        shape.check(&keys)?;
        // Before names are made up for as many layers as the file claims.
        if shape.layers > file.header().tensors.len() {
            return Err(InferenceError::invalid(format!("there are no tensors for {} layers", shape.layers)));
        }
        Ok(shape)
    }

    fn check(&self, keys: &Keys<'_>) -> Result<(), InferenceError> {
        let same = |key, size| keys.unsigned(key).is_none_or(|stated| stated == size as u64);
        let positive = |number: f64| number.is_finite() && number > 0.0;
        let consistent = self.vocab > 0
            && self.head_dim > 0
            && self.head_dim.is_multiple_of(2)
            && self.heads.is_multiple_of(self.kv_heads)
            && same("rope.dimension_count", self.head_dim)
            && same("attention.value_length", self.head_dim)
            && positive(self.rope_base)
            && positive(self.norm_epsilon);
        if consistent {
            Ok(())
        } else {
            Err(InferenceError::invalid("the model's sizes contradict each other"))
        }
    }
}

/// The metadata of one architecture: its keys begin with its name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keys<'a> {
    metadata: &'a Metadata,
    architecture: &'a str,
}

impl<'a> Keys<'a> {
    pub(super) fn new(metadata: &'a Metadata) -> Self {
        Self { metadata, architecture: metadata.string("general.architecture").unwrap_or("none") }
    }

    /// `general.architecture`, for example `llama`.
    pub(super) fn architecture(&self) -> &'a str {
        self.architecture
    }

    fn full(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    pub(super) fn unsigned(&self, key: &str) -> Option<u64> {
        self.metadata.unsigned(&self.full(key))
    }

    pub(super) fn float(&self, key: &str) -> Option<f64> {
        self.metadata.float(&self.full(key))
    }

    pub(super) fn string(&self, key: &str) -> Option<&'a str> {
        self.metadata.string(&self.full(key))
    }

    /// A size from 1 on.
    pub(super) fn count(&self, key: &str) -> Result<usize, InferenceError> {
        self.optional_count(key)?
            .ok_or_else(|| InferenceError::invalid(format!("{} is missing", self.full(key))))
    }

    /// As [`Keys::count`]; `None` when the file has no such key.
    pub(super) fn optional_count(&self, key: &str) -> Result<Option<usize>, InferenceError> {
        let key = self.full(key);
        match (self.metadata.unsigned(&key), self.metadata.get(&key)) {
            (Some(number @ 1..=MAX_COUNT), _) => Ok(Some(number as usize)),
            (_, None) => Ok(None),
            (_, Some(value)) => Err(InferenceError::invalid(format!("{key} is {value:?}"))),
        }
    }

    /// Running a model without a part it was trained with gives fluent nonsense, so what no decoder here knows is
    /// refused.
    pub(super) fn refuse_unsupported(&self) -> Result<(), InferenceError> {
        if self.unsigned("expert_count").unwrap_or(0) > 0 {
            return Err(InferenceError::invalid("mixture-of-experts models are not supported"));
        }
        Ok(())
    }
}
