//! `f32` to stored blocks, for the types that weights are converted to.

use half::{bf16, f16};
use rayon::prelude::*;

use super::TensorType;
use crate::InferenceError;

/// Numbers a thread converts at a time, a multiple of every block.
const NUMBERS_PER_TASK: usize = 32 * 1024;

/// Converts the whole of `numbers` into `bytes`.
///
/// # Errors
/// [`InferenceError::ModelInvalid`] for another type than F32, F16, BF16, Q4_0 and Q8_0, and when the lengths do not
/// belong together.
pub fn quantize(kind: TensorType, numbers: &[f32], bytes: &mut [u8]) -> Result<(), InferenceError> {
    let (block_len, block_bytes) = (kind.block_len(), kind.block_bytes());
    let blocks = numbers.len() / block_len;
    if blocks * block_len != numbers.len() || blocks * block_bytes != bytes.len() {
        return Err(InferenceError::invalid(format!(
            "{} numbers are no {} bytes",
            numbers.len(),
            bytes.len()
        )));
    }
    let convert: fn(&[f32], &mut [u8]) = match kind {
        TensorType::F32 => |block, out| out.copy_from_slice(&block[0].to_le_bytes()),
        TensorType::F16 => |block, out| out.copy_from_slice(&f16::from_f32(block[0]).to_le_bytes()),
        TensorType::Bf16 => |block, out| out.copy_from_slice(&bf16::from_f32(block[0]).to_le_bytes()),
        TensorType::Q8_0 => q8_0,
        TensorType::Q4_0 => q4_0,
        other => return Err(InferenceError::invalid(format!("nothing is converted to {other}"))),
    };
    numbers
        .par_chunks(NUMBERS_PER_TASK)
        .zip(bytes.par_chunks_mut(NUMBERS_PER_TASK / block_len * block_bytes))
        .for_each(|(numbers, bytes)| {
            for (block, out) in numbers.chunks_exact(block_len).zip(bytes.chunks_exact_mut(block_bytes)) {
                convert(block, out);
            }
        });
    Ok(())
}

/// The number that is farthest from zero.
fn farthest(block: &[f32]) -> f32 {
    block
        .iter()
        .fold(0.0, |farthest: f32, &number| if number.abs() > farthest.abs() { number } else { farthest })
}

fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// `f16 scale, i8 numbers[32]`: the farthest number becomes 127 or -127.
fn q8_0(block: &[f32], out: &mut [u8]) {
    let scale = farthest(block).abs() / 127.0;
    let inverse = inverse(scale);
    out[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
    for (out, number) in out[2..].iter_mut().zip(block) {
        *out = (number * inverse).round() as i8 as u8;
    }
}

/// `f16 scale, u8 nibbles[16]`: the farthest number becomes -8, which no other one can go beyond.
fn q4_0(block: &[f32], out: &mut [u8]) {
    let scale = farthest(block) / -8.0;
    let inverse = inverse(scale);
    let nibble = |number: f32| (number * inverse + 8.0).round().clamp(0.0, 15.0) as u8;
    out[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
    for (index, out) in out[2..].iter_mut().enumerate() {
        *out = nibble(block[index]) | (nibble(block[index + 16]) << 4);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::gguf::dequantize;

    /// The widest difference after there and back, in steps of the widest number.
    fn lost(kind: TensorType) -> f32 {
        let numbers: Vec<f32> = (0..96).map(|at| ((at * 37 % 64) as f32 - 31.0) / 16.0).collect();
        let mut bytes = vec![0; 96 / kind.block_len() * kind.block_bytes()];
        let mut back = vec![0.0; 96];
        quantize(kind, &numbers, &mut bytes).unwrap();
        dequantize(kind, &bytes, &mut back).unwrap();
        let widest = numbers.iter().zip(&back).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        widest / 2.0
    }

    #[test]
    fn there_and_back_loses_what_the_type_has_no_bits_for() {
        assert_eq!(lost(TensorType::F32), 0.0);
        assert_eq!(lost(TensorType::F16), 0.0);
        assert_eq!(lost(TensorType::Bf16), 0.0);
        assert!((0.000_1..0.005).contains(&lost(TensorType::Q8_0)));
        assert!((0.01..0.13).contains(&lost(TensorType::Q4_0)));
    }

    #[test]
    fn zeros_stay_zeros() {
        for kind in [TensorType::Q8_0, TensorType::Q4_0] {
            let (mut bytes, mut back) = (vec![0; kind.block_bytes()], vec![1.0; 32]);
            quantize(kind, &[0.0; 32], &mut bytes).unwrap();
            dequantize(kind, &bytes, &mut back).unwrap();
            assert_eq!(back, [0.0; 32]);
        }
    }

    #[test]
    fn lengths_that_do_not_belong_together_and_other_types_are_refused() {
        assert!(quantize(TensorType::Q8_0, &[0.0; 31], &mut [0; 34]).is_err());
        assert!(quantize(TensorType::F16, &[0.0; 2], &mut [0; 3]).is_err());
        assert!(quantize(TensorType::Q4K, &[0.0; 256], &mut [0; 144]).is_err());
    }
}
