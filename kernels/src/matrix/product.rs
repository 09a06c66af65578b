//! Sharing the product of activations and matrices between threads.

use std::cell::{Cell, RefCell};
use std::ops::Range;

use super::activations::{self, Activations};
#[cfg(target_arch = "x86_64")]
use super::codec::with_codec;
use super::format::{BLOCK, TILE};
use super::portable::Sums;
use super::{Matrix, dense, portable};
#[cfg(target_arch = "x86_64")]
use super::{amx, avx2, avx512};
use crate::activation::Gating;
use crate::split::each_stretch;
use crate::{Isa, Pool};

thread_local! {
    /// The activations of the last call, kept so that a call allocates nothing.
    static SCRATCH: Cell<Prepared> = Cell::default();
    /// What two matrices give for a few outputs, and what becomes of it.
    static GATES: RefCell<Vec<f32>> = RefCell::default();
}

/// Activations as the products want them.
#[derive(Default)]
struct Prepared {
    quantized: Activations,
    #[cfg(target_arch = "x86_64")]
    halves: amx::Halves,
}

/// Where they are, first to be written and then read by all threads.
#[derive(Clone, Copy)]
struct Place(*mut Prepared);

// SAFETY: whoever reads or writes there vouches that nobody does the other.
unsafe impl Sync for Place {}

impl Place {
    fn get(&self) -> *mut Prepared {
        self.0
    }
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

/// Blocks of activations below which quantizing them is not shared.
const QUANTIZED_BLOCKS: usize = 32;

/// Multiplies activations `[tokens, inputs]` with matrices that share them: each output is `[tokens, outputs]`.
///
/// # Panics
/// When the lengths of the slices are not those of the matrices.
pub fn matmul(pool: &Pool, x: &[f32], tokens: usize, outs: &mut [(&Matrix, &mut [f32])]) {
    for (matrix, out) in outs.iter() {
        assert_eq!(x.len(), tokens * matrix.inputs, "activations are [tokens, inputs]");
        assert_eq!(out.len(), tokens * matrix.outputs, "an output is [tokens, outputs]");
    }
    let outs: Vec<Output<'_>> = outs
        .iter_mut()
        .map(|(matrix, out)| Output { matrix, target: Target::new(out, matrix.outputs, 0) })
        .collect();
    let matrices: Vec<&Matrix> = outs.iter().map(|out| out.matrix).collect();
    let pairs = |matrix: &Matrix| matrix.tiles().div_ceil(2);
    let all = matrices.iter().map(|matrix| pairs(matrix)).sum();
    share(pool, x, tokens, &matrices, all, &|input, range| {
        let mut first = 0;
        for Output { matrix, target } in &outs {
            let end = first + pairs(matrix);
            let own = range.start.max(first)..range.end.min(end);
            if !own.is_empty() {
                let tiles = 2 * (own.start - first)..matrix.tiles().min(2 * (own.end - first));
                // SAFETY: every tile of an output is in one range alone.
                unsafe { input.multiply(matrix, tiles, *target) };
            }
            first = end;
        }
    });
}

/// The first half of a gated feed-forward layer (Shazeer 2020, arXiv:2002.05202): `out = gating(x gate^T) * (x up^T)`.
/// What both matrices give never leaves the cache of the thread that computed it.
///
/// # Panics
/// When the matrices are not of one shape, or the lengths of the slices not theirs.
pub fn gated_matmul(
    pool: &Pool,
    x: &[f32],
    tokens: usize,
    [gate, up]: [&Matrix; 2],
    gating: Gating,
    out: &mut [f32],
) {
    assert!(gate.inputs == up.inputs && gate.outputs == up.outputs, "matrices of one shape");
    assert_eq!(x.len(), tokens * gate.inputs, "activations are [tokens, inputs]");
    assert_eq!(out.len(), tokens * gate.outputs, "the output is [tokens, outputs]");
    let outputs = gate.outputs;
    let target = Target::new(out, outputs, 0);
    share(pool, x, tokens, &[gate, up], gate.tiles().div_ceil(2), &|input, range| {
        let tiles = 2 * range.start..gate.tiles().min(2 * range.end);
        let (first, end) = (tiles.start * TILE, outputs.min(tiles.end * TILE));
        let width = end - first;
        GATES.with_borrow_mut(|memory| {
            memory.resize(3 * tokens * width, 0.0);
            let (of_gate, rest) = memory.split_at_mut(tokens * width);
            let (of_up, products) = rest.split_at_mut(tokens * width);
            for (matrix, sums) in [(gate, &mut *of_gate), (up, &mut *of_up)] {
                // SAFETY: this memory is the thread's own.
                unsafe { input.multiply(matrix, tiles.clone(), Target::new(sums, width, first)) };
            }
            gating.apply(pool.isa(), of_gate, of_up, products);
            for (token, products) in products.chunks_exact(width).enumerate() {
                // SAFETY: these outputs are in this range alone.
                unsafe { target.write(token, first, products) };
            }
        });
    });
}

/// Prepares the activations and divides `pairs` of tiles of the matrices between the threads: pairs, since tile registers
/// take two at a time.
fn share(
    pool: &Pool,
    x: &[f32],
    tokens: usize,
    matrices: &[&Matrix],
    pairs: usize,
    task: &(dyn Fn(&Input<'_>, Range<usize>) + Sync),
) {
    let Some(first) = matrices.first() else { return };
    if tokens == 0 {
        return;
    }
    let mut prepared = SCRATCH.take();
    #[cfg(target_arch = "x86_64")]
    if let Some(parts) = matrices.iter().filter_map(|matrix| halves(matrix, tokens)).max() {
        // SAFETY: a matrix is packed for `Isa::Amx`, so packing has checked that it is there.
        unsafe { prepared.halves.pack(pool, x, first.inputs, parts) };
    }
    let quantizes =
        |matrix: &&Matrix| activations::wanted(matrix.format) && way(matrix, tokens) != Way::Halves;
    let blocks = if matrices.iter().any(quantizes) { tokens * (first.inputs / BLOCK) } else { 0 };
    let shares = (blocks / QUANTIZED_BLOCKS).clamp(usize::from(blocks > 0), 2 * pool.threads());
    let place = Place(&raw mut prepared);
    // SAFETY: nothing else looks at it before all shares are done.
    let room = (blocks > 0).then(|| unsafe { &mut (*place.get()).quantized }.room(tokens, first.inputs));
    let quantize = |index: usize| {
        let part = blocks * index / shares..blocks * (index + 1) / shares;
        if let Some(room) = &room {
            // SAFETY: each share has its own blocks, and nobody reads before all are done.
            unsafe { room.quantize(first.isa, x, part) };
        }
    };
    let bytes: usize = matrices.iter().map(|matrix| matrix.bytes()).sum();
    each_stretch(pool, shares, &quantize, pairs, (TASK_BYTES * pairs).div_ceil(bytes), &|range| {
        // SAFETY: all shares are done, and nobody writes any more.
        let prepared = unsafe { &*place.get() };
        task(&Input { x, prepared, tokens }, range);
    });
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
    /// Multiplies some tiles of a matrix.
    ///
    /// # Safety
    /// The target has room for the outputs of these tiles, and no other thread touches them.
    unsafe fn multiply(&self, matrix: &Matrix, tiles: Range<usize>, target: Target) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: these ways are of matrices packed for `Isa::Amx`; the caller vouches for the target.
        unsafe {
            match way(matrix, self.tokens) {
                Way::Vectors => {}
                Way::Bytes => {
                    let x = &self.prepared.quantized;
                    return amx::multiply_bytes(matrix, x, self.tokens, tiles, target);
                }
                Way::Halves => return amx::multiply(matrix, &self.prepared.halves, tiles, target),
            }
        }
        multiply(matrix, self, tiles, &|token, tile, sums| {
            let width = TILE.min(matrix.outputs - tile * TILE);
            // SAFETY: the caller vouches for the target.
            unsafe { target.write(token, tile * TILE, &sums[..width]) };
        });
    }
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

/// A matrix, and where its product goes.
struct Output<'a> {
    matrix: &'a Matrix,
    target: Target,
}

/// Where threads put a product, row-major, each its own columns.
#[derive(Clone, Copy)]
pub(super) struct Target {
    start: *mut f32,
    len: usize,
    /// Numbers between two tokens.
    pub(super) stride: usize,
    /// The output that comes first in a row.
    column: usize,
}

// SAFETY: whoever writes through it vouches that nobody else does to the same place.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    /// Rows of `stride` outputs from number `column` on.
    fn new(out: &mut [f32], stride: usize, column: usize) -> Self {
        Self { start: out.as_mut_ptr(), len: out.len(), stride, column }
    }

    /// Where an output of a token is.
    ///
    /// # Safety
    /// It is one of this target's, which is still borrowed.
    pub(super) unsafe fn at(self, token: usize, output: usize) -> *mut f32 {
        let place = token * self.stride + output - self.column;
        debug_assert!(place < self.len, "an output of this target");
        // SAFETY: the caller's promise.
        unsafe { self.start.add(place) }
    }

    /// Writes neighbouring outputs of a token.
    ///
    /// # Safety
    /// As [`Target::at`], for all of them; and nobody else touches them.
    unsafe fn write(self, token: usize, output: usize, numbers: &[f32]) {
        // SAFETY: the caller's promise.
        unsafe { std::ptr::copy_nonoverlapping(numbers.as_ptr(), self.at(token, output), numbers.len()) };
    }
}
