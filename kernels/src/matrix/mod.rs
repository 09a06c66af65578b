//! Matrices of weights that stay in the number format of their file, and their product with activations.
//!
//! A matrix is packed once, when a model is loaded: sixteen output rows lie interleaved, so that one vector register
//! works on sixteen outputs and nothing is summed across it ([`format::Layout`] has the bytes). For the product, each 32
//! activations become 8-bit numbers with a scale; the sums of products are then exact integers.

mod activations;
#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod codec;
mod dense;
mod format;
mod pack;
mod portable;
mod product;
mod storage;
mod unpack;

#[cfg(test)]
mod tests;

use std::io;

#[cfg(target_arch = "x86_64")]
pub(crate) use amx::available as tiles_are_available;
#[cfg(target_arch = "x86_64")]
pub(crate) use amx::tiles;
pub use format::Format;
use format::TILE;
pub use product::{gated_matmul, matmul};
use storage::Storage;

use crate::Isa;

/// Why a matrix was not packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The format has no rows of this length.
    #[error("{format:?} has no rows of {inputs} numbers, only multiples of {}", .format.block_len())]
    Inputs {
        /// The stored format.
        format: Format,
        /// The row length asked for.
        inputs: usize,
    },
    /// The matrix has no numbers.
    #[error("a matrix of {outputs} by {inputs} is empty")]
    Empty {
        /// Rows asked for.
        outputs: usize,
        /// Row length asked for.
        inputs: usize,
    },
    /// Its size is no number of bytes that this machine can count or has.
    #[error("no memory for a matrix of {outputs} by {inputs}")]
    TooLarge {
        /// Rows asked for.
        outputs: usize,
        /// Row length asked for.
        inputs: usize,
    },
    /// The order names a number of rows that is not that of the matrix, or a row that it does not have.
    #[error("the row order does not fit a matrix of {outputs} rows")]
    Order {
        /// Rows asked for.
        outputs: usize,
    },
    /// The stored rows could not be read.
    #[error("reading the stored rows failed: {0}")]
    Read(#[from] io::Error),
}

/// Reads stored rows: from row `first` on, as many as fill the buffer.
pub type ReadRows<'a> = dyn FnMut(usize, &mut [u8]) -> io::Result<()> + 'a;

/// A matrix of weights, `[outputs, inputs]`, packed for the product with activations.
pub struct Matrix {
    isa: Isa,
    format: Format,
    outputs: usize,
    inputs: usize,
    packed: Storage,
}

impl Matrix {
    /// Packs the rows that `read` gives, for these instructions if the processor has them. With an `order`, output row `i` is stored row `order[i]`.
    ///
    /// # Errors
    /// When the sizes fit no matrix of this format or the machine's memory, and when `read` fails.
    pub fn pack(
        isa: Isa,
        format: Format,
        outputs: usize,
        inputs: usize,
        read: &mut ReadRows<'_>,
        order: Option<&[usize]>,
    ) -> Result<Self, PackError> {
        // The kernels rely on this: no other place makes a matrix.
        let isa = if isa.is_there() { isa } else { Isa::Portable };
        let packed = pack::pack(format, outputs, inputs, read, order)?;
        Ok(Self { isa, format, outputs, inputs, packed })
    }

    /// Rows: numbers in the product for each token.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Row length: activations of each token.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// The stored format.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// Memory of the packed weights.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.packed.bytes().len()
    }

    /// The weights of one output row, as `f32`.
    ///
    /// # Panics
    /// When there is no such row or `out` is not one row long.
    pub fn row(&self, index: usize, out: &mut [f32]) {
        assert!(index < self.outputs, "a matrix of {} rows has no row {index}", self.outputs);
        assert_eq!(out.len(), self.inputs, "a row has the matrix's inputs");
        unpack::row(self, index, out);
    }

    /// Tiles of [`TILE`] rows, the last one filled up with zeros.
    fn tiles(&self) -> usize {
        self.outputs.div_ceil(TILE)
    }

    fn tile_bytes(&self) -> usize {
        self.inputs / self.format.unit_len() * self.format.unit_bytes()
    }

    fn tile(&self, index: usize) -> &[u8] {
        let bytes = self.tile_bytes();
        &self.packed.bytes()[index * bytes..(index + 1) * bytes]
    }
}

impl std::fmt::Debug for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Matrix({:?}, {}x{}, {:?})", self.format, self.outputs, self.inputs, self.isa)
    }
}
