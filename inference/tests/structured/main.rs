//! Ten schemas as they are met in practice, and models that answer them at temperature 1. Every answer that ends by
//! itself has to follow its schema, says a validator that shares no code with the constraint; an answer that is cut
//! counts as a failure, also where `max_tokens` leaves little more than the shortest answer needs.
//!
//! Run on a tiny model of random weights, the worst case: it knows nothing of JSON; and on the real model, a few times
//! always and 50 times a schema with `make structured` (`OPOSSUM_SAMPLES` for another count).
#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use opossum_inference::testing::{TempModel, TinyLlama};
use opossum_inference::{
    Engine, EngineConfig, FinishReason, GenerationParams, Grammar, Job, Prompt, PromptMessage, Readiness,
    TokenEvent, TokenSink,
};
use serde_json::Value;

/// Longer than any answer takes unless the engine hangs.
const PATIENCE: Duration = Duration::from_secs(600);

/// Fewer tokens than these are left of an answer that was led to its end.
const NEARLY: usize = 8;

struct Case {
    name: String,
    prompt: String,
    schema: Value,
}

/// What became of the samples of one case.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    valid: usize,
    invalid: usize,
    cut: usize,
    /// How many of the valid ones took nearly all tokens there were: these were led to their ends.
    led: usize,
    tokens: usize,
}

struct Sink(Sender<TokenEvent>);

impl TokenSink for Sink {
    fn ready(&mut self) -> Readiness {
        Readiness::Ready
    }

    fn send(&mut self, event: TokenEvent) -> bool {
        self.0.send(event).is_ok()
    }
}

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/structured/schemas");
    let mut files: Vec<PathBuf> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |path: &PathBuf| {
        let case: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        Case {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            prompt: case["prompt"].as_str().unwrap().to_owned(),
            schema: case["schema"].clone(),
        }
    };
    files.iter().map(read).collect()
}

/// Asks for one answer of at most so many tokens.
fn ask(engine: &Engine, case: &Case, seed: u64, most: Option<usize>) -> Receiver<TokenEvent> {
    let (sender, events) = channel();
    let message = PromptMessage::new("user", format!("{} Answer in JSON.", case.prompt));
    let params = GenerationParams {
        seed: Some(seed),
        max_tokens: most,
        temperature: 1.0,
        grammar: Some(Grammar::json_schema(&case.schema).unwrap()),
        ..GenerationParams::default()
    };
    let prompt = Prompt::Chat { messages: vec![message], tools: Vec::new(), add_generation_prompt: true };
    engine.submit(Job { prompt, params, sink: Box::new(Sink(sender)) }).unwrap();
    events
}

/// The text of an answer, how it ended, and its tokens.
fn hear(events: &Receiver<TokenEvent>) -> (String, FinishReason, usize) {
    let mut text = String::new();
    loop {
        match events.recv_timeout(PATIENCE).unwrap() {
            TokenEvent::Started { .. } => {}
            TokenEvent::Text { text: more, .. } => text.push_str(&more),
            TokenEvent::Done { finish, usage } => return (text, finish, usage.completion_tokens),
            TokenEvent::Failed(error) => panic!("{error}"),
        }
    }
}

fn tally(case: &Case, asked: &[Receiver<TokenEvent>], most: Option<usize>) -> Tally {
    let options = jsonschema::options().should_validate_formats(true);
    let validator = options.build(&case.schema).unwrap();
    let mut tally = Tally::default();
    for events in asked {
        let (text, finish, tokens) = hear(events);
        tally.tokens += tokens;
        if finish == FinishReason::Length {
            tally.cut += 1;
            continue;
        }
        match serde_json::from_str::<Value>(&text) {
            Ok(value) if validator.is_valid(&value) => {
                tally.valid += 1;
                tally.led += usize::from(most.is_some_and(|most| tokens + NEARLY > most));
            }
            _ => {
                println!("{}: does not follow the schema: {text}", case.name);
                tally.invalid += 1;
            }
        }
    }
    tally
}

#[test]
fn noise_follows_ten_real_world_schemas() {
    let file = TempModel::new(&TinyLlama { context_length: 8192, ..TinyLlama::default() });
    let config =
        EngineConfig { max_context: 8192, queue_depth: 64, threads: 1, ..EngineConfig::new(file.path()) };
    let engine = Engine::start(config).unwrap();
    let cases = cases();
    assert_eq!(cases.len(), 10);
    for case in &cases {
        for most in [None, Some(600)] {
            let asked: Vec<_> = (0..4).map(|seed| ask(&engine, case, seed, most)).collect();
            let tally = tally(case, &asked, most);
            assert_eq!((tally.valid, tally.invalid, tally.cut), (4, 0, 0), "{}, {most:?}", case.name);
        }
    }
}

/// The real model, from `OPOSSUM_TEST_MODEL` or `models/` in the workspace. `None`, with a line on the console, when it
/// is not there; with `OPOSSUM_REQUIRE_MODEL=1` that is a failure.
fn model_path() -> Option<PathBuf> {
    let in_workspace =
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/SmolLM2-135M-Instruct.Q4_1.gguf");
    let path = std::env::var_os("OPOSSUM_TEST_MODEL").map_or_else(in_workspace, PathBuf::from);
    if path.exists() {
        return Some(path);
    }
    let required = std::env::var_os("OPOSSUM_REQUIRE_MODEL").is_some_and(|value| value == "1");
    assert!(!required, "the test model is required but {} does not exist", path.display());
    println!("skipped: {} does not exist (set OPOSSUM_TEST_MODEL)", path.display());
    None
}

/// Asks the real model so often for each schema, and prints what it counted; `None` where there is no model.
fn the_real_model(samples: usize, most: usize) -> Option<Tally> {
    let path = model_path()?;
    let cases = cases();
    let queue_depth = samples * cases.len();
    let config = EngineConfig { max_context: 4096, max_sequences: 8, queue_depth, ..EngineConfig::new(path) };
    let engine = Engine::start(config).unwrap();
    let (mut all, began) = (Tally::default(), Instant::now());
    let ask_all = |case| (0..samples as u64).map(|seed| ask(&engine, case, seed, Some(most))).collect();
    let asked: Vec<Vec<_>> = cases.iter().map(ask_all).collect();
    println!(
        "{:<10} {:>8} {:>6} {:>12} {:>8} {:>4} {:>12}",
        "schema", "samples", "valid", "of these led", "invalid", "cut", "tokens each"
    );
    for (case, asked) in cases.iter().zip(&asked) {
        let tally = tally(case, asked, Some(most));
        let Tally { valid, invalid, cut, led, tokens } = tally;
        let each = tokens / samples;
        println!("{:<10} {samples:>8} {valid:>6} {led:>12} {invalid:>8} {cut:>4} {each:>12}", case.name);
        all.valid += valid;
        all.invalid += invalid;
        all.cut += cut;
        all.led += led;
        all.tokens += tokens;
    }
    let seconds = began.elapsed().as_secs_f64();
    let Tally { valid, invalid, cut, led, tokens } = all;
    println!(
        "{valid} valid ({led} led to their ends), {invalid} invalid, {cut} cut; {tokens} tokens in {seconds:.0} s"
    );
    Some(all)
}

#[test]
fn the_real_model_comes_to_an_end_in_few_tokens() {
    let Some(tally) = the_real_model(1, 200) else { return };
    assert_eq!((tally.invalid, tally.cut), (0, 0));
}

#[test]
#[ignore = "takes minutes: make structured"]
fn the_real_model_follows_ten_real_world_schemas_fifty_times() {
    let samples = std::env::var("OPOSSUM_SAMPLES").map_or(50, |count| count.parse().unwrap());
    let Some(tally) = the_real_model(samples, 512) else { return };
    assert_eq!((tally.invalid, tally.cut), (0, 0));
}
