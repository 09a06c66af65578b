//! The product on tile registers for a few tokens: 8-bit activations with the codes of the weights.
//!
//! What takes time with few tokens is making weights out of codes. Here only the codes are unpacked; one instruction
//! multiplies those of 32 inputs with up to 16 tokens, and the scales of both are applied to its exact sums. These cost the
//! same for 16 tokens as for one.

use std::arch::x86_64::{
    _MM_HINT_T1, _mm_prefetch, _mm512_cvtepi32_ps, _mm512_fmadd_ps, _mm512_load_ps, _mm512_load_si512,
    _mm512_mask_storeu_ps, _mm512_mul_ps, _mm512_set1_epi8, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_store_ps, _mm512_store_si512, _mm512_sub_epi8, _mm512_sub_ps,
};
use std::cell::RefCell;
use std::ops::Range;

use super::super::activations::Activations;
use super::super::codec::{Codec, with_codec};
use super::super::format::{BLOCK, TILE};
use super::super::{Matrix, avx512};
use super::Target;
use super::registers::Bytes;

/// Blocks between a product and the use of its sums: so long they take to reach memory.
const BEHIND: usize = 2;
/// Sums that are under way.
const RING: usize = 4;

/// The codes of 32 inputs of a tile, with their offset taken away, and what their products are multiplied with.
#[repr(C, align(64))]
struct Block {
    codes: [i8; TILE * BLOCK],
    scales: [[f32; TILE]; 2],
    /// What is added to each weight.
    minima: [f32; TILE],
}

impl Block {
    const EMPTY: Self = Self { codes: [0; TILE * BLOCK], scales: [[0.0; TILE]; 2], minima: [0.0; TILE] };
}

/// Sums of 16 tokens by 16 outputs.
#[repr(C, align(64))]
pub(super) struct Products(pub(super) [[i32; TILE]; TILE]);

thread_local! {
    /// The blocks of one tile, kept so that a call allocates nothing.
    static BLOCKS: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

/// Multiplies some tiles of a matrix with all tokens. Formats that are plain floats have no codes: nothing happens.
///
/// # Safety
/// As [`super::multiply`].
pub(in crate::matrix) unsafe fn multiply(
    matrix: &Matrix,
    x: &Activations,
    tokens: usize,
    tiles: Range<usize>,
    target: Target,
) {
    // SAFETY: the caller's promises.
    with_codec!(matrix.format, C => unsafe { each_tile::<C>(matrix, x, tokens, tiles, target) }, {});
}

/// # Safety
/// As [`super::multiply`].
unsafe fn each_tile<C: Codec>(
    matrix: &Matrix,
    x: &Activations,
    tokens: usize,
    tiles: Range<usize>,
    target: Target,
) {
    assert_eq!(matrix.inputs, x.blocks * BLOCK, "activations of this matrix");
    let rows = tokens.min(TILE).next_multiple_of(4);
    assert!(tokens.next_multiple_of(rows) <= x.tokens(), "activations for whole tiles");
    let quads = if C::LAYOUT.split() { 4 } else { 8 };
    BLOCKS.with_borrow_mut(|blocks| {
        blocks.resize_with(x.blocks, || Block::EMPTY);
        // SAFETY: the caller vouches for the processor.
        let registers = unsafe { Bytes::new(rows, quads) };
        for tile in tiles {
            let next = if tile + 1 < matrix.tiles() { matrix.tile(tile + 1) } else { &[] };
            // SAFETY: the caller vouches for the processor.
            unsafe { unpack::<C>(matrix.tile(tile), blocks) };
            for first in (0..tokens).step_by(rows) {
                let count = rows.min(tokens - first);
                // What comes next is asked for once.
                let next = if first == 0 { next } else { &[] };
                let columns = Columns { registers: &registers, blocks, x, next };
                let width = TILE.min(matrix.outputs - tile * TILE);
                let place = Place { target, first, count, column: tile * TILE, width };
                // SAFETY: the caller vouches for the processor and the target; the activations are there, see above.
                unsafe {
                    match rows {
                        4 => columns.multiply::<C, 4>(&place),
                        8 => columns.multiply::<C, 8>(&place),
                        12 => columns.multiply::<C, 12>(&place),
                        _ => columns.multiply::<C, TILE>(&place),
                    }
                }
            }
        }
    });
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn unpack<C: Codec>(tile: &[u8], blocks: &mut [Block]) {
    let offset = _mm512_set1_epi8(C::LAYOUT.offset as i8);
    let units = tile.chunks_exact(C::LAYOUT.unit_bytes());
    for (unit, blocks) in units.zip(blocks.chunks_exact_mut(C::LAYOUT.groups())) {
        for (index, block) in blocks.iter_mut().enumerate() {
            // SAFETY: the group exists; all stores are of whole lines of an aligned block.
            unsafe {
                let start = unit.as_ptr().add(C::LAYOUT.header_bytes() + index * C::LAYOUT.group_bytes());
                let group = avx512::load::<C>(unit.as_ptr(), start);
                for (codes, to) in group.codes.into_iter().zip(block.codes.as_chunks_mut::<64>().0) {
                    let codes = if C::LAYOUT.offset == 0 { codes } else { _mm512_sub_epi8(codes, offset) };
                    _mm512_store_si512(to.as_mut_ptr().cast(), codes);
                }
                for (scales, to) in group.scales.into_iter().zip(&mut block.scales) {
                    _mm512_store_ps(to.as_mut_ptr(), scales);
                }
                if C::LAYOUT.minimum {
                    let minima = if C::LAYOUT.super_block {
                        _mm512_sub_ps(_mm512_setzero_ps(), group.minima)
                    } else {
                        group.minima
                    };
                    _mm512_store_ps(block.minima.as_mut_ptr(), minima);
                }
            }
        }
    }
}

/// Where the results of one tile go.
struct Place {
    target: Target,
    /// The first token.
    first: usize,
    /// Tokens.
    count: usize,
    /// The first output.
    column: usize,
    /// Outputs.
    width: usize,
}

/// One unpacked tile and what it meets.
struct Columns<'a> {
    registers: &'a Bytes,
    blocks: &'a [Block],
    x: &'a Activations,
    /// The packed tile that comes next.
    next: &'a [u8],
}

impl Columns<'_> {
    /// Multiplies with `R` tokens.
    ///
    /// # Safety
    /// The processor has AMX; there are activations of `R` tokens from the first one on, and the target is this caller's.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn multiply<C: Codec, const R: usize>(&self, place: &Place) {
        let parts = if C::LAYOUT.split() { 2 } else { 1 };
        let steps = parts * self.blocks.len();
        let inputs = self.x.blocks * BLOCK;
        let codes = self.x.codes[place.first * inputs..(place.first + R) * inputs].as_ptr();
        let scales = self.x.scales[place.first * self.x.blocks..(place.first + R) * self.x.blocks].as_ptr();
        let totals = self.x.sums[place.first * self.x.blocks..(place.first + R) * self.x.blocks].as_ptr();
        let mut ring = [const { Products([[0; TILE]; TILE]) }; RING];
        let mut sums = [_mm512_setzero_ps(); R];
        for step in 0..steps + BEHIND {
            if step < steps {
                let weights = &self.blocks[step / parts].codes[(step % parts) * (TILE * BLOCK / 2)..];
                // SAFETY: `R` rows of `inputs` numbers are there.
                unsafe {
                    let x = codes.add(step * (BLOCK / parts));
                    self.registers.multiply(x, inputs, weights, &mut ring[step % RING]);
                }
                self.prefetch::<C>(step, parts);
            }
            let Some(step) = step.checked_sub(BEHIND) else { continue };
            let (block, products) = (&self.blocks[step / parts], &ring[step % RING]);
            // SAFETY: blocks and products are aligned; `R` rows of scales and sums are there.
            unsafe {
                let scale = _mm512_load_ps(block.scales[step % parts].as_ptr());
                let minimum = _mm512_load_ps(block.minima.as_ptr());
                for (token, sum) in sums.iter_mut().enumerate() {
                    let at = token * self.x.blocks + step / parts;
                    let product = _mm512_cvtepi32_ps(_mm512_load_si512(products.0[token].as_ptr().cast()));
                    let product = _mm512_mul_ps(product, _mm512_set1_ps(*scales.add(at)));
                    *sum = _mm512_fmadd_ps(product, scale, *sum);
                    if C::LAYOUT.minimum {
                        *sum = _mm512_fmadd_ps(minimum, _mm512_set1_ps(*totals.add(at)), *sum);
                    }
                }
            }
        }
        let mask = ((1_u32 << place.width) - 1) as u16;
        for (token, sum) in sums.into_iter().enumerate().take(place.count) {
            // SAFETY: the caller vouches for the target; the mask leaves out what lies behind the row.
            unsafe {
                let to = place.target.first.add((place.first + token) * place.target.stride + place.column);
                _mm512_mask_storeu_ps(to, mask, sum);
            }
        }
    }

    /// Asks for a part of the next tile, so that memory is read while this one is multiplied.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn prefetch<C: Codec>(&self, step: usize, parts: usize) {
        let bytes = C::LAYOUT.group_bytes().div_ceil(parts);
        for line in 0..bytes.div_ceil(64) {
            if let Some(byte) = self.next.get(step * bytes + 64 * line) {
                _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(byte).cast());
            }
        }
    }
}
