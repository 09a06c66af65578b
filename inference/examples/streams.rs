//! What streams cost each other: tokens a second of several at once beside one, and how long a long prompt that
//! arrives keeps the others waiting for their next token.
//!
//! Arguments: a GGUF file, and the number of threads (0 or none: one a core).

#![expect(clippy::print_stdout, clippy::unwrap_used, clippy::panic, reason = "a program that prints figures")]

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use opossum_inference::{
    Engine, EngineConfig, GenerationParams, InferenceError, Job, Prompt, Readiness, TokenEvent, TokenSink,
};

/// Tokens of each stream.
const TOKENS: usize = 128;
/// Words of the long prompt, a token each.
const LONG: usize = 2000;
/// What it is made of.
const WORDS: [&str; 16] = [
    " the", " sea", " town", " river", " old", " night", " bread", " letter", " small", " window", " garden",
    " stone", " summer", " road", " voice", " hand",
];

/// Passes the time of each token on.
struct Clock(Sender<Instant>);

impl TokenSink for Clock {
    fn ready(&mut self) -> Readiness {
        Readiness::Ready
    }

    fn send(&mut self, event: TokenEvent) -> bool {
        match event {
            TokenEvent::Text { .. } => self.0.send(Instant::now()).is_ok(),
            TokenEvent::Failed(InferenceError::Stopped)
            | TokenEvent::Started { .. }
            | TokenEvent::Done { .. } => true,
            TokenEvent::Failed(error) => panic!("{error}"),
        }
    }
}

fn stream(engine: &Engine, prompt: String, tokens: usize) -> Receiver<Instant> {
    let (send, times) = channel();
    let params = GenerationParams {
        max_tokens: Some(tokens),
        temperature: 1.0,
        seed: Some(1),
        // The end of a turn would end the measurement.
        logit_bias: vec![(0, -100.0), (2, -100.0)],
        ..GenerationParams::default()
    };
    engine.submit(Job { prompt: Prompt::Raw(prompt), params, sink: Box::new(Clock(send)) }).unwrap();
    times
}

/// Tokens a second of so many streams together, from the first token of the last one to the last of the first.
fn throughput(engine: &Engine, streams: usize) -> f64 {
    let heard: Vec<_> = (0..streams)
        .map(|index| stream(engine, format!("The {index}. story of the town by the sea begins"), TOKENS))
        .collect();
    let times: Vec<Vec<Instant>> = heard.into_iter().map(|times| times.iter().collect()).collect();
    let begin = times.iter().filter_map(|times| times.first()).max().unwrap();
    let end = times.iter().filter_map(|times| times.last()).min().unwrap();
    let tokens = times.iter().flatten().filter(|time| *time > begin && *time <= end).count();
    tokens as f64 / end.duration_since(*begin).as_secs_f64()
}

/// Times between two tokens of a stream beside a long prompt.
struct Gaps {
    /// The median before the prompt came.
    usual: Duration,
    /// Those while it was computed, in ascending order.
    during: Vec<Duration>,
    /// From the prompt's arrival to its first token.
    first: Duration,
}

fn gaps(times: &[Instant]) -> impl Iterator<Item = Duration> {
    times.windows(2).map(|pair| pair[1].duration_since(pair[0]))
}

/// Lets a long prompt arrive beside so many streams.
fn delay(engine: &Engine, streams: usize, round: usize) -> Gaps {
    let heard: Vec<_> = (0..streams)
        .map(|index| stream(engine, format!("Round {round}: stream {index} tells of the sea"), 1500))
        .collect();
    let before: Vec<Vec<Instant>> =
        heard.iter().map(|times| (0..48).map(|_| times.recv().unwrap()).collect()).collect();
    let begin = Instant::now();
    // No two prompts begin alike, so that none finds its beginning in the cache.
    let mut words = format!("With {streams} streams, in round {round}:");
    words.extend((0..LONG).map(|word| WORDS[(word * word + word / 16) % WORDS.len()]));
    let first = stream(engine, words, 1).recv().unwrap();
    let mut usual: Vec<Duration> = before.iter().flat_map(|times| gaps(&times[16..])).collect();
    usual.sort_unstable();
    let mut during = Vec::new();
    for (times, before) in heard.iter().zip(&before) {
        let times: Vec<Instant> = before
            .last()
            .copied()
            .into_iter()
            .chain(times.try_iter().take_while(|time| *time <= first))
            .collect();
        during.extend(gaps(&times));
    }
    during.sort_unstable();
    drop(heard);
    while engine.stats().active > 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    Gaps { usual: usual[usual.len() / 2], during, first: first.duration_since(begin) }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().unwrap_or_else(|| panic!("which GGUF file?"));
    let threads = arguments.next().map_or(0, |threads| threads.parse().unwrap());
    let config = EngineConfig { max_sequences: 32, threads, ..EngineConfig::new(path) };
    let engine = Engine::start(config).unwrap();
    throughput(&engine, 1);
    println!("| streams | tokens/s | beside one |\n|---:|---:|---:|");
    let mut one = 0.0;
    for streams in [1, 2, 4, 8, 16] {
        let mut rounds: Vec<f64> = (0..3).map(|_| throughput(&engine, streams)).collect();
        rounds.sort_unstable_by(f64::total_cmp);
        one = if streams == 1 { rounds[1] } else { one };
        println!("| {streams} | {:.1} | {:.2} |", rounds[1], rounds[1] / one);
    }
    println!(
        "\nTimes between two tokens of a stream while a prompt of {LONG} tokens is computed beside it:\n"
    );
    println!(
        "| streams | usual gap, ms | median, ms | 99 %, ms | longest, ms | added by the 99 %, in usual gaps | by the \
         longest | the prompt's first token, ms |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|");
    for streams in [1, 4, 8] {
        for round in 0..2 {
            let Gaps { usual, during, first } = delay(&engine, streams, round);
            let ms = |time: Duration| time.as_secs_f64() * 1e3;
            let rank = |share: f64| ms(during[((during.len() - 1) as f64 * share) as usize]);
            let (usual, most, longest) = (ms(usual), rank(0.99), rank(1.0));
            println!(
                "| {streams} | {usual:.1} | {:.1} | {most:.1} | {longest:.1} | {:.1} | {:.1} | {:.0} |",
                rank(0.5),
                most / usual - 1.0,
                longest / usual - 1.0,
                ms(first)
            );
        }
    }
}
