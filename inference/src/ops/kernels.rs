//! The operations as CPU kernels: an extension of the tensor library for its CPU backend.
//!
//! Tensors lend their memory to the kernels and take over what these return; nothing is copied.

use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Flex, backend_extension};
use burn::tensor::{Shape, TensorData};
use opossum_kernels::activation::Gating;
use opossum_kernels::attention::{Causal, New, Span, append_and_attend};
use opossum_kernels::kv::KvStore;
use opossum_kernels::rope::Angles;
use opossum_kernels::{Matrix, Pool, gated_matmul, matmul, norm};

/// Operations that have a kernel. [`Place::kernels`](super::Place) says whether to use them.
#[backend_extension(Flex)]
pub(super) trait KernelOps: Backend {
    /// `x W^T`, `[tokens, inputs]` to `[tokens, outputs]`.
    fn packed_matmul(x: FloatTensor<Self>, matrix: &Matrix, pool: &Pool) -> FloatTensor<Self>;

    /// The same for several matrices of one input.
    fn packed_matmuls(x: FloatTensor<Self>, matrices: &[&Matrix], pool: &Pool) -> Vec<FloatTensor<Self>>;

    /// Root-mean-square normalisation of rows as wide as `scale`, whatever the shape of `x`.
    fn rms_norm(x: FloatTensor<Self>, scale: &[f32], epsilon: f32, pool: &Pool) -> FloatTensor<Self>;

    /// `gating(x gate^T) * (x up^T)`, `[tokens, inputs]` to `[tokens, outputs]`.
    fn gated_matmul(
        x: FloatTensor<Self>,
        gate: &Matrix,
        up: &Matrix,
        gating: Gating,
        pool: &Pool,
    ) -> FloatTensor<Self>;

    /// Rotation, storage and attention of one layer, as [`Attention::forward`](super::Attention::forward).
    fn attend(
        queries: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        how: Attend<'_>,
    ) -> FloatTensor<Self>;
}

/// What attention needs beside its tensors.
pub(super) struct Attend<'a> {
    pub(super) store: &'a mut KvStore,
    pub(super) layer: usize,
    pub(super) spans: &'a [Span<'a>],
    pub(super) angles: &'a Angles,
    pub(super) how: Causal,
    pub(super) pool: &'a Pool,
}

impl KernelOps for Flex {
    fn packed_matmul(x: FlexTensor, matrix: &Matrix, pool: &Pool) -> FlexTensor {
        let x = contiguous(x);
        let tokens = x.layout().shape()[0];
        let mut product = vec![0.0; tokens * matrix.outputs()];
        matmul(pool, numbers(&x), tokens, &mut [(matrix, &mut product)]);
        tensor(product, Shape::new([tokens, matrix.outputs()]))
    }

    fn packed_matmuls(x: FlexTensor, matrices: &[&Matrix], pool: &Pool) -> Vec<FlexTensor> {
        let x = contiguous(x);
        let tokens = x.layout().shape()[0];
        let mut products: Vec<Vec<f32>> =
            matrices.iter().map(|matrix| vec![0.0; tokens * matrix.outputs()]).collect();
        let mut outs: Vec<(&Matrix, &mut [f32])> = matrices
            .iter()
            .zip(&mut products)
            .map(|(matrix, product)| (*matrix, product.as_mut_slice()))
            .collect();
        matmul(pool, numbers(&x), tokens, &mut outs);
        let products = matrices.iter().zip(products);
        products.map(|(matrix, product)| tensor(product, Shape::new([tokens, matrix.outputs()]))).collect()
    }

    fn rms_norm(x: FlexTensor, scale: &[f32], epsilon: f32, pool: &Pool) -> FlexTensor {
        let x = contiguous(x);
        let mut out = vec![0.0; x.layout().num_elements()];
        norm::rms_norm(pool, numbers(&x), scale, epsilon, &mut out);
        tensor(out, x.layout().shape().clone())
    }

    fn gated_matmul(x: FlexTensor, gate: &Matrix, up: &Matrix, gating: Gating, pool: &Pool) -> FlexTensor {
        let x = contiguous(x);
        let tokens = x.layout().shape()[0];
        let mut product = vec![0.0; tokens * gate.outputs()];
        gated_matmul(pool, numbers(&x), tokens, [gate, up], gating, &mut product);
        tensor(product, Shape::new([tokens, gate.outputs()]))
    }

    fn attend(queries: FlexTensor, keys: FlexTensor, values: FlexTensor, how: Attend<'_>) -> FlexTensor {
        let Attend { store, layer, spans, angles, how, pool } = how;
        let (queries, keys, values) = (contiguous(queries), contiguous(keys), contiguous(values));
        let new = New { keys: numbers(&keys), values: numbers(&values), angles };
        let mut out = vec![0.0; queries.layout().num_elements()];
        append_and_attend(pool, store, layer, spans, &how, &new, numbers(&queries), &mut out);
        tensor(out, queries.layout().shape().clone())
    }
}

fn contiguous(x: FlexTensor) -> FlexTensor {
    if x.is_contiguous() { x } else { x.to_contiguous() }
}

/// The numbers of a contiguous tensor.
pub(crate) fn numbers(x: &FlexTensor) -> &[f32] {
    let start = x.layout().start_offset();
    &x.storage()[start..start + x.layout().num_elements()]
}

/// A tensor of these numbers, which it takes over.
pub(crate) fn tensor(numbers: Vec<f32>, shape: Shape) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(numbers, shape))
}
