//! Causal attention over a KV cache in blocks.

use std::sync::Arc;

use burn::backend::Dispatch;
use burn::tensor::Tensor;
use opossum_kernels::Pool;
use opossum_kernels::attention::Causal;
use opossum_kernels::kv::{KvShape, KvStore};

use super::kernels::{Attend, KernelOps};
use super::step::Plan;
use super::{Place, Step, dense};
use crate::InferenceError;

/// Grouped-query attention (Ainslie et al., "GQA", 2023) of one layer.
#[derive(Debug, Clone)]
pub(crate) struct Attention {
    /// Query heads.
    pub(crate) heads: usize,
    /// Key and value heads.
    pub(crate) kv_heads: usize,
    /// Numbers in one head.
    pub(crate) head_dim: usize,
    /// What scores are multiplied by.
    pub(crate) scale: f64,
    /// Tokens a token sees, itself included; all when `None`.
    pub(crate) window: Option<usize>,
    /// Scores are squeezed between plus and minus this when given.
    pub(crate) softcap: Option<f64>,
    /// Which of the model's ropes turns queries and keys.
    pub(crate) rope: usize,
}

/// Keys and values of all sequences of one model, in blocks of [`BLOCK_TOKENS`](crate::model::BLOCK_TOKENS) tokens.
#[derive(Debug)]
pub struct KvCache {
    store: Store,
    blocks: usize,
}

#[derive(Debug)]
enum Store {
    /// One for each layer.
    Dense(Vec<dense::Layer>),
    /// In half precision, for the CPU kernels. Memory is taken when a block is first written.
    Kernels(KvStore, Arc<Pool>),
}

impl KvCache {
    /// `blocks` empty blocks for `layers` layers.
    ///
    /// # Errors
    /// [`InferenceError::ModelUnavailable`] when there is no memory for them.
    pub(crate) fn new(
        layers: usize,
        kv_heads: usize,
        head_dim: usize,
        blocks: usize,
        place: &Place,
    ) -> Result<Self, InferenceError> {
        let store = match &place.kernels {
            None => Store::Dense(
                (0..layers).map(|_| dense::Layer::new(kv_heads, head_dim, blocks, place)).collect(),
            ),
            Some(pool) => {
                let store = KvStore::new(KvShape { layers, kv_heads, dim: head_dim, blocks });
                let store = store.map_err(|error| InferenceError::unavailable(error.to_string()))?;
                Store::Kernels(store, Arc::clone(pool))
            }
        };
        Ok(Self { store, blocks })
    }

    /// Blocks in all.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.blocks
    }
}

impl Attention {
    /// Turns queries and keys to their positions, stores keys and values, and lets each row see what it may.
    ///
    /// `queries` is `[rows, heads * head_dim]`, `keys` and `values` are `[rows, kv_heads * head_dim]`; answers
    /// `[rows, heads * head_dim]`. Step and cache must be of the same model.
    pub(crate) fn forward(
        &self,
        step: &Step<'_>,
        cache: &mut KvCache,
        layer: usize,
        queries: Tensor<2>,
        keys: Tensor<2>,
        values: Tensor<2>,
    ) -> Tensor<2> {
        match (&mut cache.store, &step.plan) {
            (Store::Dense(layers), Plan::Dense(plan)) => {
                self.dense(plan, &mut layers[layer], queries, keys, values)
            }
            (Store::Kernels(store, pool), Plan::Kernels { spans, angles }) => {
                let angles = &angles[self.rope];
                let how = Attend { store, layer, spans, angles, how: self.causal(), pool };
                let [queries, keys, values] = [queries, keys, values].map(Tensor::into_dispatch);
                Tensor::from_dispatch(Dispatch::attend(queries, keys, values, how))
            }
            // A cache of another model: its numbers would mean nothing here.
            _ => queries.mul_scalar(f32::NAN),
        }
    }

    fn causal(&self) -> Causal {
        Causal {
            heads: self.heads,
            scale: self.scale as f32,
            window: self.window,
            softcap: self.softcap.map(|cap| cap as f32),
        }
    }
}
