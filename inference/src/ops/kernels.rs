//! The operations as CPU kernels: an extension of the tensor library for its CPU backend.
//!
//! Tensors lend their memory to the kernels and take over what these return; nothing is copied.

use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Flex, backend_extension};
use burn::tensor::{Shape, TensorData};
use opossum_kernels::{Matrix, Pool, matmul};

/// Operations that have a kernel. [`Place::kernels`](super::Place) says whether to use them.
#[backend_extension(Flex)]
pub(super) trait KernelOps: Backend {
    /// `x W^T`, `[tokens, inputs]` to `[tokens, outputs]`.
    fn packed_matmul(x: FloatTensor<Self>, matrix: &Matrix, pool: &Pool) -> FloatTensor<Self>;

    /// The same for several matrices of one input.
    fn packed_matmuls(x: FloatTensor<Self>, matrices: &[&Matrix], pool: &Pool) -> Vec<FloatTensor<Self>>;
}

impl KernelOps for Flex {
    fn packed_matmul(x: FlexTensor, matrix: &Matrix, pool: &Pool) -> FlexTensor {
        let x = x.to_contiguous();
        let tokens = x.layout().shape()[0];
        let mut product = vec![0.0; tokens * matrix.outputs()];
        matmul(pool, numbers(&x), tokens, &mut [(matrix, &mut product)]);
        tensor(product, Shape::new([tokens, matrix.outputs()]))
    }

    fn packed_matmuls(x: FlexTensor, matrices: &[&Matrix], pool: &Pool) -> Vec<FlexTensor> {
        let x = x.to_contiguous();
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
}

/// The numbers of a contiguous tensor.
fn numbers(x: &FlexTensor) -> &[f32] {
    let start = x.layout().start_offset();
    &x.storage()[start..start + x.layout().num_elements()]
}

fn tensor(numbers: Vec<f32>, shape: Shape) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(numbers, shape))
}
