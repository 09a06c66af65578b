//! What every decoder answers, and which decoders there are.

use std::fmt::Debug;

use burn::tensor::Tensor;

use super::shape::{Keys, Shape};
use super::weights::Weights;
use super::{gemma3, llama};
use crate::InferenceError;
use crate::ops::{KvCache, Rope, Step};

/// A transformer that continues text. One file implements one architecture; nothing else knows it.
pub(super) trait Decoder: Debug + Send {
    /// The angles its layers turn queries and keys by, in the order layers refer to them.
    fn ropes(&self) -> &[Rope];

    /// The distinct sliding windows of its layers.
    fn windows(&self) -> &[Option<usize>];

    /// Computes a step: stores its keys and values in `cache` and answers the logits `[wanted, vocab]` of the wanted
    /// rows, `None` when there are none.
    fn forward(&self, step: &Step<'_>, cache: &mut KvCache, wanted: &[u32]) -> Option<Tensor<2>>;
}

/// Builds a decoder from a file's weights.
pub(super) type Build = fn(Keys<'_>, &Shape, &mut Weights<'_>) -> Result<Box<dyn Decoder>, InferenceError>;

/// The decoder of the architecture a file names.
///
/// # Errors
/// [`InferenceError::ModelInvalid`] for an architecture there is no decoder for.
pub(super) fn of(architecture: &str) -> Result<Build, InferenceError> {
    match architecture {
        "llama" => Ok(llama::build),
        "gemma3" => Ok(gemma3::build),
        other => Err(InferenceError::invalid(format!("architecture {other:?} is not supported"))),
    }
}
