//! Root-mean-square normalisation (Zhang and Sennrich, 2019).

use burn::tensor::{Tensor, TensorData};

use super::Place;

/// Normalises rows and scales them by what was learned.
#[derive(Debug)]
pub(crate) struct RmsNorm {
    /// `[1, width]`.
    scale: Tensor<2>,
    epsilon: f64,
}

impl RmsNorm {
    /// From a scale as wide as the rows, or as one head of them.
    pub(crate) fn new(scale: &[f32], epsilon: f64, place: &Place) -> Self {
        let scale = TensorData::new(scale.to_vec(), [1, scale.len()]);
        Self { scale: Tensor::from_data(scale, &place.device), epsilon }
    }

    /// `[tokens, width]` in and out.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let root = x.clone().square().mean_dim(1).add_scalar(self.epsilon).sqrt();
        x / root * self.scale.clone()
    }

    /// Each head by itself: `[tokens, heads * width]` in and out.
    pub(crate) fn forward_heads(&self, x: Tensor<2>) -> Tensor<2> {
        let [tokens, all] = x.dims();
        let [_, width] = self.scale.dims();
        self.forward(x.reshape([tokens * (all / width), width])).reshape([tokens, all])
    }
}
