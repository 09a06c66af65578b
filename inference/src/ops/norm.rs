//! Root-mean-square normalisation (Zhang and Sennrich, 2019).

use std::sync::Arc;

use burn::backend::Dispatch;
use burn::tensor::{Tensor, TensorData};
use opossum_kernels::Pool;

use super::Place;
use super::kernels::KernelOps;

/// Normalises rows and scales them by what was learned.
#[derive(Debug)]
pub(crate) struct RmsNorm {
    scale: Scale,
    width: usize,
    epsilon: f64,
}

#[derive(Debug)]
enum Scale {
    /// `[1, width]`.
    Dense(Box<Tensor<2>>),
    Kernels(Vec<f32>, Arc<Pool>),
}

impl RmsNorm {
    /// From a scale as wide as the rows, or as one head of them.
    pub(crate) fn new(scale: Vec<f32>, epsilon: f64, place: &Place) -> Self {
        let width = scale.len();
        let scale = match &place.kernels {
            Some(pool) => Scale::Kernels(scale, Arc::clone(pool)),
            None => {
                let scale = TensorData::new(scale, [1, width]);
                Scale::Dense(Box::new(Tensor::from_data(scale, &place.device)))
            }
        };
        Self { scale, width, epsilon }
    }

    /// `[tokens, width]` in and out.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match &self.scale {
            Scale::Kernels(scale, pool) => {
                let out = Dispatch::rms_norm(x.into_dispatch(), scale, self.epsilon as f32, pool);
                Tensor::from_dispatch(out)
            }
            Scale::Dense(scale) => {
                let root = x.clone().square().mean_dim(1).add_scalar(self.epsilon).sqrt();
                x / root * scale.as_ref().clone()
            }
        }
    }

    /// Each head by itself: `[tokens, heads * width]` in and out.
    pub(crate) fn forward_heads(&self, x: Tensor<2>) -> Tensor<2> {
        let [tokens, all] = x.dims();
        let heads = x.reshape([tokens * (all / self.width), self.width]);
        self.forward(heads).reshape([tokens, all])
    }
}
