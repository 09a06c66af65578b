#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::*;
use crate::testing::{TempModel, TinyLlama};
use crate::{ErrorKind, GenerationParams, TemplateError};

/// Long enough that only a hang is longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A sink whose readiness the test sets, and which passes its events on.
struct Probe {
    readiness: Arc<Mutex<Readiness>>,
    events: Sender<TokenEvent>,
}

impl TokenSink for Probe {
    fn ready(&mut self) -> Readiness {
        *self.readiness.lock().unwrap()
    }

    fn send(&mut self, event: TokenEvent) -> bool {
        self.events.send(event).is_ok()
    }
}

pub(super) struct Heard {
    readiness: Arc<Mutex<Readiness>>,
    pub(super) events: Receiver<TokenEvent>,
}

impl Heard {
    pub(super) fn set(&self, readiness: Readiness) {
        *self.readiness.lock().unwrap() = readiness;
    }

    fn next(&self) -> TokenEvent {
        self.events.recv_timeout(PATIENCE).unwrap()
    }

    /// All text up to the end, and the end.
    pub(super) fn rest(&self) -> (String, TokenEvent) {
        let mut text = String::new();
        loop {
            match self.next() {
                TokenEvent::Started { .. } => {}
                TokenEvent::Text { text: more, .. } => text.push_str(&more),
                end => return (text, end),
            }
        }
    }

    pub(super) fn failure(&self) -> ErrorKind {
        match self.rest() {
            (_, TokenEvent::Failed(error)) => error.kind(),
            (_, other) => panic!("not a failure: {other:?}"),
        }
    }
}

fn listen() -> (Box<dyn TokenSink>, Heard) {
    let readiness = Arc::new(Mutex::new(Readiness::Ready));
    let (send, events) = unbounded();
    let probe = Probe { readiness: Arc::clone(&readiness), events: send };
    (Box::new(probe), Heard { readiness, events })
}

pub(super) fn greedy(max_tokens: usize) -> GenerationParams {
    GenerationParams { max_tokens: Some(max_tokens), temperature: 0.0, ..GenerationParams::default() }
}

pub(super) fn job(prompt: &str, params: GenerationParams) -> (Job, Heard) {
    let (sink, heard) = listen();
    (Job { prompt: Prompt::Raw(prompt.to_owned()), params, sink }, heard)
}

fn submit(engine: &Engine, prompt: &str, params: GenerationParams) -> Heard {
    let (job, heard) = job(prompt, params);
    engine.submit(job).unwrap();
    heard
}

pub(super) fn config(model: &TempModel) -> EngineConfig {
    EngineConfig { device: crate::DeviceChoice::Cpu, threads: 1, ..EngineConfig::new(model.path()) }
}

fn start(change: impl FnOnce(&mut EngineConfig)) -> Engine {
    let model = TempModel::new(&TinyLlama::default());
    let mut config = config(&model);
    change(&mut config);
    Engine::start(config).unwrap()
}

/// Waits until the engine's figures are as wanted.
fn eventually(engine: &Engine, wanted: impl Fn(EngineStats) -> bool) {
    let begin = Instant::now();
    while !wanted(engine.stats()) {
        assert!(begin.elapsed() < PATIENCE, "still {:?}", engine.stats());
        std::thread::yield_now();
    }
}

#[test]
fn a_job_is_answered_from_start_to_end() {
    let engine = start(|_| {});
    let heard = submit(&engine, "hello", greedy(12));
    assert_eq!(heard.next(), TokenEvent::Started { prompt_tokens: 5 });
    let (text, end) = heard.rest();
    let usage = TokenUsage { prompt_tokens: 5, completion_tokens: 12 };
    assert_eq!(end, TokenEvent::Done { finish: FinishReason::Length, usage });
    assert!(text.len() == 12 && text.is_ascii(), "{text:?}");
    assert!(heard.events.recv_timeout(PATIENCE).is_err(), "the sink is dropped after the end");
    eventually(&engine, |stats| stats.active == 0);
    let stats = engine.stats();
    assert_eq!((stats.tokens_prefilled, stats.tokens_generated, stats.restarts), (5, 12, 0));
}

#[test]
fn sequences_computed_together_say_what_they_say_alone() {
    let alone = start(|config| config.max_sequences = 1);
    let prompts = ["one", "two and more", "the in the in", "x"];
    let expected: Vec<String> =
        prompts.iter().map(|prompt| submit(&alone, prompt, greedy(40)).rest().0).collect();
    let together = start(|config| config.max_sequences = 4);
    let heard: Vec<Heard> = prompts.iter().map(|prompt| submit(&together, prompt, greedy(40))).collect();
    let texts: Vec<String> = heard.iter().map(|heard| heard.rest().0).collect();
    assert_eq!(texts, expected);
}

#[test]
fn a_seed_repeats_a_text_and_chat_takes_the_template() {
    let engine = start(|_| {});
    let run = |seed| {
        let (sink, heard) = listen();
        let message = PromptMessage::new("user", "hi");
        let prompt = Prompt::Chat { messages: vec![message], tools: Vec::new(), add_generation_prompt: true };
        let params =
            GenerationParams { max_tokens: Some(30), seed: Some(seed), ..GenerationParams::default() };
        engine.submit(Job { prompt, params, sink }).unwrap();
        assert!(matches!(heard.next(), TokenEvent::Started { prompt_tokens } if prompt_tokens > 15));
        heard.rest().0
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

#[test]
fn a_stop_string_ends_the_text_before_it() {
    let engine = start(|_| {});
    let (whole, _) = submit(&engine, "hello", greedy(20)).rest();
    let stop = whole[6..9].to_owned();
    let expected = whole[..whole.find(&stop).unwrap()].to_owned();
    let heard = submit(&engine, "hello", GenerationParams { stop: vec![stop], ..greedy(20) });
    let (text, end) = heard.rest();
    assert_eq!(text, expected);
    assert!(matches!(end, TokenEvent::Done { finish: FinishReason::Stop, .. }));
}

#[test]
fn logprobs_come_with_every_token() {
    let engine = start(|_| {});
    let heard = submit(&engine, "hello", GenerationParams { logprobs: Some(3), ..greedy(6) });
    let mut seen = 0;
    loop {
        match heard.next() {
            TokenEvent::Text { text, tokens, logprobs } => {
                assert_eq!(logprobs.len(), tokens);
                seen += tokens;
                let bytes: Vec<u8> = logprobs.iter().flat_map(|entry| entry.chosen.bytes.clone()).collect();
                assert_eq!(String::from_utf8(bytes).unwrap(), text);
                for entry in logprobs {
                    // Greedy decoding takes the most likely token.
                    assert_eq!(entry.top.len(), 3);
                    assert_eq!(entry.top[0], entry.chosen);
                    assert!(entry.chosen.logprob < 0.0);
                }
            }
            TokenEvent::Started { .. } => {}
            end => {
                assert!(matches!(end, TokenEvent::Done { .. }));
                break;
            }
        }
    }
    assert_eq!(seen, 6);
}

#[test]
fn the_context_ends_a_text_and_a_prompt_beyond_it_is_refused() {
    let engine = start(|config| config.max_context = 16);
    let params = GenerationParams { max_tokens: None, ..greedy(1) };
    let (_, end) = submit(&engine, &"x".repeat(10), params.clone()).rest();
    let usage = TokenUsage { prompt_tokens: 10, completion_tokens: 6 };
    assert_eq!(end, TokenEvent::Done { finish: FinishReason::Length, usage });
    let refused = submit(&engine, &"x".repeat(16), params).next();
    assert_eq!(refused, TokenEvent::Failed(InferenceError::ContextLengthExceeded { prompt: 16, max: 16 }));
    assert_eq!(engine.stats().tokens_prefilled, 10);
}

#[test]
fn a_prompt_that_no_cache_of_this_size_holds_is_refused() {
    let model = TempModel::new(&TinyLlama::default());
    let engine = Engine::start(EngineConfig { cache_bytes: Some(1), ..config(&model) }).unwrap();
    // The least there can be is one block.
    let max = crate::model::BLOCK_TOKENS;
    assert_eq!((engine.info().context_length, engine.stats().blocks), (max, 1));
    let refused = submit(&engine, &"x".repeat(max), greedy(1)).next();
    assert_eq!(refused, TokenEvent::Failed(InferenceError::ContextLengthExceeded { prompt: max, max }));
    let (text, end) =
        submit(&engine, &"x".repeat(max - 1), GenerationParams { max_tokens: None, ..greedy(1) }).rest();
    assert!(matches!(end, TokenEvent::Done { finish: FinishReason::Length, .. }), "{text} {end:?}");
}

#[test]
fn who_measures_is_told_of_every_step_wait_and_first_token() {
    #[derive(Debug, Default)]
    struct Notes {
        steps: Mutex<Vec<StepReport>>,
        waits: AtomicUsize,
        firsts: AtomicUsize,
    }
    impl EngineObserver for Notes {
        fn step(&self, report: &StepReport) {
            self.steps.lock().unwrap().push(*report);
        }

        fn waited(&self, _: Duration) {
            self.waits.fetch_add(1, Ordering::Relaxed);
        }

        fn first_token(&self, _: Duration) {
            self.firsts.fetch_add(1, Ordering::Relaxed);
        }
    }
    let notes = Arc::new(Notes::default());
    let observer = Arc::clone(&notes) as Arc<dyn EngineObserver>;
    let engine = start(|config| config.observer = Some(observer));
    submit(&engine, "hello", greedy(12)).rest();
    submit(&engine, &"x".repeat(40), greedy(3)).rest();
    drop(engine);
    assert_eq!((notes.waits.load(Ordering::Relaxed), notes.firsts.load(Ordering::Relaxed)), (2, 2));
    let steps = notes.steps.lock().unwrap();
    let sum = |count: fn(&StepReport) -> usize| steps.iter().map(count).sum::<usize>();
    assert_eq!((sum(|step| step.prefilled), sum(|step| step.generated)), (45, 15));
    // The first token of each comes with its prompt.
    assert_eq!(sum(|step| step.decoded), 13);
    assert!(steps.iter().all(|step| step.sequences == 1 && step.prefill <= step.took));
}

#[test]
fn what_is_wrong_with_a_job_is_told_to_its_sink() {
    let engine = start(|_| {});
    assert_eq!(submit(&engine, "x", greedy(0)).failure(), ErrorKind::BadParameter);
    assert_eq!(submit(&engine, "", greedy(1)).failure(), ErrorKind::BadParameter);
    let unknown_token = GenerationParams { logit_bias: vec![(999_999, 1.0)], ..greedy(1) };
    assert_eq!(submit(&engine, "x", unknown_token).failure(), ErrorKind::BadParameter);
    let (sink, heard) = listen();
    let message = PromptMessage::new("assistant", "");
    let prompt = Prompt::Chat { messages: vec![message], tools: Vec::new(), add_generation_prompt: true };
    engine.submit(Job { prompt, params: greedy(1), sink }).unwrap();
    let (_, failed) = heard.rest();
    assert!(matches!(failed, TokenEvent::Failed(InferenceError::Template(TemplateError::Rejected(_)))));
}

#[test]
fn a_full_sink_parks_its_own_sequence_only() {
    let engine = start(|_| {});
    let slow = submit(&engine, "slow", greedy(400));
    slow.next();
    slow.set(Readiness::Full);
    // The first run lets a step that was under way finish; during the second, nothing else is computed.
    let quick = || assert!(matches!(submit(&engine, "quick", greedy(20)).rest().1, TokenEvent::Done { .. }));
    quick();
    let before = engine.stats().tokens_generated;
    quick();
    assert_eq!(engine.stats().tokens_generated, before + 20);
    let parked = slow.events.try_iter().count();
    slow.set(Readiness::Ready);
    let (text, end) = slow.rest();
    assert!(matches!(end, TokenEvent::Done { usage, .. } if usage.completion_tokens == 400));
    assert!(text.len() + parked >= 400 - 1);
}

#[test]
fn a_listener_who_leaves_frees_the_place_and_the_queue() {
    let engine = start(|config| (config.max_sequences, config.queue_depth) = (1, 2));
    let first = submit(&engine, "x", greedy(400));
    first.next();
    first.set(Readiness::Full);
    eventually(&engine, |stats| stats.active == 1 && stats.queued == 0);
    let queued = [submit(&engine, "a", greedy(5)), submit(&engine, "b", greedy(5))];
    let (third, _) = job("c", greedy(5));
    assert_eq!(engine.submit(third), Err(SubmitError::QueueFull));
    // One who leaves while queued makes room at once, although nothing is being computed.
    queued[0].set(Readiness::Closed);
    eventually(&engine, |stats| stats.queued == 1);
    let third = submit(&engine, "c", greedy(5));
    // One who leaves in the middle lets the next one run.
    first.set(Readiness::Closed);
    assert!(matches!(queued[1].rest().1, TokenEvent::Done { .. }));
    assert!(matches!(third.rest().1, TokenEvent::Done { .. }));
    assert!(engine.stats().tokens_generated < 400);
    let heard: Vec<TokenEvent> = queued[0].events.iter().collect();
    assert!(heard.is_empty());
}

#[test]
fn a_long_prompt_does_not_stall_a_running_sequence() {
    let engine = start(|_| {});
    let running = submit(&engine, "x", GenerationParams { max_tokens: None, ..greedy(1) });
    running.next();
    let long = submit(&engine, &"y".repeat(500), greedy(1));
    // 500 tokens are four chunks: the running sequence gets a token between any two of them.
    let before = engine.stats();
    assert!(matches!(long.rest().1, TokenEvent::Done { .. }));
    let after = engine.stats();
    assert!(after.tokens_prefilled - before.tokens_prefilled >= 500 - 128);
    assert!(after.tokens_generated - before.tokens_generated >= 3, "{before:?} {after:?}");
}

#[test]
fn a_panic_fails_what_is_in_flight_and_the_engine_goes_on() {
    let (permit, gate) = bounded::<()>(0);
    let fails = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&fails);
    // Each step waits for a permit, as long as there may be one, so that the test knows who is in which.
    let hook = FaultHook(Arc::new(move || {
        let _ = gate.recv();
        assert!(!asked.swap(false, Ordering::Relaxed), "this step fails");
    }));
    let engine = start(|config| config.fault = Some(hook));
    let step_until_heard = |heard: &Heard| {
        while heard.events.is_empty() {
            let _ = permit.send_timeout((), Duration::from_millis(5));
        }
    };
    let first = submit(&engine, "a", greedy(100));
    step_until_heard(&first);
    // The first rests until the second is there, and has tokens left however long that takes.
    first.set(Readiness::Full);
    let second = submit(&engine, "b", greedy(100));
    step_until_heard(&second);
    assert!(!first.events.try_iter().any(|event| matches!(event, TokenEvent::Done { .. })));
    first.set(Readiness::Ready);
    step_until_heard(&first);
    fails.store(true, Ordering::Relaxed);
    drop(permit);
    for heard in [first, second] {
        assert_eq!(heard.failure(), ErrorKind::EnginePanicked);
    }
    let (text, end) = submit(&engine, "hello", greedy(12)).rest();
    assert!(matches!(end, TokenEvent::Done { .. }));
    assert_eq!(text, submit(&start(|_| {}), "hello", greedy(12)).rest().0);
    assert_eq!(engine.stats().restarts, 1);
}

#[test]
fn weights_that_no_longer_work_are_read_again() {
    let model = TempModel::new(&TinyLlama::default());
    let steps = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&steps);
    // The third step panics, and so does the trial of the weights after it.
    let hook = FaultHook(Arc::new(move || {
        assert!(!(2..=3).contains(&counted.fetch_add(1, Ordering::Relaxed)), "two steps fail");
    }));
    let engine = Engine::start(EngineConfig { fault: Some(hook), ..config(&model) }).unwrap();
    assert_eq!(submit(&engine, "a", greedy(100)).failure(), ErrorKind::EnginePanicked);
    assert!(matches!(submit(&engine, "a", greedy(3)).rest().1, TokenEvent::Done { .. }));
}

#[test]
fn without_its_file_a_broken_model_stays_away_and_comes_back_with_it() {
    let model = TempModel::new(&TinyLlama::default());
    let bytes = std::fs::read(model.path()).unwrap();
    let steps = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&steps);
    let hook = FaultHook(Arc::new(move || {
        assert!(!(2..=3).contains(&counted.fetch_add(1, Ordering::Relaxed)), "two steps fail");
    }));
    let engine = Engine::start(EngineConfig { fault: Some(hook), ..config(&model) }).unwrap();
    std::fs::remove_file(model.path()).unwrap();
    assert_eq!(submit(&engine, "a", greedy(100)).failure(), ErrorKind::EnginePanicked);
    assert_eq!(submit(&engine, "a", greedy(3)).failure(), ErrorKind::ModelUnavailable);
    std::fs::write(model.path(), bytes).unwrap();
    assert!(matches!(submit(&engine, "a", greedy(3)).rest().1, TokenEvent::Done { .. }));
}

#[test]
fn a_sink_that_panics_takes_nobody_along() {
    struct Broken;
    impl TokenSink for Broken {
        fn ready(&mut self) -> Readiness {
            Readiness::Ready
        }

        fn send(&mut self, _: TokenEvent) -> bool {
            panic!("a broken sink")
        }
    }
    let engine = start(|_| {});
    let job = Job { prompt: Prompt::Raw("x".to_owned()), params: greedy(5), sink: Box::new(Broken) };
    engine.submit(job).unwrap();
    assert!(matches!(submit(&engine, "x", greedy(5)).rest().1, TokenEvent::Done { .. }));
    assert_eq!(engine.stats().restarts, 0);
}

#[test]
fn dropping_the_engine_fails_what_is_left() {
    let engine = start(|config| config.max_sequences = 1);
    let running = submit(&engine, "x", greedy(400));
    running.next();
    running.set(Readiness::Full);
    let queued = submit(&engine, "x", greedy(5));
    drop(engine);
    assert_eq!((running.failure(), queued.failure()), (ErrorKind::Stopped, ErrorKind::Stopped));
}

#[test]
fn settings_and_files_that_cannot_work_are_refused() {
    let model = TempModel::new(&TinyLlama::default());
    let refused = |change: fn(&mut EngineConfig)| {
        let mut config = config(&model);
        change(&mut config);
        Engine::start(config).map(|_| ()).map_err(|error| error.kind())
    };
    assert_eq!(refused(|config| config.max_sequences = 0), Err(ErrorKind::BadParameter));
    assert_eq!(refused(|config| config.queue_depth = 0), Err(ErrorKind::BadParameter));
    assert_eq!(refused(|config| config.max_context = 1), Err(ErrorKind::BadParameter));
    assert_eq!(refused(|config| config.model_path.push("absent")), Err(ErrorKind::ModelUnavailable));
    assert_eq!(refused(|config| config.model_sha256 = Some("00".to_owned())), Err(ErrorKind::ModelInvalid));
    std::fs::write(model.path(), b"GGUF and nothing else").unwrap();
    assert_eq!(refused(|_| {}), Err(ErrorKind::ModelInvalid));
}
