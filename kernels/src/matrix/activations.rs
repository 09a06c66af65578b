//! Activations as 8-bit numbers.

use std::ops::Range;

use super::format::{BLOCK, Format, TILE};
use crate::Isa;
use crate::split::Parts;

/// Activations of some tokens: 32 at a time share a scale, and each is a number from -127 to 127.
#[derive(Debug, Default)]
pub(super) struct Activations {
    pub(super) blocks: usize,
    /// `[tokens, inputs]`.
    pub(super) codes: Vec<i8>,
    /// `[tokens, blocks]`.
    pub(super) scales: Vec<f32>,
    /// Scale by sum of the codes: what a weight's minimum is multiplied with. `[tokens, blocks]`.
    pub(super) sums: Vec<f32>,
    /// Minus the sum of the codes: what a weight's offset is multiplied with. `[tokens, blocks]`.
    pub(super) totals: Vec<i32>,
    /// The same for each 16: `[tokens, blocks, 2]`.
    pub(super) halves: Vec<i32>,
}

impl Activations {
    /// Makes room for these activations, which take the place of what was here.
    pub(super) fn room(&mut self, tokens: usize, inputs: usize) -> Room<'_> {
        self.blocks = inputs / BLOCK;
        // Whole tiles of tokens, of which the last may hold anything: what is computed with it is thrown away.
        let blocks = tokens.next_multiple_of(TILE) * self.blocks;
        self.codes.resize(blocks * BLOCK, 0);
        self.scales.resize(blocks, 0.0);
        self.sums.resize(blocks, 0.0);
        self.totals.resize(blocks, 0);
        self.halves.resize(2 * blocks, 0);
        Room {
            codes: Parts::new(&mut self.codes),
            scales: Parts::new(&mut self.scales),
            sums: Parts::new(&mut self.sums),
            totals: Parts::new(&mut self.totals),
            halves: Parts::new(&mut self.halves),
        }
    }

    /// Tokens that there is room for.
    pub(super) fn tokens(&self) -> usize {
        self.scales.len() / self.blocks.max(1)
    }

    /// The block `block` of token `token`.
    pub(super) fn codes(&self, token: usize, block: usize) -> &[i8] {
        let start = (token * self.blocks + block) * BLOCK;
        &self.codes[start..start + BLOCK]
    }
}

/// Where [`Activations`] are written, block by block.
pub(super) struct Room<'a> {
    codes: Parts<'a, i8>,
    scales: Parts<'a, f32>,
    sums: Parts<'a, f32>,
    totals: Parts<'a, i32>,
    halves: Parts<'a, i32>,
}

impl Room<'_> {
    /// Quantizes some blocks of `x`, counted from its start.
    ///
    /// # Safety
    /// No other thread writes or reads these blocks.
    pub(super) unsafe fn quantize(&self, isa: Isa, x: &[f32], blocks: Range<usize>) {
        // SAFETY: the caller's promise.
        let part = unsafe {
            Part {
                x: &x[blocks.start * BLOCK..blocks.end * BLOCK],
                codes: self.codes.take(blocks.start * BLOCK..blocks.end * BLOCK),
                scales: self.scales.take(blocks.clone()),
                sums: self.sums.take(blocks.clone()),
                totals: self.totals.take(blocks.clone()),
                halves: self.halves.take(2 * blocks.start..2 * blocks.end),
            }
        };
        match isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: packing has checked that the processor has this instruction set.
            Isa::Avx512Vnni | Isa::Amx => unsafe { part.each_avx512() },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx2 => unsafe { part.each_avx2() },
            _ => part.each(quantize),
        }
    }
}

/// Some blocks, and what they become.
struct Part<'a> {
    x: &'a [f32],
    codes: &'a mut [i8],
    scales: &'a mut [f32],
    sums: &'a mut [f32],
    totals: &'a mut [i32],
    halves: &'a mut [i32],
}

impl Part<'_> {
    /// # Safety
    /// The processor has the instructions of [`Isa::Avx512Vnni`].
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn each_avx512(self) {
        self.each(|x, codes| super::avx512::quantize(x, codes));
    }

    /// The portable code, compiled for wider registers.
    ///
    /// # Safety
    /// The processor has AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn each_avx2(self) {
        self.each(quantize);
    }

    #[inline(always)]
    fn each(self, quantize: impl Fn(&[f32; BLOCK], &mut [i8; BLOCK]) -> Block) {
        let blocks = self.x.as_chunks::<BLOCK>().0.iter().zip(self.codes.as_chunks_mut::<BLOCK>().0);
        let results = self.scales.iter_mut().zip(self.sums);
        let totals = self.totals.iter_mut().zip(self.halves.as_chunks_mut::<2>().0);
        for (((x, codes), (scale, sum)), (total, halves)) in blocks.zip(results).zip(totals) {
            let block = quantize(x, codes);
            *scale = block.scale;
            *halves = block.sums.map(|sum| -sum);
            *total = halves[0] + halves[1];
            *sum = block.scale * -*total as f32;
        }
    }
}

/// Whether a product with this format wants [`Activations`], not the plain numbers.
pub(super) fn wanted(format: Format) -> bool {
    format.layout().is_some()
}

/// What is known of a quantized block.
pub(super) struct Block {
    pub(super) scale: f32,
    /// Of the first and the last 16 codes.
    pub(super) sums: [i32; 2],
}

/// The scale of a block by the bits of its largest magnitude, and what its numbers are multiplied with to become codes.
/// With a number that is not finite the scale is NaN and the codes are zero: the product is NaN, as it would be without
/// quantization.
#[inline(always)]
pub(super) fn scale(largest: u32) -> (f32, f32) {
    let largest = f32::from_bits(largest);
    let inverse = 127.0 / largest;
    match (largest.is_finite(), inverse.is_finite()) {
        (true, true) => (largest / 127.0, inverse),
        // All zeros, or numbers so small that they are as good as zero.
        (true, false) => (0.0, 0.0),
        (false, _) => (f32::NAN, 0.0),
    }
}

/// Quantizes one block.
#[inline(always)]
fn quantize(x: &[f32; BLOCK], codes: &mut [i8; BLOCK]) -> Block {
    // The order of non-negative floats is that of their bits, with what is not finite on top.
    let (scale, inverse) = scale(x.iter().fold(0, |most, x| most.max(x.abs().to_bits())));
    for (code, x) in codes.iter_mut().zip(x) {
        // NaN becomes 0 here.
        *code = (x * inverse).round_ties_even() as i32 as i8;
    }
    let sum = |codes: &[i8]| codes.iter().map(|&code| i32::from(code)).sum();
    Block { scale, sums: [sum(&codes[..BLOCK / 2]), sum(&codes[BLOCK / 2..])] }
}
