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

pub(crate) use activation::Gate;
pub(crate) use attention::Attention;
pub use attention::KvCache;
pub(crate) use linear::{Embedding, Linear, Weight};
pub(crate) use norm::RmsNorm;
pub(crate) use rope::Rope;
pub(crate) use step::Step;

/// Where and how a model computes.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Where tensors live.
    pub(crate) device: Device,
    /// What dense matrices and the KV cache are stored in. Activations are `f32` everywhere.
    pub(crate) storage: DType,
    /// The threads of the CPU kernels, where these compute; stock tensor operations do otherwise.
    pub(crate) kernels: Option<Arc<Pool>>,
}
