//! Weights as tiles of bf16.
//!
//! A tile of weights is `[16 pairs of inputs, 16 outputs, 2 inputs]`: each row of 64 bytes holds two inputs of every
//! output. Two such rows come out of one quad of the packed layout.

use std::arch::x86_64::{
    __m256i, __m512, __m512i, _mm_loadu_si128, _mm256_loadu_si256, _mm512_add_epi32, _mm512_and_si512,
    _mm512_castps_si512, _mm512_castsi512_ps, _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps, _mm512_cvtepu8_epi32,
    _mm512_cvtepu16_epi32, _mm512_cvtph_ps, _mm512_fmadd_ps, _mm512_fnmadd_ps, _mm512_loadu_ps,
    _mm512_loadu_si512, _mm512_mul_ps, _mm512_or_si512, _mm512_permutexvar_epi16, _mm512_set1_epi32,
    _mm512_set1_ps, _mm512_setzero_ps, _mm512_slli_epi16, _mm512_slli_epi32, _mm512_srli_epi16,
    _mm512_srli_epi32, _mm512_storeu_si512, _mm512_sub_ps, _mm512_ternarylogic_epi32,
};
use std::ops::Range;

use super::super::format::{BLOCK, Layout, TILE};
use super::super::{Format, Matrix};
use super::Tile;
use super::activations::{round, widen};

/// The table of `x | (y & z)`.
const OR_AND: i32 = 0xf8;

/// Quads in a group of 32 inputs.
const QUADS: usize = BLOCK / 4;

/// Unpacks some blocks of inputs, which are whole packed units, of one tile of the matrix: `[blocks, parts]` tiles of bf16.
///
/// # Safety
/// The tiles are [available](super::available).
pub(super) unsafe fn tile(matrix: &Matrix, index: usize, blocks: Range<usize>, to: &mut [Tile]) {
    let (unit_len, unit_bytes) = (matrix.format.unit_len(), matrix.format.unit_bytes());
    let packed = matrix.tile(index);
    // The last block of a plain format may have fewer inputs.
    let units = blocks.start * BLOCK / unit_len..(blocks.end * BLOCK).min(matrix.inputs) / unit_len;
    let packed = &packed[units.start * unit_bytes..units.end * unit_bytes];
    // SAFETY: the caller vouches for the processor.
    unsafe {
        match matrix.format.layout() {
            Some(layout) => quantized(layout, packed, to),
            None => floats(matrix.format, packed, to),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn quantized(layout: Layout, packed: &[u8], to: &mut [Tile]) {
    let units = packed.chunks_exact(layout.unit_bytes());
    for (unit, tiles) in units.zip(to.chunks_exact_mut(layout.groups())) {
        let (header, groups) = unit.split_at(layout.header_bytes());
        for (group, tile) in groups.chunks_exact(layout.group_bytes()).zip(tiles) {
            let lines = Lines::read(layout, header, group);
            let codes = &group[layout.scale_bytes() + layout.minimum_bytes()..];
            match layout.bits {
                4 => pairs(&lines, tile, |quad| (load(codes, quad % 4), if quad < 4 { LOW } else { HIGH })),
                5 => pairs(&lines, tile, |quad| {
                    let upper = and(shift_right(load(codes, 0), quad), 0x0101_0101);
                    (or(nibbles(&codes[64..], quad), _mm512_slli_epi16::<4>(upper)), WHOLE)
                }),
                6 => pairs(&lines, tile, |quad| {
                    let upper = and(shift_right(load(codes, quad / 4), 2 * (quad % 4)), 0x0303_0303);
                    (or(nibbles(&codes[128..], quad), _mm512_slli_epi16::<4>(upper)), WHOLE)
                }),
                _ => pairs(&lines, tile, |quad| (load(codes, quad), WHOLE)),
            }
        }
    }
}

/// Where the codes lie in their bytes.
#[derive(Clone, Copy)]
struct Field {
    /// Their bits.
    mask: i32,
    /// The value of the upmost place of the byte.
    unit: f32,
}

const WHOLE: Field = Field { mask: 0xff, unit: 256.0 };
const LOW: Field = Field { mask: 0x0f, unit: 256.0 };
const HIGH: Field = Field { mask: 0xf0, unit: 16.0 };

/// What turns codes into weights: `scale * code + added`, for the first and the last 16 inputs of a group.
struct Lines {
    scales: [__m512; 2],
    added: [__m512; 2],
}

impl Lines {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn read(layout: Layout, header: &[u8], group: &[u8]) -> Self {
        let offset = _mm512_set1_ps(layout.offset as f32);
        if !layout.super_block {
            let scale = halves(group, 0);
            let minimum = if layout.minimum { halves(group, 1) } else { _mm512_setzero_ps() };
            let added = _mm512_fnmadd_ps(scale, offset, minimum);
            return Self { scales: [scale; 2], added: [added; 2] };
        }
        let scale = halves(header, 0);
        if layout.split() {
            let of = |half| _mm512_mul_ps(scale, signed(group, half));
            let scales = [of(0), of(1)];
            let none = _mm512_setzero_ps();
            return Self { scales, added: scales.map(|scale| _mm512_fnmadd_ps(scale, offset, none)) };
        }
        let scales = _mm512_mul_ps(scale, unsigned(group, 0));
        let minimum = if layout.minimum {
            _mm512_mul_ps(halves(header, 1), unsigned(group, 1))
        } else {
            _mm512_setzero_ps()
        };
        let added = _mm512_sub_ps(_mm512_setzero_ps(), _mm512_fmadd_ps(scales, offset, minimum));
        Self { scales: [scales; 2], added: [added; 2] }
    }
}

/// Writes a tile out of the codes of its quads.
///
/// A code becomes a number without a conversion: put below the exponent of 1 it is the fraction of `1 + code / unit`. What
/// the 1 adds too much is taken away with what is added anyway.
#[inline(always)]
fn pairs(lines: &Lines, tile: &mut Tile, quad: impl Fn(usize) -> (__m512i, Field)) {
    /// The fraction of a 32-bit float starts below this bit.
    const FRACTION: i32 = 23;
    const BYTE: i32 = 8;
    // SAFETY: this is inlined into functions that have the features.
    unsafe {
        let whole = [scaled(lines, 0, WHOLE.unit), scaled(lines, 1, WHOLE.unit)];
        let high = [scaled(lines, 0, HIGH.unit), scaled(lines, 1, HIGH.unit)];
        for index in 0..QUADS {
            let (codes, field) = quad(index);
            let of_unit = if field.unit == HIGH.unit { &high } else { &whole };
            let (scale, added) = of_unit[2 * index / QUADS];
            let one = _mm512_set1_epi32(1.0_f32.to_bits().cast_signed());
            let mask = _mm512_set1_epi32(field.mask << (FRACTION - BYTE));
            let weight = |shifted: __m512i| {
                let number = _mm512_ternarylogic_epi32::<OR_AND>(one, shifted, mask);
                _mm512_fmadd_ps(_mm512_castsi512_ps(number), scale, added)
            };
            let even = (weight(_mm512_slli_epi32::<15>(codes)), weight(_mm512_slli_epi32::<7>(codes)));
            let odd = (weight(_mm512_srli_epi32::<1>(codes)), weight(_mm512_srli_epi32::<9>(codes)));
            place(tile, 2 * index, join(even.0, even.1));
            place(tile, 2 * index + 1, join(odd.0, odd.1));
        }
    }
}

/// What a fraction is multiplied with and what is added: of one half of a group, for codes below this unit.
#[inline]
#[target_feature(enable = "avx512f")]
fn scaled(lines: &Lines, half: usize, unit: f32) -> (__m512, __m512) {
    let scale = _mm512_mul_ps(lines.scales[half], _mm512_set1_ps(unit));
    (scale, _mm512_sub_ps(lines.added[half], scale))
}

/// Formats that are floats already: a packed unit is one input of the sixteen outputs.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn floats(format: Format, packed: &[u8], to: &mut [Tile]) {
    let parts = super::weight_parts(format);
    let unit = TILE * format.block_bytes();
    for (block, tiles) in packed.chunks(unit * BLOCK).zip(to.chunks_exact_mut(parts)) {
        let at = |input: usize| match block.get(input * unit..(input + 1) * unit) {
            Some(bytes) => float(format, bytes),
            None => _mm512_setzero_ps(),
        };
        for pair in 0..BLOCK / 2 {
            let (first, second) = (at(2 * pair), at(2 * pair + 1));
            let rounded = round(first, second);
            place(&mut tiles[0], pair, interleave(rounded));
            if let Some(rest) = tiles.get_mut(1) {
                let (of_first, of_second) = widen(rounded);
                let left = round(_mm512_sub_ps(first, of_first), _mm512_sub_ps(second, of_second));
                place(rest, pair, interleave(left));
            }
        }
    }
}

/// Sixteen numbers of a plain format.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn float(format: Format, bytes: &[u8]) -> __m512 {
    let bytes = &bytes[..TILE * format.block_bytes()];
    // SAFETY: the slice has been checked to hold sixteen numbers.
    unsafe {
        match format {
            Format::F16 => _mm512_cvtph_ps(_mm256_loadu_si256(bytes.as_ptr().cast())),
            Format::BF16 => {
                let halves = _mm512_cvtepu16_epi32(_mm256_loadu_si256(bytes.as_ptr().cast::<__m256i>()));
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves))
            }
            _ => _mm512_loadu_ps(bytes.as_ptr().cast()),
        }
    }
}

/// Two inputs of sixteen outputs as pairs of bf16, rounded to nearest. Faster here than the instruction that rounds, and
/// the permutation behind it.
#[inline]
#[target_feature(enable = "avx512f")]
fn join(first: __m512, second: __m512) -> __m512i {
    const UPPER: i32 = 0xffff_0000_u32 as i32;
    let nearest = |x| _mm512_add_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(0x8000));
    let first = _mm512_srli_epi32::<16>(nearest(first));
    _mm512_ternarylogic_epi32::<OR_AND>(first, nearest(second), _mm512_set1_epi32(UPPER))
}

/// Sixteen and sixteen bf16 as pairs: the first of each, the second of each, and so on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(crate) fn interleave(halves: __m512i) -> __m512i {
    const ORDER: [u16; 32] = {
        let mut order = [0; 32];
        let mut at = 0;
        while at < 32 {
            order[at] = (at / 2 + at % 2 * 16) as u16;
            at += 1;
        }
        order
    };
    // SAFETY: the array is 64 bytes.
    let order = unsafe { _mm512_loadu_si512(ORDER.as_ptr().cast()) };
    _mm512_permutexvar_epi16(order, halves)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn place(tile: &mut Tile, row: usize, halves: __m512i) {
    let to = &mut tile.0[row * BLOCK..(row + 1) * BLOCK];
    // SAFETY: the row is 64 bytes long.
    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), halves) };
}

/// The 4-bit codes of a quad.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn nibbles(codes: &[u8], quad: usize) -> __m512i {
    let both = load(codes, quad % 4);
    and(if quad < 4 { both } else { _mm512_srli_epi16::<4>(both) }, 0x0f0f_0f0f)
}

/// Line `index` of 64 bytes.
#[inline]
#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8], index: usize) -> __m512i {
    let line = &bytes[64 * index..64 * (index + 1)];
    // SAFETY: the line is 64 bytes long.
    unsafe { _mm512_loadu_si512(line.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn and(x: __m512i, mask: i32) -> __m512i {
    _mm512_and_si512(x, _mm512_set1_epi32(mask))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn or(x: __m512i, y: __m512i) -> __m512i {
    _mm512_or_si512(x, y)
}

/// Shifts by a number that is known once the loop is unrolled.
#[inline]
#[target_feature(enable = "avx512f")]
fn shift_right(x: __m512i, bits: usize) -> __m512i {
    use std::arch::x86_64::{_mm_cvtsi32_si128, _mm512_srl_epi32};
    _mm512_srl_epi32(x, _mm_cvtsi32_si128(bits as i32))
}

/// Sixteen 16-bit floats, the `index`th line of them.
#[inline]
#[target_feature(enable = "avx512f")]
fn halves(bytes: &[u8], index: usize) -> __m512 {
    let line = &bytes[32 * index..32 * (index + 1)];
    // SAFETY: the line is 32 bytes long.
    unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(line.as_ptr().cast())) }
}

/// Sixteen signed bytes, the `index`th line of them.
#[inline]
#[target_feature(enable = "avx512f")]
fn signed(bytes: &[u8], index: usize) -> __m512 {
    let line = &bytes[16 * index..16 * (index + 1)];
    // SAFETY: the line is 16 bytes long.
    unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(line.as_ptr().cast()))) }
}

/// Sixteen unsigned bytes, the `index`th line of them.
#[inline]
#[target_feature(enable = "avx512f")]
fn unsigned(bytes: &[u8], index: usize) -> __m512 {
    let line = &bytes[16 * index..16 * (index + 1)];
    // SAFETY: the line is 16 bytes long.
    unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(line.as_ptr().cast()))) }
}
