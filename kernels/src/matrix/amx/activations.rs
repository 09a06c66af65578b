//! Activations as tiles of bf16.

use std::arch::x86_64::{
    __m512, __m512i, _mm512_castsi512_ps, _mm512_castsi512_si256, _mm512_cvtepu16_epi32, _mm512_cvtne2ps_pbh,
    _mm512_extracti64x4_epi64, _mm512_maskz_loadu_ps, _mm512_slli_epi32, _mm512_storeu_si512, _mm512_sub_ps,
};

use super::super::format::{BLOCK, TILE};
use super::Tile;
use crate::Pool;

/// Activations in groups of 16 tokens: `[groups, blocks, parts]` tiles, each `[16 tokens, 32 inputs]`; what is missing
/// in the last of each is zero.
#[derive(Default)]
pub(in crate::matrix) struct Halves {
    tiles: Vec<Tile>,
    tokens: usize,
    blocks: usize,
    parts: usize,
}

impl Halves {
    /// Takes the place of what was here with `x`, `[tokens, inputs]`, split into so many parts.
    ///
    /// # Safety
    /// The tiles are [available](super::available).
    pub(in crate::matrix) unsafe fn pack(&mut self, pool: &Pool, x: &[f32], inputs: usize, parts: usize) {
        self.tokens = x.len() / inputs;
        self.blocks = inputs.div_ceil(BLOCK);
        self.parts = parts;
        self.tiles.resize(self.groups() * self.group_len(), Tile::ZERO);
        let to = Shared(self.tiles.as_mut_ptr());
        let len = self.group_len();
        pool.run(self.groups(), &|group| {
            let rows = x.chunks_exact(inputs).skip(group * TILE).take(TILE);
            // SAFETY: each task has a group of its own, and the caller vouches for the processor.
            unsafe {
                let tiles = std::slice::from_raw_parts_mut(to.at(group * len), len);
                pack_group(rows, tiles, parts);
            }
        });
    }

    pub(in crate::matrix) fn tokens(&self) -> usize {
        self.tokens
    }

    pub(super) fn groups(&self) -> usize {
        self.tokens.div_ceil(TILE)
    }

    pub(super) fn parts(&self) -> usize {
        self.parts
    }

    /// The tiles of one group of tokens, `[blocks, parts]`.
    pub(super) fn group(&self, index: usize) -> &[Tile] {
        let len = self.group_len();
        &self.tiles[index * len..(index + 1) * len]
    }

    fn group_len(&self) -> usize {
        self.blocks * self.parts
    }
}

/// A pointer that tasks share, each for its own part.
#[derive(Clone, Copy)]
struct Shared(*mut Tile);

// SAFETY: tasks write to parts that do not overlap.
unsafe impl Sync for Shared {}

impl Shared {
    /// # Safety
    /// There are more than `index` tiles.
    unsafe fn at(self, index: usize) -> *mut Tile {
        // SAFETY: the caller vouches for the index.
        unsafe { self.0.add(index) }
    }
}

/// Packs up to 16 rows.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn pack_group<'a>(rows: impl Iterator<Item = &'a [f32]>, tiles: &mut [Tile], parts: usize) {
    let mut count = 0;
    for (at, row) in rows.enumerate() {
        for (x, tiles) in row.chunks(BLOCK).zip(tiles.chunks_exact_mut(parts)) {
            let low = load(x);
            let high = load(x.get(TILE..).unwrap_or_default());
            let rounded = round(low, high);
            place(&mut tiles[0], at, rounded);
            if let Some(second) = tiles.get_mut(1) {
                let rest = |x, half| _mm512_sub_ps(x, half);
                let (first_half, second_half) = widen(rounded);
                place(second, at, round(rest(low, first_half), rest(high, second_half)));
            }
        }
        count = at + 1;
    }
    for tile in tiles {
        tile.0[count * BLOCK..].fill(0);
    }
}

/// Up to 16 numbers, then zeros.
#[target_feature(enable = "avx512f")]
fn load(x: &[f32]) -> __m512 {
    let count = x.len().min(TILE);
    let mask = ((1_u32 << count) - 1) as u16;
    // SAFETY: the mask leaves out what is behind the slice.
    unsafe { _mm512_maskz_loadu_ps(mask, x.as_ptr()) }
}

/// 32 numbers as bf16, in order.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(crate) fn round(low: __m512, high: __m512) -> __m512i {
    // SAFETY: both are 64 bytes without invalid values.
    unsafe { std::mem::transmute(_mm512_cvtne2ps_pbh(high, low)) }
}

/// 32 bf16 as numbers again.
#[target_feature(enable = "avx512f,avx512bw")]
pub(crate) fn widen(halves: __m512i) -> (__m512, __m512) {
    let low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(halves));
    let high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64::<1>(halves));
    (_mm512_castsi512_ps(_mm512_slli_epi32::<16>(low)), _mm512_castsi512_ps(_mm512_slli_epi32::<16>(high)))
}

#[target_feature(enable = "avx512f")]
fn place(tile: &mut Tile, row: usize, halves: __m512i) {
    let to = &mut tile.0[row * BLOCK..(row + 1) * BLOCK];
    // SAFETY: the row is 64 bytes long.
    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), halves) };
}
