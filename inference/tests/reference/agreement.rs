//! Holds the model against llama.cpp, teacher-forced: both see the same tokens, and at every position their first
//! choices are compared. Token-for-token equality of free-running text is no test: both round activations to eight bits,
//! each in its own way, so near ties fall either way.

use std::fmt;
use std::path::PathBuf;

use crate::support;
use opossum_inference::{LoadOptions, LoadedModel};
use serde::Deserialize;

/// Least share of positions with the same first choice.
const SAME: f64 = 0.92;
/// Most that llama.cpp's choice may lie below ours where they differ, in logits.
const NEAR_TIE: f32 = 0.5;

#[derive(Deserialize)]
pub(crate) struct Continuation {
    pub(crate) text: String,
    pub(crate) prompt: Vec<u32>,
    /// `[id, logit, id, logit, ...]`, highest first, for each generated position.
    steps: Vec<Vec<f64>>,
}

impl Continuation {
    fn choices(&self) -> impl Iterator<Item = u32> {
        self.steps.iter().map(|step| step[0] as u32)
    }
}

fn read(fixture: &str) -> Vec<Continuation> {
    let lines = fixture.lines().filter(|line| !line.starts_with("{\"about\""));
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) fn continuations() -> Vec<Continuation> {
    read(include_str!("../fixtures/llama_cpp.jsonl"))
}

/// How often the first choices are the same, and how far apart they are where they are not.
#[derive(Debug, Default)]
struct Tally {
    same: u32,
    positions: u32,
    /// Of each position where they are not: how far our choice is above llama.cpp's by our logits, and where it was.
    misses: Vec<(f32, String)>,
}

impl Tally {
    /// Goes along one continuation.
    fn add(&mut self, model: &LoadedModel, continuation: &Continuation) {
        let vocab = model.info().vocab;
        // The last choice is compared, not fed.
        let mut tokens = continuation.prompt.clone();
        tokens.extend(continuation.choices());
        tokens.pop();
        let logits = model.logits(&tokens).unwrap();
        let first = (continuation.prompt.len() - 1) * vocab;
        for (step, (logits, theirs)) in logits[first..].chunks(vocab).zip(continuation.choices()).enumerate()
        {
            let (ours, best) = logits
                .iter()
                .enumerate()
                .max_by(|a, b| a.1.total_cmp(b.1))
                .map(|(id, best)| (id as u32, *best))
                .unwrap();
            self.positions += 1;
            if ours == theirs {
                self.same += 1;
            } else {
                let place = format!("{:?}, step {step}: {ours} above {theirs}", continuation.text);
                self.misses.push((best - logits[theirs as usize], place));
            }
        }
    }

    fn of(options: &LoadOptions, continuations: &[Continuation]) -> Self {
        let model = LoadedModel::load(options).unwrap();
        let mut tally = Self::default();
        continuations.iter().for_each(|continuation| tally.add(&model, continuation));
        tally.misses.sort_by(|a, b| b.0.total_cmp(&a.0));
        tally
    }

    /// Where the choices are no near tie.
    fn wide(&self) -> impl Iterator<Item = &str> {
        self.misses.iter().filter(|(gap, _)| *gap >= NEAR_TIE).map(|(_, place)| place.as_str())
    }

    fn share(&self) -> f64 {
        f64::from(self.same) / f64::from(self.positions)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "same first choice at {} of {} positions ({:.3})",
            self.same,
            self.positions,
            self.share()
        )?;
        self.misses.iter().take(5).try_for_each(|(gap, place)| write!(f, "\n  {gap:.3} logits: {place}"))
    }
}

/// Compares the choices of a model, and fails where they agree too seldom or are no near tie. One that is no near tie
/// without any rounding of ours either is forgiven: the rounding that moved it is llama.cpp's.
fn agrees(path: PathBuf, sha256: &str, continuations: &[Continuation]) {
    let options = LoadOptions { sha256: Some(sha256.to_owned()), ..LoadOptions::new(path) };
    let tally = Tally::of(&options, continuations);
    eprintln!("{tally}");
    assert!(tally.positions >= 640 && tally.share() >= SAME, "{tally}");
    let mut wide = tally.wide().peekable();
    if wide.peek().is_some() {
        let exact = Tally::of(&LoadOptions { reference: true, ..options }, continuations);
        eprintln!("without rounding: {exact}");
        assert!(wide.all(|place| exact.wide().any(|known| known == place)), "{tally}");
    }
}

#[test]
fn first_choices_agree_with_llama_cpp() {
    let Some(path) = support::model_path() else { return };
    agrees(path, support::MODEL_SHA256, &continuations());
}

#[test]
fn first_choices_of_gemma_agree_with_llama_cpp() {
    let Some(path) = support::gemma_path() else { return };
    agrees(path, support::GEMMA_SHA256, &read(include_str!("../fixtures/gemma_llama_cpp.jsonl")));
}
