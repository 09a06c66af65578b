//! Products against plain multiplication of dequantized rows.

#![expect(clippy::unwrap_used, reason = "tests")]

use half::f16;
use proptest::prelude::*;

use super::{Format, Matrix, PackError, gated_matmul, matmul};
use crate::activation::Gating;
use crate::{Isa, Pool};

/// Pseudo-random bytes (splitmix64).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn byte(&mut self) -> u8 {
        self.next() as u8
    }

    /// From -1 to 1.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / 8_388_608.0 - 1.0
    }

    fn activations(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.unit()).collect()
    }
}

/// Where a stored block keeps 16-bit floats; all other bytes may have any value.
fn half_fields(format: Format) -> &'static [usize] {
    match format {
        Format::F32 | Format::F16 | Format::BF16 => &[],
        Format::Q4_0 | Format::Q5_0 | Format::Q8_0 => &[0],
        Format::Q4_1 | Format::Q5_1 | Format::Q4K | Format::Q5K => &[0, 2],
        Format::Q6K => &[208],
    }
}

/// Stored bytes of a matrix.
fn stored(format: Format, outputs: usize, inputs: usize, noise: &mut Noise) -> Vec<u8> {
    let blocks = outputs * inputs / format.block_len();
    (0..blocks).flat_map(|_| stored_block(format, noise)).collect()
}

fn stored_block(format: Format, noise: &mut Noise) -> Vec<u8> {
    let number = noise.unit();
    match format {
        Format::F32 => return number.to_le_bytes().to_vec(),
        Format::F16 => return f16::from_f32(number).to_le_bytes().to_vec(),
        Format::BF16 => return half::bf16::from_f32(number).to_le_bytes().to_vec(),
        _ => {}
    }
    let mut block: Vec<u8> = (0..format.block_bytes()).map(|_| noise.byte()).collect();
    for &at in half_fields(format) {
        block[at..at + 2].copy_from_slice(&f16::from_f32(0.1 * noise.unit()).to_le_bytes());
    }
    block
}

fn packed(isa: Isa, format: Format, outputs: usize, inputs: usize, bytes: &[u8]) -> Matrix {
    let row_bytes = format.row_bytes(inputs).unwrap();
    let mut read = |first: usize, out: &mut [u8]| {
        out.copy_from_slice(&bytes[first * row_bytes..][..out.len()]);
        Ok(())
    };
    Matrix::pack(isa, format, outputs, inputs, &mut read, None).unwrap()
}

/// Dequantizes a stored row as the format's definition has it, one number at a time.
fn reference_row(format: Format, row: &[u8], inputs: usize) -> Vec<f32> {
    let block_of = |input: usize| &row[input / format.block_len() * format.block_bytes()..];
    (0..inputs).map(|input| reference(format, block_of(input), input % format.block_len())).collect()
}

fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

fn reference(format: Format, block: &[u8], i: usize) -> f32 {
    let nibble = |at: usize| f32::from(if i < 16 { block[at + i] & 15 } else { block[at + i - 16] >> 4 });
    let fifth = |at: usize| f32::from(16 * (block[at + i / 8] >> (i % 8) & 1));
    let group = i / 32;
    let six_bits = |which: usize| {
        let packed = &block[4..16];
        f32::from(match (which, group) {
            (0, 0..4) => packed[group] & 63,
            (1, 0..4) => packed[group + 4] & 63,
            (0, _) => packed[group + 4] & 15 | packed[group - 4] >> 6 << 4,
            _ => packed[group + 4] >> 4 | packed[group] >> 6 << 4,
        })
    };
    let k_nibble = |at: usize| f32::from(block[at + 32 * (group / 2) + i % 32] >> (4 * (group % 2)) & 15);
    match format {
        Format::F32 => f32::from_le_bytes([block[0], block[1], block[2], block[3]]),
        Format::F16 => half(block, 0),
        Format::BF16 => half::bf16::from_le_bytes([block[0], block[1]]).to_f32(),
        Format::Q4_0 => half(block, 0) * (nibble(2) - 8.0),
        Format::Q4_1 => half(block, 0) * nibble(4) + half(block, 2),
        Format::Q5_0 => half(block, 0) * (nibble(6) + fifth(2) - 16.0),
        Format::Q5_1 => half(block, 0) * (nibble(8) + fifth(4)) + half(block, 2),
        Format::Q8_0 => half(block, 0) * f32::from(block[2 + i] as i8),
        Format::Q4K => half(block, 0) * six_bits(0) * k_nibble(16) - half(block, 2) * six_bits(1),
        Format::Q5K => {
            let upper = f32::from(16 * (block[16 + i % 32] >> group & 1));
            half(block, 0) * six_bits(0) * (k_nibble(48) + upper) - half(block, 2) * six_bits(1)
        }
        Format::Q6K => {
            let (side, run, l) = (i / 128, i % 128 / 32, i % 32);
            let low = block[64 * side + 32 * (run % 2) + l] >> (4 * (run / 2)) & 15;
            let high = block[128 + 32 * side + l] >> (2 * run) & 3;
            let scale = f32::from(block[192 + i / 16] as i8);
            half(block, 208) * scale * (f32::from(low | high << 4) - 32.0)
        }
    }
}

/// Whether a product is computed with 16-bit floats on tile registers.
fn on_tiles(isa: Isa, format: Format, tokens: usize) -> bool {
    isa == Isa::Amx && tokens >= if is_float(format) { 16 } else { 32 }
}

fn is_float(format: Format) -> bool {
    matches!(format, Format::F32 | Format::F16 | Format::BF16)
}

/// What a product may err by, as a part of the sum of its absolute terms. On tile registers both factors are rounded to 8
/// bits of precision, or floats to twice as many.
fn allowed(isa: Isa, format: Format, tokens: usize) -> f64 {
    match (on_tiles(isa, format, tokens), is_float(format)) {
        (false, _) => 1e-5,
        (true, true) => 3e-5,
        (true, false) => 2.01 / 512.0,
    }
}

/// The activations as the product sees them: 8 bits for each 32 of them, or as they are.
fn seen(isa: Isa, format: Format, tokens: usize, x: &[f32]) -> Vec<f32> {
    if is_float(format) || on_tiles(isa, format, tokens) {
        return x.to_vec();
    }
    x.chunks(32)
        .flat_map(|x| {
            let largest = x.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            x.iter().map(move |x| (x * (127.0 / largest)).round_ties_even() * (largest / 127.0))
        })
        .collect()
}

/// Checks the product of random weights and activations.
fn check(isa: Isa, format: Format, [outputs, inputs, tokens]: [usize; 3], seed: u64) {
    let mut noise = Noise(seed);
    let bytes = stored(format, outputs, inputs, &mut noise);
    let x = noise.activations(tokens * inputs);
    check_product(isa, format, [outputs, inputs, tokens], &bytes, &x);
}

/// Checks a product against sums in 64 bits: it may err by a small part of the sum of its absolute terms.
fn check_product(isa: Isa, format: Format, shape: [usize; 3], bytes: &[u8], x: &[f32]) {
    let [outputs, inputs, tokens] = shape;
    let matrix = packed(isa, format, outputs, inputs, bytes);
    let mut out = vec![f32::NAN; tokens * outputs];
    matmul(&Pool::new(2), x, tokens, &mut [(&matrix, &mut out)]);
    let rows: Vec<Vec<f32>> = bytes
        .chunks(format.row_bytes(inputs).unwrap())
        .map(|row| reference_row(format, row, inputs))
        .collect();
    for (token, x) in x.chunks(inputs).enumerate() {
        let seen = seen(isa, format, tokens, x);
        for (output, row) in rows.iter().enumerate() {
            let terms = || row.iter().zip(&seen).map(|(w, x)| f64::from(*w) * f64::from(*x));
            let (sum, size) = (terms().sum::<f64>(), terms().map(f64::abs).sum::<f64>());
            let got = f64::from(out[token * outputs + output]);
            assert!(
                (got - sum).abs() <= allowed(isa, format, tokens) * size,
                "{isa:?} {format:?} {outputs}x{inputs}, token {token} of {tokens}, output {output}: {got}, not {sum}"
            );
        }
    }
}

#[test]
fn a_row_of_a_packed_matrix_is_the_stored_row() {
    for format in Format::ALL {
        let (outputs, inputs) = (21, 512);
        let bytes = stored(format, outputs, inputs, &mut Noise(1));
        let matrix = packed(Isa::Portable, format, outputs, inputs, &bytes);
        let mut row = vec![0.0; inputs];
        for (index, stored) in bytes.chunks(format.row_bytes(inputs).unwrap()).enumerate() {
            matrix.row(index, &mut row);
            let wanted = reference_row(format, stored, inputs);
            for (got, wanted) in row.iter().zip(&wanted) {
                assert!((got - wanted).abs() <= 1e-6 * wanted.abs() + 1e-7, "{format:?} row {index}");
            }
        }
    }
}

#[test]
fn packing_takes_the_rows_in_the_order_asked_for() {
    let bytes = stored(Format::Q4_0, 20, 64, &mut Noise(2));
    let straight = packed(Isa::Portable, Format::Q4_0, 20, 64, &bytes);
    let order: Vec<usize> = (0..20).map(|row| (row * 7 + 3) % 20).collect();
    let mut read = |first: usize, out: &mut [u8]| {
        out.copy_from_slice(&bytes[36 * first..36 * first + out.len()]);
        Ok(())
    };
    let ordered = Matrix::pack(Isa::Portable, Format::Q4_0, 20, 64, &mut read, Some(&order)).unwrap();
    let (mut got, mut wanted) = ([0.0; 64], [0.0; 64]);
    for (index, &stored) in order.iter().enumerate() {
        ordered.row(index, &mut got);
        straight.row(stored, &mut wanted);
        assert_eq!(got, wanted);
    }
}

#[test]
fn a_packed_matrix_takes_little_more_memory_than_its_file() {
    for format in Format::ALL {
        let bytes = stored(format, 32, 512, &mut Noise(3));
        let matrix = packed(Isa::Portable, format, 32, 512, &bytes);
        assert!(
            matrix.bytes() * 100 <= bytes.len() * 103,
            "{format:?}: {} of {}",
            matrix.bytes(),
            bytes.len()
        );
    }
}

#[test]
fn sizes_that_fit_no_matrix_are_refused() {
    let pack = |format, outputs, inputs, order: Option<&[usize]>| {
        Matrix::pack(Isa::Portable, format, outputs, inputs, &mut |_, _| Ok(()), order).err()
    };
    assert!(matches!(pack(Format::Q4_0, 16, 33, None), Some(PackError::Inputs { inputs: 33, .. })));
    assert!(matches!(pack(Format::Q4K, 16, 32, None), Some(PackError::Inputs { .. })));
    assert!(matches!(pack(Format::F32, 0, 8, None), Some(PackError::Empty { .. })));
    assert!(matches!(pack(Format::F32, 8, 0, None), Some(PackError::Empty { .. })));
    assert!(matches!(pack(Format::F32, usize::MAX, 64, None), Some(PackError::TooLarge { .. })));
    assert!(matches!(pack(Format::F32, 1 << 40, 1 << 20, None), Some(PackError::TooLarge { .. })));
    assert!(matches!(pack(Format::F32, 16, usize::MAX, None), Some(PackError::Inputs { .. })));
    assert!(matches!(pack(Format::F32, 2, 8, Some(&[0])), Some(PackError::Order { outputs: 2 })));
    assert!(matches!(pack(Format::F32, 2, 8, Some(&[0, 2])), Some(PackError::Order { outputs: 2 })));
}

#[test]
fn a_read_that_fails_fails_the_packing() {
    let result = Matrix::pack(
        Isa::Portable,
        Format::F32,
        4,
        4,
        &mut |_, _| Err(std::io::ErrorKind::Other.into()),
        None,
    );
    assert!(matches!(result, Err(PackError::Read(_))));
}

#[test]
fn the_largest_codes_and_activations_overflow_nothing() {
    for isa in Isa::available() {
        for format in Format::ALL.into_iter().filter(|format| format.block_len() > 1) {
            for fill in [0x00, 0x80, 0xff] {
                let mut block = vec![fill; format.block_bytes()];
                for &at in half_fields(format) {
                    block[at..at + 2].copy_from_slice(&f16::from_f32(0.5).to_le_bytes());
                }
                for x in [1.0, -1.0] {
                    check_product(
                        isa,
                        format,
                        [16, format.block_len(), 1],
                        &block.repeat(16),
                        &vec![x; format.block_len()],
                    );
                }
            }
        }
    }
}

#[test]
fn matrices_that_share_activations_are_multiplied_in_one_call() {
    let mut noise = Noise(4);
    let shapes = [(Format::Q4K, 40), (Format::Q6K, 16), (Format::F16, 7), (Format::Q8_0, 100)];
    let matrices = shapes.map(|(format, outputs)| {
        packed(Isa::detect(), format, outputs, 256, &stored(format, outputs, 256, &mut noise))
    });
    let pool = Pool::new(2);
    for tokens in [3, 9, 20, 40] {
        let x = noise.activations(tokens * 256);
        let mut together = shapes.map(|(_, outputs)| vec![0.0; tokens * outputs]);
        let mut outs: Vec<(&Matrix, &mut [f32])> =
            matrices.iter().zip(together.iter_mut().map(Vec::as_mut_slice)).collect();
        matmul(&pool, &x, tokens, &mut outs);
        for (matrix, together) in matrices.iter().zip(&together) {
            let mut alone = vec![0.0; together.len()];
            matmul(&pool, &x, tokens, &mut [(matrix, &mut alone)]);
            assert_eq!(&alone, together);
        }
    }
}

#[test]
fn a_gated_product_is_that_of_both_products() {
    for (isa, tokens) in Isa::available().flat_map(|isa| [1, 4, 7, 20, 40].map(|tokens| (isa, tokens))) {
        // An odd number of tiles, the last not full; enough of them for several threads; formats that go different ways.
        let (outputs, inputs) = (16 * 8 + 3, 512);
        let formats = [[Format::Q4_1; 2], [Format::Q6K, Format::Q8_0], [Format::F16, Format::Q4K]];
        for (seed, formats) in formats.into_iter().enumerate() {
            let mut noise = Noise(seed as u64);
            let [gate, up] = formats.map(|format| {
                packed(isa, format, outputs, inputs, &stored(format, outputs, inputs, &mut noise))
            });
            let x = noise.activations(tokens * inputs);
            let product = |matrix: &Matrix| {
                let mut out = vec![0.0; tokens * outputs];
                matmul(&Pool::with_isa(1, isa), &x, tokens, &mut [(matrix, &mut out)]);
                out
            };
            for (gating, threads) in [(Gating::Silu, 1), (Gating::Silu, 3), (Gating::GeluTanh, 3)] {
                let mut want = vec![0.0; tokens * outputs];
                gating.apply(isa, &product(&gate), &product(&up), &mut want);
                let mut out = vec![f32::NAN; tokens * outputs];
                gated_matmul(&Pool::with_isa(threads, isa), &x, tokens, [&gate, &up], gating, &mut out);
                for (index, (got, want)) in out.iter().zip(&want).enumerate() {
                    let close = (got - want).abs() <= 1e-5 * want.abs().max(1.0);
                    assert!(
                        close,
                        "{isa:?} {formats:?}, {tokens} tokens: number {index} is {got}, not {want}"
                    );
                }
            }
        }
    }
}

#[test]
fn rows_longer_than_what_is_unpacked_at_a_time_are_summed_up() {
    for format in Format::ALL {
        for isa in Isa::available() {
            check(isa, format, [50, 2048, 50], 9);
        }
    }
}

#[test]
fn activations_that_are_not_finite_give_nan_and_spoil_no_other_token() {
    for isa in Isa::available() {
        for format in Format::ALL {
            let matrix = packed(isa, format, 16, 256, &stored(format, 16, 256, &mut Noise(5)));
            let bad = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
            for (bad, tokens) in bad.into_iter().flat_map(|bad| [3, 9, 33].map(|tokens| (bad, tokens))) {
                let mut x = Noise(6).activations(tokens * 256);
                x[256 + 77] = bad;
                let mut out = vec![0.0; tokens * 16];
                matmul(&Pool::new(1), &x, tokens, &mut [(&matrix, &mut out)]);
                assert!(out[16..32].iter().all(|number| !number.is_finite()), "{isa:?} {format:?} {bad}");
                assert!(out[..16].iter().chain(&out[32..]).all(|number| number.is_finite()));
            }
        }
    }
}

#[test]
fn scales_that_are_not_finite_do_not_stop_a_product() {
    for isa in Isa::available() {
        for format in Format::ALL {
            let mut bytes = stored(format, 16, 256, &mut Noise(7));
            for &at in half_fields(format) {
                bytes[at..at + 2].copy_from_slice(&f16::NAN.to_le_bytes());
            }
            let matrix = packed(isa, format, 16, 256, &bytes);
            for tokens in [1, 9, 33] {
                let mut out = vec![0.0; tokens * 16];
                matmul(
                    &Pool::new(1),
                    &Noise(8).activations(tokens * 256),
                    tokens,
                    &mut [(&matrix, &mut out)],
                );
                for out in out.chunks(16) {
                    assert_eq!(
                        out[0].is_nan(),
                        !half_fields(format).is_empty(),
                        "{isa:?} {format:?} {tokens}"
                    );
                    assert!(out[1..].iter().all(|number| number.is_finite()));
                }
            }
        }
    }
}

#[test]
fn activations_of_any_size_but_the_smallest_keep_their_product() {
    for isa in Isa::available() {
        for size in [1e-44, 1e-38, 1e-35, 1e30] {
            let matrix =
                packed(isa, Format::Q8_0, 16, 32, &[[0x00, 0x3c].as_slice(), &[1; 32]].concat().repeat(16));
            let mut out = vec![0.0; 16];
            matmul(&Pool::new(1), &[size; 32], 1, &mut [(&matrix, &mut out)]);
            let wanted = if size < 1e-36 { 0.0 } else { 32.0 * size };
            assert!((out[0] - wanted).abs() <= 0.01 * wanted, "{isa:?} {size}: {}", out[0]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_product_is_that_of_the_dequantized_weights(
        format in prop::sample::select(Format::ALL.to_vec()),
        outputs in 1usize..70,
        blocks in 1usize..6,
        tokens in 1usize..71,
        seed: u64,
    ) {
        for isa in Isa::available() {
            check(isa, format, [outputs, blocks * format.block_len().max(7), tokens], seed);
        }
    }
}
