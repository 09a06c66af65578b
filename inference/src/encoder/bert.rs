//! BERT (Devlin et al. 2018, arXiv:1810.04805): an encoder that normalises after each half of a layer.

use burn::tensor::{Int, Tensor, TensorData};
use opossum_kernels::attention::Full;

use super::ops::{Affine, LayerNorm, attend, gelu_erf};
use crate::InferenceError;
use crate::ops::{Linear, Place};

/// The weights of a model.
#[derive(Debug)]
pub(super) struct Bert {
    /// `[vocab, width]`.
    pub(super) words: Tensor<2>,
    /// `[positions, width]`, the first segment's vector added to each.
    pub(super) positions: Tensor<2>,
    pub(super) norm: LayerNorm,
    pub(super) layers: Vec<Layer>,
    pub(super) attention: Full,
    pub(super) place: Place,
}

/// One layer.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) queries: Affine,
    pub(super) keys: Affine,
    pub(super) values: Affine,
    pub(super) attended: Affine,
    pub(super) attended_norm: LayerNorm,
    pub(super) up: Affine,
    pub(super) down: Affine,
    pub(super) down_norm: LayerNorm,
}

impl Bert {
    /// The mean over the tokens of each sequence. Sequences lie one behind the other: nothing is padded, and none
    /// changes what another gives.
    ///
    /// # Errors
    /// [`InferenceError::NumericalFault`] when the numbers cannot be read back.
    pub(super) fn forward(&self, sequences: &[&[u32]]) -> Result<Vec<f32>, InferenceError> {
        let lengths: Vec<usize> = sequences.iter().map(|ids| ids.len()).collect();
        let ids = sequences.iter().flat_map(|ids| ids.iter().map(|&id| id as i32));
        let positions = lengths.iter().flat_map(|&length| 0..length as i32);
        let words = self.words.clone().select(0, self.integers(ids.collect()));
        let places = self.positions.clone().select(0, self.integers(positions.collect()));
        let mut x = self.norm.forward(words, places, &self.place);
        for layer in &self.layers {
            x = layer.forward(x, &lengths, &self.attention, &self.place);
        }
        let mut first = 0;
        let means = lengths.iter().map(|&length| {
            let mean = x.clone().narrow(0, first, length).mean_dim(0);
            first += length;
            mean
        });
        let means: Tensor<2> = Tensor::cat(means.collect(), 0);
        let fault = |reason: String| InferenceError::NumericalFault { reason };
        let data = means.try_into_data().map_err(|error| fault(error.to_string()))?;
        data.try_to_vec::<f32>().map_err(|error| fault(format!("{error:?}")))
    }

    fn integers(&self, numbers: Vec<i32>) -> Tensor<1, Int> {
        let count = numbers.len();
        Tensor::from_data(TensorData::new(numbers, [count]), &self.place.device)
    }
}

impl Layer {
    fn forward(&self, x: Tensor<2>, lengths: &[usize], how: &Full, place: &Place) -> Tensor<2> {
        let matrices = [&self.queries.matrix, &self.keys.matrix, &self.values.matrix];
        let [queries, keys, values] = Linear::forward_all(matrices, &x);
        let qkv = [
            queries + self.queries.bias.clone(),
            keys + self.keys.bias.clone(),
            values + self.values.bias.clone(),
        ];
        let attended = self.attended.forward(attend(qkv, lengths, how, place));
        let x = self.attended_norm.forward(attended, x, place);
        let up = gelu_erf(self.up.forward(x.clone()), place);
        self.down_norm.forward(self.down.forward(up), x, place)
    }
}
