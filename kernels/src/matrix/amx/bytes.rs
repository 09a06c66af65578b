//! The product on tile registers for a few tokens: 8-bit activations with the codes of the weights.
//!
//! What takes time with few tokens is making weights out of codes. Here only the codes are unpacked; one instruction
//! multiplies those of 32 inputs with up to 16 tokens, and the scales of both are applied to its exact sums. These cost the
//! same for 16 tokens as for one.

use std::arch::x86_64::{
    __m512, _mm512_cvtepi32_ps, _mm512_fmadd_ps, _mm512_load_ps, _mm512_load_si512, _mm512_mask_storeu_ps,
    _mm512_mul_ps, _mm512_set1_epi8, _mm512_set1_ps, _mm512_setzero_ps, _mm512_store_ps, _mm512_store_si512,
    _mm512_sub_epi8, _mm512_sub_ps,
};
use std::cell::RefCell;
use std::ops::Range;

use super::super::activations::Activations;
use super::super::codec::{Codec, with_codec};
use super::super::format::{BLOCK, TILE};
use super::super::product::Target;
use super::super::{Matrix, avx512};
use super::registers::Bytes;

/// Blocks between the unpacking of one and its product, and between the product and the use of its sums, for one tile at a
/// time and for two: so long either takes to reach memory.
const BEHIND: [usize; 2] = [3, 1];
/// Blocks that are under way.
const RING_LEN: usize = 8;
/// Tokens up to which two tiles are multiplied at a time, so that activations and their scales are read once for both: so
/// many sums fit into the registers. Codes of 8 bits gain nothing: memory is what they wait for.
const FEW: usize = 8;

/// The codes of 32 inputs of a tile, with their offset taken away, and what their products are multiplied with.
#[repr(C, align(64))]
struct Block {
    codes: [i8; TILE * BLOCK],
    scales: [[f32; TILE]; 2],
    /// What is added to each weight.
    minima: [f32; TILE],
    /// Of the first and the last 16 inputs, or of all in the first.
    products: [Products; 2],
}

impl Block {
    const EMPTY: Self = Self {
        codes: [0; TILE * BLOCK],
        scales: [[0.0; TILE]; 2],
        minima: [0.0; TILE],
        products: [const { Products([[0; TILE]; TILE]) }; 2],
    };
}

/// Sums of 16 tokens by 16 outputs.
#[repr(C, align(64))]
pub(super) struct Products(pub(super) [[i32; TILE]; TILE]);

thread_local! {
    /// Kept from call to call: clearing one takes as long as multiplying a tile.
    static RING: RefCell<Box<[Block; RING_LEN]>> = RefCell::new(Box::new([const { Block::EMPTY }; RING_LEN]));
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
    RING.with_borrow_mut(|ring| {
        // SAFETY: the caller's promises.
        with_codec!(matrix.format, C => unsafe { each_tile::<C>(matrix, x, tokens, tiles, target, ring) }, {});
    });
}

/// # Safety
/// As [`super::multiply`].
unsafe fn each_tile<C: Codec>(
    matrix: &Matrix,
    x: &Activations,
    tokens: usize,
    tiles: Range<usize>,
    target: Target,
    ring: &mut [Block; RING_LEN],
) {
    assert_eq!(matrix.inputs, x.blocks * BLOCK, "activations of this matrix");
    let rows = tokens.min(TILE).next_multiple_of(4);
    assert!(tokens.next_multiple_of(rows) <= x.tokens(), "activations for whole tiles");
    // SAFETY: the caller vouches for the processor.
    let registers = unsafe { Bytes::new(rows, BLOCK / parts::<C>() / 4) };
    for first in (0..tokens).step_by(rows) {
        let columns = Columns { registers: &registers, x, first, count: rows.min(tokens - first) };
        let mut index = tiles.start;
        while index < tiles.end {
            let count = if rows <= FEW && C::LAYOUT.bits < 8 { 2.min(tiles.end - index) } else { 1 };
            // SAFETY: the caller vouches for the processor and the target; the activations are there, see above.
            unsafe {
                match (rows, count) {
                    (4, 2) => columns.multiply::<C, 4, 2>(matrix, index, ring, target),
                    (4, _) => columns.multiply::<C, 4, 1>(matrix, index, ring, target),
                    (8, 2) => columns.multiply::<C, 8, 2>(matrix, index, ring, target),
                    (8, _) => columns.multiply::<C, 8, 1>(matrix, index, ring, target),
                    (12, _) => columns.multiply::<C, 12, 1>(matrix, index, ring, target),
                    _ => columns.multiply::<C, TILE, 1>(matrix, index, ring, target),
                }
            }
            index += count;
        }
    }
}

/// Parts of a block that have scales of their own.
const fn parts<C: Codec>() -> usize {
    if C::LAYOUT.split() { 2 } else { 1 }
}

/// Some tokens.
struct Columns<'a> {
    registers: &'a Bytes,
    x: &'a Activations,
    /// The first token.
    first: usize,
    /// Tokens.
    count: usize,
}

impl Columns<'_> {
    /// Multiplies `T` packed tiles from `index` on with `R` tokens: those that are counted, and what lies behind them.
    ///
    /// # Safety
    /// The processor has AMX, there are activations of `R` tokens, and the target has room for the outputs of these tiles
    /// of those that are counted.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
    unsafe fn multiply<C: Codec, const R: usize, const T: usize>(
        &self,
        matrix: &Matrix,
        index: usize,
        ring: &mut [Block; RING_LEN],
        target: Target,
    ) {
        let (blocks, behind) = (self.x.blocks, const { BEHIND[T - 1] });
        let tiles: [&[u8]; T] = std::array::from_fn(|tile| matrix.tile(index + tile));
        let (ring, _) = ring.as_chunks_mut::<T>();
        let mut sums = [[_mm512_setzero_ps(); T]; R];
        for step in 0..blocks + 2 * behind {
            if step < blocks {
                for (tile, block) in tiles.iter().zip(&mut ring[step % (RING_LEN / T)]) {
                    unpack::<C>(tile, step, block);
                }
            }
            if (behind..blocks + behind).contains(&step) {
                let step = step - behind;
                // SAFETY: the caller vouches for the activations.
                unsafe { self.products::<C, R, T>(step, &mut ring[step % (RING_LEN / T)]) };
            }
            if step >= 2 * behind {
                let step = step - 2 * behind;
                // SAFETY: the caller vouches for the activations.
                unsafe { self.add::<C, R, T>(step, &ring[step % (RING_LEN / T)], &mut sums) };
            }
        }
        for (token, sums) in sums.into_iter().enumerate().take(self.count) {
            for (tile, sum) in sums.into_iter().enumerate() {
                let first = (index + tile) * TILE;
                let mask = ((1_u32 << TILE.min(matrix.outputs - first)) - 1) as u16;
                // SAFETY: the caller vouches for the target; the mask leaves out what lies behind the row.
                unsafe { _mm512_mask_storeu_ps(target.at(self.first + token, first), mask, sum) };
            }
        }
    }

    /// # Safety
    /// There are activations of `R` tokens.
    #[inline(always)]
    unsafe fn products<C: Codec, const R: usize, const T: usize>(
        &self,
        step: usize,
        blocks: &mut [Block; T],
    ) {
        let inputs = self.x.blocks * BLOCK;
        let x = self.x.codes[self.first * inputs..(self.first + R) * inputs].as_ptr();
        for part in 0..parts::<C>() {
            // SAFETY: `R` rows of `inputs` numbers are there.
            let x = unsafe { x.add(step * BLOCK + part * BLOCK / parts::<C>()) };
            let weights = |block: &Block| block.codes[part * block.codes.len() / parts::<C>()..].as_ptr();
            // SAFETY: as above.
            unsafe {
                match &mut blocks[..] {
                    [block] => {
                        let weights = weights(block);
                        self.registers.multiply(x, inputs, weights, &mut block.products[part]);
                    }
                    [left, right] => {
                        let weights = [weights(left), weights(right)];
                        let (to_left, to_right) = (&mut left.products[part], &mut right.products[part]);
                        self.registers.multiply_two(x, inputs, weights, to_left, to_right);
                    }
                    _ => {}
                }
            }
        }
    }

    /// Adds the products of a block by their scales.
    ///
    /// # Safety
    /// There are activations of `R` tokens.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn add<C: Codec, const R: usize, const T: usize>(
        &self,
        step: usize,
        blocks: &[Block; T],
        sums: &mut [[__m512; T]; R],
    ) {
        let range = self.first * self.x.blocks..(self.first + R) * self.x.blocks;
        let (scales, totals) = (self.x.scales[range.clone()].as_ptr(), self.x.sums[range].as_ptr());
        // SAFETY: the lines of a block are aligned; `R` rows of scales and sums are there.
        unsafe {
            for part in 0..parts::<C>() {
                let weights: [__m512; T] =
                    std::array::from_fn(|tile| _mm512_load_ps(blocks[tile].scales[part].as_ptr()));
                for (token, sums) in sums.iter_mut().enumerate() {
                    let factor = _mm512_set1_ps(*scales.add(token * self.x.blocks + step));
                    for (tile, sum) in sums.iter_mut().enumerate() {
                        let product = &blocks[tile].products[part].0[token];
                        let product = _mm512_cvtepi32_ps(_mm512_load_si512(product.as_ptr().cast()));
                        *sum = _mm512_fmadd_ps(_mm512_mul_ps(product, factor), weights[tile], *sum);
                    }
                }
            }
            if C::LAYOUT.minimum {
                let minima: [__m512; T] =
                    std::array::from_fn(|tile| _mm512_load_ps(blocks[tile].minima.as_ptr()));
                for (token, sums) in sums.iter_mut().enumerate() {
                    let total = _mm512_set1_ps(*totals.add(token * self.x.blocks + step));
                    for (sum, minimum) in sums.iter_mut().zip(minima) {
                        *sum = _mm512_fmadd_ps(minimum, total, *sum);
                    }
                }
            }
        }
    }
}

/// Unpacks one block of a packed tile.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
fn unpack<C: Codec>(tile: &[u8], index: usize, block: &mut Block) {
    let (groups, bytes) = (C::LAYOUT.groups(), C::LAYOUT.group_bytes());
    let unit = &tile[index / groups * C::LAYOUT.unit_bytes()..][..C::LAYOUT.unit_bytes()];
    let offset = _mm512_set1_epi8(C::LAYOUT.offset as i8);
    // SAFETY: the group is inside the unit; all stores are of whole lines of an aligned block.
    unsafe {
        let start = unit.as_ptr().add(C::LAYOUT.header_bytes() + index % groups * bytes);
        avx512::prefetch::<C>(start);
        let group = avx512::load::<C>(unit.as_ptr(), start);
        for (codes, to) in group.codes.into_iter().zip(block.codes.as_chunks_mut::<64>().0) {
            let codes = if C::LAYOUT.offset == 0 { codes } else { _mm512_sub_epi8(codes, offset) };
            _mm512_store_si512(to.as_mut_ptr().cast(), codes);
        }
        for (scales, to) in group.scales.into_iter().zip(&mut block.scales).take(parts::<C>()) {
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
