//! The operations of an encoder layer, in stock tensor operations or, on the CPU, as kernels.

use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, backend_extension};
use burn::tensor::activation::{gelu, softmax};
use burn::tensor::{Shape, Tensor, TensorData};
use opossum_kernels::attention::{Full, full};
use opossum_kernels::{Pool, activation, norm};

use crate::ops::kernels::{numbers, tensor};
use crate::ops::{Linear, Place};

/// Operations that have a kernel.
#[backend_extension(Flex)]
pub(super) trait EncoderOps: Backend {
    /// Attention within each sequence; all tensors are `[tokens, heads * dim]`.
    fn full_attention(
        queries: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        lengths: &[usize],
        how: &Full,
        pool: &Pool,
    ) -> FloatTensor<Self>;

    /// `x / 2 * (1 + erf(x / sqrt 2))`.
    fn gelu_erf(x: FloatTensor<Self>, pool: &Pool) -> FloatTensor<Self>;

    /// The sum of both, each row normalised.
    fn add_norm(
        x: FloatTensor<Self>,
        y: FloatTensor<Self>,
        scale: &[f32],
        bias: &[f32],
        epsilon: f32,
        pool: &Pool,
    ) -> FloatTensor<Self>;
}

impl EncoderOps for Flex {
    fn full_attention(
        queries: FlexTensor,
        keys: FlexTensor,
        values: FlexTensor,
        lengths: &[usize],
        how: &Full,
        pool: &Pool,
    ) -> FlexTensor {
        let (queries, keys, values) = (queries.to_contiguous(), keys.to_contiguous(), values.to_contiguous());
        let width = how.heads * how.dim;
        let tokens: usize = lengths.iter().sum();
        let mut out = vec![0.0; tokens * width];
        full(pool, lengths, how, numbers(&queries), numbers(&keys), numbers(&values), &mut out);
        tensor(out, Shape::new([tokens, width]))
    }

    fn gelu_erf(x: FlexTensor, pool: &Pool) -> FlexTensor {
        let x = x.to_contiguous();
        let mut out = numbers(&x).to_vec();
        activation::gelu(pool, &mut out);
        tensor(out, x.layout().shape().clone())
    }

    fn add_norm(
        x: FlexTensor,
        y: FlexTensor,
        scale: &[f32],
        bias: &[f32],
        epsilon: f32,
        pool: &Pool,
    ) -> FlexTensor {
        let (x, y) = (x.to_contiguous(), y.to_contiguous());
        let mut out = numbers(&x).to_vec();
        norm::add_layer_norm(pool, &mut out, numbers(&y), scale, bias, epsilon);
        tensor(out, x.layout().shape().clone())
    }
}

/// A matrix with a bias.
#[derive(Debug)]
pub(super) struct Affine {
    pub(super) matrix: Linear,
    /// `[1, outputs]`.
    pub(super) bias: Tensor<2>,
}

impl Affine {
    pub(super) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.matrix.forward(x) + self.bias.clone()
    }
}

/// Normalisation by mean and deviation (Ba et al. 2016, arXiv:1607.06450).
#[derive(Debug)]
pub(super) struct LayerNorm {
    pub(super) scale: Vec<f32>,
    pub(super) bias: Vec<f32>,
    pub(super) epsilon: f32,
}

impl LayerNorm {
    /// The sum of both, normalised.
    pub(super) fn forward(&self, x: Tensor<2>, y: Tensor<2>, place: &Place) -> Tensor<2> {
        let Self { scale, bias, epsilon } = self;
        if let Some(pool) = &place.kernels {
            let out = Dispatch::add_norm(x.into_dispatch(), y.into_dispatch(), scale, bias, *epsilon, pool);
            return Tensor::from_dispatch(out);
        }
        let row = |numbers: &Vec<f32>| -> Tensor<2> {
            Tensor::from_data(TensorData::new(numbers.clone(), [1, numbers.len()]), &place.device)
        };
        let sum = x + y;
        let centred = sum.clone() - sum.mean_dim(1);
        let deviation = centred.clone().square().mean_dim(1).add_scalar(*epsilon).sqrt();
        centred / deviation * row(scale) + row(bias)
    }
}

/// The activation of BERT's feed-forward layer.
pub(super) fn gelu_erf(x: Tensor<2>, place: &Place) -> Tensor<2> {
    match &place.kernels {
        Some(pool) => Tensor::from_dispatch(Dispatch::gelu_erf(x.into_dispatch(), pool)),
        None => gelu(x),
    }
}

/// Attention of each token to all of its sequence. `qkv` are queries, keys and values, `[tokens, heads * dim]` each;
/// `lengths` has the tokens of each sequence.
pub(super) fn attend(qkv: [Tensor<2>; 3], lengths: &[usize], how: &Full, place: &Place) -> Tensor<2> {
    if let Some(pool) = &place.kernels {
        let [queries, keys, values] = qkv.map(Tensor::into_dispatch);
        return Tensor::from_dispatch(Dispatch::full_attention(queries, keys, values, lengths, how, pool));
    }
    let mut first = 0;
    let parts = lengths.iter().map(|&tokens| {
        let heads = |x: &Tensor<2>| {
            x.clone().narrow(0, first, tokens).reshape([tokens, how.heads, how.dim]).swap_dims(0, 1)
        };
        let [queries, keys, values]: [Tensor<3>; 3] = [heads(&qkv[0]), heads(&qkv[1]), heads(&qkv[2])];
        first += tokens;
        let scores = queries.mul_scalar(how.scale).matmul(keys.swap_dims(1, 2));
        softmax(scores, 2).matmul(values).swap_dims(0, 1).reshape([tokens, how.heads * how.dim])
    });
    Tensor::cat(parts.collect(), 0)
}
