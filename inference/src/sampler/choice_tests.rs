#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::ErrorKind;

fn params(change: impl FnOnce(&mut GenerationParams)) -> GenerationParams {
    let mut params = GenerationParams::default();
    change(&mut params);
    params
}

fn draws(params: &GenerationParams, logits: &[f32], count: usize) -> Vec<u32> {
    let mut ids = Vec::new();
    for seed in 0..count as u64 {
        let mut sampler = Sampler::new(params.clone(), seed);
        ids.push(sampler.choose(&mut logits.to_vec()).unwrap().id);
    }
    ids
}

#[test]
fn greedy_takes_the_lowest_id_of_the_highest_logit() {
    let greedy = params(|p| p.temperature = 0.0);
    assert_eq!(draws(&greedy, &[0.0, 3.0, 1.0, 3.0], 3), [1, 1, 1]);
    assert_eq!(draws(&greedy, &[f32::NEG_INFINITY, -5.0], 1), [1]);
}

#[test]
fn numbers_that_are_none_are_a_typed_fault() {
    for logits in [[0.0, f32::NAN], [0.0, f32::INFINITY], [f32::NEG_INFINITY; 2]] {
        for temperature in [0.0, 1.0] {
            let mut sampler = Sampler::new(params(|p| p.temperature = temperature), 0);
            let fault = sampler.choose(&mut logits.to_vec()).map_err(|error| error.kind());
            assert_eq!(fault, Err(ErrorKind::NumericalFault), "{logits:?}");
        }
    }
}

#[test]
fn a_seed_fixes_the_tokens_and_another_changes_them() {
    let logits: Vec<f32> = (0..50).map(|id| (id % 7) as f32 * 0.1).collect();
    let run = |seed| {
        let mut sampler = Sampler::new(params(|p| p.seed = Some(seed)), 99);
        (0..20).map(|_| sampler.choose(&mut logits.clone()).unwrap().id).collect::<Vec<_>>()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn draws_follow_the_softmax_at_the_temperature() {
    // Two tokens, logits ln 3 and 0: probabilities 3/4 and 1/4 at temperature 1, 9/10 and 1/10 at 1/2.
    let logits = [3.0_f32.ln(), 0.0];
    for (temperature, expected) in [(1.0, 0.75), (0.5, 0.9)] {
        let ids = draws(&params(|p| p.temperature = temperature), &logits, 20_000);
        let share = ids.iter().filter(|id| **id == 0).count() as f64 / ids.len() as f64;
        assert!((share - expected).abs() < 0.02, "temperature {temperature}: {share}");
    }
}

#[test]
fn cuts_keep_the_most_likely_tokens_only() {
    // Probabilities 0.5, 0.3, 0.15, 0.05.
    let logits: Vec<f32> = [0.05_f32, 0.5, 0.15, 0.3].iter().map(|p| p.ln()).collect();
    let seen = |params: &GenerationParams| {
        let mut ids = draws(params, &logits, 2000);
        ids.sort_unstable();
        ids.dedup();
        ids
    };
    assert_eq!(seen(&params(|p| p.top_k = Some(2))), [1, 3]);
    assert_eq!(seen(&params(|p| p.top_k = Some(1))), [1]);
    assert_eq!(seen(&params(|p| p.top_p = 0.45)), [1]);
    assert_eq!(seen(&params(|p| p.top_p = 0.75)), [1, 3]);
    assert_eq!(seen(&params(|p| p.top_p = 0.94)), [1, 2, 3]);
    // top_p counts within what top_k left: 0.5 of 0.8 is 0.625.
    assert_eq!(seen(&params(|p| (p.top_k, p.top_p) = (Some(2), 0.6))), [1]);
    assert_eq!(seen(&params(|p| (p.top_k, p.top_p) = (Some(2), 0.7))), [1, 3]);
}

#[test]
fn a_nucleus_of_many_small_tokens_is_found() {
    // One token carries a tenth of the weight, far below it a thousand equal ones share the rest.
    let mut logits = vec![0.0; 1001];
    logits[500] = 1000.0_f32.ln() - 9.0_f32.ln();
    let highest = logits[500];
    let sampler = Sampler::new(params(|p| p.top_p = 0.55), 0);
    let kept = sampler.nucleus(&logits, Scale { highest, temperature: 1.0 });
    assert_eq!(kept[0].0, 500);
    assert!((500..=502).contains(&kept.len()), "{}", kept.len());
}

#[test]
fn penalties_count_what_was_generated() {
    let logits = [1.0, 0.9];
    let ids = |change: fn(&mut GenerationParams)| {
        let mut sampler = Sampler::new(
            params(|p| {
                p.temperature = 0.0;
                change(p);
            }),
            0,
        );
        (0..4).map(|_| sampler.choose(&mut logits.to_vec()).unwrap().id).collect::<Vec<_>>()
    };
    assert_eq!(ids(|_| {}), [0, 0, 0, 0]);
    // Once both were said, presence is even again; frequency keeps alternating.
    assert_eq!(ids(|p| p.presence_penalty = 0.5), [0, 1, 0, 0]);
    assert_eq!(ids(|p| p.frequency_penalty = 0.5), [0, 1, 0, 1]);
    assert_eq!(ids(|p| p.logit_bias = vec![(1, 0.2), (77, 1.0)]), [1, 1, 1, 1]);
}

#[test]
fn logprobs_are_those_of_the_model_whatever_the_cuts() {
    let mut logits: Vec<f32> = [0.2_f32, 0.7, 0.1].iter().map(|p| p.ln() + 4.0).collect();
    let mut sampler = Sampler::new(
        params(|p| {
            p.temperature = 0.0;
            p.logit_bias = vec![(0, 10.0)];
            p.logprobs = Some(2);
        }),
        0,
    );
    let choice = sampler.choose(&mut logits).unwrap();
    let (chosen, top) = choice.logprobs.unwrap();
    assert_eq!(choice.id, 0);
    assert!((chosen - 0.2_f32.ln()).abs() < 1e-5);
    assert_eq!(top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 0]);
    assert!((top[0].1 - 0.7_f32.ln()).abs() < 1e-5);
}

proptest! {
    #[test]
    fn any_finite_logits_give_a_token_of_the_vocabulary(
        logits in prop::collection::vec(-1e30_f32..1e30, 1..300),
        temperature in 0.0_f32..=2.0,
        top_p in 0.001_f32..=1.0,
        top_k in prop::option::of(1_usize..400),
        seed: u64,
    ) {
        let params = params(|p| (p.temperature, p.top_p, p.top_k) = (temperature, top_p, top_k));
        let choice = Sampler::new(params, seed).choose(&mut logits.clone()).unwrap();
        prop_assert!((choice.id as usize) < logits.len());
    }
}
