//! Attention of new tokens to those before them, over a [`KvStore`].

use std::cell::RefCell;
use std::cmp::Reverse;
use std::ops::Range;

use half::f16;

use super::tile::{Scratch, Source, Task, attend};
use crate::kv::{BLOCK_TOKENS, KvShape, KvStore};
use crate::rope::Angles;
use crate::simd::{Kernel, MAX_LANES, Simd, dispatch, prefetch};
use crate::split::Parts;
use crate::{Isa, Pool};

/// Query rows of a tile at most: enough that widening keys and values once for all of them is cheap.
const TILE_ROWS: usize = 48;
/// The same where tile registers make the products cheap, and packing keys and values the dearer.
const AMX_TILE_ROWS: usize = 192;
/// Pieces for each thread, so that all get about an even share.
const PIECES: usize = 4;
/// Keys that a part of a cut tile has at least.
const PART_KEYS: usize = 4 * BLOCK_TOKENS;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The new tokens of one sequence, whose keys and values are already in the store.
#[derive(Debug, Clone, Copy)]
pub struct Span<'a> {
    /// How many there are.
    pub tokens: usize,
    /// Tokens of the sequence before them.
    pub past: usize,
    /// The sequence's blocks; they hold `past + tokens` tokens at least.
    pub blocks: &'a [u32],
}

/// What one layer asks of attention.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Causal {
    /// Heads of the queries: a multiple of the store's.
    pub heads: usize,
    /// What a score is multiplied by: `1 / sqrt(dim)` in most models.
    pub scale: f32,
    /// A token sees itself and those before it, so many in all; everything if none.
    pub window: Option<usize>,
    /// Scores become `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
}

/// What the tokens of all spans bring along.
#[derive(Debug, Clone, Copy)]
pub struct New<'a> {
    /// `[tokens of all spans, heads of the store, dim]`, not yet rotated.
    pub keys: &'a [f32],
    /// As the keys.
    pub values: &'a [f32],
    /// What queries and keys are rotated by.
    pub angles: &'a Angles,
}

/// Attention of each span's tokens to those of its sequence up to themselves.
///
/// `q` and `out` are `[tokens of all spans, heads, dim]`; positions are already rotated into `q` and the keys.
///
/// # Panics
/// If a tensor is of another shape, or a table ends too early or names a block that is not there.
pub fn causal(
    pool: &Pool,
    store: &KvStore,
    layer: usize,
    spans: &[Span<'_>],
    how: &Causal,
    q: &[f32],
    out: &mut [f32],
) {
    Batch::new(pool.isa(), store, layer, spans, how, q, out).run(pool, out);
}

/// Rotates queries and keys, stores keys and values, and then does what [`causal`] does.
///
/// A token that comes alone has its key stored by the thread that attends from it, which has to read that block anyway.
///
/// # Panics
/// As [`causal`].
#[expect(clippy::too_many_arguments, reason = "what attention needs, and where it goes")]
pub fn append_and_attend(
    pool: &Pool,
    store: &mut KvStore,
    layer: usize,
    spans: &[Span<'_>],
    how: &Causal,
    new: &New<'_>,
    q: &[f32],
    out: &mut [f32],
) {
    let store = &*store;
    let batch = Batch::new(pool.isa(), store, layer, spans, how, q, out);
    let width = store.shape().kv_heads * store.shape().dim;
    let tokens = q.len() / (how.heads * store.shape().dim);
    assert!(new.keys.len() == tokens * width && new.values.len() == tokens * width, "tensors of one shape");
    let batch =
        Batch { new: Some(new), appends: spans.iter().map(|span| alone(span, spans)).collect(), ..batch };
    batch.append(pool);
    batch.run(pool, out);
}

/// Whether a span is one token, whose block is in no table but once in its own.
fn alone(span: &Span<'_>, spans: &[Span<'_>]) -> bool {
    let Some(block) = span.blocks.get(span.past / BLOCK_TOKENS) else { return false };
    let times = |other: &Span<'_>| other.blocks.iter().filter(|other| *other == block).count();
    span.tokens == 1 && spans.iter().map(times).sum::<usize>() == 1
}

struct Batch<'a> {
    isa: Isa,
    store: &'a KvStore,
    layer: usize,
    spans: &'a [Span<'a>],
    how: &'a Causal,
    /// Query heads that share a head of keys.
    group: usize,
    q: &'a [f32],
    /// What is still to be rotated and stored.
    new: Option<&'a New<'a>>,
    /// For each span, whether its pieces store what it brings.
    appends: Vec<bool>,
}

/// A tile, or a part of it.
#[derive(Debug, Clone)]
struct Piece {
    span: usize,
    /// The first query token, in the batch.
    row: usize,
    /// The position of that token in its sequence.
    position: usize,
    tokens: usize,
    kv_head: usize,
    keys: Range<usize>,
    /// Where a part leaves its sums.
    partial: Option<usize>,
}

impl<'a> Batch<'a> {
    fn new(
        isa: Isa,
        store: &'a KvStore,
        layer: usize,
        spans: &'a [Span<'a>],
        how: &'a Causal,
        q: &'a [f32],
        out: &[f32],
    ) -> Self {
        let shape = store.shape();
        let tokens: usize = spans.iter().map(|span| span.tokens).sum();
        assert!(how.heads.is_multiple_of(shape.kv_heads), "as many query heads for each head of keys");
        assert!(q.len() == out.len() && q.len() == tokens * how.heads * shape.dim, "tokens, heads, dim");
        let group = how.heads / shape.kv_heads;
        Self { isa, store, layer, spans, how, group, q, new: None, appends: vec![false; spans.len()] }
    }

    /// Stores what the spans bring whose pieces do not: a block's tokens of one head in each task.
    fn append(&self, pool: &Pool) {
        let Some(new) = self.new else { return };
        let heads = self.store.shape().kv_heads;
        let mut blocks = Vec::new();
        let mut row = 0;
        for (span, appends) in self.spans.iter().zip(&self.appends) {
            let end = span.past + span.tokens;
            let mut position = span.past;
            while position < end && !appends {
                let next = end.min((position / BLOCK_TOKENS + 1) * BLOCK_TOKENS);
                blocks.push((span.blocks, row + position - span.past, position..next));
                position = next;
            }
            row += span.tokens;
        }
        let mut stored: Vec<u32> =
            blocks.iter().map(|(table, _, at)| table[at.start / BLOCK_TOKENS]).collect();
        stored.sort_unstable();
        let apart = stored.windows(2).all(|pair| pair[0] != pair[1]);
        let append = |task: usize| {
            let (blocks, row, positions) = &blocks[task / heads];
            let head = task % heads;
            SCRATCH.with_borrow_mut(|scratch| {
                let (row, positions) = (*row, positions.clone());
                dispatch(self.isa, Append { batch: self, new, blocks, row, positions, head, scratch });
            });
        };
        // Nobody should ask for two spans to write to one block; if somebody does, they do so in turn.
        if apart {
            pool.run(blocks.len() * heads, &append);
        } else {
            (0..blocks.len() * heads).for_each(append);
        }
    }

    /// Stores the key and the value of one head of a token.
    ///
    /// # Safety
    /// No other thread reads or writes this head of the token's block.
    #[inline(always)]
    unsafe fn store<S: Simd>(
        &self,
        s: S,
        new: &New<'_>,
        (block, head): (u32, usize),
        row: usize,
        position: usize,
        key: &mut Vec<f32>,
    ) {
        let KvShape { kv_heads, dim, .. } = self.store.shape();
        let place = (row * kv_heads + head) * dim..(row * kv_heads + head + 1) * dim;
        key.clear();
        key.extend_from_slice(&new.keys[place.clone()]);
        new.angles.rotate(s, row..row + 1, 1, dim, key);
        // SAFETY: the caller's promise.
        unsafe {
            let place_in_store = (self.layer, block, head);
            self.store.write_head(s, place_in_store, position % BLOCK_TOKENS, key, &new.values[place]);
        }
    }

    /// Computes all pieces.
    fn run(&self, pool: &Pool, out: &mut [f32]) {
        let (pieces, partial) = self.plan(pool.threads());
        let mut sums = vec![0.0; partial];
        {
            let (out, sums) = (Parts::new(out), Parts::new(&mut sums));
            pool.run(pieces.len(), &|index| {
                let piece = &pieces[index];
                SCRATCH.with_borrow_mut(|scratch| {
                    dispatch(self.isa, Attend { batch: self, piece, out: &out, scratch: &mut *scratch });
                    if let Some(at) = piece.partial {
                        // SAFETY: each part has its own place.
                        scratch.save(unsafe { sums.take(at..at + self.partial_len(piece)) });
                    }
                });
            });
        }
        self.join(&pieces, &sums, out);
    }

    /// The pieces, and how many numbers the sums of parts take. Parts of one tile are neighbours.
    fn plan(&self, threads: usize) -> (Vec<Piece>, usize) {
        let tiles = self.tiles(threads);
        let work: usize = tiles.iter().map(|tile| self.work(tile)).sum();
        let mut pieces = Vec::with_capacity(tiles.len() + PIECES * threads);
        let mut partial = 0;
        for tile in tiles {
            // One thread alone gains nothing from parts.
            let wanted = if threads == 1 { 1 } else { PIECES * threads * self.work(&tile) / work };
            self.cut(tile, wanted, &mut pieces, &mut partial);
        }
        (pieces, partial)
    }

    /// Whole tiles, those with the most work first, so that no thread is left alone with one of them at the end.
    fn tiles(&self, threads: usize) -> Vec<Piece> {
        let kv_heads = self.store.shape().kv_heads;
        let tokens: usize = self.spans.iter().map(|span| span.tokens).sum();
        let rows = if self.isa >= Isa::Amx {
            // Fewer where there would not be two tiles for each thread.
            let share = tokens * self.group * kv_heads / (2 * threads);
            share.clamp(TILE_ROWS, AMX_TILE_ROWS)
        } else {
            TILE_ROWS
        };
        let tile = (rows / self.group).max(1);
        let mut tiles = Vec::new();
        let mut first = 0;
        for (span, &Span { tokens: all, past, blocks }) in self.spans.iter().enumerate() {
            assert!(past + all <= blocks.len() * BLOCK_TOKENS, "a table for all tokens");
            for start in (0..all).step_by(tile) {
                let (row, position, tokens) = (first + start, past + start, tile.min(all - start));
                let keys = self.seen(position).start..position + tokens;
                tiles.extend((0..kv_heads).map(|kv_head| Piece {
                    span,
                    row,
                    position,
                    tokens,
                    kv_head,
                    keys: keys.clone(),
                    partial: None,
                }));
            }
            first += all;
        }
        tiles.sort_by_key(|tile| Reverse(self.work(tile)));
        tiles
    }

    /// About how long a piece takes: each key is read once, and then multiplied with all rows.
    fn work(&self, piece: &Piece) -> usize {
        /// Rows that a key could be multiplied with while it is read.
        const READING: usize = 16;
        piece.keys.len() * (READING + self.rows(piece))
    }

    /// Adds a tile in at most `wanted` parts, each of which starts at a block.
    fn cut(&self, whole: Piece, wanted: usize, pieces: &mut Vec<Piece>, partial: &mut usize) {
        let parts = wanted.min(whole.keys.len() / PART_KEYS);
        if parts < 2 {
            pieces.push(whole);
            return;
        }
        let blocks = whole.keys.start / BLOCK_TOKENS..whole.keys.end.div_ceil(BLOCK_TOKENS);
        let bound = |part: usize| (blocks.start + blocks.len() * part / parts) * BLOCK_TOKENS;
        for part in 0..parts {
            let keys = bound(part).max(whole.keys.start)..bound(part + 1).min(whole.keys.end);
            pieces.push(Piece { keys, partial: Some(*partial), ..whole.clone() });
            *partial += self.partial_len(&whole);
        }
    }

    /// The positions that a token may see.
    #[inline(always)]
    fn seen(&self, position: usize) -> Range<usize> {
        let end = position + 1;
        self.how.window.map_or(0, |window| end.saturating_sub(window))..end
    }

    fn rows(&self, piece: &Piece) -> usize {
        piece.tokens * self.group
    }

    fn partial_len(&self, piece: &Piece) -> usize {
        self.rows(piece) * (self.store.value_stride() + 2)
    }

    /// Where a row of a piece is in the queries and in the output.
    #[inline(always)]
    fn place(&self, piece: &Piece, row: usize) -> Range<usize> {
        let dim = self.store.shape().dim;
        let head = piece.kv_head * self.group + row % self.group;
        let start = ((piece.row + row / self.group) * self.how.heads + head) * dim;
        start..start + dim
    }

    /// Writes the rows of the tiles that were cut.
    fn join(&self, pieces: &[Piece], sums: &[f32], out: &mut [f32]) {
        let same = |a: &Piece, b: &Piece| a.row == b.row && a.kv_head == b.kv_head;
        for parts in pieces.chunk_by(same) {
            let piece = &parts[0];
            if piece.partial.is_none() {
                continue;
            }
            let (rows, stride) = (self.rows(piece), self.store.value_stride());
            let parts: Vec<&[f32]> = parts
                .iter()
                .filter_map(|part| Some(&sums[part.partial?..][..self.partial_len(part)]))
                .collect();
            for row in 0..rows {
                let greatest = |part: &[f32]| part[rows * stride + row];
                let most = parts.iter().map(|part| greatest(part)).fold(f32::NEG_INFINITY, f32::max);
                let factors = parts.iter().map(|part| (greatest(part) - most).exp());
                let total: f32 =
                    factors.clone().zip(&parts).map(|(f, part)| f * part[rows * (stride + 1) + row]).sum();
                let out = &mut out[self.place(piece, row)];
                out.fill(0.0);
                for (factor, part) in factors.zip(&parts) {
                    for (out, sum) in out.iter_mut().zip(&part[row * stride..]) {
                        *out += sum * factor / total;
                    }
                }
            }
        }
    }
}

/// One piece, into the scratch, and to the output if it is a whole tile.
struct Attend<'a> {
    out: &'a Parts<'a, f32>,
    batch: &'a Batch<'a>,
    piece: &'a Piece,
    scratch: &'a mut Scratch,
}

impl Kernel for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { batch, piece, out, scratch } = self;
        let (rows, dim, group) = (batch.rows(piece), batch.store.shape().dim, batch.group);
        let blocks = batch.spans[piece.span].blocks;
        let source = Cached { store: batch.store, layer: batch.layer, kv_head: piece.kv_head, blocks };
        let stores = batch.appends[piece.span] && piece.keys.contains(&piece.position);
        if stores {
            source.prefetch(piece.position / BLOCK_TOKENS);
        }
        scratch.queries.clear();
        for row in 0..rows {
            scratch.queries.extend_from_slice(&batch.q[batch.place(piece, row)]);
        }
        if let Some(new) = batch.new {
            let of_tokens = piece.row..piece.row + piece.tokens;
            new.angles.rotate(s, of_tokens, group, dim, &mut scratch.queries);
            if stores {
                let block = blocks[piece.position / BLOCK_TOKENS];
                let (row, key) = (piece.row, &mut scratch.key);
                // SAFETY: no other span sees this block, and of this one's pieces only that of this head and these keys.
                unsafe { batch.store(s, new, (block, piece.kv_head), row, piece.position, key) };
            }
        }
        let (scale, softcap, keys) = (batch.how.scale, batch.how.softcap, piece.keys.clone());
        let tiles = Task::wants_tiles(batch.isa, rows);
        let task = Task { rows, dim, keys, scale, softcap, tiles };
        let seen = |row: usize| batch.seen(piece.position + row / group);
        attend(s, &source, &task, seen, scratch);
        if piece.partial.is_some() {
            return;
        }
        for row in 0..rows {
            // SAFETY: a row of the output belongs to one tile alone.
            let out = unsafe { out.take(batch.place(piece, row)) };
            scratch.mean(s, row, dim, out);
        }
    }
}

/// What one head of a block's tokens brings, into the store.
struct Append<'a> {
    batch: &'a Batch<'a>,
    new: &'a New<'a>,
    blocks: &'a [u32],
    /// The first token, in the batch.
    row: usize,
    positions: Range<usize>,
    head: usize,
    scratch: &'a mut Scratch,
}

impl Kernel for Append<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { batch, new, blocks, row, positions, head, scratch } = self;
        for (row, position) in (row..).zip(positions) {
            let block = blocks[position / BLOCK_TOKENS];
            // SAFETY: tasks that run at the same time have heads of blocks of their own.
            unsafe { batch.store(s, new, (block, head), row, position, &mut scratch.key) };
        }
    }
}

/// One head of one sequence in the store.
struct Cached<'a> {
    store: &'a KvStore,
    layer: usize,
    kv_head: usize,
    blocks: &'a [u32],
}

impl Source for Cached<'_> {
    #[inline(always)]
    fn stored(&self, block: usize) -> Option<(&[f16], &[f16])> {
        Some(self.store.head(self.layer, self.blocks[block], self.kv_head))
    }

    #[inline(always)]
    fn prefetch(&self, block: usize) {
        let (keys, values) = self.store.head(self.layer, self.blocks[block], self.kv_head);
        prefetch(keys);
        prefetch(values);
    }

    #[inline(always)]
    fn keys<S: Simd>(&self, s: S, block: usize, out: &mut [f32]) {
        widen(s, self.store.head(self.layer, self.blocks[block], self.kv_head).0, out);
    }

    #[inline(always)]
    fn values<S: Simd>(&self, s: S, block: usize, out: &mut [f32]) {
        widen(s, self.store.head(self.layer, self.blocks[block], self.kv_head).1, out);
    }
}

/// Whole vectors from half to single precision.
#[inline(always)]
fn widen<S: Simd>(s: S, from: &[f16], out: &mut [f32]) {
    const { assert!(BLOCK_TOKENS.is_multiple_of(MAX_LANES)) };
    for (from, out) in from.chunks_exact(S::LANES).zip(out.chunks_exact_mut(S::LANES)) {
        // SAFETY: as long as a vector.
        s.write(out, unsafe { s.load_half(from.as_ptr()) });
    }
}
