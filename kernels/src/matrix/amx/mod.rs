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

/// What attention uses too.
pub(crate) mod tiles {
    pub(crate) use super::activations::{round, widen};
    pub(crate) use super::registers::Configured;
    pub(crate) use super::unpack::interleave;
    pub(crate) use super::{Sums, Tile};
}

use super::format::{BLOCK, Layout, TILE};
use super::product::Target;
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
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Tile(pub(crate) [u16; TILE_LEN]);

impl Tile {
    pub(crate) const ZERO: Self = Self([0; TILE_LEN]);
}

/// Sums of 16 tokens by 16 outputs.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Sums(pub(crate) [[f32; TILE]; TILE]);

impl Sums {
    pub(crate) const ZERO: Self = Self([[0.0; TILE]; TILE]);
}

/// Tiles of weights, beside as many of their neighbour, that fit into the first cache and leave room for what passes by.
const FIRST_CACHE_TILES: usize = 12;

/// What is kept from call to call, so that none allocates.
#[derive(Default)]
struct Scratch {
    /// Unpacked weights.
    weights: Vec<Tile>,
    /// For each two groups of tokens, what is summed up so far: `[2 groups, 2 tiles]`.
    sums: Vec<[Sums; 4]>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Multiplies some tiles of a matrix with all tokens.
///
/// Weights are unpacked for a stretch of the inputs at a time, so short that they stay in the first cache while the
/// activations of all tokens pass by. What is not summed up yet waits in memory.
///
/// # Safety
/// [`available`] holds; `target` has room for the outputs of these tiles for each token of `x`, and nobody else touches
/// them.
pub(super) unsafe fn multiply(matrix: &Matrix, x: &Halves, tiles: Range<usize>, target: Target) {
    SCRATCH.with_borrow_mut(|scratch| {
        let blocks = matrix.inputs.div_ceil(BLOCK);
        let parts = weight_parts(matrix.format);
        let stretch = stretch(matrix.format, blocks);
        let Scratch { weights, sums } = scratch;
        weights.resize(2 * stretch * parts, Tile::ZERO);
        sums.resize(x.groups().div_ceil(2), [Sums::ZERO; 4]);
        // SAFETY: the caller vouches for the processor.
        let configured = unsafe { Configured::new() };
        for first in tiles.clone().step_by(2) {
            let count = 2.min(tiles.end - first);
            for start in (0..blocks).step_by(stretch) {
                let part = start..blocks.min(start + stretch);
                let weights = &mut weights[..2 * part.len() * parts];
                for (tile, weights) in weights.chunks_exact_mut(part.len() * parts).take(count).enumerate() {
                    // SAFETY: as above.
                    unsafe { unpack::tile(matrix, first + tile, part.clone(), weights) };
                }
                let columns = Columns { configured: &configured, matrix, x, first, count, part, weights };
                for (sums, group) in sums.iter_mut().zip((0..x.groups()).step_by(2)) {
                    // SAFETY: the caller vouches for the target.
                    unsafe { columns.multiply(group, sums, target) };
                }
            }
        }
    });
}

/// Blocks of inputs that are unpacked at a time: whole packed units, and about as many every time.
fn stretch(format: Format, blocks: usize) -> usize {
    let most = FIRST_CACHE_TILES / weight_parts(format);
    let even = blocks.div_ceil(blocks.div_ceil(most));
    even.next_multiple_of(format.layout().map_or(1, Layout::groups))
}

/// One tile or two neighbouring ones, unpacked for a part of the inputs.
struct Columns<'a> {
    configured: &'a Configured,
    matrix: &'a Matrix,
    x: &'a Halves,
    /// The first tile.
    first: usize,
    /// Tiles.
    count: usize,
    /// Blocks of inputs.
    part: Range<usize>,
    /// `[2, blocks, parts]`.
    weights: &'a [Tile],
}

impl Columns<'_> {
    /// Multiplies token groups `group` and, if there is one, `group + 1`. `sums`, `[2 groups, 2 tiles]`, are those of the
    /// parts before; after the last part they go to the target.
    ///
    /// # Safety
    /// As [`multiply`].
    unsafe fn multiply(&self, group: usize, sums: &mut [Sums; 4], target: Target) {
        if self.part.start == 0 {
            self.configured.zero();
        } else {
            self.configured.load(sums);
        }
        self.add_products(group);
        let is_last = self.part.end * BLOCK >= self.matrix.inputs;
        let is_whole = (group + 2) * TILE <= self.x.tokens()
            && self.count == 2
            && (self.first + 2) * TILE <= self.matrix.outputs;
        if is_last && is_whole {
            // SAFETY: the target has these 32 rows and columns.
            unsafe {
                let to = target.at(group * TILE, self.first * TILE);
                self.configured.store_rows(to, target.stride);
            }
            return;
        }
        self.configured.store(sums);
        if is_last {
            let places = (0..4).map(|index| (group + index / 2, index % 2));
            for ((group, tile), sums) in places.zip(sums.iter()) {
                if group < self.x.groups() && tile < self.count {
                    // SAFETY: the caller vouches for the target.
                    unsafe {
                        store(sums, self.matrix.outputs, self.x.tokens(), group, self.first + tile, target);
                    }
                }
            }
        }
    }

    fn add_products(&self, group: usize) {
        let (x, of_x, of_weights) = (self.x, self.x.parts(), weight_parts(self.matrix.format));
        let tiles = |group: usize| &x.group(group)[self.part.start * of_x..self.part.end * of_x];
        let (left, right) = self.weights.split_at(self.weights.len() / 2);
        // A missing neighbour is computed twice and thrown away: rare, and simpler than kernels of other shapes.
        let upper = tiles(group);
        let lower = if group + 1 < x.groups() { tiles(group + 1) } else { upper };
        let right = if self.count == 2 { right } else { left };
        let products = products(self.matrix.format);
        for block in 0..self.part.len() {
            for &(part_of_x, part_of_weight) in products {
                let (row, column) = (block * of_x + part_of_x, block * of_weights + part_of_weight);
                self.configured.multiply([&upper[row], &lower[row]], [&left[column], &right[column]]);
            }
        }
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
            let to = target.at(first + row, tile * TILE);
            if width == TILE {
                to.cast::<[f32; TILE]>().write_unaligned(*sums);
            } else {
                std::ptr::copy_nonoverlapping(sums.as_ptr(), to, width);
            }
        }
    }
}
