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
use crate::{Isa, Pool};

thread_local! {
    /// The quantized activations of the last call, kept so that a call allocates nothing.
    static SCRATCH: Cell<Activations> = Cell::default();

    /// The same, for products on tile registers.
    #[cfg(target_arch = "x86_64")]
    static HALVES: Cell<amx::Halves> = Cell::default();
}

/// Tokens that are multiplied with a tile while it is unpacked.
const TOKENS: usize = 16;

/// Bytes of weights below which a task is not worth handing to a thread.
const TASK_BYTES: usize = 16 << 10;

/// Tasks for each thread, so that one which was held up takes fewer.
const TASKS_PER_THREAD: usize = 4;

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
    #[cfg(target_arch = "x86_64")]
    if tokens >= amx::LEAST_TOKENS && outs.iter().all(|(matrix, _)| matrix.isa == Isa::Amx) {
        return on_tiles(pool, x, outs);
    }
    let mut quantized = SCRATCH.take();
    if outs.iter().any(|(matrix, _)| activations::wanted(matrix.format)) {
        quantized.quantize(first.isa, x, first.inputs);
    }
    let input = Input { x, quantized: &quantized, tokens };
    run(pool, outs, &|outs, index, tiles| {
        // SAFETY: every tile of an output belongs to exactly one task.
        multiply(outs.matrix(index), &input, tiles, &|token, tile, sums| unsafe {
            outs.store(index, token, tile, sums);
        });
    });
    SCRATCH.set(quantized);
}

/// The product on tile registers, for matrices packed for them.
#[cfg(target_arch = "x86_64")]
fn on_tiles(pool: &Pool, x: &[f32], outs: &mut [(&Matrix, &mut [f32])]) {
    let Some(inputs) = outs.first().map(|(matrix, _)| matrix.inputs) else { return };
    let parts = outs.iter().map(|(matrix, _)| amx::parts(matrix.format)).max().unwrap_or(1);
    let mut halves = HALVES.take();
    // SAFETY: the matrices are packed for `Isa::Amx`, so packing has checked that it is there.
    unsafe { halves.pack(pool, x, inputs, parts) };
    run(pool, outs, &|outs, index, tiles| {
        // SAFETY: as above; every tile of an output belongs to exactly one task.
        unsafe { amx::multiply(outs.matrix(index), &halves, tiles, outs.target(index)) };
    });
    HALVES.set(halves);
}

/// What all matrices are multiplied with.
struct Input<'a> {
    x: &'a [f32],
    quantized: &'a Activations,
    tokens: usize,
}

/// Multiplies some tiles of the output with this number.
type Part<'p> = &'p (dyn Fn(&Outputs<'_, '_, '_>, usize, Range<usize>) + Sync);

/// Splits the tiles of all matrices into tasks of about the same size.
fn run(pool: &Pool, outs: &mut [(&Matrix, &mut [f32])], part: Part<'_>) {
    let bytes: usize = outs.iter().map(|(matrix, _)| matrix.bytes()).sum();
    let share = (bytes / (pool.threads() * TASKS_PER_THREAD)).max(TASK_BYTES);
    // Even, since tile registers take two at a time.
    let tiles_per_task = |matrix: &Matrix| (share / matrix.tile_bytes()).max(1).next_multiple_of(2);
    let tasks_of = |matrix: &Matrix| matrix.tiles().div_ceil(tiles_per_task(matrix));
    let tasks = outs.iter().map(|(matrix, _)| tasks_of(matrix)).sum();
    let outs = Outputs::new(outs);
    pool.run(tasks, &|task| {
        let mut task = task;
        for (index, matrix) in outs.matrices() {
            let count = tasks_of(matrix);
            if task < count {
                let per_task = tiles_per_task(matrix);
                part(&outs, index, task * per_task..((task + 1) * per_task).min(matrix.tiles()));
                return;
            }
            task -= count;
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
            C => unsafe { avx512::quantized::<C>(matrix.tile(tile), input.quantized, first, sums) },
            {}
        ),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => with_codec!(
            matrix.format,
            // SAFETY: as above.
            C => unsafe { avx2::quantized::<C>(matrix.tile(tile), input.quantized, first, sums) },
            {}
        ),
        _ => portable::quantized(matrix, layout, tile, input.quantized, first, sums),
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
