//! Matrices without bias: where weights meet activations.

use std::sync::Arc;

use burn::backend::Dispatch;
use burn::tensor::{DType, Tensor, TensorData};
use opossum_kernels::{Matrix, Pool};

use super::kernels::KernelOps;
use super::{Gate, Step};

/// The numbers of a matrix, one row an output. Clones share them.
#[derive(Debug, Clone)]
pub(crate) enum Weight {
    /// A tensor `[outputs, inputs]`. It is multiplied through a transposed view: a decode step then reads every row
    /// front to back.
    Dense(Box<Tensor<2>>),
    /// In blocks with a scale each, as [`Weight::Dense`] otherwise, and what activations are multiplied as.
    Quantized(Box<Tensor<2>>, DType),
    /// In the blocks of a file, for the CPU kernels.
    Packed(Arc<Matrix>, Arc<Pool>),
}

/// `y = x W^T`.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    weight: Weight,
}

impl Linear {
    pub(crate) fn new(weight: Weight) -> Self {
        Self { weight }
    }

    /// `[tokens, inputs]` to `[tokens, outputs]`.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match &self.weight {
            Weight::Packed(matrix, pool) => {
                let product = Dispatch::packed_matmul(x.into_dispatch(), matrix, pool);
                Tensor::from_dispatch(product)
            }
            Weight::Dense(rows) => product(x, rows, rows.dtype()),
            Weight::Quantized(rows, activations) => product(x, rows, *activations),
        }
    }

    /// The first half of a gated feed-forward layer, `[tokens, inputs]` to `[tokens, outputs]`.
    pub(crate) fn forward_gated(gate: &Self, up: &Self, how: Gate, x: Tensor<2>) -> Tensor<2> {
        match (&gate.weight, &up.weight) {
            (Weight::Packed(gate, pool), Weight::Packed(up, _)) => {
                let product = Dispatch::gated_matmul(x.into_dispatch(), gate, up, how.gating(), pool);
                Tensor::from_dispatch(product)
            }
            _ => how.forward(gate.forward(x.clone()), up.forward(x)),
        }
    }

    /// Several matrices of the same input, which the CPU kernels prepare for all of them at once.
    pub(crate) fn forward_all<const N: usize>(matrices: [&Self; N], x: &Tensor<2>) -> [Tensor<2>; N] {
        let mut packed = Vec::with_capacity(N);
        let mut shared = None;
        for matrix in matrices {
            if let Weight::Packed(matrix, pool) = &matrix.weight {
                packed.push(&**matrix);
                shared = Some(pool);
            }
        }
        if let Some(pool) = shared {
            let products = Dispatch::packed_matmuls(x.clone().into_dispatch(), &packed, pool);
            let products: Vec<Tensor<2>> = products.into_iter().map(Tensor::from_dispatch).collect();
            // Fewer only when some of the matrices are not packed; then each goes its own way.
            if let Ok(products) = products.try_into() {
                return products;
            }
        }
        matrices.map(|matrix| matrix.forward(x.clone()))
    }
}

fn product(x: Tensor<2>, rows: &Tensor<2>, activations: DType) -> Tensor<2> {
    x.cast(activations).matmul(rows.clone().transpose()).cast(DType::F32)
}

/// One row of numbers for each token of the vocabulary; also the output matrix of models that tie the two.
#[derive(Debug, Clone)]
pub(crate) struct Embedding {
    weight: Weight,
}

impl Embedding {
    /// From `[vocab, width]`.
    pub(crate) fn new(weight: Weight) -> Self {
        Self { weight }
    }

    /// The rows of the step's tokens, `[tokens, width]`.
    pub(crate) fn forward(&self, step: &Step<'_>) -> Tensor<2> {
        match &self.weight {
            Weight::Dense(rows) | Weight::Quantized(rows, _) => {
                rows.as_ref().clone().select(0, step.ids()).dequantize().cast(DType::F32)
            }
            Weight::Packed(matrix, _) => {
                let tokens = step.tokens();
                let mut rows = vec![0.0; tokens.len() * matrix.inputs()];
                for (&id, row) in tokens.iter().zip(rows.chunks_exact_mut(matrix.inputs())) {
                    matrix.row(id as usize, row);
                }
                Tensor::from_data(
                    TensorData::new(rows, [tokens.len(), matrix.inputs()]),
                    &step.place().device,
                )
            }
        }
    }

    /// The same matrix as the output layer.
    pub(crate) fn tied(&self) -> Linear {
        Linear::new(self.weight.clone())
    }
}
