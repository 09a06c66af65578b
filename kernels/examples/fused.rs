//! Prints how long the operations beside the matrices take, at the sizes of SmolLM2-135M.
//!
//! `cargo run --release -p opossum-kernels --example fused`

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a program for the terminal")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use opossum_kernels::attention::{Causal, Full, Span, causal, full};
use opossum_kernels::rope::{Angles, rope};
use opossum_kernels::{BLOCK_TOKENS, Isa, KvShape, KvStore, Pool, activation, norm};

const HEADS: usize = 9;
const KV_HEADS: usize = 3;
const DIM: usize = 64;
const WIDTH: usize = HEADS * DIM;
const FEED_FORWARD: usize = 1536;
/// For how long each operation is repeated.
const BUDGET: Duration = Duration::from_millis(120);

fn main() {
    println!("widest vectors: {:?}", Isa::detect());
    for threads in [1, 2] {
        let pool = Pool::new(threads);
        println!("\n{threads} thread(s)");
        empty_job(&pool);
        for tokens in [1, 8, 128] {
            elementwise(&pool, tokens);
        }
        for (tokens, past) in [(1, 127), (1, 1023), (128, 0), (512, 0), (128, 896)] {
            cached_attention(&pool, "SmolLM2", HEADS, KV_HEADS, DIM, tokens, past);
        }
        for (tokens, past) in [(1, 127), (1, 511), (128, 0)] {
            cached_attention(&pool, "gemma-3-270m", 4, 1, 256, tokens, past);
        }
        encoder(&pool, 128);
    }
}

fn empty_job(pool: &Pool) {
    let time = median(|| {
        pool.run(8, &|index| {
            black_box(index);
        });
    });
    line("a job of 8 empty tasks", time, "");
}

fn elementwise(pool: &Pool, tokens: usize) {
    let (x, scale) = (numbers(tokens * WIDTH), numbers(WIDTH));
    let mut out = x.clone();
    line(&format!("rms_norm, {tokens}"), median(|| norm::rms_norm(pool, &x, &scale, 1e-5, &mut out)), "");
    let mut sum = x.clone();
    let time = median(|| norm::add_rms_norm(pool, &mut sum, &x, &scale, 1e-5, &mut out));
    line(&format!("add_rms_norm, {tokens}"), time, "");
    let frequencies: Vec<f64> = (0..DIM / 2).map(|i| 1e5f64.powf(-2.0 * i as f64 / DIM as f64)).collect();
    let time = median(|| drop(black_box(Angles::new(&frequencies, 0..tokens))));
    line(&format!("rotary angles, {tokens}"), time, "");
    let angles = Angles::new(&frequencies, 0..tokens);
    line(&format!("rope, {tokens}"), median(|| rope(pool, &angles, HEADS, DIM, &mut out)), "");
}

fn cached_attention(
    pool: &Pool,
    model: &str,
    heads: usize,
    kv_heads: usize,
    dim: usize,
    tokens: usize,
    past: usize,
) {
    let blocks: Vec<u32> = (0..(past + tokens).div_ceil(BLOCK_TOKENS) as u32).collect();
    let shape = KvShape { layers: 1, kv_heads, dim, blocks: blocks.len() };
    let mut store = KvStore::new(shape).unwrap();
    let before = numbers(past * kv_heads * dim);
    store.append(pool, 0, &blocks, 0, &before, &before);
    let new = numbers(tokens * kv_heads * dim);
    let name = format!("{model}: append, {tokens} after {past}");
    line(&name, median(|| store.append(pool, 0, &blocks, past, &new, &new)), "");

    let how = Causal { heads, scale: 0.125, window: None, softcap: None };
    let spans = [Span { tokens, past, blocks: &blocks }];
    let q = numbers(tokens * heads * dim);
    let mut out = q.clone();
    let time = median(|| causal(pool, &store, 0, &spans, &how, &q, &mut out));
    let pairs: usize = (past + 1..=past + tokens).sum();
    line(&format!("{model}: attention, {tokens} after {past}"), time, &rate(2 * pairs * heads * dim, time));
}

fn encoder(pool: &Pool, tokens: usize) {
    let how = Full { heads: 12, dim: 32, scale: 0.2 };
    let q = numbers(tokens * how.heads * how.dim);
    let mut out = q.clone();
    let time = median(|| full(pool, &[tokens], &how, &q, &q, &q, &mut out));
    let products = 2 * tokens * tokens * how.heads * how.dim;
    line(&format!("MiniLM: attention, {tokens}"), time, &rate(products, time));
    let mut x = numbers(tokens * FEED_FORWARD);
    line(&format!("MiniLM: gelu, {tokens}"), median(|| activation::gelu(pool, &mut x)), "");
}

fn rate(products: usize, time: Duration) -> String {
    format!("{:6.1} GMAC/s", products as f64 / time.as_secs_f64() / 1e9)
}

fn line(name: &str, time: Duration, note: &str) {
    println!("  {name:40} {:10.2} us {note}", time.as_secs_f64() * 1e6);
}

/// Numbers between -1 and 1, the same in every run.
fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * 0.7).sin()).collect()
}

fn median(mut work: impl FnMut()) -> Duration {
    let start = Instant::now();
    let mut times = Vec::new();
    while start.elapsed() < BUDGET || times.len() < 5 {
        let start = Instant::now();
        work();
        times.push(start.elapsed());
    }
    times.sort_unstable();
    times[times.len() / 2]
}
