//! How many texts a second the encoder turns into vectors: the counterpart of `scripts/bench/onnx_side.py`.
//!
//! Arguments: the model's folder, the number of threads, seconds a case, then cases `BATCH:TOKENS`: so many texts of so
//! many tokens, the marks at their ends included, in one job.
//!
//! Prints one JSON object on one line: the median and the best time of a job in milliseconds, and the vector of one
//! text, so that both sides can be held against each other.

#![expect(clippy::print_stdout, clippy::unwrap_used, clippy::panic, reason = "a program that prints figures")]

use std::fmt::Write as _;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use opossum_inference::{EncodeInput, EncodeJob, Encoded, Encoder, EncoderConfig};

/// Texts made of ordinary words of BERT's vocabulary, which begin at this id.
const WORDS: u32 = 1996;
/// How many of them are used.
const DIFFERENT: u32 = 20_000;
/// Tokens of the text whose vector is shown.
const SHOWN: usize = 16;

/// A text of `tokens` tokens, of which the encoder adds two.
fn text(index: usize, tokens: usize) -> EncodeInput {
    let word = |at: usize| {
        let mixed = ((index * 512 + at) as u32).wrapping_mul(2_654_435_761).wrapping_add(12_345);
        WORDS + (mixed >> 8) % DIFFERENT
    };
    EncodeInput::Tokens((0..tokens - 2).map(word).collect())
}

fn encode(encoder: &Encoder, inputs: Vec<EncodeInput>) -> Encoded {
    let (send, answer) = channel();
    let job = EncodeJob {
        inputs,
        truncate: false,
        reply: Box::new(move |encoded| send.send(encoded).unwrap()),
        cancelled: Box::new(|| false),
    };
    encoder.submit(job).unwrap();
    answer.recv().unwrap().unwrap()
}

fn measure(encoder: &Encoder, batch: usize, tokens: usize, budget: Duration) -> String {
    let inputs: Vec<EncodeInput> = (0..batch).map(|index| text(index, tokens)).collect();
    encode(encoder, inputs.clone());
    let end = Instant::now() + budget;
    let mut samples = Vec::new();
    while samples.is_empty() || Instant::now() < end {
        let start = Instant::now();
        encode(encoder, inputs.clone());
        samples.push(start.elapsed().as_secs_f64() * 1e3);
    }
    samples.sort_unstable_by(f64::total_cmp);
    let (median, best) = (samples[samples.len() / 2], samples[0]);
    format!(
        "\"{batch}:{tokens}\": {{\"ms\": {median:.3}, \"best_ms\": {best:.3}, \"rounds\": {}}}",
        samples.len()
    )
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, threads, seconds, cases @ ..] = &arguments[..] else {
        panic!("arguments: FOLDER THREADS SECONDS BATCH:TOKENS...");
    };
    let (threads, budget) = (threads.parse().unwrap(), Duration::from_secs_f64(seconds.parse().unwrap()));
    let start = Instant::now();
    let encoder = Encoder::start(EncoderConfig { threads, ..EncoderConfig::new(path) }).unwrap();
    let load = start.elapsed().as_secs_f64() * 1e3;
    let mut line = format!("{{\"side\": \"opossum\", \"threads\": {threads}, \"load_ms\": {load:.1}");
    for case in cases {
        let (batch, tokens) =
            case.split_once(':').unwrap_or_else(|| panic!("{case}: a case is BATCH:TOKENS"));
        let (batch, tokens) = (batch.parse().unwrap(), tokens.parse().unwrap());
        write!(line, ", {}", measure(&encoder, batch, tokens, budget)).unwrap();
    }
    let vector = &encode(&encoder, vec![text(0, SHOWN)]).vectors[0];
    println!("{line}, \"vector\": {vector:?}}}");
}
