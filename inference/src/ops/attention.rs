//! Causal attention over a KV cache in blocks.

use burn::tensor::activation::softmax;
use burn::tensor::{DType, IndexingUpdateOp, Tensor};

use super::step::{Group, GroupRows};
use super::{Place, Step};
use crate::model::BLOCK_TOKENS;

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

/// Keys and values of all sequences of one model, in blocks of [`BLOCK_TOKENS`] tokens.
#[derive(Debug)]
pub struct KvCache {
    /// `[slots, kv_heads, head_dim]` each.
    layers: Vec<(Tensor<3>, Tensor<3>)>,
    blocks: usize,
}

impl KvCache {
    /// `blocks` empty blocks for `layers` layers.
    pub(crate) fn new(layers: usize, kv_heads: usize, head_dim: usize, blocks: usize, place: &Place) -> Self {
        let empty =
            || Tensor::zeros([blocks * BLOCK_TOKENS, kv_heads, head_dim], (&place.device, place.storage));
        Self { layers: (0..layers).map(|_| (empty(), empty())).collect(), blocks }
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
    /// `[rows, heads * head_dim]`.
    pub(crate) fn forward(
        &self,
        step: &Step<'_>,
        cache: &mut KvCache,
        layer: usize,
        queries: Tensor<2>,
        keys: Tensor<2>,
        values: Tensor<2>,
    ) -> Tensor<2> {
        let split = |x: Tensor<2>, heads| x.reshape([step.rows(), heads, self.head_dim]);
        let tables = &step.tables[self.rope];
        let queries = tables.rotate(split(queries, self.heads));
        let keys = tables.rotate(split(keys, self.kv_heads));
        let values = split(values, self.kv_heads);
        let (held_keys, held_values) = &mut cache.layers[layer];
        store(held_keys, step, keys);
        store(held_values, step, values);
        let parts: Vec<Tensor<2>> =
            step.groups.iter().map(|group| self.attend(group, &queries, held_keys, held_values)).collect();
        gather(step, parts)
    }

    /// The rows of one group, `[rows, heads * head_dim]`. The query heads that share a key head are folded into rows of
    /// one matrix, so keys and values are never repeated.
    fn attend(&self, group: &Group, queries: &Tensor<3>, keys: &Tensor<3>, values: &Tensor<3>) -> Tensor<2> {
        let (sequences, tokens, seen) = (group.sequences, group.tokens, group.seen);
        let (kv_heads, dim) = (self.kv_heads, self.head_dim);
        let shared = self.heads / kv_heads;
        let storage = keys.dtype();
        let queries = match &group.rows {
            GroupRows::From(first) => queries.clone().narrow(0, *first, sequences * tokens),
            GroupRows::These(rows) => queries.clone().select(0, rows.as_ref().clone()),
        };
        let queries = queries
            .mul_scalar(self.scale)
            .reshape([sequences, tokens, kv_heads, shared, dim])
            .permute([0, 2, 3, 1, 4])
            .reshape([sequences * kv_heads, shared * tokens, dim])
            .cast(storage);
        let held = |x: &Tensor<3>| {
            x.clone()
                .select(0, group.places.clone())
                .reshape([sequences, seen, kv_heads, dim])
                .swap_dims(1, 2)
                .reshape([sequences * kv_heads, seen, dim])
        };
        let mut scores = queries.matmul(held(keys).swap_dims(1, 2)).cast(DType::F32);
        if let Some(cap) = self.softcap {
            scores = scores.div_scalar(cap).tanh().mul_scalar(cap);
        }
        let scores: Tensor<5> = scores.reshape([sequences, kv_heads, shared, tokens, seen]);
        let mask = group.masks.iter().find(|(window, _)| *window == self.window);
        let scores = match mask {
            Some((_, mask)) => {
                let mask = mask.clone().expand([sequences, kv_heads, shared, tokens, seen]);
                scores.mask_fill(mask, f32::NEG_INFINITY)
            }
            None => scores,
        };
        let weights = softmax(scores, 4).reshape([sequences * kv_heads, shared * tokens, seen]);
        weights
            .cast(storage)
            .matmul(held(values))
            .cast(DType::F32)
            .reshape([sequences, kv_heads, shared, tokens, dim])
            .permute([0, 3, 1, 2, 4])
            .reshape([sequences * tokens, self.heads * dim])
    }
}

/// Writes the step's rows into the cache. The cache must be the buffer's only owner: otherwise the tensor library
/// copies the whole buffer.
fn store(held: &mut Tensor<3>, step: &Step<'_>, rows: Tensor<3>) {
    let rows = rows.cast(held.dtype());
    held.inplace(|held| held.select_assign(0, step.slots.clone(), rows, IndexingUpdateOp::Assign));
}

/// Puts the groups' rows into the order of the batch.
fn gather(step: &Step<'_>, mut parts: Vec<Tensor<2>>) -> Tensor<2> {
    if parts.len() == 1 {
        return parts.remove(0);
    }
    let width = parts[0].dims()[1];
    let device = parts[0].device();
    let mut all: Tensor<2> = Tensor::zeros([step.rows(), width], (&device, DType::F32));
    for (group, part) in step.groups.iter().zip(parts) {
        all = match &group.rows {
            GroupRows::From(first) => {
                let rows = *first..*first + group.tokens;
                all.slice_assign([rows, 0..width], part)
            }
            GroupRows::These(rows) => {
                all.select_assign(0, rows.as_ref().clone(), part, IndexingUpdateOp::Assign)
            }
        };
    }
    all
}
