//! One measurement of the engine's model in a process of its own: the counterpart of `scripts/bench/llama_side.c`,
//! with the same cases, tokens, positions and output, so that the two can be run in turn.
//!
//! Arguments: a GGUF file, the number of threads, seconds a case, then cases: `prefill:TOKENS` computes a prompt and
//! the logits of its last token, `late:TOKENS` computes so many at position 1,920 of a prompt beside one
//! token of another sequence, `decode:SEQUENCES` computes one token and its logits for each of so many sequences at
//! positions 128 to 191, `read:MIB` adds up so much memory: what a decode step, which reads all weights once, can at
//! best be as fast as.
//!
//! Prints one JSON object on one line. Times are per operation: the median and the best of all rounds that fit into the
//! seconds, in milliseconds of wall clock, beside the process's CPU time divided by the rounds.

#![expect(clippy::print_stdout, clippy::unwrap_used, clippy::panic, reason = "a program that prints figures")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use opossum_inference::gguf::GgufFile;
use opossum_inference::model::{BLOCK_TOKENS, BatchEntry, KvCache, Rows};
use opossum_inference::{LoadOptions, LoadedModel};
use opossum_kernels::Pool;

/// Tokens of a sequence before its first decode step that counts.
const PAST: usize = 128;
/// Tokens of a long prompt before those of a case that counts its end.
const LONG: usize = 1920;
/// Decode steps before the sequences begin at `PAST` again.
const SPAN: usize = 64;
/// Tokens of the cache, all sequences together: as many as llama.cpp is given.
const CONTEXT: usize = 4096;

/// Numbers that one task adds up when memory is read.
const PART: usize = 1 << 15;

/// Pseudo-random ordinary tokens: what they say does not matter to the speed.
fn token(position: usize, vocab: usize) -> u32 {
    let mixed = (position as u32).wrapping_mul(2_654_435_761).wrapping_add(12_345);
    300 + (mixed >> 8) % (vocab as u32 - 300)
}

/// CPU time of all threads that live.
fn cpu_time() -> Duration {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let spent = |task: fs::DirEntry| -> u64 {
        let line = fs::read_to_string(task.path().join("schedstat")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    Duration::from_nanos(tasks.map(|task| spent(task.unwrap())).sum())
}

/// A field of `/proc/self/status` in MiB.
fn status_mb(field: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// Bytes of weights that one decode step reads: all but the rows of an embedding that is not the head as well.
fn step_bytes(path: &str) -> usize {
    let file = GgufFile::open(Path::new(path)).unwrap();
    let tensors = &file.header().tensors;
    let all: usize = tensors.values().map(|tensor| tensor.range.len()).sum();
    let tied = !tensors.contains_key("output.weight");
    all - if tied { 0 } else { tensors["token_embd.weight"].range.len() }
}

struct Bench {
    threads: usize,
    model: LoadedModel,
    cache: KvCache,
    budget: Duration,
}

impl Bench {
    /// One pass in which sequences that each hold `past` tokens get `count` more; the time until the logits are there.
    fn pass(&mut self, sequences: usize, past: usize, count: usize) -> Duration {
        let (vocab, share) = (self.model.info().vocab, CONTEXT / BLOCK_TOKENS / sequences);
        let rows: Vec<(Vec<u32>, Vec<u32>)> = (0..sequences)
            .map(|sequence| {
                // Neighbours compute different tokens when they decode, and the same prompt.
                let shift = if count == 1 { sequence } else { 0 };
                let tokens = (past..past + count).map(|at| token(at + shift, vocab)).collect();
                let first = sequence * share;
                (tokens, (first as u32..(first + share) as u32).collect())
            })
            .collect();
        let entries: Vec<BatchEntry<'_>> = rows
            .iter()
            .map(|(tokens, blocks)| BatchEntry { tokens, past, blocks, rows: Rows::Last })
            .collect();
        let start = Instant::now();
        let mut logits = self.model.forward(&entries, &mut self.cache).unwrap();
        assert!(logits.row(sequences - 1)[0].is_finite(), "a logit is not a number");
        start.elapsed()
    }

    fn prefill(&mut self, tokens: usize) -> Vec<Duration> {
        let end = Instant::now() + self.budget;
        let mut samples = vec![self.pass(1, 0, tokens)];
        while Instant::now() < end {
            samples.push(self.pass(1, 0, tokens));
        }
        samples
    }

    /// A piece of a long prompt beside a sequence that decodes.
    fn late(&mut self, tokens: usize) -> Vec<Duration> {
        self.pass(1, 0, LONG);
        let vocab = self.model.info().vocab;
        let half = (CONTEXT / BLOCK_TOKENS / 2) as u32;
        let blocks: Vec<u32> = (0..2 * half).collect();
        let (of_prompt, of_other) = blocks.split_at(half as usize);
        let piece: Vec<u32> = (LONG..LONG + tokens).map(|at| token(at, vocab)).collect();
        let other: Vec<u32> = (0..=PAST).map(|at| token(at, vocab)).collect();
        let (past, next) = other.split_at(PAST);
        let entry = |tokens, past, blocks| BatchEntry { tokens, past, blocks, rows: Rows::Last };
        self.model.forward(&[entry(past, 0, of_other)], &mut self.cache).unwrap();
        let batch = [entry(next, PAST, of_other), entry(&piece[..], LONG, of_prompt)];
        let end = Instant::now() + self.budget;
        let mut samples = Vec::new();
        while samples.is_empty() || Instant::now() < end {
            let start = Instant::now();
            self.model.forward(&batch, &mut self.cache).unwrap();
            samples.push(start.elapsed());
        }
        samples
    }

    fn decode(&mut self, sequences: usize) -> Vec<Duration> {
        self.pass(sequences, 0, PAST);
        self.pass(sequences, PAST, 1);
        let end = Instant::now() + self.budget;
        let mut samples = Vec::new();
        while samples.is_empty() || Instant::now() < end {
            samples.extend((0..SPAN).map(|step| self.pass(sequences, PAST + step, 1)));
        }
        samples
    }

    fn read(&self, mib: usize) -> Vec<Duration> {
        let memory = vec![1_u64; (mib << 20) / size_of::<u64>()];
        let (pool, parts) = (Pool::new(self.threads), memory.len() / PART);
        let end = Instant::now() + self.budget;
        let mut samples = Vec::new();
        while samples.is_empty() || Instant::now() < end {
            let (sum, start) = (AtomicU64::new(0), Instant::now());
            pool.run(parts, &|part| {
                let part = &memory[part * PART..(part + 1) * PART];
                sum.fetch_add(part.iter().sum(), Ordering::Relaxed);
            });
            samples.push(start.elapsed());
            assert_eq!(sum.into_inner(), (parts * PART) as u64);
        }
        samples
    }

    /// Measures one case and answers its JSON member.
    fn case(&mut self, case: &str) -> String {
        let before = cpu_time();
        let (kind, amount) = case.split_once(':').unwrap_or_default();
        let mut samples = match (kind, amount.parse()) {
            ("prefill", Ok(tokens @ 1..=CONTEXT)) => self.prefill(tokens),
            ("late", Ok(tokens @ 1..=128)) => self.late(tokens),
            ("decode", Ok(sequences @ 1..=16)) => self.decode(sequences),
            ("read", Ok(mib @ 1..=4096)) => self.read(mib),
            _ => panic!("{case}: a case is prefill:TOKENS, late:TOKENS, decode:SEQUENCES or read:MIB"),
        };
        let cpu = cpu_time() - before;
        samples.sort_unstable();
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        format!(
            "\"{case}\": {{\"ms\": {:.3}, \"best_ms\": {:.3}, \"cpu_ms\": {:.3}, \"rounds\": {}}}",
            ms(samples[samples.len() / 2]),
            ms(samples[0]),
            ms(cpu) / samples.len() as f64,
            samples.len()
        )
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, threads, seconds, cases @ ..] = &arguments[..] else {
        panic!("arguments: MODEL THREADS SECONDS CASE...");
    };
    let threads: usize = threads.parse().unwrap();
    let start = Instant::now();
    let options = LoadOptions { max_context: CONTEXT, threads, ..LoadOptions::new(path) };
    let model = LoadedModel::load(&options).unwrap();
    let cache = model.new_cache(CONTEXT / BLOCK_TOKENS).unwrap();
    let load = start.elapsed();
    let mut bench =
        Bench { threads, model, cache, budget: Duration::from_secs_f64(seconds.parse().unwrap()) };
    let mut line = format!(
        "{{\"side\": \"opossum\", \"threads\": {threads}, \"load_ms\": {:.1}, \"step_mb\": {:.2}",
        load.as_secs_f64() * 1e3,
        step_bytes(path) as f64 / f64::from(1 << 20)
    );
    for case in cases {
        write!(line, ", {}", bench.case(case)).unwrap();
    }
    println!(
        "{line}, \"rss_mb\": {:.1}, \"peak_mb\": {:.1}, \"file_mb\": {:.1}}}",
        status_mb("VmRSS:"),
        status_mb("VmHWM:"),
        status_mb("RssFile:")
    );
}
