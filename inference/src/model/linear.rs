//! A matrix without bias: the one place where weights meet activations.

use burn::tensor::{Device, Tensor, TensorData};

/// `y = x W^T`.
///
/// The weight is kept as the file has it, one row an output, and read through a transposed view: a decode step then
/// reads every row front to back. A kernel that works on quantized blocks replaces what is in here, and nothing else.
#[derive(Debug, Clone)]
pub(super) struct Linear {
    transposed: Tensor<2>,
}

impl Linear {
    /// From `outputs` rows of `inputs` numbers.
    pub(super) fn new(rows: Vec<f32>, outputs: usize, inputs: usize, device: &Device) -> Self {
        Self::from_rows(Tensor::from_data(TensorData::new(rows, [outputs, inputs]), device))
    }

    /// From a tensor of shape `[outputs, inputs]`, which may be shared with others.
    pub(super) fn from_rows(rows: Tensor<2>) -> Self {
        Self { transposed: rows.transpose() }
    }

    /// `[tokens, inputs]` to `[tokens, outputs]`.
    pub(super) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        x.matmul(self.transposed.clone())
    }
}
