//! The product on the tile registers of newer processors (Intel AMX), for many tokens at once.
//!
//! One instruction multiplies 16 tokens by 32 inputs with 32 inputs by 16 outputs. It works on 16-bit floats (bf16) and
//! sums in 32 bits over all inputs, so that the scales of quantized blocks are applied once, when the weights of a tile
//! are unpacked, and not to every partial sum. Rounding both factors to bf16 costs less precision than rounding
//! activations to 8 bits. Weights that are plain floats, and the activations they meet, are split into two bf16 numbers
//! each; all products but that of the two small ones are summed (Henry, Tang and Heinecke, "Leveraging the bfloat16 Artificial Intelligence Datatype
//! For Higher-Precision Computations", 2019), which leaves an error near that of 32-bit floats.
//!
//! Instruction reference: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18.

mod activations;
mod bytes;
mod registers;
mod unpack;

use std::cell::RefCell;
use std::ops::Range;

pub(super) use activations::Halves;
pub(super) use bytes::multiply as multiply_bytes;
use registers::Configured;
pub(crate) use registers::available;

use super::format::{BLOCK, TILE};
use super::{Format, Matrix};

/// Numbers in one tile of activations or weights.
const TILE_LEN: usize = TILE * BLOCK;

/// Parts that activations are split into where they meet weights of this format: plain floats keep their precision.
pub(super) fn parts(format: Format) -> usize {
    if format.layout().is_some() { 1 } else { 2 }
}

/// Parts that weights of this format are split into.
fn weight_parts(format: Format) -> usize {
    if matches!(format, Format::F32 | Format::F16) { 2 } else { 1 }
}

/// Which parts of an activation and a weight are multiplied.
fn products(format: Format) -> &'static [(usize, usize)] {
    const PRODUCTS: [(usize, usize); 3] = [(0, 0), (1, 0), (0, 1)];
    &PRODUCTS[..parts(format) + weight_parts(format) - 1]
}

/// One tile, on a cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Tile([u16; TILE_LEN]);

/// Sums of 16 tokens by 16 outputs.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Sums([[f32; TILE]; TILE]);

thread_local! {
    /// Unpacked weights, kept so that a call allocates nothing.
    static WEIGHTS: RefCell<Vec<Tile>> = const { RefCell::new(Vec::new()) };
}

/// Where products go: row-major `[tokens, stride]`.
#[derive(Clone, Copy)]
pub(super) struct Target {
    /// The first number of the first token.
    pub(super) first: *mut f32,
    /// Numbers between two tokens: the outputs of the matrix.
    pub(super) stride: usize,
}

/// Multiplies some tiles of a matrix with all tokens.
///
/// # Safety
/// [`available`] holds; `target` has a row of `matrix.outputs` numbers for each token of `x`, and nobody else touches
/// the outputs of these tiles.
pub(super) unsafe fn multiply(matrix: &Matrix, x: &Halves, tiles: Range<usize>, target: Target) {
    WEIGHTS.with_borrow_mut(|weights| {
        let blocks = matrix.inputs.div_ceil(BLOCK);
        let parts = weight_parts(matrix.format);
        weights.resize(2 * blocks * parts, Tile([0; TILE_LEN]));
        let (left, right) = weights.split_at_mut(blocks * parts);
        // SAFETY: the caller vouches for the processor.
        let configured = unsafe { Configured::new() };
        for first in tiles.clone().step_by(2) {
            let pair = first + 1 < tiles.end;
            // SAFETY: as above.
            unsafe { unpack::tile(matrix, first, left) };
            if pair {
                // SAFETY: as above.
                unsafe { unpack::tile(matrix, first + 1, right) };
            }
            let products = products(matrix.format);
            let columns = Columns { left, right: pair.then_some(&*right), parts, products };
            for group in (0..x.groups()).step_by(2) {
                let mut sums = [Sums([[0.0; TILE]; TILE]); 4];
                columns.multiply(&configured, x, group, &mut sums);
                for (index, sums) in sums.iter().enumerate() {
                    let (row, column) = (group + index / 2, first + index % 2);
                    if row < x.groups() && column < tiles.end {
                        // SAFETY: the caller vouches for the target.
                        unsafe { store(sums, matrix.outputs, x.tokens(), row, column, target) };
                    }
                }
            }
        }
    });
}

/// The weights of one or two neighbouring tiles, unpacked.
struct Columns<'a> {
    left: &'a [Tile],
    right: Option<&'a [Tile]>,
    parts: usize,
    products: &'static [(usize, usize)],
}

impl Columns<'_> {
    /// Multiplies token groups `group` and, if there is one, `group + 1`; `sums` is `[2 groups, 2 tiles]`.
    fn multiply(&self, configured: &Configured, x: &Halves, group: usize, sums: &mut [Sums; 4]) {
        // A missing neighbour is computed twice and thrown away: rare, and simpler than kernels of other shapes.
        let upper = x.group(group);
        let lower = if group + 1 < x.groups() { x.group(group + 1) } else { upper };
        let right = self.right.unwrap_or(self.left);
        let blocks = self.left.len() / self.parts;
        configured.zero();
        for block in 0..blocks {
            for &(of_x, of_weight) in self.products {
                let (row, column) = (block * x.parts() + of_x, block * self.parts + of_weight);
                configured.multiply([&upper[row], &lower[row]], [&self.left[column], &right[column]]);
            }
        }
        configured.store(sums);
    }
}

/// Copies sums to where they belong, without those of tokens and outputs that are not there.
///
/// # Safety
/// As [`multiply`].
unsafe fn store(sums: &Sums, outputs: usize, tokens: usize, group: usize, tile: usize, target: Target) {
    let width = TILE.min(outputs - tile * TILE);
    let (first, count) = (group * TILE, TILE.min(tokens - group * TILE));
    for (row, sums) in sums.0[..count].iter().enumerate() {
        // SAFETY: row and columns are inside the target, and no other thread writes this tile.
        unsafe {
            let to = target.first.add((first + row) * target.stride + tile * TILE);
            if width == TILE {
                to.cast::<[f32; TILE]>().write_unaligned(*sums);
            } else {
                std::ptr::copy_nonoverlapping(sums.as_ptr(), to, width);
            }
        }
    }
}
