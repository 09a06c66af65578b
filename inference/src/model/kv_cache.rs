//! Keys and values of the tokens a sequence has seen.

use burn::tensor::{Device, Tensor};

use super::LlamaConfig;

/// Tokens a cache first has room for.
const FIRST_CAPACITY: usize = 256;

/// One sequence's keys and values, all layers.
///
/// Each layer is one buffer `[kv_heads, capacity, head_dim]` that is written in place. It doubles when full, up to the
/// context length, so that a short chat does not pay for the longest. In-place writing needs the cache to be the
/// buffer's only owner: what `append` returns must be dropped before the next append, or the tensor library
/// copies the whole buffer.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<Layer>,
    len: usize,
    capacity: usize,
    limit: usize,
}

#[derive(Debug)]
struct Layer {
    keys: Tensor<3>,
    values: Tensor<3>,
}

impl KvCache {
    /// An empty cache for at most `limit` tokens.
    pub(super) fn new(config: &LlamaConfig, limit: usize, device: &Device) -> Self {
        let capacity = FIRST_CAPACITY.min(limit);
        let empty = || Tensor::zeros([config.kv_heads, capacity, config.head_dim], device);
        let layers = (0..config.layers).map(|_| Layer { keys: empty(), values: empty() }).collect();
        Self { layers, len: 0, capacity, limit }
    }

    /// Tokens held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Makes room for `tokens` more. The caller has checked that they fit `limit`.
    pub(super) fn reserve(&mut self, tokens: usize) {
        let wanted = self.len + tokens;
        if wanted <= self.capacity {
            return;
        }
        let capacity = wanted.next_power_of_two().min(self.limit).max(wanted);
        for layer in &mut self.layers {
            layer.keys.inplace(|keys| grown(keys, self.len, capacity));
            layer.values.inplace(|values| grown(values, self.len, capacity));
        }
        self.capacity = capacity;
    }

    /// Writes one layer's new keys and values, `[kv_heads, tokens, head_dim]` each, behind those held and returns
    /// views of all of them, `[kv_heads, len + tokens, head_dim]`. The length itself changes with
    /// [`KvCache::advance`], after the last layer.
    pub(super) fn append(
        &mut self,
        layer: usize,
        keys: Tensor<3>,
        values: Tensor<3>,
    ) -> (Tensor<3>, Tensor<3>) {
        let [heads, tokens, dim] = keys.dims();
        let end = self.len + tokens;
        let place = [0..heads, self.len..end, 0..dim];
        let layer = &mut self.layers[layer];
        layer.keys.inplace(|held| held.slice_assign(place.clone(), keys));
        layer.values.inplace(|held| held.slice_assign(place, values));
        (layer.keys.clone().narrow(1, 0, end), layer.values.clone().narrow(1, 0, end))
    }

    /// Counts `tokens` that every layer has appended.
    pub(super) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }
}

fn grown(held: Tensor<3>, len: usize, capacity: usize) -> Tensor<3> {
    let [heads, _, dim] = held.dims();
    let larger = Tensor::zeros([heads, capacity, dim], &held.device());
    if len == 0 {
        return larger;
    }
    larger.slice_assign([0..heads, 0..len, 0..dim], held.narrow(1, 0, len))
}
