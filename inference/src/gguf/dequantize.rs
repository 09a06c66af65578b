//! Stored blocks to `f32`.
//!
//! Layouts: `ggml-common.h` of the ggml library; each function restates its block as a comment. All are little-endian.

use half::{bf16, f16};
use rayon::prelude::*;

use super::{TensorType, kquants};
use crate::InferenceError;

/// Blocks a thread converts at a time: enough to hide the cost of handing work out.
const BLOCKS_PER_TASK: usize = 1024;

/// Converts the whole of `bytes` into `numbers`.
///
/// # Errors
/// [`InferenceError::ModelInvalid`] when the lengths do not belong together.
pub fn dequantize(kind: TensorType, bytes: &[u8], numbers: &mut [f32]) -> Result<(), InferenceError> {
    let (block_len, block_bytes) = (kind.block_len(), kind.block_bytes());
    let blocks = bytes.len() / block_bytes;
    if blocks * block_bytes != bytes.len() || blocks * block_len != numbers.len() {
        return Err(InferenceError::invalid(format!(
            "{} bytes are no {} numbers",
            bytes.len(),
            numbers.len()
        )));
    }
    let convert = block_converter(kind);
    bytes
        .par_chunks(block_bytes * BLOCKS_PER_TASK)
        .zip(numbers.par_chunks_mut(block_len * BLOCKS_PER_TASK))
        .for_each(|(bytes, numbers)| {
            for (block, out) in bytes.chunks_exact(block_bytes).zip(numbers.chunks_exact_mut(block_len)) {
                convert(block, out);
            }
        });
    Ok(())
}

/// Converts exactly one block into exactly one block's worth of numbers.
type BlockConverter = fn(&[u8], &mut [f32]);

fn block_converter(kind: TensorType) -> BlockConverter {
    match kind {
        TensorType::F32 => |block, out| out[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]),
        TensorType::F16 => |block, out| out[0] = half_at(block, 0),
        TensorType::Bf16 => |block, out| out[0] = bf16::from_le_bytes([block[0], block[1]]).to_f32(),
        TensorType::Q4_0 => q4_0,
        TensorType::Q4_1 => q4_1,
        TensorType::Q5_0 => q5_0,
        TensorType::Q5_1 => q5_1,
        TensorType::Q8_0 => q8_0,
        TensorType::Q4K => kquants::q4_k,
        TensorType::Q5K => kquants::q5_k,
        TensorType::Q6K => kquants::q6_k,
    }
}

/// The 16-bit float at this byte.
pub(super) fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// `f16 scale, u8 nibbles[16]`: low nibbles are the first 16 numbers, high nibbles the last; value `(q - 8) * scale`.
fn q4_0(block: &[u8], out: &mut [f32]) {
    let scale = half_at(block, 0);
    for (index, &pair) in block[2..].iter().enumerate() {
        out[index] = (f32::from(pair & 0x0f) - 8.0) * scale;
        out[index + 16] = (f32::from(pair >> 4) - 8.0) * scale;
    }
}

/// `f16 scale, f16 minimum, u8 nibbles[16]`: as Q4_0 with value `q * scale + minimum`.
fn q4_1(block: &[u8], out: &mut [f32]) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    for (index, &pair) in block[4..].iter().enumerate() {
        out[index] = f32::from(pair & 0x0f) * scale + minimum;
        out[index + 16] = f32::from(pair >> 4) * scale + minimum;
    }
}

/// `f16 scale, u32 fifth bits, u8 nibbles[16]`: bit `i` is the high bit of number `i`; value `(q - 16) * scale`.
fn q5_0(block: &[u8], out: &mut [f32]) {
    let scale = half_at(block, 0);
    five_bits(&block[2..], out, |number| (number - 16.0) * scale);
}

/// `f16 scale, f16 minimum, u32 fifth bits, u8 nibbles[16]`: as Q5_0 with value `q * scale + minimum`.
fn q5_1(block: &[u8], out: &mut [f32]) {
    let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
    five_bits(&block[4..], out, |number| number * scale + minimum);
}

/// Puts the 5-bit numbers of `u32 fifth bits, u8 nibbles[16]` through `value`.
fn five_bits(bytes: &[u8], out: &mut [f32], value: impl Fn(f32) -> f32) {
    let high = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let number = |nibble: u8, index: usize| {
        let fifth = ((high >> index) & 1) as u8;
        f32::from(nibble | (fifth << 4))
    };
    for (index, &pair) in bytes[4..].iter().enumerate() {
        out[index] = value(number(pair & 0x0f, index));
        out[index + 16] = value(number(pair >> 4, index + 16));
    }
}

/// `f16 scale, i8 numbers[32]`: value `q * scale`.
fn q8_0(block: &[u8], out: &mut [f32]) {
    let scale = half_at(block, 0);
    for (out, &byte) in out.iter_mut().zip(&block[2..]) {
        *out = f32::from(byte as i8) * scale;
    }
}
