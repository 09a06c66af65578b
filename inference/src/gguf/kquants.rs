//! The "k-quant" super-blocks of 256 numbers.

use super::dequantize::half_at;

/// `f16 scale, f16 min scale, u8 packed[12], u8 nibbles[128]`: eight groups of 32, each with a 6-bit scale and a 6-bit
/// minimum; value `q * scale * group_scale - min_scale * group_min`. Each run of 32 bytes holds two groups, the first
/// in the low nibbles.
pub(super) fn q4_k(block: &[u8], out: &mut [f32]) {
    let (scale, min_scale) = (half_at(block, 0), half_at(block, 2));
    let packed = &block[4..16];
    let nibbles = &block[16..144];
    for (pair, (bytes, out)) in nibbles.chunks_exact(32).zip(out.chunks_exact_mut(64)).enumerate() {
        let (low_out, high_out) = out.split_at_mut(32);
        let (low_scale, low_min) = scale_and_min(packed, 2 * pair);
        let (high_scale, high_min) = scale_and_min(packed, 2 * pair + 1);
        for (index, &byte) in bytes.iter().enumerate() {
            low_out[index] = scale * low_scale * f32::from(byte & 0x0f) - min_scale * low_min;
            high_out[index] = scale * high_scale * f32::from(byte >> 4) - min_scale * high_min;
        }
    }
}

/// `f16 scale, f16 min scale, u8 packed[12], u8 fifth bits[32], u8 nibbles[128]`: as Q4_K; bit `g` of the fifth bits'
/// byte `i` is the high bit of number `i` of group `g`.
pub(super) fn q5_k(block: &[u8], out: &mut [f32]) {
    let (scale, min_scale) = (half_at(block, 0), half_at(block, 2));
    let (packed, fifths, nibbles) = (&block[4..16], &block[16..48], &block[48..176]);
    for (group, out) in out.chunks_exact_mut(32).enumerate() {
        let (group_scale, group_min) = scale_and_min(packed, group);
        let bytes = &nibbles[group / 2 * 32..][..32];
        for (index, out) in out.iter_mut().enumerate() {
            let nibble = if group % 2 == 0 { bytes[index] & 0x0f } else { bytes[index] >> 4 };
            let number = nibble | (((fifths[index] >> group) & 1) << 4);
            *out = scale * group_scale * f32::from(number) - min_scale * group_min;
        }
    }
}

/// Unpacks group `group` of the 12 bytes that hold eight 6-bit scales and eight 6-bit minima: the first four scales
/// are the low six bits of bytes 0 to 3, the first four minima those of bytes 4 to 7; the others keep four bits in
/// bytes 8 to 11 and their upper two in the spare bits of the earlier bytes.
fn scale_and_min(packed: &[u8], group: usize) -> (f32, f32) {
    let (scale, minimum) = if group < 4 {
        (packed[group] & 63, packed[group + 4] & 63)
    } else {
        let shared = packed[group + 4];
        ((shared & 0x0f) | ((packed[group - 4] >> 6) << 4), (shared >> 4) | ((packed[group] >> 6) << 4))
    };
    (f32::from(scale), f32::from(minimum))
}

/// `u8 low[128], u8 high[64], i8 scales[16], f16 scale`: sixteen groups of 16; number = 4 low bits and 2 high bits
/// minus 32; value `q * scale * group_scale`. Each half of 128 numbers takes 64 low and 32 high bytes and is laid out
/// as four runs of 32: the low nibbles of both 32-byte rows, then their high nibbles.
pub(super) fn q6_k(block: &[u8], out: &mut [f32]) {
    let scale = half_at(block, 208);
    for half in 0..2 {
        let low = &block[64 * half..64 * (half + 1)];
        let high = &block[128 + 32 * half..128 + 32 * (half + 1)];
        let group_scales = &block[192 + 8 * half..192 + 8 * (half + 1)];
        for (run, out) in out[128 * half..128 * (half + 1)].chunks_exact_mut(32).enumerate() {
            for (index, out) in out.iter_mut().enumerate() {
                let byte = low[32 * (run % 2) + index];
                let nibble = if run < 2 { byte & 0x0f } else { byte >> 4 };
                let upper = (high[index] >> (2 * run)) & 3;
                let number = f32::from(nibble | (upper << 4)) - 32.0;
                *out = scale * f32::from(group_scales[2 * run + index / 16] as i8) * number;
            }
        }
    }
}
