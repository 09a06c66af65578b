//! Sharing the product of activations and matrices between threads.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Range;

use super::activations::{self, Activations};
#[cfg(target_arch = "x86_64")]
use super::codec::with_codec;
use super::format::TILE;
use super::portable::Sums;
use super::{Matrix, dense, portable};
#[cfg(target_arch = "x86_64")]
use super::{amx, avx2, avx512};
use crate::split::each_stretch;
use crate::{Isa, Pool};

thread_local! {
    /// The activations of the last call, kept so that a call allocates nothing.
    static SCRATCH: Cell<Prepared> = Cell::default();
}

/// Activations as the products want them.
#[derive(Default)]
struct Prepared {
    quantized: Activations,
    #[cfg(target_arch = "x86_64")]
    halves: amx::Halves,
}

/// From this many tokens on, unpacking codes for tile registers pays.
const BYTES_FROM: usize = 5;

/// From this many tokens on, making 16-bit floats out of codes pays.
const HALVES_FROM: usize = 32;

/// From this many tokens on, splitting weights that are floats pays.
const FLOAT_HALVES_FROM: usize = 16;

/// Tokens that are multiplied with a tile while it is unpacked.
const TOKENS: usize = 16;

/// Bytes of weights that a thread takes at a time: fewer are not worth handing out.
const TASK_BYTES: usize = 16 << 10;

/// Multiplies activations `[tokens, inputs]` with matrices that share them: each output is `[tokens, outputs]`.
///
/// # Panics
/// When the lengths of the slices are not those of the matrices.
pub fn matmul(pool: &Pool, x: &[f32], tokens: usize, outs: &mut [(&Matrix, &mut [f32])]) {
    for (matrix, out) in outs.iter() {
        assert_eq!(x.len(), tokens * matrix.inputs, "activations are [tokens, inputs]");
        assert_eq!(out.len(), tokens * matrix.outputs, "an output is [tokens, outputs]");
    }
    let Some((first, _)) = outs.first() else { return };
    if tokens == 0 {
        return;
    }
    let mut prepared = SCRATCH.take();
    let way = |matrix: &Matrix| way(matrix, tokens);
    if outs.iter().any(|(matrix, _)| activations::wanted(matrix.format) && way(matrix) != Way::Halves) {
        prepared.quantized.quantize(first.isa, x, first.inputs);
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(parts) = outs.iter().filter_map(|(m, _)| halves(m, tokens)).max() {
        // SAFETY: a matrix is packed for `Isa::Amx`, so packing has checked that it is there.
        unsafe { prepared.halves.pack(pool, x, first.inputs, parts) };
    }
    let input = Input { x, prepared: &prepared, tokens };
    // SAFETY: every tile of an output belongs to exactly one task.
    run(pool, outs, &|outs, index, tiles| unsafe { input.multiply(outs, index, tiles) });
    SCRATCH.set(prepared);
}

/// How a product is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Tile by tile in vector registers.
    Vectors,
    /// In tile registers, with activations of 8 bits.
    Bytes,
    /// In tile registers, with activations of 16 bits.
    Halves,
}

fn way(matrix: &Matrix, tokens: usize) -> Way {
    let quantized = activations::wanted(matrix.format);
    match tokens {
        _ if matrix.isa != Isa::Amx => Way::Vectors,
        0..BYTES_FROM if quantized => Way::Vectors,
        0..HALVES_FROM if quantized => Way::Bytes,
        0..FLOAT_HALVES_FROM => Way::Vectors,
        _ => Way::Halves,
    }
}

/// The parts that the activations are to be split into, if this matrix wants halves.
#[cfg(target_arch = "x86_64")]
fn halves(matrix: &Matrix, tokens: usize) -> Option<usize> {
    (way(matrix, tokens) == Way::Halves).then(|| amx::parts(matrix.format))
}

/// What all matrices are multiplied with.
struct Input<'a> {
    x: &'a [f32],
    prepared: &'a Prepared,
    tokens: usize,
}

impl Input<'_> {
    /// Multiplies some tiles of the output with this number.
    ///
    /// # Safety
    /// No other thread stores these tiles of this output.
    unsafe fn multiply(&self, outs: &Outputs<'_, '_, '_>, index: usize, tiles: Range<usize>) {
        let matrix = outs.matrix(index);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: these ways are of matrices packed for `Isa::Amx`; the caller vouches for the tiles.
        unsafe {
            match way(matrix, self.tokens) {
                Way::Vectors => {}
                Way::Bytes => {
                    let x = &self.prepared.quantized;
                    return amx::multiply_bytes(matrix, x, self.tokens, tiles, outs.target(index));
                }
                Way::Halves => {
                    return amx::multiply(matrix, &self.prepared.halves, tiles, outs.target(index));
                }
            }
        }
        // SAFETY: the caller vouches for the tiles.
        multiply(matrix, self, tiles, &|token, tile, sums| unsafe { outs.store(index, token, tile, sums) });
    }
}

/// Multiplies some tiles of the output with this number.
type Part<'p> = &'p (dyn Fn(&Outputs<'_, '_, '_>, usize, Range<usize>) + Sync);

/// Splits the tiles of all matrices between the threads, in pairs, since tile registers take two at a time.
fn run(pool: &Pool, outs: &mut [(&Matrix, &mut [f32])], part: Part<'_>) {
    let pairs = |matrix: &Matrix| matrix.tiles().div_ceil(2);
    let all: usize = outs.iter().map(|(matrix, _)| pairs(matrix)).sum();
    let bytes: usize = outs.iter().map(|(matrix, _)| matrix.bytes()).sum();
    let grain = (TASK_BYTES * all).div_ceil(bytes);
    let outs = Outputs::new(outs);
    each_stretch(pool, all, grain, &|range| {
        let mut first = 0;
        for (index, matrix) in outs.matrices() {
            let end = first + pairs(matrix);
            let own = range.start.max(first)..range.end.min(end);
            if !own.is_empty() {
                part(&outs, index, 2 * (own.start - first)..(2 * (own.end - first)).min(matrix.tiles()));
            }
            first = end;
        }
    });
}

/// The sums of each token on a cache line of its own: a register that crosses lines costs twice.
#[repr(align(64))]
struct Room([Sums; TOKENS]);

/// Takes the sums of one token and one tile.
type Store<'a> = &'a dyn Fn(usize, usize, &Sums);

/// Multiplies some tiles of a matrix with all tokens. Tokens are the outer loop: their activations stay in the first
/// cache while the tiles stream by.
fn multiply(matrix: &Matrix, input: &Input<'_>, tiles: Range<usize>, store: Store<'_>) {
    let mut sums = Room([[0.0; TILE]; TOKENS]);
    for first in (0..input.tokens).step_by(TOKENS) {
        let sums = &mut sums.0[..TOKENS.min(input.tokens - first)];
        for tile in tiles.clone() {
            tile_product(matrix, input, tile, first, sums);
            for (token, sums) in sums.iter().enumerate() {
                store(first + token, tile, sums);
            }
        }
    }
}

/// Multiplies one tile with the tokens `first..first + sums.len()`.
fn tile_product(matrix: &Matrix, input: &Input<'_>, tile: usize, first: usize, sums: &mut [Sums]) {
    let Some(layout) = matrix.format.layout() else {
        return dense::multiply(matrix, tile, input.x, first, sums);
    };
    match matrix.isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni | Isa::Amx => with_codec!(
            matrix.format,
            // SAFETY: packing has checked that the processor has this instruction set.
            C => unsafe { avx512::quantized::<C>(matrix.tile(tile), &input.prepared.quantized, first, sums) },
            {}
        ),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => with_codec!(
            matrix.format,
            // SAFETY: as above.
            C => unsafe { avx2::quantized::<C>(matrix.tile(tile), &input.prepared.quantized, first, sums) },
            {}
        ),
        _ => portable::quantized(matrix, layout, tile, &input.prepared.quantized, first, sums),
    }
}

/// The outputs of a product, which tasks fill at the same time: each its own tiles.
struct Outputs<'s, 'a, 'b> {
    outs: *const (&'a Matrix, &'b mut [f32]),
    count: usize,
    exclusive: PhantomData<&'s mut [f32]>,
}

// SAFETY: matrices are only read; `store` says why its writes do not meet.
unsafe impl Sync for Outputs<'_, '_, '_> {}

impl<'s, 'a, 'b> Outputs<'s, 'a, 'b> {
    fn new(outs: &'s mut [(&'a Matrix, &'b mut [f32])]) -> Self {
        Self { outs: outs.as_mut_ptr(), count: outs.len(), exclusive: PhantomData }
    }

    fn matrix(&self, index: usize) -> &'a Matrix {
        assert!(index < self.count, "an output of this product");
        // SAFETY: `outs` points to `count` pairs that outlive `self`; nobody writes the pairs themselves.
        unsafe { (*self.outs.add(index)).0 }
    }

    fn matrices(&self) -> impl Iterator<Item = (usize, &'a Matrix)> {
        (0..self.count).map(|index| (index, self.matrix(index)))
    }

    /// Writes what belongs to a token and a tile, leaving out the rows that only fill the last tile up.
    ///
    /// # Safety
    /// No other thread stores the same token and tile of this output, and `token` is below the product's tokens.
    unsafe fn store(&self, index: usize, token: usize, tile: usize, sums: &Sums) {
        let outputs = self.matrix(index).outputs;
        let rows = TILE.min(outputs - tile * TILE);
        let out = self.first(index);
        // SAFETY: `matmul` has checked that the output holds `tokens * outputs` numbers; the caller is the only one
        // that touches these.
        unsafe {
            let to = out.add(token * outputs + tile * TILE);
            std::ptr::copy_nonoverlapping(sums.as_ptr(), to, rows);
        }
    }

    /// The first number of an output.
    fn first(&self, index: usize) -> *mut f32 {
        assert!(index < self.count, "an output of this product");
        // SAFETY: the index is checked. The slice's pointer is read without borrowing the slice, and a unique
        // reference has the layout of a pointer.
        let out: *mut [f32] = unsafe { (&raw const (*self.outs.add(index)).1).cast::<*mut [f32]>().read() };
        out.cast()
    }

    /// Where products on tile registers go.
    #[cfg(target_arch = "x86_64")]
    fn target(&self, index: usize) -> amx::Target {
        amx::Target { first: self.first(index), stride: self.matrix(index).outputs }
    }
}
