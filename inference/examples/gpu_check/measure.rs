//! How fast a model computes, and how fast it could.

use std::time::Instant;

use burn::tensor::{Device, Tensor};
use opossum_inference::LoadedModel;
use opossum_inference::model::{BLOCK_TOKENS, BatchEntry, KvCache, Rows};

use crate::CONTEXT;

/// Tokens of each prompt.
pub(crate) const PROMPT: usize = 128;
/// Decode steps of a round.
pub(crate) const STEPS: usize = 32;
/// Rounds; the median counts.
const ROUNDS: usize = 3;

/// What was measured.
pub(crate) struct Speed {
    /// Prompt tokens a second, all sequences together.
    pub(crate) prefill: f64,
    /// Tokens a second, all sequences together.
    pub(crate) decode: f64,
    /// Seconds of a decode step.
    pub(crate) step: f64,
}

/// Measures so many sequences computed together. The first round, in which a GPU compiles, does not count.
pub(crate) fn speed(model: &LoadedModel, batch: usize) -> Speed {
    let blocks = CONTEXT.div_ceil(BLOCK_TOKENS);
    let mut cache = model.new_cache(blocks * batch).unwrap_or_else(|error| panic!("{error}"));
    let tables: Vec<Vec<u32>> =
        (0..batch).map(|index| (0..blocks).map(|block| (index * blocks + block) as u32).collect()).collect();
    let mut rounds: Vec<(f64, f64)> =
        (0..=ROUNDS).map(|_| round(model, &mut cache, &tables)).skip(1).collect();
    let mut median = |of: fn(&(f64, f64)) -> f64| {
        rounds.sort_unstable_by(|a, b| of(a).total_cmp(&of(b)));
        of(&rounds[ROUNDS / 2])
    };
    let (prompt, step) = (median(|round| round.0), median(|round| round.1));
    Speed { prefill: (batch * PROMPT) as f64 / prompt, decode: batch as f64 / step, step }
}

/// Seconds that the prompts took, and a decode step. Prompts are computed one after the other, as they would arrive.
fn round(model: &LoadedModel, cache: &mut KvCache, tables: &[Vec<u32>]) -> (f64, f64) {
    let prompt: Vec<u32> = (0..PROMPT as u32).map(|at| 3 + at * 7919 % 250).collect();
    let mut forward = |batch: &[BatchEntry<'_>]| {
        model.forward(batch, cache).unwrap_or_else(|error| panic!("{error}"));
    };
    let began = Instant::now();
    for blocks in tables {
        forward(&[BatchEntry { tokens: &prompt, past: 0, blocks, rows: Rows::Last }]);
    }
    let prompts = began.elapsed().as_secs_f64();
    let decode = |at: usize| -> Vec<BatchEntry<'_>> {
        tables
            .iter()
            .map(|blocks| BatchEntry { tokens: &prompt[..1], past: PROMPT + at, blocks, rows: Rows::Last })
            .collect()
    };
    // As many before those that count: the tensor library settles on how to fuse what it sees repeated.
    (0..STEPS).for_each(|at| forward(&decode(at)));
    let began = Instant::now();
    (STEPS..2 * STEPS).for_each(|at| forward(&decode(at)));
    (prompts, began.elapsed().as_secs_f64() / STEPS as f64)
}

/// Bytes that a decode step cannot avoid to read: all weights once, and each sequence's keys and values.
pub(crate) fn bytes_per_step(model: &LoadedModel, batch: usize) -> f64 {
    let info = model.info();
    let per_weight = match info.quantization.as_str() {
        "F32" => 4.0,
        "BF16" | "F16" => 2.0,
        // With a scale of 4 bytes for 32.
        "Q8_0" => 1.125,
        "Q4_0" => 0.625,
        other => panic!("{other} is nothing that tensors are kept as"),
    };
    let seen = (PROMPT + STEPS + STEPS / 2) as f64 / BLOCK_TOKENS as f64;
    info.parameters as f64 * per_weight + batch as f64 * seen * model.kv_bytes_per_block() as f64
}

/// Bytes a second that the device reads and writes at best: adding a number to many, both ways counted.
pub(crate) fn bandwidth(device: &Device) -> f64 {
    let numbers = if *device == Device::flex() { 1 << 25 } else { 1 << 28 };
    let many: Tensor<1> = Tensor::zeros([numbers], device);
    let sync = || device.sync().unwrap_or_else(|error| panic!("{error}"));
    let once = || {
        sync();
        let began = Instant::now();
        let more = many.clone().add_scalar(1.0);
        sync();
        let seconds = began.elapsed().as_secs_f64();
        drop(more);
        seconds
    };
    let best = (0..10).map(|_| once()).fold(f64::INFINITY, f64::min);
    (2 * numbers * size_of::<f32>()) as f64 / best
}
