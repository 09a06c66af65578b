//! The decoder of the Llama family: RMSNorm, rotary grouped-query attention, SwiGLU (Touvron et al., 2023).

use burn::tensor::activation::silu;
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::attention::attention;
use super::linear::Linear;
use super::rope::Rope;
use super::{KvCache, LlamaConfig, Rows};

/// Root-mean-square normalisation with a learned scale (Zhang and Sennrich, 2019).
#[derive(Debug)]
pub(super) struct RmsNorm {
    /// `[1, width]`.
    pub(super) scale: Tensor<2>,
    pub(super) epsilon: f64,
}

impl RmsNorm {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let root = x.clone().square().mean_dim(1).add_scalar(self.epsilon).sqrt();
        x / root * self.scale.clone()
    }
}

/// One decoder layer.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) attention_norm: RmsNorm,
    pub(super) query: Linear,
    pub(super) key: Linear,
    pub(super) value: Linear,
    pub(super) output: Linear,
    pub(super) feed_forward_norm: RmsNorm,
    pub(super) gate: Linear,
    pub(super) up: Linear,
    pub(super) down: Linear,
}

impl Layer {
    /// The attention half, without the residual. `[tokens, width]` in and out.
    fn attend(
        &self,
        x: Tensor<2>,
        index: usize,
        config: &LlamaConfig,
        rope: &Rope,
        cache: &mut KvCache,
    ) -> Tensor<2> {
        let [tokens, _] = x.dims();
        let x = self.attention_norm.forward(x);
        let heads = |x: Tensor<2>, count| x.reshape([tokens, count, config.head_dim]);
        let queries = rope.rotate(heads(self.query.forward(x.clone()), config.heads));
        let keys = rope.rotate(heads(self.key.forward(x.clone()), config.kv_heads));
        let values = heads(self.value.forward(x), config.kv_heads);
        let (keys, values) = cache.append(index, keys.swap_dims(0, 1), values.swap_dims(0, 1));
        self.output.forward(attention(queries, keys, values))
    }

    /// The feed-forward half, without the residual. `[tokens, width]` in and out.
    fn feed_forward(&self, x: Tensor<2>) -> Tensor<2> {
        let x = self.feed_forward_norm.forward(x);
        let gate = silu(self.gate.forward(x.clone()));
        self.down.forward(gate * self.up.forward(x))
    }
}

/// A whole decoder.
#[derive(Debug)]
pub(super) struct Llama {
    pub(super) config: LlamaConfig,
    /// `[vocab, width]`; shared with `head` when the model ties them.
    pub(super) embedding: Tensor<2>,
    pub(super) layers: Vec<Layer>,
    pub(super) norm: RmsNorm,
    pub(super) head: Linear,
    pub(super) rope: Rope,
    pub(super) device: Device,
}

impl Llama {
    pub(super) fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// Computes `tokens`, at least one, behind what `cache` holds: logits `[1 or tokens, vocab]`.
    pub(super) fn forward(&self, tokens: &[u32], cache: &mut KvCache, rows: Rows) -> Tensor<2> {
        let count = tokens.len();
        cache.reserve(count);
        let rope = self.rope.rows(cache.len(), count);
        let ids: Vec<i32> = tokens.iter().map(|&id| id as i32).collect();
        let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [count]), &self.device);
        let mut x = self.embedding.clone().select(0, ids);
        for (index, layer) in self.layers.iter().enumerate() {
            x = x.clone() + layer.attend(x, index, &self.config, &rope, cache);
            x = x.clone() + layer.feed_forward(x);
        }
        cache.advance(count);
        if rows == Rows::Last {
            x = x.narrow(0, count - 1, 1);
        }
        self.head.forward(self.norm.forward(x))
    }
}
