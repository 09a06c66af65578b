//! How fast matrices are multiplied: for each format, number of tokens and threads, the best of several rounds each.
//!
//! The matrices stand for the body of a small model: more bytes than the caches near a core hold, read once a round.
//! Arguments: names of formats, and numbers of tokens (all if there are none).

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a program that prints figures")]

use std::time::{Duration, Instant};

use half::{bf16, f16};
use opossum_kernels::matrix::{Format, Matrix, matmul};
use opossum_kernels::{Isa, Pool};

const INPUTS: usize = 768;
const OUTPUTS: usize = 1536;
const MATRICES: usize = 48;
const TOKENS: [usize; 9] = [1, 2, 4, 8, 12, 16, 32, 128, 512];

/// Stored rows whose numbers are of ordinary size.
fn rows(format: Format) -> Vec<u8> {
    let halves: &[usize] = match format {
        Format::F32 => return floats(f32::to_le_bytes),
        Format::F16 => return floats(|number| f16::from_f32(number).to_le_bytes()),
        Format::BF16 => return floats(|number| bf16::from_f32(number).to_le_bytes()),
        Format::Q4_1 | Format::Q5_1 | Format::Q4K | Format::Q5K => &[0, 2],
        Format::Q6K => &[208],
        _ => &[0],
    };
    let blocks = OUTPUTS * INPUTS / format.block_len();
    let mut bytes: Vec<u8> =
        (0..blocks * format.block_bytes()).map(|at| (at * at / 7 + at) as u8 & 0x3f).collect();
    for block in bytes.chunks_mut(format.block_bytes()) {
        halves.iter().for_each(|&at| block[at..at + 2].copy_from_slice(&[0x00, 0x1c]));
    }
    bytes
}

fn floats<const N: usize>(bytes: impl Fn(f32) -> [u8; N]) -> Vec<u8> {
    (0..OUTPUTS * INPUTS).flat_map(|at| bytes((at as f32).sin())).collect()
}

fn matrices(format: Format, isa: Isa) -> Vec<Matrix> {
    let (rows, row_bytes) = (rows(format), format.row_bytes(INPUTS).unwrap());
    let mut read = |first: usize, out: &mut [u8]| {
        out.copy_from_slice(&rows[first * row_bytes..][..out.len()]);
        Ok(())
    };
    (0..MATRICES).map(|_| Matrix::pack(isa, format, OUTPUTS, INPUTS, &mut read, None).unwrap()).collect()
}

/// The time of one pass over all matrices, if each took the shortest time it ever took: other work on the machine
/// disturbs that least.
fn best(pool: &Pool, matrices: &[Matrix], tokens: usize) -> Duration {
    let x: Vec<f32> = (0..tokens * INPUTS).map(|at| (at % 37) as f32 / 18.0 - 1.0).collect();
    let mut out = vec![0.0; tokens * OUTPUTS];
    let mut best = vec![Duration::MAX; matrices.len()];
    let began = Instant::now();
    while best[0] == Duration::MAX || began.elapsed() < Duration::from_millis(300) {
        for (matrix, best) in matrices.iter().zip(&mut best) {
            let start = Instant::now();
            matmul(pool, &x, tokens, &mut [(matrix, &mut out)]);
            *best = start.elapsed().min(*best);
        }
    }
    best.iter().sum()
}

fn main() {
    let (tokens, wanted): (Vec<_>, Vec<_>) =
        std::env::args().skip(1).partition(|argument| argument.parse::<usize>().is_ok());
    let mut tokens: Vec<usize> = tokens.iter().map(|number| number.parse().unwrap()).collect();
    if tokens.is_empty() {
        tokens = TOKENS.to_vec();
    }
    let isa = Isa::detect();
    println!("{isa:?}: {MATRICES} matrices of {OUTPUTS} by {INPUTS}");
    for format in Format::ALL {
        if !wanted.is_empty() && !wanted.iter().any(|name| *name == format!("{format:?}")) {
            continue;
        }
        let began = Instant::now();
        let matrices = matrices(format, isa);
        let bytes: usize = matrices.iter().map(Matrix::bytes).sum();
        println!("{format:?}: {} MB, packed in {:?}", bytes / 1_000_000, began.elapsed());
        for threads in [1, 2] {
            let pool = Pool::new(threads);
            for &tokens in &tokens {
                let seconds = best(&pool, &matrices, tokens).as_secs_f64();
                let macs = (MATRICES * OUTPUTS * INPUTS * tokens) as f64;
                println!(
                    "  {threads} threads, {tokens:>3} tokens: {:7.2} ms, {:5.1} GB/s, {:6.1} GMAC/s",
                    1e3 * seconds,
                    bytes as f64 / seconds / 1e9,
                    macs / seconds / 1e9
                );
            }
        }
    }
}
