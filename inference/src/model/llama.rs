//! The decoder of the Llama family: RMSNorm, rotary grouped-query attention, SwiGLU (Touvron et al., 2023).

use burn::tensor::Tensor;

use super::decoder::Decoder;
use super::shape::{Keys, Shape};
use super::weights::Weights;
use crate::InferenceError;
use crate::ops::{Attention, Embedding, Gate, KvCache, Linear, RmsNorm, Rope, Step};

/// One decoder layer.
#[derive(Debug)]
struct Layer {
    attention_norm: RmsNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    feed_forward_norm: RmsNorm,
    gate: Linear,
    up: Linear,
    down: Linear,
}

/// A whole decoder.
#[derive(Debug)]
struct Llama {
    embedding: Embedding,
    attention: Attention,
    layers: Vec<Layer>,
    norm: RmsNorm,
    head: Linear,
    ropes: [Rope; 1],
}

/// Reads the decoder of a file.
///
/// # Errors
/// [`InferenceError::ModelInvalid`] when a tensor is missing, or of another shape, or the file needs what is not here.
pub(super) fn build(
    keys: Keys<'_>,
    shape: &Shape,
    weights: &mut Weights<'_>,
) -> Result<Box<dyn Decoder>, InferenceError> {
    let scaling = keys.string("rope.scaling.type").unwrap_or("none");
    if scaling != "none" {
        return Err(InferenceError::invalid(format!("RoPE scaling {scaling:?} is not supported")));
    }
    let embedding = weights.embedding("token_embd.weight", shape.width, shape.vocab)?;
    let head = match weights.has("output.weight") {
        true => weights.linear("output.weight", shape.width, shape.vocab)?,
        false => embedding.tied(),
    };
    let layers = (0..shape.layers).map(|index| layer(index, shape, weights)).collect::<Result<_, _>>()?;
    Ok(Box::new(Llama {
        embedding,
        attention: Attention {
            heads: shape.heads,
            kv_heads: shape.kv_heads,
            head_dim: shape.head_dim,
            scale: 1.0 / (shape.head_dim as f64).sqrt(),
            window: None,
            softcap: None,
            rope: 0,
        },
        layers,
        norm: weights.norm("output_norm.weight", shape.width)?,
        head,
        ropes: [rope(shape, weights)?],
    }))
}

fn layer(index: usize, shape: &Shape, weights: &mut Weights<'_>) -> Result<Layer, InferenceError> {
    let (width, hidden) = (shape.width, shape.feed_forward);
    let (query_width, kv_width) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
    let name = |part: &str| format!("blk.{index}.{part}.weight");
    Ok(Layer {
        attention_norm: weights.norm(&name("attn_norm"), width)?,
        query: weights.interleaved(&name("attn_q"), width, query_width, shape.head_dim)?,
        key: weights.interleaved(&name("attn_k"), width, kv_width, shape.head_dim)?,
        value: weights.linear(&name("attn_v"), width, kv_width)?,
        output: weights.linear(&name("attn_output"), query_width, width)?,
        feed_forward_norm: weights.norm(&name("ffn_norm"), width)?,
        gate: weights.linear(&name("ffn_gate"), width, hidden)?,
        up: weights.linear(&name("ffn_up"), width, hidden)?,
        down: weights.linear(&name("ffn_down"), hidden, width)?,
    })
}

/// Files of Llama 3.1 and later carry a factor for each frequency.
fn rope(shape: &Shape, weights: &mut Weights<'_>) -> Result<Rope, InferenceError> {
    let rope = Rope::new(shape.rope_base, shape.head_dim);
    let name = "rope_freqs.weight";
    match weights.has(name) {
        true => Ok(rope.divided(&weights.numbers(name, &[shape.head_dim / 2])?)),
        false => Ok(rope),
    }
}

impl Layer {
    /// The feed-forward half, without the residual. `[rows, width]` in and out.
    fn feed_forward(&self, x: Tensor<2>) -> Tensor<2> {
        let x = self.feed_forward_norm.forward(x);
        self.down.forward(Linear::forward_gated(&self.gate, &self.up, Gate::Silu, x))
    }
}

impl Llama {
    /// The attention half of a layer, without the residual. `[rows, width]` in and out.
    fn attend(&self, index: usize, x: Tensor<2>, step: &Step<'_>, cache: &mut KvCache) -> Tensor<2> {
        let layer = &self.layers[index];
        let x = layer.attention_norm.forward(x);
        let [queries, keys, values] = Linear::forward_all([&layer.query, &layer.key, &layer.value], &x);
        layer.output.forward(self.attention.forward(step, cache, index, queries, keys, values))
    }
}

impl Decoder for Llama {
    fn ropes(&self) -> &[Rope] {
        &self.ropes
    }

    fn windows(&self) -> &[Option<usize>] {
        &[None]
    }

    fn forward(&self, step: &Step<'_>, cache: &mut KvCache, wanted: &[u32]) -> Option<Tensor<2>> {
        let mut x = self.embedding.forward(step);
        for (index, layer) in self.layers.iter().enumerate() {
            x = x.clone() + self.attend(index, x, step, cache);
            x = x.clone() + layer.feed_forward(x);
        }
        if wanted.is_empty() {
            return None;
        }
        Some(self.head.forward(self.norm.forward(step.pick(x, wanted))))
    }
}
