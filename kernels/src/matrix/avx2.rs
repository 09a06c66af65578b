//! The product with AVX2: as with AVX-512, but eight rows at a time and with products of 8 bits summed in 16 first.

use std::arch::x86_64::{
    __m128i, __m256, __m256i, _mm_cvtsi32_si128, _mm_loadl_epi64, _mm_loadu_si128, _mm256_abs_epi8,
    _mm256_add_epi16, _mm256_add_epi32, _mm256_and_si256, _mm256_cvtepi8_epi32, _mm256_cvtepi32_ps,
    _mm256_cvtepu8_epi32, _mm256_cvtph_ps, _mm256_fmadd_ps, _mm256_fnmadd_ps, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_or_si256,
    _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps,
    _mm256_setzero_si256, _mm256_sign_epi8, _mm256_sll_epi16, _mm256_srl_epi16, _mm256_storeu_ps,
    _mm256_xor_si256,
};

use super::activations::Activations;
use super::codec::Codec;
use super::format::{Layout, TILE};
use super::portable::Sums;

/// Rows that one register holds.
const ROWS: usize = TILE / 2;

/// Multiplies one packed tile with the tokens `first..first + sums.len()`.
///
/// # Safety
/// The processor has the instructions of [`crate::Isa::Avx2`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn quantized<C: Codec>(tile: &[u8], x: &Activations, first: usize, sums: &mut [Sums]) {
    let layout: Layout = C::LAYOUT;
    sums.fill(Sums::default());
    for (index, unit) in tile.chunks_exact(layout.unit_bytes()).enumerate() {
        let (header, groups) = unit.split_at(layout.header_bytes());
        for (inner, bytes) in groups.chunks_exact(layout.group_bytes()).enumerate() {
            let block = index * layout.groups() + inner;
            for side in 0..2 {
                let group = Group::read::<C>(header, bytes, side);
                for (token, sums) in sums.iter_mut().enumerate() {
                    let sums = &mut sums[side * ROWS..(side + 1) * ROWS];
                    // SAFETY: `sums` has eight numbers.
                    unsafe {
                        let sum = _mm256_loadu_ps(sums.as_ptr());
                        _mm256_storeu_ps(sums.as_mut_ptr(), group.add::<C>(x, first + token, block, sum));
                    }
                }
            }
        }
    }
}

/// Eight rows of a group.
struct Group {
    /// A register for each quad; codes of 8 bits without their offset, as signed numbers.
    codes: [__m256i; 8],
    scales: [__m256; 2],
    minima: __m256,
}

impl Group {
    /// Reads the rows `8 * side..8 * side + 8`.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn read<C: Codec>(header: &[u8], group: &[u8], side: usize) -> Self {
        let layout: Layout = C::LAYOUT;
        let minima = layout.scale_bytes();
        let (scales, minima) = if layout.split() {
            let scale = halves(header, side);
            let of = |half: usize| _mm256_mul_ps(_mm256_cvtepi32_ps(signed(group, 2 * half + side)), scale);
            ([of(0), of(1)], _mm256_setzero_ps())
        } else if layout.super_block {
            let of = |field: &[u8], scale| {
                _mm256_mul_ps(_mm256_cvtepi32_ps(unsigned(field, side)), halves(scale, side))
            };
            let scale = of(group, header);
            ([scale; 2], of(&group[minima..], &header[2 * TILE..]))
        } else {
            let scale = halves(group, side);
            let minima = if layout.minimum { halves(&group[minima..], side) } else { _mm256_setzero_ps() };
            ([scale; 2], minima)
        };
        Self {
            codes: codes::<C>(&group[layout.scale_bytes() + layout.minimum_bytes()..], side),
            scales,
            minima,
        }
    }

    /// Adds the products with one block of a token's activations.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn add<C: Codec>(&self, x: &Activations, token: usize, block: usize, sum: __m256) -> __m256 {
        let layout: Layout = C::LAYOUT;
        let at = token * x.blocks + block;
        let quads = x.codes(token, block).as_chunks::<4>().0;
        let dots = [0, 1].map(|half| {
            let offset = if layout.bits == 8 { 0 } else { layout.offset * x.halves[2 * at + half] };
            let quads: &[[i8; 4]] = &quads[4 * half..4 * half + 4];
            _mm256_add_epi32(_mm256_set1_epi32(offset), dot::<C>(&self.codes[4 * half..4 * half + 4], quads))
        });
        let scale = _mm256_set1_ps(x.scales[at]);
        let sum = if layout.split() {
            let first = _mm256_mul_ps(_mm256_cvtepi32_ps(dots[0]), self.scales[0]);
            let both = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[1]), self.scales[1], first);
            _mm256_fmadd_ps(both, scale, sum)
        } else {
            let dot = _mm256_cvtepi32_ps(_mm256_add_epi32(dots[0], dots[1]));
            _mm256_fmadd_ps(_mm256_mul_ps(dot, scale), self.scales[0], sum)
        };
        let total = _mm256_set1_ps(x.sums[at]);
        match (layout.minimum, layout.super_block) {
            (false, _) => sum,
            (true, false) => _mm256_fmadd_ps(self.minima, total, sum),
            (true, true) => _mm256_fnmadd_ps(self.minima, total, sum),
        }
    }
}

/// The sums of products of four quads. Products of two codes fit 16 bits; as many of their sums are added as still fit.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot<C: Codec>(codes: &[__m256i], quads: &[[i8; 4]]) -> __m256i {
    let products = |index: usize| {
        let x = _mm256_set1_epi32(i32::from_le_bytes(quads[index].map(i8::cast_unsigned)));
        if C::LAYOUT.bits == 8 {
            // 128 * 127 * 2 is below 2^15, 255 * 127 * 2 would not be.
            _mm256_maddubs_epi16(_mm256_abs_epi8(codes[index]), _mm256_sign_epi8(x, codes[index]))
        } else {
            _mm256_maddubs_epi16(codes[index], x)
        }
    };
    let widen = |sums| _mm256_madd_epi16(sums, _mm256_set1_epi16(1));
    match C::LAYOUT.bits {
        // 4 * 2 * 31 * 127 is below 2^15.
        4 | 5 => widen(_mm256_add_epi16(
            _mm256_add_epi16(products(0), products(1)),
            _mm256_add_epi16(products(2), products(3)),
        )),
        // 2 * 2 * 63 * 127 is.
        6 => _mm256_add_epi32(
            widen(_mm256_add_epi16(products(0), products(1))),
            widen(_mm256_add_epi16(products(2), products(3))),
        ),
        _ => [0, 1, 2, 3]
            .map(|index| widen(products(index)))
            .into_iter()
            .fold(_mm256_setzero_si256(), |sum, dot| _mm256_add_epi32(sum, dot)),
    }
}

/// The codes of eight rows, a register for each quad. `fields` has the upper and then the lower bits of a group.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn codes<C: Codec>(fields: &[u8], side: usize) -> [__m256i; 8] {
    let (upper, lower) = fields.split_at(C::LAYOUT.upper_bytes());
    let part = |field: &[u8], line: usize| bytes(field, 2 * line + side);
    let mask = |bits, mask| _mm256_and_si256(bits, _mm256_set1_epi8(mask));
    if C::LAYOUT.bits == 8 {
        let sign = _mm256_set1_epi8(i8::MIN);
        return [0, 1, 2, 3, 4, 5, 6, 7].map(|quad| _mm256_xor_si256(part(lower, quad), sign));
    }
    [0, 1, 2, 3, 4, 5, 6, 7].map(|quad| {
        let nibble = mask(right(part(lower, quad % 4), 4 * (quad / 4)), 0x0f);
        let upper = match C::LAYOUT.bits {
            5 => mask(right(part(upper, 0), quad), 0x01),
            6 => mask(right(part(upper, quad / 4), 2 * (quad % 4)), 0x03),
            _ => return nibble,
        };
        _mm256_or_si256(nibble, _mm256_sll_epi16(upper, _mm_cvtsi32_si128(4)))
    })
}

#[inline]
#[target_feature(enable = "avx2")]
fn right(bits: __m256i, by: usize) -> __m256i {
    _mm256_srl_epi16(bits, _mm_cvtsi32_si128(by as i32))
}

/// The `index`th 32 bytes.
#[inline]
#[target_feature(enable = "avx2")]
fn bytes(field: &[u8], index: usize) -> __m256i {
    let bytes = &field[32 * index..32 * (index + 1)];
    // SAFETY: the slice has 32 bytes.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast::<__m256i>()) }
}

/// The `index`th eight 16-bit floats.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn halves(field: &[u8], index: usize) -> __m256 {
    let bytes = &field[16 * index..16 * (index + 1)];
    // SAFETY: the slice has 16 bytes.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(bytes.as_ptr().cast::<__m128i>()) })
}

/// The `index`th eight bytes.
#[inline]
#[target_feature(enable = "avx2")]
fn eight(field: &[u8], index: usize) -> __m128i {
    let bytes = &field[8 * index..8 * (index + 1)];
    // SAFETY: the slice has eight bytes.
    unsafe { _mm_loadl_epi64(bytes.as_ptr().cast::<__m128i>()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn unsigned(field: &[u8], index: usize) -> __m256i {
    _mm256_cvtepu8_epi32(eight(field, index))
}

#[inline]
#[target_feature(enable = "avx2")]
fn signed(field: &[u8], index: usize) -> __m256i {
    _mm256_cvtepi8_epi32(eight(field, index))
}
