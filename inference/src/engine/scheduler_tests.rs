#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use proptest::prelude::*;

use super::super::tests::{Heard, config, greedy, job};
use super::super::{EngineStats, FinishReason, Readiness, TokenEvent};
use super::*;
use crate::testing::{TempModel, TinyLlama};
use crate::{ErrorKind, GenerationParams};

/// An engine without a thread: the test takes the steps.
struct Bench {
    model: LoadedModel,
    cache: crate::model::KvCache,
    scheduler: Scheduler,
    shared: Shared,
}

impl Bench {
    fn new(blocks: usize) -> Self {
        let file = TempModel::new(&TinyLlama::default());
        let model = LoadedModel::load(&config(&file).load_options()).unwrap();
        let cache = model.new_cache(blocks).unwrap();
        Self { model, cache, scheduler: Scheduler::new(blocks), shared: Shared::new(1, None) }
    }

    fn add(&mut self, prompt: &str, params: GenerationParams) -> Heard {
        let (job, heard) = job(prompt, params);
        let context = self.model.info().context_length.min(self.scheduler.blocks().total() * BLOCK_TOKENS);
        let sequence = Sequence::start(job, self.model.language(), context, Instant::now());
        self.scheduler.add(sequence.map_err(|(_, error)| error).unwrap());
        heard
    }

    /// One step; `spoil` may change the logits before tokens are chosen.
    fn step_with(&mut self, spoil: impl FnOnce(&mut Logits)) -> bool {
        self.scheduler.settle();
        let planned = self.scheduler.plan();
        if planned {
            let batch = self.scheduler.batch();
            let began = Instant::now() - cost(&batch);
            let mut logits = self.model.forward(&batch, &mut self.cache).unwrap();
            spoil(&mut logits);
            self.scheduler.take(&mut logits, &self.model, began, &self.shared);
        }
        self.scheduler.settle();
        planned
    }

    fn step(&mut self) -> bool {
        self.step_with(|_| {})
    }

    /// Steps until nothing is left to compute; how many there were.
    fn finish(&mut self) -> usize {
        (0..10_000).take_while(|_| self.step()).count()
    }

    fn stats(&self) -> EngineStats {
        self.shared.stats()
    }

    fn in_use(&self) -> usize {
        self.scheduler.blocks().in_use()
    }
}

/// The time a step takes on the machine of these tests: so much more than it takes in truth that the truth does not
/// matter. A step of decodes is worth 25 prompt tokens to it.
fn cost(batch: &[BatchEntry<'_>]) -> Duration {
    let prompts = batch.iter().map(|entry| entry.tokens.len()).filter(|tokens| *tokens > 1).sum::<usize>();
    Duration::from_secs(10) + Duration::from_secs(1) * prompts as u32
}

/// What a prompt is answered with when nobody else is there.
fn alone(prompt: &str, tokens: usize) -> String {
    let mut bench = Bench::new(16);
    let heard = bench.add(prompt, greedy(tokens));
    bench.finish();
    heard.rest().0
}

/// A text of so many tokens, like no other text from the first one on.
fn text(seed: usize, tokens: usize) -> String {
    (0..tokens).map(|at| char::from(b'A' + ((seed * 7 + at * (seed + 3)) % 26) as u8)).collect()
}

#[test]
fn eight_streams_join_and_leave_and_each_gets_a_token_a_step() {
    let mut bench = Bench::new(64);
    // What a decode costs is measured once, and alone.
    let _first = bench.add("x", greedy(3));
    bench.finish();
    let mut streams = Vec::new();
    for stream in 0..8 {
        let (prompt, tokens) = (text(stream, 5 + stream), 12 + 9 * (stream % 3));
        let heard = bench.add(&prompt, greedy(tokens));
        streams.push((prompt, tokens, heard));
        let before = bench.stats().tokens_generated;
        bench.step();
        let running = bench.scheduler.len() as u64;
        // Whoever was there has a token more; the last of some may have been among them.
        assert!(bench.stats().tokens_generated - before >= running);
    }
    let more = bench.finish();
    // The longest stream ends last; nobody's tokens cost others a step.
    assert!(8 + more <= 8 + 30, "{more} steps");
    for (prompt, tokens, heard) in streams {
        let (said, end) = heard.rest();
        assert_eq!(said, alone(&prompt, tokens));
        assert!(matches!(end, TokenEvent::Done { usage, .. } if usage.completion_tokens == tokens));
    }
    assert_eq!((bench.scheduler.len(), bench.in_use()), (0, 0));
}

#[test]
fn a_long_prompt_takes_no_step_from_anyone() {
    let mut bench = Bench::new(64);
    let running = bench.add("x", greedy(400));
    while bench.stats().tokens_generated == 0 {
        bench.step();
    }
    let long = bench.add(&text(1, 450), greedy(1));
    let mut steps = 0;
    while long.events.len() < 2 {
        let before = bench.stats();
        assert!(bench.step());
        let after = bench.stats();
        // The prompt's own first token comes with its last step.
        let own = u64::from(long.events.len() > 1);
        assert_eq!(after.tokens_generated - before.tokens_generated, 1 + own);
        steps += 1;
    }
    assert!((450 / 32..=450 / 16).contains(&steps), "{steps} steps");
    assert_eq!(running.events.len(), bench.stats().tokens_generated as usize);
}

#[test]
fn a_short_prompt_does_not_wait_for_a_long_one() {
    let mut bench = Bench::new(64);
    let _running = bench.add("x", greedy(400));
    bench.step();
    let long = bench.add(&text(1, 450), greedy(1));
    let short = bench.add(&text(2, 10), greedy(1));
    while short.events.len() < 2 {
        assert!(bench.step());
        assert_eq!(long.events.len(), 1, "the long prompt was done first");
    }
}

#[test]
fn a_prompt_that_begins_like_an_earlier_one_computes_the_rest_only() {
    let mut bench = Bench::new(64);
    let system = text(3, 4 * BLOCK_TOKENS);
    bench.add(&format!("{system}one"), greedy(3)).set(Readiness::Ready);
    bench.finish();
    let before = bench.stats();
    let second = bench.add(&format!("{system}ABCDEFG"), greedy(8));
    bench.finish();
    let after = bench.stats();
    assert_eq!(after.tokens_prefilled - before.tokens_prefilled, 7);
    assert_eq!(after.tokens_reused - before.tokens_reused, 4 * BLOCK_TOKENS as u64);
    assert_eq!(second.rest().0, alone(&format!("{system}ABCDEFG"), 8));
}

#[test]
fn the_last_token_of_a_prompt_is_computed_even_if_all_of_it_is_known() {
    let mut bench = Bench::new(64);
    let prompt = text(4, 2 * BLOCK_TOKENS);
    let first = bench.add(&prompt, greedy(5));
    bench.finish();
    let before = bench.stats();
    let second = bench.add(&prompt, greedy(5));
    bench.finish();
    assert_eq!(bench.stats().tokens_prefilled - before.tokens_prefilled, BLOCK_TOKENS as u64);
    assert_eq!(first.rest().0, second.rest().0);
}

#[test]
fn the_next_turn_of_a_conversation_reuses_the_answer_too() {
    let mut bench = Bench::new(64);
    let opening = text(5, BLOCK_TOKENS);
    let first = bench.add(&opening, greedy(2 * BLOCK_TOKENS));
    bench.finish();
    let (answer, _) = first.rest();
    let before = bench.stats();
    bench.add(&format!("{opening}{answer}more"), greedy(1)).set(Readiness::Ready);
    bench.finish();
    let reused = bench.stats().tokens_reused - before.tokens_reused;
    assert!(reused >= 2 * BLOCK_TOKENS as u64, "{reused} tokens were reused");
}

#[test]
fn two_that_outgrow_the_cache_take_turns_and_say_everything_once() {
    let prompts = [text(6, 40), text(7, 40)];
    let mut bench = Bench::new(5);
    let heard = prompts.each_ref().map(|prompt| bench.add(prompt, greedy(90)));
    bench.finish();
    assert!(bench.stats().preemptions > 0);
    for (prompt, heard) in prompts.iter().zip(heard) {
        let (said, end) = heard.rest();
        assert_eq!(said, alone(prompt, 90));
        assert!(matches!(end, TokenEvent::Done { finish: FinishReason::Length, .. }), "{end:?}");
    }
    assert_eq!(bench.in_use(), 0);
}

#[test]
fn a_prompt_that_must_wait_for_blocks_is_not_overtaken() {
    let mut bench = Bench::new(6);
    let running = bench.add(&text(1, 90), greedy(20));
    bench.step();
    let large = bench.add(&text(2, 120), greedy(2));
    let small = bench.add(&text(3, 5), greedy(2));
    while running.events.len() < 21 {
        assert!(bench.step());
        assert_eq!((large.events.len(), small.events.len()), (1, 1));
    }
    bench.finish();
    assert!(matches!(large.rest().1, TokenEvent::Done { .. }));
    assert!(matches!(small.rest().1, TokenEvent::Done { .. }));
}

#[test]
fn who_waits_for_a_slow_listener_gives_way_and_loses_nothing() {
    let mut bench = Bench::new(5);
    let (prompt, other) = (text(1, 60), text(2, 120));
    let slow = bench.add(&prompt, greedy(30));
    for _ in 0..10 {
        bench.step();
    }
    slow.set(Readiness::Full);
    bench.step();
    let held = bench.in_use();
    assert!(held > 0, "a parked sequence keeps its blocks as long as nobody needs them");
    let quick = bench.add(&other, greedy(20));
    bench.finish();
    assert_eq!(quick.rest().0, alone(&other, 20));
    assert_eq!(bench.stats().preemptions, 1);
    slow.set(Readiness::Ready);
    bench.finish();
    assert_eq!(slow.rest().0, alone(&prompt, 30));
}

#[test]
fn numbers_that_are_none_end_one_sequence_and_are_not_reused() {
    let mut bench = Bench::new(64);
    let (bad, good) = (text(1, 40), text(2, 40));
    let broken = bench.add(&bad, greedy(10));
    let fine = bench.add(&good, greedy(10));
    while bench.stats().tokens_generated < 2 {
        bench.step();
    }
    bench.step_with(|logits| logits.row(0)[5] = f32::NAN);
    bench.finish();
    assert_eq!(broken.failure(), ErrorKind::NumericalFault);
    assert_eq!(fine.rest().0, alone(&good, 10));
    let before = bench.stats();
    let again = bench.add(&bad, greedy(10));
    bench.finish();
    assert_eq!(bench.stats().tokens_reused, before.tokens_reused);
    assert_eq!(again.rest().0, alone(&bad, 10));
}

#[test]
fn a_step_that_fails_ends_who_was_in_it_and_the_others_are_computed_anew() {
    let mut bench = Bench::new(64);
    let prompt = text(1, 40);
    let parked = bench.add(&prompt, greedy(10));
    let running = bench.add(&text(2, 40), greedy(10));
    while bench.stats().tokens_generated < 2 {
        bench.step();
    }
    parked.set(Readiness::Full);
    bench.scheduler.settle();
    assert!(bench.scheduler.plan());
    assert_eq!(bench.scheduler.fail_step(&InferenceError::Stopped), 1);
    assert_eq!(running.failure(), ErrorKind::Stopped);
    parked.set(Readiness::Ready);
    bench.cache = bench.model.new_cache(64).unwrap();
    bench.finish();
    assert_eq!(parked.rest().0, alone(&prompt, 10));
    assert_eq!((bench.scheduler.len(), bench.in_use()), (0, 0));
}

/// A stream of a run: when it comes, how long it is, and in which steps its listener is not ready.
#[derive(Debug, Clone)]
struct Stream {
    seed: usize,
    arrives: usize,
    prompt: usize,
    tokens: usize,
    stalls: std::ops::Range<usize>,
    leaves: Option<usize>,
}

fn streams() -> impl Strategy<Value = Vec<Stream>> {
    let stalls = (0_usize..60, 0_usize..20).prop_map(|(from, steps)| from..from + steps);
    let leaves = prop::option::weighted(0.2, 0_usize..60);
    let stream = (0_usize..3, 0_usize..40, 1_usize..100, 1_usize..50, stalls, leaves).prop_map(
        |(seed, arrives, prompt, tokens, stalls, leaves)| Stream {
            seed,
            arrives,
            prompt,
            tokens,
            stalls,
            leaves,
        },
    );
    prop::collection::vec(stream, 1..7)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn however_few_blocks_there_are_everyone_hears_what_he_would_hear_alone(
        streams in streams(),
        blocks in 5_usize..12,
    ) {
        let mut bench = Bench::new(blocks);
        let mut heard: Vec<(usize, Heard)> = Vec::new();
        for step in 0..5_000 {
            for (index, stream) in streams.iter().enumerate().filter(|(_, stream)| stream.arrives == step) {
                heard.push((index, bench.add(&text(stream.seed, stream.prompt), greedy(stream.tokens))));
            }
            for (index, heard) in &heard {
                let stream = &streams[*index];
                let left = stream.leaves.is_some_and(|leaves| step >= stream.arrives + leaves);
                heard.set(match stream.stalls.contains(&step) {
                    _ if left => Readiness::Closed,
                    true => Readiness::Full,
                    false => Readiness::Ready,
                });
            }
            bench.step();
            if step > 80 && bench.scheduler.len() == 0 {
                break;
            }
        }
        prop_assert_eq!((bench.scheduler.len(), bench.in_use()), (0, 0));
        for (index, heard) in heard.iter().filter(|(index, _)| streams[*index].leaves.is_none()) {
            let stream = &streams[*index];
            let (said, end) = heard.rest();
            prop_assert_eq!(said, alone(&text(stream.seed, stream.prompt), stream.tokens));
            let is_done = matches!(end, TokenEvent::Done { .. });
            prop_assert!(is_done, "{:?}", end);
        }
    }
}
