//! The two products of attention on tile registers (Intel AMX), for many query rows at once.
//!
//! Every factor is split into two 16-bit floats whose sum has 16 bits of precision; all products but that of the two small
//! ones are summed, as for matrices of floats ([`crate::matrix`]). Keys and values in half precision lose nothing.

use std::arch::x86_64::{
    __m512, __m512i, _mm256_loadu_si256, _mm512_add_ps, _mm512_cvtph_ps, _mm512_loadu_ps,
    _mm512_maskz_loadu_ps, _mm512_setzero_ps, _mm512_storeu_ps, _mm512_storeu_si512, _mm512_sub_ps,
};
use std::ops::Range;

use half::f16;

use super::tile::{STEP, Scratch, Source, Task};
use crate::kv::BLOCK_TOKENS;
use crate::matrix::tiles::{Configured, Sums, Tile, interleave, round, widen};
use crate::simd::{MAX_LANES, Simd};

/// Rows of a tile, and columns of the right side.
const ROWS: usize = 16;
/// Numbers that a tile multiplies with each other: columns of the left side, rows of the right one.
const DEPTH: usize = 32;
/// Numbers split into a great part and a small one.
const PARTS: usize = 2;
/// Which parts are multiplied.
const PRODUCTS: [(usize, usize); 3] = [(0, 0), (1, 0), (0, 1)];

const _: () = assert!(BLOCK_TOKENS == DEPTH && BLOCK_TOKENS == 2 * ROWS && MAX_LANES == ROWS);

/// Factors as tiles, kept from step to step.
#[derive(Debug, Default)]
pub(super) struct Packed {
    /// `[groups of 16 rows, depths, PARTS]`, always an even number of groups.
    queries: Vec<Tile>,
    /// Keys of one block, `[2, depths, PARTS]`, or values of a step, `[columns, blocks, PARTS]`.
    right: Vec<Tile>,
    /// Weights of two groups of rows, `[2, blocks, PARTS]`.
    weights: Vec<Tile>,
}

fn grow(tiles: &mut Vec<Tile>, len: usize) {
    if tiles.len() < len {
        tiles.resize(len, Tile::ZERO);
    }
}

/// A number as keys and values may be stored.
trait Number: Copy {
    /// Sixteen of them.
    ///
    /// # Safety
    /// They may be read, and the processor has AVX-512.
    unsafe fn load(from: *const Self) -> __m512;
}

impl Number for f32 {
    #[inline(always)]
    unsafe fn load(from: *const Self) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_loadu_ps(from) }
    }
}

impl Number for f16 {
    #[inline(always)]
    unsafe fn load(from: *const Self) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }
}

/// Packs the queries.
///
/// # Safety
/// The processor has AMX.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) unsafe fn begin(task: &Task, scratch: &mut Scratch) {
    let depths = task.dim.div_ceil(DEPTH);
    let groups = task.rows.div_ceil(2 * ROWS) * 2;
    grow(&mut scratch.packed.queries, groups * depths * PARTS);
    let groups = scratch.packed.queries.chunks_exact_mut(depths * PARTS);
    for (group, rows) in groups.zip(scratch.queries[..task.rows * task.dim].chunks(ROWS * task.dim)) {
        for (at, row) in rows.chunks_exact(task.dim).enumerate() {
            for (part, tiles) in row.chunks(DEPTH).zip(group.as_chunks_mut::<PARTS>().0) {
                let (first, second) = part.split_at(part.len().min(ROWS));
                place(tiles, at, split(load(first), load(second)));
            }
        }
    }
}

/// Scores of the step's blocks, as far as the rows see them: `[rows, STEP]`.
///
/// # Safety
/// The processor has AMX, and [`begin`] has packed the queries.
#[inline(always)]
pub(super) unsafe fn score<S: Simd, K: Source>(
    s: S,
    source: &K,
    task: &Task,
    first: usize,
    step: &Range<usize>,
    seen: &impl Fn(usize) -> Range<usize>,
    scratch: &mut Scratch,
) {
    let Scratch { keys, scores, packed, .. } = scratch;
    grow(&mut packed.right, 2 * task.dim.div_ceil(DEPTH) * PARTS);
    // SAFETY: the caller vouches for the processor.
    let configured = unsafe { Configured::new() };
    for at in (first..step.end).step_by(BLOCK_TOKENS) {
        // SAFETY: the caller vouches for the processor.
        unsafe {
            match source.stored(at / BLOCK_TOKENS) {
                Some((stored, _)) => pack_keys(&stored[..task.dim * BLOCK_TOKENS], &mut packed.right),
                None => {
                    source.keys(s, at / BLOCK_TOKENS, keys);
                    pack_keys(&keys[..task.dim * BLOCK_TOKENS], &mut packed.right);
                }
            }
        }
        for pair in (0..task.rows).step_by(2 * ROWS) {
            if !seen_blocks(task, pair, at, BLOCK_TOKENS, seen).is_empty() {
                score_pair(&configured, task, packed, pair, &mut scores[pair * STEP + at - first..]);
            }
        }
    }
}

/// Which of the blocks of `len` tokens from `first` on one of the 32 rows from `pair` on sees.
#[inline(always)]
fn seen_blocks(
    task: &Task,
    pair: usize,
    first: usize,
    len: usize,
    seen: &impl Fn(usize) -> Range<usize>,
) -> Range<usize> {
    let last = task.rows.min(pair + 2 * ROWS) - 1;
    let (start, end) = (seen(pair).start.max(first), seen(last).end.min(first + len));
    if start < end { (start - first) / BLOCK_TOKENS..(end - first).div_ceil(BLOCK_TOKENS) } else { 0..0 }
}

/// Keys, `[dim, BLOCK_TOKENS]`, as `[2, depths, PARTS]` tiles; dimensions that are not there are zero.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pack_keys<N: Number>(keys: &[N], tiles: &mut [Tile]) {
    let dim = keys.len() / BLOCK_TOKENS;
    let depths = dim.div_ceil(DEPTH);
    for (half, tiles) in tiles.chunks_exact_mut(depths * PARTS).take(2).enumerate() {
        for (depth, tiles) in tiles.as_chunks_mut::<PARTS>().0.iter_mut().enumerate() {
            for pair in 0..DEPTH / 2 {
                let row = |row: usize| match keys.get(row * BLOCK_TOKENS + half * ROWS..) {
                    // SAFETY: the row goes on for sixteen numbers at least.
                    Some(row) if row.len() >= ROWS => unsafe { N::load(row.as_ptr()) },
                    _ => _mm512_setzero_ps(),
                };
                let at = depth * DEPTH + 2 * pair;
                place(tiles, pair, interleaved(split(row(at), row(at + 1))));
            }
        }
    }
}

/// Scores of 32 rows and the 32 tokens of the packed keys.
fn score_pair(configured: &Configured, task: &Task, packed: &Packed, pair: usize, scores: &mut [f32]) {
    let len = task.dim.div_ceil(DEPTH) * PARTS;
    let (upper, lower) = packed.queries[pair / ROWS * len..][..2 * len].split_at(len);
    let (left, right) = packed.right[..2 * len].split_at(len);
    assert!(scores.len() >= (2 * ROWS - 1) * STEP + BLOCK_TOKENS, "32 rows of scores");
    configured.zero();
    multiply(configured, [upper, lower], [left, right]);
    // SAFETY: the scores have 32 rows and columns, see above.
    unsafe { configured.store_rows(scores.as_mut_ptr(), STEP) };
}

/// Adds the products along the depth; all sides are `[depths, PARTS]`.
#[inline(always)]
fn multiply(configured: &Configured, [upper, lower]: [&[Tile]; 2], [left, right]: [&[Tile]; 2]) {
    let rows = upper.as_chunks::<PARTS>().0.iter().zip(lower.as_chunks::<PARTS>().0);
    let columns = left.as_chunks::<PARTS>().0.iter().zip(right.as_chunks::<PARTS>().0);
    for ((upper, lower), (left, right)) in rows.zip(columns) {
        for (of_row, of_column) in PRODUCTS {
            configured.multiply([&upper[of_row], &lower[of_row]], [&left[of_column], &right[of_column]]);
        }
    }
}

/// Adds the step's values by their weights, which lie where the scores were.
///
/// # Safety
/// The processor has AMX.
#[inline(always)]
pub(super) unsafe fn gather<S: Simd, K: Source>(
    s: S,
    source: &K,
    task: &Task,
    first: usize,
    step: &Range<usize>,
    seen: &impl Fn(usize) -> Range<usize>,
    scratch: &mut Scratch,
) {
    let padded = task.dim.next_multiple_of(MAX_LANES);
    let blocks = (step.end - first).div_ceil(BLOCK_TOKENS);
    let Scratch { scores, values, packed, out, .. } = scratch;
    grow(&mut packed.right, padded / ROWS * blocks * PARTS);
    grow(&mut packed.weights, 2 * blocks * PARTS);
    for block in 0..blocks {
        let at = first + block * BLOCK_TOKENS;
        let tokens = step.start.saturating_sub(at)..BLOCK_TOKENS.min(step.end - at);
        let to = Place { tiles: &mut packed.right, blocks, block, tokens };
        // SAFETY: the caller vouches for the processor.
        unsafe {
            match source.stored(at / BLOCK_TOKENS) {
                Some((_, stored)) => pack_values(stored, padded, to),
                None => {
                    source.values(s, at / BLOCK_TOKENS, values);
                    pack_values(values, padded, to);
                }
            }
        }
    }
    // SAFETY: the caller vouches for the processor.
    let configured = unsafe { Configured::new() };
    for pair in (0..task.rows).step_by(2 * ROWS) {
        let rows = pair..task.rows.min(pair + 2 * ROWS);
        let part = seen_blocks(task, pair, first, step.end - first, seen);
        if part.is_empty() {
            continue;
        }
        // SAFETY: the caller vouches for the processor.
        unsafe {
            pack_weights(&scores[pair * STEP..], rows.len(), part.clone(), &mut packed.weights);
            gather_pair(
                &configured,
                packed,
                blocks,
                part,
                &mut out[rows.start * padded..rows.end * padded],
                padded,
            );
        }
    }
}

/// Where the values of a block go: `[columns, blocks, PARTS]`.
struct Place<'a> {
    tiles: &'a mut [Tile],
    blocks: usize,
    block: usize,
    /// Those of the block's tokens that are there; the others are zero.
    tokens: Range<usize>,
}

/// Values, `[BLOCK_TOKENS, padded]`, as tiles.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pack_values<N: Number>(values: &[N], padded: usize, place_of: Place<'_>) {
    let Place { tiles, blocks, block, tokens } = place_of;
    let values = &values[..BLOCK_TOKENS * padded];
    for (column, tiles) in tiles.chunks_exact_mut(blocks * PARTS).take(padded / ROWS).enumerate() {
        let tiles = &mut tiles.as_chunks_mut::<PARTS>().0[block];
        for pair in 0..DEPTH / 2 {
            let row = |token: usize| {
                if !tokens.contains(&token) {
                    return _mm512_setzero_ps();
                }
                let row = &values[token * padded + column * ROWS..][..ROWS];
                // SAFETY: sixteen numbers; the caller vouches for the processor.
                unsafe { N::load(row.as_ptr()) }
            };
            place(tiles, pair, interleaved(split(row(2 * pair), row(2 * pair + 1))));
        }
    }
}

/// Weights, `[rows, STEP]`, of some blocks as `[2, blocks, PARTS]` tiles.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pack_weights(weights: &[f32], rows: usize, part: Range<usize>, tiles: &mut [Tile]) {
    let groups = tiles.chunks_exact_mut(part.len() * PARTS);
    for (group, weights) in groups.zip(weights[..rows * STEP].chunks(ROWS * STEP)) {
        for (at, row) in weights.chunks_exact(STEP).enumerate() {
            let row = row[part.start * BLOCK_TOKENS..part.end * BLOCK_TOKENS].as_chunks::<DEPTH>().0;
            for (weights, tiles) in row.iter().zip(group.as_chunks_mut::<PARTS>().0) {
                let (first, second) = weights.split_at(ROWS);
                place(tiles, at, split(load(first), load(second)));
            }
        }
    }
}

/// Adds to the sums of up to 32 rows, `[rows, padded]`.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn gather_pair(
    configured: &Configured,
    packed: &Packed,
    blocks: usize,
    part: Range<usize>,
    out: &mut [f32],
    padded: usize,
) {
    let (upper, lower) = packed.weights[..2 * part.len() * PARTS].split_at(part.len() * PARTS);
    let columns = padded / ROWS;
    for column in (0..columns).step_by(2) {
        // A missing neighbour is computed twice and thrown away.
        let next = columns.min(column + 2) - 1;
        let values = |column: usize| {
            let start = column * blocks;
            &packed.right[(start + part.start) * PARTS..(start + part.end) * PARTS]
        };
        let mut sums = [Sums::ZERO; 4];
        configured.zero();
        multiply(configured, [upper, lower], [values(column), values(next)]);
        configured.store(&mut sums);
        for (row, out) in out.chunks_exact_mut(padded).enumerate() {
            let sums = &sums[row / ROWS * 2..][..2];
            let columns = out[column * ROWS..].as_chunks_mut::<ROWS>().0.iter_mut().zip(sums);
            for (out, sums) in columns {
                // SAFETY: both are sixteen numbers.
                unsafe {
                    let sum = _mm512_add_ps(load(out), load(&sums.0[row % ROWS]));
                    _mm512_storeu_ps(out.as_mut_ptr(), sum);
                }
            }
        }
    }
}

/// Two vectors as bf16, and what these leave.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn split(first: __m512, second: __m512) -> [__m512i; PARTS] {
    let great = round(first, second);
    let (of_first, of_second) = widen(great);
    [great, round(_mm512_sub_ps(first, of_first), _mm512_sub_ps(second, of_second))]
}

/// Pairs of what was sixteen numbers and sixteen.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn interleaved([great, small]: [__m512i; PARTS]) -> [__m512i; PARTS] {
    [interleave(great), interleave(small)]
}

/// Puts a row into the tile of each part.
#[inline]
#[target_feature(enable = "avx512f")]
fn place(tiles: &mut [Tile; PARTS], row: usize, halves: [__m512i; PARTS]) {
    for (tile, halves) in tiles.iter_mut().zip(halves) {
        let to = &mut tile.0[row * DEPTH..(row + 1) * DEPTH];
        // SAFETY: the row is 64 bytes long.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), halves) };
    }
}

/// Up to sixteen numbers, then zeros.
#[inline]
#[target_feature(enable = "avx512f")]
fn load(x: &[f32]) -> __m512 {
    let count = x.len().min(ROWS);
    let mask = ((1_u32 << count) - 1) as u16;
    // SAFETY: the mask leaves out what is behind the slice.
    unsafe { _mm512_maskz_loadu_ps(mask, x.as_ptr()) }
}
