//! The operations models are built from.
//!
//! Each is one function or small type over tensors, so that a model reads like its paper. What computes it depends on
//! [`Place`], chosen when the model is loaded.

mod activation;
mod attention;
mod dense;
pub(crate) mod kernels;
mod linear;
mod norm;
mod rope;
mod step;

use std::sync::Arc;

use burn::tensor::{DType, Device};
use opossum_kernels::Pool;

use crate::precision::Kept;

pub(crate) use activation::Gate;
pub(crate) use attention::Attention;
pub use attention::KvCache;
pub(crate) use dense::{LEAST_SEEN, LEAST_TOKENS, bucket};
pub(crate) use linear::{Embedding, Linear, Weight};
pub(crate) use norm::RmsNorm;
pub(crate) use rope::Rope;
pub(crate) use step::Step;

/// Where and how a model computes.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Where tensors live.
    pub(crate) device: Device,
    /// What matrices are kept as.
    pub(crate) kept: Kept,
    /// What stock tensor operations keep the embedding and the KV cache in, and multiply as. Activations are `f32`
    /// otherwise.
    pub(crate) storage: DType,
    /// The threads of the CPU kernels, where these compute; stock tensor operations do otherwise.
    pub(crate) kernels: Option<Arc<Pool>>,
}

impl Place {
    /// A device, what it keeps matrices as, and the threads of the CPU kernels if it has them.
    pub(crate) fn new(device: Device, kept: Kept, kernels: Option<Arc<Pool>>) -> Self {
        Self { device, kept, storage: kept.storage(), kernels }
    }
}
