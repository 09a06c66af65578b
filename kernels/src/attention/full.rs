//! Attention of every token to every other of its sequence: what an encoder does.

use std::cell::RefCell;

use half::f16;

use super::tile::{Scratch, Source, Task, attend};
use crate::kv::BLOCK_TOKENS;
use crate::simd::{Kernel, MAX_LANES, Simd, dispatch};
use crate::split::Parts;
use crate::{Isa, Pool};

/// Query tokens of a tile at most.
const TILE_ROWS: usize = 96;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// What one layer asks of attention.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Full {
    /// Heads of queries, keys and values.
    pub heads: usize,
    /// Dimensions of a head.
    pub dim: usize,
    /// What a score is multiplied by: `1 / sqrt(dim)` in most models.
    pub scale: f32,
}

/// Attention within each sequence of a batch.
///
/// `q`, `k`, `v` and `out` are `[tokens of all sequences, heads, dim]`; `lengths` has the tokens of each sequence.
///
/// # Panics
/// If a tensor is of another shape.
pub fn full(pool: &Pool, lengths: &[usize], how: &Full, q: &[f32], k: &[f32], v: &[f32], out: &mut [f32]) {
    let numbers = lengths.iter().sum::<usize>() * how.heads * how.dim;
    assert!([q.len(), k.len(), v.len(), out.len()] == [numbers; 4], "tokens, heads, dim");
    let tiles = plan(lengths, how.heads);
    let out = Parts::new(out);
    pool.run(tiles.len(), &|index| {
        SCRATCH.with_borrow_mut(|scratch| {
            let tile = &tiles[index];
            dispatch(pool.isa(), Attend { isa: pool.isa(), how, tile, q, k, v, out: &out, scratch });
        });
    });
}

impl Full {
    /// Where a head of a token starts.
    #[inline(always)]
    fn place(&self, token: usize, head: usize) -> usize {
        (token * self.heads + head) * self.dim
    }
}

/// Some query tokens of one sequence and one head.
#[derive(Debug, Clone, Copy)]
struct Tile {
    /// The first token of the sequence, in the batch.
    first: usize,
    /// The tokens of the sequence.
    length: usize,
    /// The first query token, in the batch.
    row: usize,
    rows: usize,
    head: usize,
}

fn plan(lengths: &[usize], heads: usize) -> Vec<Tile> {
    let mut tiles = Vec::new();
    let mut first = 0;
    for &length in lengths {
        for start in (0..length).step_by(TILE_ROWS) {
            let rows = TILE_ROWS.min(length - start);
            tiles.extend((0..heads).map(|head| Tile { first, length, row: first + start, rows, head }));
        }
        first += length;
    }
    tiles
}

/// One tile.
struct Attend<'a> {
    isa: Isa,
    how: &'a Full,
    tile: &'a Tile,
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    out: &'a Parts<'a, f32>,
    scratch: &'a mut Scratch,
}

impl Kernel for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { isa, how, tile, q, k, v, out, scratch } = self;
        scratch.queries.clear();
        for row in 0..tile.rows {
            scratch.queries.extend_from_slice(&q[how.place(tile.row + row, tile.head)..][..how.dim]);
        }
        let (rows, dim, keys) = (tile.rows, how.dim, 0..tile.length);
        let tiles = Task::wants_tiles(isa, rows);
        let task = Task { rows, dim, keys, scale: how.scale, softcap: None, tiles };
        let seen = |_| 0..tile.length;
        let source = Flat { how, tile, k, v };
        attend(s, &source, &task, seen, scratch);
        for row in 0..rows {
            let start = how.place(tile.row + row, tile.head);
            // SAFETY: a row of the output belongs to one tile alone.
            let out = unsafe { out.take(start..start + dim) };
            scratch.mean(s, row, dim, out);
        }
    }
}

/// The keys and values of a tile's sequence and head.
struct Flat<'a> {
    how: &'a Full,
    tile: &'a Tile,
    k: &'a [f32],
    v: &'a [f32],
}

impl<'a> Flat<'a> {
    /// The rows of one block.
    #[inline(always)]
    fn rows(&self, of: &'a [f32], block: usize) -> impl Iterator<Item = &'a [f32]> {
        let (how, tile) = (*self.how, *self.tile);
        let tokens = block * BLOCK_TOKENS..tile.length.min((block + 1) * BLOCK_TOKENS);
        tokens.map(move |token| &of[how.place(tile.first + token, tile.head)..][..how.dim])
    }
}

impl Source for Flat<'_> {
    #[inline(always)]
    fn stored(&self, _: usize) -> Option<(&[f16], &[f16])> {
        None
    }

    #[inline(always)]
    fn keys<S: Simd>(&self, _: S, block: usize, out: &mut [f32]) {
        for (token, row) in self.rows(self.k, block).enumerate() {
            for (key, column) in row.iter().zip(out.chunks_exact_mut(BLOCK_TOKENS)) {
                column[token] = *key;
            }
        }
    }

    #[inline(always)]
    fn values<S: Simd>(&self, _: S, block: usize, out: &mut [f32]) {
        let stride = self.how.dim.next_multiple_of(MAX_LANES);
        for (row, out) in self.rows(self.v, block).zip(out.chunks_exact_mut(stride)) {
            out[..row.len()].copy_from_slice(row);
        }
    }
}
