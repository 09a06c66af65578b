//! Holds the model against a forward pass in double precision that shares no code with it.

use crate::support;
use opossum_inference::{LoadOptions, LoadedModel};
use serde::Deserialize;

/// Most that a logit, or the log-sum-exp of all, may differ.
const TOLERANCE: f64 = 1e-3;

#[derive(Deserialize)]
struct Prompt {
    tokens: Vec<u32>,
    positions: Vec<Position>,
}

#[derive(Deserialize)]
struct Position {
    position: usize,
    argmax: usize,
    log_sum_exp: f64,
    ids: Vec<usize>,
    logits: Vec<f64>,
}

#[test]
fn logits_are_those_of_double_precision() {
    let Some(path) = support::model_path() else { return };
    let options = LoadOptions { reference: true, ..LoadOptions::new(path) };
    let model = LoadedModel::load(&options).unwrap();
    let vocab = model.info().vocab;
    let mut widest = 0.0_f64;
    for line in include_str!("../fixtures/float64.jsonl").lines().skip(1) {
        let prompt: Prompt = serde_json::from_str(line).unwrap();
        let all = model.logits(&prompt.tokens).unwrap();
        for expected in prompt.positions {
            let logits = &all[expected.position * vocab..(expected.position + 1) * vocab];
            for (&id, &reference) in expected.ids.iter().zip(&expected.logits) {
                widest = widest.max((f64::from(logits[id]) - reference).abs());
            }
            let argmax = (0..vocab).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
            assert_eq!(argmax, expected.argmax);
            let sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
            widest = widest.max((sum.ln() - expected.log_sum_exp).abs());
        }
    }
    eprintln!("widest difference {widest:.2e} logits");
    assert!(widest <= TOLERANCE, "a logit differs by {widest}");
}
