//! The text decoder of Gemma 3 (Gemma Team, "Gemma 3 technical report", 2025): as the Llama family, with norms before
//! and behind each half of a layer and on each query and key head, a tanh-GELU gate, embeddings scaled by the root of
//! their width, and five of six layers that see only a sliding window.

use burn::tensor::Tensor;

use super::decoder::Decoder;
use super::shape::{Keys, Shape};
use super::weights::Weights;
use crate::InferenceError;
use crate::ops::{Attention, Embedding, Gate, KvCache, Linear, RmsNorm, Rope, Step};

/// Of this many layers, the last sees everything and the others a window.
const PATTERN: usize = 6;
/// Base of the rotary frequencies of layers that see a window.
const LOCAL_ROPE_BASE: f64 = 10_000.0;
/// Index of the rope of layers that see a window.
const LOCAL: usize = 0;
/// Index of the rope of layers that see everything.
const GLOBAL: usize = 1;

/// One decoder layer.
#[derive(Debug)]
struct Layer {
    attention_norm: RmsNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    query_norm: RmsNorm,
    key_norm: RmsNorm,
    attention: Attention,
    output: Linear,
    post_attention_norm: RmsNorm,
    feed_forward_norm: RmsNorm,
    gate: Linear,
    up: Linear,
    down: Linear,
    post_feed_forward_norm: RmsNorm,
}

/// A whole decoder.
#[derive(Debug)]
struct Gemma3 {
    embedding: Embedding,
    embedding_scale: f64,
    layers: Vec<Layer>,
    norm: RmsNorm,
    head: Linear,
    /// Logits are squeezed between plus and minus this when given.
    softcap: Option<f64>,
    ropes: [Rope; 2],
    windows: Vec<Option<usize>>,
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
    let window = keys.optional_count("attention.sliding_window")?;
    let embedding = weights.embedding("token_embd.weight", shape.width, shape.vocab)?;
    let head = match weights.has("output.weight") {
        true => weights.linear("output.weight", shape.width, shape.vocab)?,
        false => embedding.tied(),
    };
    let layers = (0..shape.layers)
        .map(|index| layer(index, shape, attention(index, shape, window), weights))
        .collect::<Result<Vec<_>, _>>()?;
    let mut windows = vec![None, window];
    windows.dedup();
    Ok(Box::new(Gemma3 {
        embedding,
        embedding_scale: (shape.width as f64).sqrt(),
        layers,
        norm: weights.norm("output_norm.weight", shape.width)?,
        head,
        softcap: keys.float("final_logit_softcapping").filter(|cap| *cap > 0.0),
        ropes: [
            Rope::new(LOCAL_ROPE_BASE, shape.head_dim),
            Rope::new(shape.rope_base, shape.head_dim).slowed(global_rope_factor(keys)?),
        ],
        windows,
    }))
}

/// What positions of global layers are divided by: the larger models stretch them.
fn global_rope_factor(keys: Keys<'_>) -> Result<f64, InferenceError> {
    let factor = keys.float("rope.scaling.factor").unwrap_or(1.0);
    match keys.string("rope.scaling.type").unwrap_or("none") {
        "none" => Ok(1.0),
        "linear" if factor.is_finite() && factor > 0.0 => Ok(factor),
        other => Err(InferenceError::invalid(format!("RoPE scaling {other:?} by {factor} is not supported"))),
    }
}

fn attention(index: usize, shape: &Shape, window: Option<usize>) -> Attention {
    let global = index % PATTERN == PATTERN - 1;
    Attention {
        heads: shape.heads,
        kv_heads: shape.kv_heads,
        head_dim: shape.head_dim,
        scale: 1.0 / (shape.head_dim as f64).sqrt(),
        window: if global { None } else { window },
        softcap: None,
        rope: if global { GLOBAL } else { LOCAL },
    }
}

fn layer(
    index: usize,
    shape: &Shape,
    attention: Attention,
    weights: &mut Weights<'_>,
) -> Result<Layer, InferenceError> {
    let (width, hidden) = (shape.width, shape.feed_forward);
    let (query_width, kv_width) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
    let name = |part: &str| format!("blk.{index}.{part}.weight");
    Ok(Layer {
        attention_norm: weights.norm(&name("attn_norm"), width)?,
        query: weights.linear(&name("attn_q"), width, query_width)?,
        key: weights.linear(&name("attn_k"), width, kv_width)?,
        value: weights.linear(&name("attn_v"), width, kv_width)?,
        query_norm: weights.norm(&name("attn_q_norm"), shape.head_dim)?,
        key_norm: weights.norm(&name("attn_k_norm"), shape.head_dim)?,
        attention,
        output: weights.linear(&name("attn_output"), query_width, width)?,
        post_attention_norm: weights.norm(&name("post_attention_norm"), width)?,
        feed_forward_norm: weights.norm(&name("ffn_norm"), width)?,
        gate: weights.linear(&name("ffn_gate"), width, hidden)?,
        up: weights.linear(&name("ffn_up"), width, hidden)?,
        down: weights.linear(&name("ffn_down"), hidden, width)?,
        post_feed_forward_norm: weights.norm(&name("post_ffw_norm"), width)?,
    })
}

impl Layer {
    /// The attention half, without the residual. `[rows, width]` in and out.
    fn attend(&self, index: usize, x: Tensor<2>, step: &Step<'_>, cache: &mut KvCache) -> Tensor<2> {
        let x = self.attention_norm.forward(x);
        let [queries, keys, values] = Linear::forward_all([&self.query, &self.key, &self.value], &x);
        let queries = self.query_norm.forward_heads(queries);
        let keys = self.key_norm.forward_heads(keys);
        let seen = self.attention.forward(step, cache, index, queries, keys, values);
        self.post_attention_norm.forward(self.output.forward(seen))
    }

    /// The feed-forward half, without the residual. `[rows, width]` in and out.
    fn feed_forward(&self, x: Tensor<2>) -> Tensor<2> {
        let x = self.feed_forward_norm.forward(x);
        let gated = Linear::forward_gated(&self.gate, &self.up, Gate::GeluTanh, x);
        self.post_feed_forward_norm.forward(self.down.forward(gated))
    }
}

impl Decoder for Gemma3 {
    fn ropes(&self) -> &[Rope] {
        &self.ropes
    }

    fn windows(&self) -> &[Option<usize>] {
        &self.windows
    }

    fn forward(&self, step: &Step<'_>, cache: &mut KvCache, wanted: &[u32]) -> Option<Tensor<2>> {
        let mut x = self.embedding.forward(step).mul_scalar(self.embedding_scale);
        for (index, layer) in self.layers.iter().enumerate() {
            x = x.clone() + layer.attend(index, x, step, cache);
            x = x.clone() + layer.feed_forward(x);
        }
        if wanted.is_empty() {
            return None;
        }
        let logits = self.head.forward(self.norm.forward(step.pick(x, wanted)));
        Some(match self.softcap {
            Some(cap) => logits.div_scalar(cap).tanh().mul_scalar(cap),
            None => logits,
        })
    }
}
