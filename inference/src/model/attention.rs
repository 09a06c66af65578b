//! Causal attention over a KV cache: the one place a fused or paged kernel would replace.

use burn::tensor::activation::softmax;
use burn::tensor::{Tensor, TensorData};

/// Added to the score of a position that must not be seen.
const HIDDEN: f32 = f32::NEG_INFINITY;

/// Grouped-query attention (Ainslie et al., "GQA", 2023).
///
/// `queries` is `[tokens, heads, head_dim]`, the last `tokens` positions of `keys` and `values`, which are
/// `[kv_heads, seen, head_dim]`. Answers `[tokens, heads * head_dim]`. The query heads that share a key head are folded
/// into rows of one matrix, so keys and values are never repeated.
pub(super) fn attention(queries: Tensor<3>, keys: Tensor<3>, values: Tensor<3>) -> Tensor<2> {
    let [tokens, heads, dim] = queries.dims();
    let [kv_heads, seen, _] = keys.dims();
    let group = heads / kv_heads;
    let scale = 1.0 / (dim as f32).sqrt();
    let queries = queries
        .mul_scalar(scale)
        .reshape([tokens, kv_heads, group, dim])
        .permute([1, 2, 0, 3])
        .reshape([kv_heads, group * tokens, dim]);
    let mut scores = queries.matmul(keys.swap_dims(1, 2));
    if tokens > 1 {
        let mask = causal_mask(group, tokens, seen, &scores);
        scores = scores + mask;
    }
    softmax(scores, 2)
        .matmul(values)
        .reshape([kv_heads, group, tokens, dim])
        .permute([2, 0, 1, 3])
        .reshape([tokens, heads * dim])
}

/// `[1, group * tokens, seen]`: row `r` belongs to token `r % tokens`, which sees itself and everything before it.
fn causal_mask(group: usize, tokens: usize, seen: usize, like: &Tensor<3>) -> Tensor<3> {
    let before = seen - tokens;
    let mut mask = vec![0.0; group * tokens * seen];
    for (row, scores) in mask.chunks_exact_mut(seen).enumerate() {
        scores[before + row % tokens + 1..].fill(HIDDEN);
    }
    Tensor::from_data(TensorData::new(mask, [1, group * tokens, seen]), &like.device())
}
