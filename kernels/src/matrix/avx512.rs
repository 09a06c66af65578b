//! The product with AVX-512 and its instruction for 8-bit dot products (VNNI).
//!
//! One register holds a quad of inputs of sixteen rows; `vpdpbusd` multiplies it with four activations, the same for
//! all rows, and adds the four products to sixteen sums. The codes of a group of 32 inputs fill eight registers and
//! serve every token before the next group is unpacked.

use std::arch::x86_64::{
    __m128i, __m256i, __m512, __m512i, _MM_HINT_T0, _mm_loadu_si128, _mm_prefetch, _mm_storeu_si128,
    _mm256_loadu_si256, _mm512_abs_ps, _mm512_and_si512, _mm512_castps_si512, _mm512_cvtepi8_epi32,
    _mm512_cvtepi32_epi8, _mm512_cvtepi32_ps, _mm512_cvtepu8_epi32, _mm512_cvtph_ps, _mm512_cvtps_epi32,
    _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_fnmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_max_epi32, _mm512_mul_ps, _mm512_reduce_add_epi32, _mm512_reduce_max_epi32, _mm512_set1_epi8,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_slli_epi16,
    _mm512_sllv_epi32, _mm512_srli_epi16, _mm512_storeu_ps, _mm512_ternarylogic_epi32,
};

use super::activations::{self, Activations, Block};
use super::codec::Codec;
use super::format::{BLOCK, Layout};
use super::portable::Sums;

/// How far ahead of the multiplication weights are asked for, in bytes.
const AHEAD: usize = 8 << 10;

/// Multiplies one packed tile with the tokens `first..first + sums.len()`.
///
/// # Safety
/// The processor has the instructions of [`crate::Isa::Avx512Vnni`].
pub(super) unsafe fn quantized<C: Codec>(tile: &[u8], x: &Activations, first: usize, sums: &mut [Sums]) {
    assert_eq!(
        tile.len() / C::LAYOUT.unit_bytes() * C::LAYOUT.groups(),
        x.blocks,
        "a tile of the activations' width"
    );
    assert!((first + sums.len()) * x.blocks * BLOCK <= x.codes.len(), "tokens that were quantized");
    let x = Cursor::new(x, first);
    // SAFETY: the caller has checked the processor; the lengths are those that the loops rely on.
    unsafe {
        match sums {
            [sums] => one_token::<C>(tile, x, sums),
            sums => tokens::<C>(tile, x, sums),
        }
    }
}

/// Quantizes one block of activations.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn quantize(x: &[f32; BLOCK], codes: &mut [i8; BLOCK]) -> Block {
    // SAFETY: a block has 32 numbers.
    let x = unsafe { [_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(x.as_ptr().add(16))] };
    let magnitude = |x| _mm512_castps_si512(_mm512_abs_ps(x));
    let largest = _mm512_reduce_max_epi32(_mm512_max_epi32(magnitude(x[0]), magnitude(x[1])));
    let (scale, inverse) = activations::scale(largest.cast_unsigned());
    // What is not a number becomes the smallest of 32 bits, whose lowest byte is 0.
    let numbers = x.map(|x| _mm512_cvtps_epi32(_mm512_mul_ps(x, _mm512_set1_ps(inverse))));
    for (codes, numbers) in codes.as_chunks_mut::<16>().0.iter_mut().zip(numbers) {
        // SAFETY: sixteen bytes are written.
        unsafe { _mm_storeu_si128(codes.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(numbers)) };
    }
    let mut sums = numbers.map(|numbers| _mm512_reduce_add_epi32(numbers));
    if scale.is_nan() {
        sums = [0; 2];
    }
    Block { scale, sums }
}

/// Where the activations of a token and a block are. All pointers stay inside their vectors for every token and block
/// that the assertions of [`quantized`] admit.
#[derive(Clone, Copy)]
struct Cursor {
    blocks: usize,
    codes: *const i8,
    scales: *const f32,
    sums: *const f32,
    totals: *const i32,
    halves: *const i32,
}

impl Cursor {
    fn new(x: &Activations, first: usize) -> Self {
        let at = first * x.blocks;
        Self {
            blocks: x.blocks,
            codes: x.codes[at * BLOCK..].as_ptr(),
            scales: x.scales[at..].as_ptr(),
            sums: x.sums[at..].as_ptr(),
            totals: x.totals[at..].as_ptr(),
            halves: x.halves[2 * at..].as_ptr(),
        }
    }
}

/// One group of weights in registers.
pub(super) struct Group {
    pub(super) codes: [__m512i; 8],
    pub(super) scales: [__m512; 2],
    /// Added in plain formats, subtracted in super blocks.
    pub(super) minima: __m512,
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
unsafe fn one_token<C: Codec>(tile: &[u8], x: Cursor, sums: &mut Sums) {
    let mut sum = _mm512_setzero_ps();
    for (index, unit) in tile.chunks_exact(C::LAYOUT.unit_bytes()).enumerate() {
        for inner in 0..C::LAYOUT.groups() {
            // SAFETY: the group and the block exist; a prefetch may name any address.
            unsafe {
                let start = unit.as_ptr().add(C::LAYOUT.header_bytes() + inner * C::LAYOUT.group_bytes());
                prefetch::<C>(start);
                let group = load::<C>(unit.as_ptr(), start);
                sum = add_group::<C>(&group, x, index * C::LAYOUT.groups() + inner, sum);
            }
        }
    }
    // SAFETY: `sums` holds sixteen numbers.
    unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), sum) };
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
unsafe fn tokens<C: Codec>(tile: &[u8], x: Cursor, sums: &mut [Sums]) {
    sums.fill(Sums::default());
    for (index, unit) in tile.chunks_exact(C::LAYOUT.unit_bytes()).enumerate() {
        for inner in 0..C::LAYOUT.groups() {
            // SAFETY: the group and, for each of the tokens, the block exist; a prefetch may name any address.
            unsafe {
                let start = unit.as_ptr().add(C::LAYOUT.header_bytes() + inner * C::LAYOUT.group_bytes());
                prefetch::<C>(start);
                let group = load::<C>(unit.as_ptr(), start);
                let mut block = index * C::LAYOUT.groups() + inner;
                for sums in &mut *sums {
                    let sum = add_group::<C>(&group, x, block, _mm512_loadu_ps(sums.as_ptr()));
                    _mm512_storeu_ps(sums.as_mut_ptr(), sum);
                    block += x.blocks;
                }
            }
        }
    }
}

/// Asks for the weights that are wanted some groups later.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn prefetch<C: Codec>(group: *const u8) {
    for line in 0..C::LAYOUT.group_bytes().div_ceil(64) {
        _mm_prefetch::<_MM_HINT_T0>(group.wrapping_add(AHEAD + 64 * line).cast());
    }
}

/// Adds the products of one group with one block of activations.
///
/// # Safety
/// The activations have this block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
unsafe fn add_group<C: Codec>(group: &Group, x: Cursor, block: usize, sum: __m512) -> __m512 {
    // SAFETY: the caller's promise; a block has 32 codes, two halves and one of everything else.
    unsafe {
        let quads = x.codes.add(block * BLOCK).cast::<i32>();
        let quad = |index: usize| _mm512_set1_epi32(quads.add(index).read_unaligned());
        let scale = _mm512_set1_ps(*x.scales.add(block));
        let sum = if C::LAYOUT.split() {
            let mut halves = [0, 1].map(|half| offset::<C>(*x.halves.add(2 * block + half)));
            for index in 0..4 {
                halves[0] = _mm512_dpbusd_epi32(halves[0], group.codes[index], quad(index));
                halves[1] = _mm512_dpbusd_epi32(halves[1], group.codes[4 + index], quad(4 + index));
            }
            let first = _mm512_mul_ps(_mm512_cvtepi32_ps(halves[0]), group.scales[0]);
            let both = _mm512_fmadd_ps(_mm512_cvtepi32_ps(halves[1]), group.scales[1], first);
            _mm512_fmadd_ps(both, scale, sum)
        } else {
            let mut dot = offset::<C>(*x.totals.add(block));
            for index in 0..8 {
                dot = _mm512_dpbusd_epi32(dot, group.codes[index], quad(index));
            }
            _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(dot), scale), group.scales[0], sum)
        };
        if !C::LAYOUT.minimum {
            return sum;
        }
        let total = _mm512_set1_ps(*x.sums.add(block));
        if C::LAYOUT.super_block {
            _mm512_fnmadd_ps(group.minima, total, sum)
        } else {
            _mm512_fmadd_ps(group.minima, total, sum)
        }
    }
}

/// What the offset of the codes adds to a sum of products: a multiple of minus the sum of the activations.
#[inline]
#[target_feature(enable = "avx512f")]
fn offset<C: Codec>(negated: i32) -> __m512i {
    if C::LAYOUT.offset == 0 {
        return _mm512_setzero_si512();
    }
    // Offsets are powers of two; a shift by a constant is cheaper than a product.
    let shift = const { C::LAYOUT.offset.trailing_zeros() };
    _mm512_sllv_epi32(_mm512_set1_epi32(negated), _mm512_set1_epi32(shift.cast_signed()))
}

/// Reads one group.
///
/// # Safety
/// `unit` and `group` are the start of a packed unit and of one of its groups.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn load<C: Codec>(unit: *const u8, group: *const u8) -> Group {
    let layout: Layout = C::LAYOUT;
    // SAFETY: the fields lie one after the other, as the layout counts them.
    unsafe {
        let field = |index: usize| group.add(index * layout.scale_bytes());
        let (scales, minima) = if layout.split() {
            let scale = halves(unit);
            let of = |at: *const u8| {
                let factor = _mm512_cvtepi8_epi32(_mm_loadu_si128(at.cast::<__m128i>()));
                _mm512_mul_ps(_mm512_cvtepi32_ps(factor), scale)
            };
            ([of(group), of(group.add(16))], _mm512_setzero_ps())
        } else if layout.super_block {
            let of = |at: *const u8, factor: __m512| {
                let value = _mm512_cvtepu8_epi32(_mm_loadu_si128(at.cast::<__m128i>()));
                _mm512_mul_ps(_mm512_cvtepi32_ps(value), factor)
            };
            let minima =
                if layout.minimum { of(field(1), halves(unit.add(32))) } else { _mm512_setzero_ps() };
            ([of(field(0), halves(unit)); 2], minima)
        } else {
            let minima = if layout.minimum { halves(field(1)) } else { _mm512_setzero_ps() };
            ([halves(field(0)); 2], minima)
        };
        let upper = group.add(layout.scale_bytes() + layout.minimum_bytes());
        Group { codes: codes::<C>(upper, upper.add(layout.upper_bytes())), scales, minima }
    }
}

/// Sixteen 16-bit floats.
///
/// # Safety
/// 32 bytes may be read.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn halves(at: *const u8) -> __m512 {
    // SAFETY: the caller's promise.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(at.cast::<__m256i>()) })
}

/// The codes of a group, a register for each quad.
///
/// # Safety
/// `upper` and `lower` are those fields of a group.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn codes<C: Codec>(upper: *const u8, lower: *const u8) -> [__m512i; 8] {
    // SAFETY: the caller's promise; the fields have as many bytes as the layout says.
    let line = |field: *const u8, index: usize| unsafe { _mm512_loadu_si512(field.add(64 * index).cast()) };
    if C::LAYOUT.bits == 8 {
        return [0, 1, 2, 3, 4, 5, 6, 7].map(|index| line(lower, index));
    }
    let mask = _mm512_set1_epi8(0x0f);
    let low = |index: usize| _mm512_and_si512(line(lower, index), mask);
    let high = |index: usize| _mm512_and_si512(_mm512_srli_epi16::<4>(line(lower, index)), mask);
    let codes = [low(0), low(1), low(2), low(3), high(0), high(1), high(2), high(3)];
    match C::LAYOUT.bits {
        5 => {
            let bits = line(upper, 0);
            let fifth = |code, bits| or_masked(code, bits, 0x10);
            [
                fifth(codes[0], _mm512_slli_epi16::<4>(bits)),
                fifth(codes[1], _mm512_slli_epi16::<3>(bits)),
                fifth(codes[2], _mm512_slli_epi16::<2>(bits)),
                fifth(codes[3], _mm512_slli_epi16::<1>(bits)),
                fifth(codes[4], bits),
                fifth(codes[5], _mm512_srli_epi16::<1>(bits)),
                fifth(codes[6], _mm512_srli_epi16::<2>(bits)),
                fifth(codes[7], _mm512_srli_epi16::<3>(bits)),
            ]
        }
        6 => {
            let bits = [line(upper, 0), line(upper, 1)];
            let two = |code, bits| or_masked(code, bits, 0x30);
            [
                two(codes[0], _mm512_slli_epi16::<4>(bits[0])),
                two(codes[1], _mm512_slli_epi16::<2>(bits[0])),
                two(codes[2], bits[0]),
                two(codes[3], _mm512_srli_epi16::<2>(bits[0])),
                two(codes[4], _mm512_slli_epi16::<4>(bits[1])),
                two(codes[5], _mm512_slli_epi16::<2>(bits[1])),
                two(codes[6], bits[1]),
                two(codes[7], _mm512_srli_epi16::<2>(bits[1])),
            ]
        }
        _ => codes,
    }
}

/// `code | bits & mask`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn or_masked(code: __m512i, bits: __m512i, mask: i8) -> __m512i {
    _mm512_ternarylogic_epi32::<0xf8>(code, bits, _mm512_set1_epi8(mask))
}
