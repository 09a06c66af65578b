//! Some query rows against a stretch of keys, softmax and all, in one pass (Milakov and Gimelshein 2018,
//! arXiv:1805.02867; Dao et al. 2022, arXiv:2205.14135).

use std::ops::Range;

use half::f16;

use super::product::{Product, ROWS};
use crate::Isa;
use crate::kv::BLOCK_TOKENS;
use crate::simd::{Element, MAX_LANES, Simd};

/// Blocks whose scores are turned into weights together.
const STEP_BLOCKS: usize = 4;
/// Rows that scores are computed for at a time at most: so many lines there are for the last of them.
const ROWS_ASIDE: usize = 32;
/// Rows from which on tile registers pay.
const TILES_PAY: usize = 24;
pub(super) const STEP: usize = STEP_BLOCKS * BLOCK_TOKENS;

/// Where the keys and values of one head of one sequence are, in blocks of [`BLOCK_TOKENS`].
///
/// Methods are to be `inline(always)`.
pub(super) trait Source {
    /// Keys, `[dim, BLOCK_TOKENS]`, and values, `[BLOCK_TOKENS, dim made whole vectors]`, where they are stored so.
    fn stored(&self, block: usize) -> Option<(&[f16], &[f16])>;
    /// Asks for the keys and values of one block, which are read soon.
    #[inline(always)]
    fn prefetch(&self, _block: usize) {}
    /// Writes the keys of one block as `[dim, BLOCK_TOKENS]`; columns of tokens that are not there may be anything.
    fn keys<S: Simd>(&self, s: S, block: usize, out: &mut [f32]);
    /// Writes the values of one block as `[BLOCK_TOKENS, dim made whole vectors]`; as above for the rows.
    fn values<S: Simd>(&self, s: S, block: usize, out: &mut [f32]);
}

/// What a tile is to compute.
#[derive(Debug, Clone)]
pub(super) struct Task {
    /// Rows of queries.
    pub(super) rows: usize,
    /// Dimensions of a head.
    pub(super) dim: usize,
    /// Positions of the keys.
    pub(super) keys: Range<usize>,
    pub(super) scale: f32,
    pub(super) softcap: Option<f32>,
    /// Whether the products are left to the tile registers, which are there.
    pub(super) tiles: bool,
}

impl Task {
    /// Whether so many rows are better left to the tile registers.
    pub(super) fn wants_tiles(isa: Isa, rows: usize) -> bool {
        cfg!(target_arch = "x86_64") && isa >= Isa::Amx && rows >= TILES_PAY
    }
}

/// Memory that one thread keeps from tile to tile.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) queries: Vec<f32>,
    /// A key that is about to be stored.
    pub(super) key: Vec<f32>,
    pub(super) scores: Vec<f32>,
    pub(super) keys: Vec<f32>,
    pub(super) values: Vec<f32>,
    #[cfg(target_arch = "x86_64")]
    pub(super) packed: super::tiles::Packed,
    /// Weighted sums of the values, `[rows, dim made whole vectors]`, not yet divided by [`Self::total`].
    pub(super) out: Vec<f32>,
    /// Of each row, the greatest score so far; the weights are relative to it.
    pub(super) greatest: Vec<f32>,
    /// Of each row, the sum of its weights.
    pub(super) total: Vec<f32>,
}

impl Scratch {
    fn prepare(&mut self, rows: usize, dim: usize) {
        let padded = dim.next_multiple_of(MAX_LANES);
        self.out.clear();
        self.out.resize(rows * padded, 0.0);
        self.greatest.clear();
        self.greatest.resize(rows, f32::NEG_INFINITY);
        self.total.clear();
        self.total.resize(rows, 0.0);
        grow(&mut self.scores, rows.next_multiple_of(ROWS_ASIDE) * STEP);
        grow(&mut self.keys, dim * BLOCK_TOKENS);
        grow(&mut self.values, padded * BLOCK_TOKENS);
    }

    /// Writes the weighted mean of a row.
    #[inline(always)]
    pub(super) fn mean<S: Simd>(&self, s: S, row: usize, dim: usize, out: &mut [f32]) {
        let sums = &self.out[row * dim.next_multiple_of(MAX_LANES)..][..dim];
        let factor = s.splat(1.0 / self.total[row]);
        for (sums, out) in sums.chunks(S::LANES).zip(out.chunks_mut(S::LANES)) {
            if sums.len() == S::LANES {
                s.write(out, s.mul(s.read(sums), factor));
            } else {
                s.write_short(out, s.mul(s.read_short(sums), factor));
            }
        }
    }

    /// Copies the sums, the greatest scores and the totals, one after the other.
    pub(super) fn save(&self, to: &mut [f32]) {
        let (sums, rest) = to.split_at_mut(self.out.len());
        let (greatest, total) = rest.split_at_mut(self.greatest.len());
        sums.copy_from_slice(&self.out);
        greatest.copy_from_slice(&self.greatest);
        total.copy_from_slice(&self.total);
    }
}

fn grow(memory: &mut Vec<f32>, len: usize) {
    if memory.len() < len {
        memory.resize(len, 0.0);
    }
}

/// Attends from the rows in `scratch.queries`, `[rows, dim]`, to `keys`; the sums are left in the scratch.
///
/// `seen(row)` is the positions that a row may see; what of it lies outside `keys` is not looked at.
#[inline(always)]
pub(super) fn attend<S: Simd, K: Source>(
    s: S,
    source: &K,
    task: &Task,
    seen: impl Fn(usize) -> Range<usize>,
    scratch: &mut Scratch,
) {
    let Task { rows, dim, ref keys, scale, .. } = *task;
    scratch.prepare(rows, dim);
    for query in &mut scratch.queries[..rows * dim] {
        *query *= scale;
    }
    begin(task, scratch);
    let mut first = keys.start / BLOCK_TOKENS * BLOCK_TOKENS;
    prefetch(source, first, keys.end);
    while first < keys.end {
        prefetch(source, first + STEP, keys.end);
        // Only written tokens are touched: what an earlier sequence left behind them may be no number at all.
        let step = first.max(keys.start)..keys.end.min(first + STEP);
        score(s, source, task, first, &step, &seen, scratch);
        for row in 0..rows {
            let seen = seen(row);
            let visible = seen.start.max(step.start)..seen.end.min(step.end);
            let visible = visible.start.max(first) - first..visible.end.max(first) - first;
            let columns = (step.end - first).next_multiple_of(BLOCK_TOKENS);
            weigh(s, scratch, task, row, visible, columns);
        }
        gather(s, source, task, first, &step, &seen, scratch);
        first += STEP;
    }
}

/// Asks for the blocks of the step that begins with token `first`.
#[inline(always)]
fn prefetch<K: Source>(source: &K, first: usize, end: usize) {
    for at in (first..end.min(first + STEP)).step_by(BLOCK_TOKENS) {
        source.prefetch(at / BLOCK_TOKENS);
    }
}

/// Prepares the queries.
#[inline(always)]
fn begin(task: &Task, scratch: &mut Scratch) {
    #[cfg(target_arch = "x86_64")]
    if task.tiles {
        // SAFETY: tiles are asked for only where they are there.
        unsafe { super::tiles::begin(task, scratch) };
    }
    let _ = (task, scratch);
}

/// Scores of the step's blocks, `[rows, STEP]`.
#[inline(always)]
fn score<S: Simd, K: Source>(
    s: S,
    source: &K,
    task: &Task,
    first: usize,
    step: &Range<usize>,
    seen: &impl Fn(usize) -> Range<usize>,
    scratch: &mut Scratch,
) {
    #[cfg(target_arch = "x86_64")]
    if task.tiles {
        // SAFETY: tiles are asked for only where they are there.
        return unsafe { super::tiles::score(s, source, task, first, step, seen, scratch) };
    }
    let _ = seen;
    let (rows, dim) = (task.rows, task.dim);
    for at in (first..step.end).step_by(BLOCK_TOKENS) {
        let out = &mut scratch.scores[at - first..];
        let queries = &scratch.queries[..];
        match source.stored(at / BLOCK_TOKENS) {
            Some((keys, _)) if rows <= ROWS => score_block(s, queries, keys, out, rows, dim),
            _ => {
                source.keys(s, at / BLOCK_TOKENS, &mut scratch.keys);
                score_block(s, queries, &scratch.keys, out, rows, dim);
            }
        }
    }
}

#[inline(always)]
fn score_block<S: Simd, E: Element>(
    s: S,
    left: &[f32],
    right: &[E],
    out: &mut [f32],
    rows: usize,
    dim: usize,
) {
    let (left_stride, right_stride, out_stride) = (dim, BLOCK_TOKENS, STEP);
    let (columns, depth, accumulate) = (BLOCK_TOKENS, dim, false);
    Product { left, left_stride, right, right_stride, out, out_stride, rows, columns, depth, accumulate }
        .compute(s);
}

/// Adds the step's values by their weights.
#[inline(always)]
fn gather<S: Simd, K: Source>(
    s: S,
    source: &K,
    task: &Task,
    first: usize,
    step: &Range<usize>,
    seen: &impl Fn(usize) -> Range<usize>,
    scratch: &mut Scratch,
) {
    #[cfg(target_arch = "x86_64")]
    if task.tiles {
        // SAFETY: tiles are asked for only where they are there.
        return unsafe { super::tiles::gather(s, source, task, first, step, seen, scratch) };
    }
    let _ = seen;
    let (rows, dim) = (task.rows, task.dim);
    for at in (first..step.end).step_by(BLOCK_TOKENS) {
        let tokens = step.start.saturating_sub(at)..BLOCK_TOKENS.min(step.end - at);
        if tokens.is_empty() {
            continue;
        }
        let weights = &scratch.scores[at - first..];
        match source.stored(at / BLOCK_TOKENS) {
            Some((_, values)) if rows <= ROWS => {
                gather_block(s, weights, values, &mut scratch.out, rows, dim, tokens);
            }
            _ => {
                source.values(s, at / BLOCK_TOKENS, &mut scratch.values);
                gather_block(s, weights, &scratch.values, &mut scratch.out, rows, dim, tokens);
            }
        }
    }
}

#[inline(always)]
fn gather_block<S: Simd, E: Element>(
    s: S,
    weights: &[f32],
    values: &[E],
    out: &mut [f32],
    rows: usize,
    dim: usize,
    tokens: Range<usize>,
) {
    let padded = dim.next_multiple_of(MAX_LANES);
    let (left, left_stride) = (&weights[tokens.start..], STEP);
    let (right, right_stride) = (&values[tokens.start * padded..], padded);
    let (out_stride, columns, depth, accumulate) = (padded, padded, tokens.len(), true);
    Product { left, left_stride, right, right_stride, out, out_stride, rows, columns, depth, accumulate }
        .compute(s);
}

/// Turns one row of scores into weights relative to the greatest score so far, and brings what was summed before to
/// the same measure. Tokens that are not `visible` weigh nothing.
#[inline(always)]
fn weigh<S: Simd>(
    s: S,
    scratch: &mut Scratch,
    task: &Task,
    row: usize,
    visible: Range<usize>,
    columns: usize,
) {
    let scores = &mut scratch.scores[row * STEP..][..columns];
    if visible.is_empty() {
        scores.fill(0.0);
        return;
    }
    if let Some(cap) = task.softcap {
        soften(s, scores, cap);
    }
    let looked_at = visible.start / S::LANES * S::LANES..visible.end.next_multiple_of(S::LANES);
    scores[..looked_at.start].fill(0.0);
    scores[looked_at.end..].fill(0.0);
    scores[looked_at.start..visible.start].fill(f32::NEG_INFINITY);
    scores[visible.end..looked_at.end].fill(f32::NEG_INFINITY);
    let scores = &mut scores[looked_at];
    let before = scratch.greatest[row];
    let greatest = greatest(s, scores).max(before);
    if greatest == f32::NEG_INFINITY {
        scores.fill(0.0);
        return;
    }
    let sum = exponentiate(s, scores, greatest);
    if greatest == before {
        scratch.total[row] += sum;
        return;
    }
    scratch.greatest[row] = greatest;
    if before == f32::NEG_INFINITY {
        scratch.total[row] = sum;
        return;
    }
    let factor = (before - greatest).exp();
    scratch.total[row] = scratch.total[row] * factor + sum;
    let padded = task.dim.next_multiple_of(MAX_LANES);
    for out in scratch.out[row * padded..][..padded].chunks_exact_mut(S::LANES) {
        s.write(out, s.mul(s.read(out), s.splat(factor)));
    }
}

#[inline(always)]
fn soften<S: Simd>(s: S, scores: &mut [f32], cap: f32) {
    for scores in scores.chunks_exact_mut(S::LANES) {
        let bent = s.tanh(s.mul(s.read(scores), s.splat(1.0 / cap)));
        s.write(scores, s.mul(bent, s.splat(cap)));
    }
}

#[inline(always)]
fn greatest<S: Simd>(s: S, scores: &[f32]) -> f32 {
    let mut greatest = s.splat(f32::NEG_INFINITY);
    for scores in scores.chunks_exact(S::LANES) {
        greatest = s.max(greatest, s.read(scores));
    }
    s.greatest(greatest)
}

#[inline(always)]
fn exponentiate<S: Simd>(s: S, scores: &mut [f32], greatest: f32) -> f32 {
    let mut sum = s.splat(0.0);
    for scores in scores.chunks_exact_mut(S::LANES) {
        let weights = s.exp(s.sub(s.read(scores), s.splat(greatest)));
        s.write(scores, weights);
        sum = s.add(sum, weights);
    }
    s.sum(sum)
}
