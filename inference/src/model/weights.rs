//! Reads a model's tensors to where they are computed.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use burn::tensor::{DType, Tensor, TensorData};
use opossum_kernels::matrix::{Format, PackError};
use opossum_kernels::{Isa, Matrix};

use super::shape::Shape;
use crate::InferenceError;
use crate::gguf::{GgufFile, TensorType, dequantize, quantize, unreadable};
use crate::ops::{Embedding, Linear, Place, RmsNorm, Weight};

/// The tensors of one file. It remembers which were asked for: one nobody reads is a part of the model nobody computes
/// (a bias, say), and the answers would be wrong.
#[derive(Debug)]
pub(super) struct Weights<'a> {
    file: &'a GgufFile,
    place: &'a Place,
    epsilon: f64,
    read: HashSet<String>,
}

impl<'a> Weights<'a> {
    pub(super) fn new(file: &'a GgufFile, shape: &Shape, place: &'a Place) -> Self {
        Self { file, place, epsilon: shape.norm_epsilon, read: HashSet::new() }
    }

    /// Whether the file has this tensor.
    pub(super) fn has(&self, name: &str) -> bool {
        self.file.header().tensors.contains_key(name)
    }

    /// A matrix from `inputs` to `outputs`.
    pub(super) fn linear(
        &mut self,
        name: &str,
        inputs: usize,
        outputs: usize,
    ) -> Result<Linear, InferenceError> {
        Ok(Linear::new(self.matrix(name, inputs, outputs, None)?))
    }

    /// A query or key matrix of a file that interleaves the halves of each head: its rows are put into rotate-half
    /// order.
    pub(super) fn interleaved(
        &mut self,
        name: &str,
        inputs: usize,
        outputs: usize,
        head_dim: usize,
    ) -> Result<Linear, InferenceError> {
        let order = rotate_half_order(outputs, head_dim);
        Ok(Linear::new(self.matrix(name, inputs, outputs, Some(&order))?))
    }

    /// One row of `width` numbers for each token.
    pub(super) fn embedding(
        &mut self,
        name: &str,
        width: usize,
        vocab: usize,
    ) -> Result<Embedding, InferenceError> {
        Ok(Embedding::new(match self.place.kernels {
            Some(_) => self.matrix(name, width, vocab, None)?,
            // Picking rows out of blocks would unpack the whole matrix for every step.
            None => Weight::Dense(Box::new(self.dense(name, width, vocab, None, self.place.storage)?)),
        }))
    }

    /// The scale of a normalisation.
    pub(super) fn norm(&mut self, name: &str, width: usize) -> Result<RmsNorm, InferenceError> {
        Ok(RmsNorm::new(self.numbers(name, &[width])?, self.epsilon, self.place))
    }

    /// A tensor's numbers, checked to have exactly these extents (innermost first).
    pub(super) fn numbers(&mut self, name: &str, dims: &[usize]) -> Result<Vec<f32>, InferenceError> {
        self.read.insert(name.to_owned());
        self.file.load(name, dims)
    }

    /// Refuses a file with a tensor that was not read.
    ///
    /// # Errors
    /// [`InferenceError::ModelInvalid`] with its name.
    pub(super) fn finish(self) -> Result<(), InferenceError> {
        match self.file.header().tensors.keys().find(|name| !self.read.contains(*name)) {
            Some(name) => Err(InferenceError::invalid(format!("tensor {name:?} is not supported"))),
            None => Ok(()),
        }
    }

    /// Output row `i` of the matrix is row `order[i]` of the file.
    fn matrix(
        &mut self,
        name: &str,
        inputs: usize,
        outputs: usize,
        order: Option<&[usize]>,
    ) -> Result<Weight, InferenceError> {
        match &self.place.kernels {
            Some(pool) => {
                let matrix = self.packed(name, inputs, outputs, order)?;
                Ok(Weight::Packed(Arc::new(matrix), Arc::clone(pool)))
            }
            None => Ok(match self.place.kept.scheme(inputs) {
                Some(scheme) => {
                    let rows = self.dense(name, inputs, outputs, order, DType::F32)?;
                    Weight::Quantized(Box::new(rows.quantize_dynamic(&scheme)), self.place.storage)
                }
                None => {
                    Weight::Dense(Box::new(self.dense(name, inputs, outputs, order, self.place.storage)?))
                }
            }),
        }
    }

    /// The matrix in the blocks of the file, read straight into its place, or converted on the way.
    fn packed(
        &mut self,
        name: &str,
        inputs: usize,
        outputs: usize,
        order: Option<&[usize]>,
    ) -> Result<Matrix, InferenceError> {
        self.read.insert(name.to_owned());
        let info = self.file.tensor_of(name, &[inputs, outputs])?;
        let row_bytes = info.range.len() / outputs;
        let kept = self.place.kept.packed(info.kind, inputs);
        let (mut stored, mut numbers) = (Vec::new(), Vec::new());
        let mut read = |first: usize, rows: &mut [u8]| {
            if kept == info.kind {
                return self.file.read_at(info, first * row_bytes, rows);
            }
            let count = rows.len() / kept.block_bytes() * kept.block_len();
            stored.resize(count / info.kind.block_len() * info.kind.block_bytes(), 0);
            numbers.resize(count, 0.0);
            self.file.read_at(info, first * row_bytes, &mut stored)?;
            dequantize(info.kind, &stored, &mut numbers)
                .and_then(|()| quantize(kept, &numbers, rows))
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
        };
        Matrix::pack(Isa::detect(), format(kept), outputs, inputs, &mut read, order).map_err(|error| {
            match error {
                PackError::Read(error) => unreadable(&error),
                PackError::TooLarge { .. } => InferenceError::unavailable(error.to_string()),
                _ => InferenceError::invalid(format!("tensor {name:?}: {error}")),
            }
        })
    }

    /// The matrix as a tensor.
    fn dense(
        &mut self,
        name: &str,
        inputs: usize,
        outputs: usize,
        order: Option<&[usize]>,
        storage: DType,
    ) -> Result<Tensor<2>, InferenceError> {
        let mut rows = self.numbers(name, &[inputs, outputs])?;
        if let Some(order) = order {
            let row = |&source: &usize| &rows[source * inputs..(source + 1) * inputs];
            rows = order.iter().flat_map(row).copied().collect();
        }
        let data = TensorData::new(rows, [outputs, inputs]);
        Ok(Tensor::from_data(data, (&self.place.device, storage)))
    }
}

/// The kernels' name of a storage type.
fn format(kind: TensorType) -> Format {
    match kind {
        TensorType::F32 => Format::F32,
        TensorType::F16 => Format::F16,
        TensorType::Bf16 => Format::BF16,
        TensorType::Q4_0 => Format::Q4_0,
        TensorType::Q4_1 => Format::Q4_1,
        TensorType::Q5_0 => Format::Q5_0,
        TensorType::Q5_1 => Format::Q5_1,
        TensorType::Q8_0 => Format::Q8_0,
        TensorType::Q4K => Format::Q4K,
        TensorType::Q5K => Format::Q5K,
        TensorType::Q6K => Format::Q6K,
    }
}

/// For each row in rotate-half order, the row of the file it comes from.
///
/// The converter to GGUF interleaves the halves of each head (row `2 i + h` of a head was row `h * dim / 2 + i`), for
/// the convention that rotates neighbouring dimensions. This is the inverse, for the convention of `Rope`.
pub(super) fn rotate_half_order(outputs: usize, head_dim: usize) -> Vec<usize> {
    let half = head_dim / 2;
    (0..outputs)
        .map(|row| {
            let (head, row) = (row / head_dim, row % head_dim);
            head * head_dim + 2 * (row % half) + row / half
        })
        .collect()
}
