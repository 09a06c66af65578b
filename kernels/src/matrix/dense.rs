//! The product with weights that are plain floats, for few tokens: written once, compiled for each instruction set.

use half::{bf16, f16};

use super::format::TILE;
use super::portable::Sums;
use super::{Format, Matrix};
use crate::Isa;

/// Tokens whose sums stay in registers while the weights of a tile pass by.
const TOKENS: usize = 4;

/// Multiplies one tile with the tokens `first..first + sums.len()`; `x` is `[tokens, inputs]`.
pub(super) fn multiply(matrix: &Matrix, tile: usize, x: &[f32], first: usize, sums: &mut [Sums]) {
    let inputs = matrix.inputs;
    let x = &x[first * inputs..(first + sums.len()) * inputs];
    let tile = Tile { format: matrix.format, bytes: matrix.tile(tile) };
    match matrix.isa {
        Isa::Portable => tile.each::<false>(x, inputs, sums),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: packing has checked that the processor has this instruction set.
        Isa::Avx2 => unsafe { tile.avx2(x, inputs, sums) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx512Vnni | Isa::Amx => unsafe { tile.avx512(x, inputs, sums) },
        #[cfg(not(target_arch = "x86_64"))]
        Isa::Avx2 | Isa::Avx512Vnni | Isa::Amx => tile.each::<false>(x, inputs, sums),
    }
}

/// A packed tile: for each input the weights of sixteen rows.
#[derive(Clone, Copy)]
struct Tile<'a> {
    format: Format,
    bytes: &'a [u8],
}

impl Tile<'_> {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
    unsafe fn avx512(self, x: &[f32], inputs: usize, sums: &mut [Sums]) {
        self.each::<true>(x, inputs, sums);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn avx2(self, x: &[f32], inputs: usize, sums: &mut [Sums]) {
        self.each::<true>(x, inputs, sums);
    }

    /// `FUSED`: the processor multiplies and adds in one step.
    #[inline(always)]
    fn each<const FUSED: bool>(self, x: &[f32], inputs: usize, sums: &mut [Sums]) {
        let mut x = x.chunks_exact(inputs);
        let (some, rest) = sums.as_chunks_mut::<TOKENS>();
        for sums in some {
            let x: [&[f32]; TOKENS] = std::array::from_fn(|_| x.next().unwrap_or_default());
            *sums = self.product::<FUSED, TOKENS>(x);
        }
        for (x, sums) in x.zip(rest) {
            [*sums] = self.product::<FUSED, 1>([x]);
        }
    }

    #[inline(always)]
    fn product<const FUSED: bool, const N: usize>(self, x: [&[f32]; N]) -> [Sums; N] {
        match self.format {
            Format::F16 => {
                sum::<FUSED, 2, N>(self.bytes, x, |bytes| f16::from_le_bytes(*bytes).to_f32_const())
            }
            Format::BF16 => {
                sum::<FUSED, 2, N>(self.bytes, x, |bytes| bf16::from_le_bytes(*bytes).to_f32_const())
            }
            _ => sum::<FUSED, 4, N>(self.bytes, x, |bytes| f32::from_le_bytes(*bytes)),
        }
    }
}

/// Sums over all inputs of a tile with numbers of `BYTES` bytes.
#[inline(always)]
fn sum<const FUSED: bool, const BYTES: usize, const N: usize>(
    tile: &[u8],
    x: [&[f32]; N],
    number: impl Fn(&[u8; BYTES]) -> f32,
) -> [Sums; N] {
    let mut sums = [[0.0; TILE]; N];
    for (input, weights) in tile.chunks_exact(BYTES * TILE).enumerate() {
        let mut row = [0.0; TILE];
        for (weight, bytes) in row.iter_mut().zip(weights.as_chunks::<BYTES>().0) {
            *weight = number(bytes);
        }
        for (sums, x) in sums.iter_mut().zip(x) {
            for (sum, weight) in sums.iter_mut().zip(&row) {
                *sum = if FUSED { weight.mul_add(x[input], *sum) } else { weight * x[input] + *sum };
            }
        }
    }
    sums
}
