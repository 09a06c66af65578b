//! Activations as 8-bit numbers.

use super::format::{BLOCK, Format};
use crate::Pool;

/// Tokens that a thread quantizes at a time.
const TOKENS_PER_TASK: usize = 16;

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
    /// Minus the sum of the codes of each 16, `[tokens, blocks, 2]`: what a weight's offset is multiplied with.
    pub(super) negated: Vec<i32>,
}

impl Activations {
    /// Takes the place of what was here with these activations.
    pub(super) fn quantize(&mut self, pool: &Pool, x: &[f32], inputs: usize) {
        let tokens = x.len() / inputs;
        self.blocks = inputs / BLOCK;
        self.codes.resize(tokens * inputs, 0);
        self.scales.resize(tokens * self.blocks, 0.0);
        self.sums.resize(tokens * self.blocks, 0.0);
        self.negated.resize(2 * tokens * self.blocks, 0);
        let _ = (pool, TOKENS_PER_TASK);
        quantize(x, &mut self.codes, &mut self.scales, &mut self.sums, &mut self.negated);
    }

    /// The block `block` of token `token`.
    pub(super) fn codes(&self, token: usize, block: usize) -> &[i8] {
        let start = (token * self.blocks + block) * BLOCK;
        &self.codes[start..start + BLOCK]
    }
}

/// Whether a product with this format wants [`Activations`], not the plain numbers.
pub(super) fn wanted(format: Format) -> bool {
    format.layout().is_some()
}

/// Quantizes whole blocks. A block with a number that is not finite gets the scale NaN and zeros: the product is NaN,
/// as it would be without quantization.
fn quantize(x: &[f32], codes: &mut [i8], scales: &mut [f32], sums: &mut [f32], negated: &mut [i32]) {
    let blocks = x.chunks_exact(BLOCK).zip(codes.chunks_exact_mut(BLOCK));
    let results = scales.iter_mut().zip(sums).zip(negated.chunks_exact_mut(2));
    for ((x, codes), ((scale, sum), negated)) in blocks.zip(results) {
        // The order of non-negative floats is that of their bits, with what is not finite on top.
        let largest = f32::from_bits(x.iter().fold(0, |most, x| most.max(x.abs().to_bits())));
        *scale = if largest.is_finite() { largest / 127.0 } else { f32::NAN };
        let inverse = if *scale > 0.0 { 127.0 / largest } else { 0.0 };
        for (code, x) in codes.iter_mut().zip(x) {
            // 127 / largest overflows for subnormal numbers; the cast bounds the code to 8 bits, and NaN to 0.
            *code = (x * inverse).round_ties_even() as i8;
        }
        for (negated, codes) in negated.iter_mut().zip(codes.chunks_exact(BLOCK / 2)) {
            *negated = -codes.iter().map(|&code| i32::from(code)).sum::<i32>();
        }
        *sum = *scale * -(negated[0] + negated[1]) as f32;
    }
}
