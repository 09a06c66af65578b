//! Choosing the next token.

use std::collections::HashMap;

use super::{GenerationParams, split_mix_64};
use crate::InferenceError;

/// Candidates looked at first when only the most likely part of the vocabulary is needed.
const FIRST_CANDIDATES: usize = 128;

/// One sequence's way of choosing tokens.
///
/// In order: the model's own distribution is kept for log-probabilities; bias and penalties change the logits;
/// temperature 0 takes the highest (the lowest id among equals); otherwise the temperature, then `top_k`, then `top_p`
/// cut the distribution ("nucleus sampling", Holtzman et al., 2020), and one random number chooses.
#[derive(Debug, Clone)]
pub struct Sampler {
    params: GenerationParams,
    random: u64,
    /// How often each token was generated.
    generated: HashMap<u32, u32>,
}

/// A chosen token.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// Its id.
    pub id: u32,
    /// When asked for: its log-probability, and those of the most likely tokens, best first.
    pub logprobs: Option<(f32, Vec<(u32, f32)>)>,
}

impl Sampler {
    /// A sampler for checked parameters; `seed` is used when they carry none.
    #[must_use]
    pub fn new(params: GenerationParams, seed: u64) -> Self {
        let random = params.seed.unwrap_or(seed);
        Self { params, random, generated: HashMap::new() }
    }

    /// Chooses the next token from the logits of the whole vocabulary, which it may change.
    ///
    /// # Errors
    /// [`InferenceError::NumericalFault`] when a logit is not a number or infinitely high, or all are infinitely low.
    pub fn choose(&mut self, logits: &mut [f32]) -> Result<Choice, InferenceError> {
        check(logits)?;
        // The model's own distribution is gone once penalties are in, so its probabilities are taken first.
        let wanted = self.params.logprobs.map(|top| (log_sum_exp(logits), most_likely(logits, top)));
        let plain = wanted.is_some().then(|| logits.to_vec());
        self.adjust(logits);
        let id = if self.params.temperature == 0.0 { argmax(logits) } else { self.draw(logits) };
        *self.generated.entry(id).or_default() += 1;
        let logprobs = wanted.zip(plain).map(|((total, top), plain)| {
            let top = top.into_iter().map(|(id, logit)| (id, logit - total)).collect();
            (plain[id as usize] - total, top)
        });
        Ok(Choice { id, logprobs })
    }

    fn adjust(&self, logits: &mut [f32]) {
        for &(id, bias) in &self.params.logit_bias {
            if let Some(logit) = logits.get_mut(id as usize) {
                *logit += bias;
            }
        }
        let (presence, frequency) = (self.params.presence_penalty, self.params.frequency_penalty);
        if presence == 0.0 && frequency == 0.0 {
            return;
        }
        for (&id, &count) in &self.generated {
            logits[id as usize] -= presence + frequency * count as f32;
        }
    }

    fn draw(&mut self, logits: &[f32]) -> u32 {
        let temperature = self.params.temperature;
        let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weight = |logit: f32| f64::from((logit - highest) / temperature).exp();
        let point = split_mix_64(&mut self.random);
        if self.params.top_k.is_none() && self.params.top_p >= 1.0 {
            let weights = || logits.iter().enumerate().map(|(id, &logit)| (id as u32, weight(logit)));
            return pick(weights, point).unwrap_or_else(|| argmax(logits));
        }
        let kept = self.nucleus(logits, &weight);
        pick(|| kept.iter().copied(), point).unwrap_or_else(|| argmax(logits))
    }

    /// The tokens `top_k` and `top_p` keep, best first, with their weights. `top_p` is a share of what `top_k` left.
    fn nucleus(&self, logits: &[f32], weight: &impl Fn(f32) -> f64) -> Vec<(u32, f64)> {
        let weighted = |(id, logit)| (id, weight(logit));
        let share = f64::from(self.params.top_p);
        if let Some(most) = self.params.top_k {
            let mut kept: Vec<_> = most_likely(logits, most).into_iter().map(weighted).collect();
            let total: f64 = kept.iter().map(|(_, weight)| weight).sum();
            kept.truncate(reaching(&kept, share * total).unwrap_or(kept.len()));
            return kept;
        }
        let total: f64 = logits.iter().map(|&logit| weight(logit)).sum();
        let mut count = FIRST_CANDIDATES.min(logits.len());
        // Sorting the whole vocabulary is seldom needed: few tokens carry most of the weight.
        loop {
            let mut kept: Vec<_> = most_likely(logits, count).into_iter().map(weighted).collect();
            match reaching(&kept, share * total) {
                Some(enough) => kept.truncate(enough),
                None if count < logits.len() => {
                    count = (count * 8).min(logits.len());
                    continue;
                }
                None => {}
            }
            return kept;
        }
    }
}

/// How many of the first weights add up to `target`; `None` when all together do not.
fn reaching(weights: &[(u32, f64)], target: f64) -> Option<usize> {
    let mut sum = 0.0;
    let last = weights.iter().position(|(_, weight)| {
        sum += weight;
        sum >= target
    })?;
    Some(last + 1)
}

fn check(logits: &[f32]) -> Result<(), InferenceError> {
    let fault = |reason: String| Err(InferenceError::NumericalFault { reason });
    if let Some(id) = logits.iter().position(|logit| logit.is_nan() || *logit == f32::INFINITY) {
        return fault(format!("the logit of token {id} is {}", logits[id]));
    }
    if logits.iter().all(|logit| *logit == f32::NEG_INFINITY) {
        return fault("no token has a finite logit".to_owned());
    }
    Ok(())
}

/// The lowest id of the highest logit.
fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (id, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = id;
        }
    }
    best as u32
}

/// `ln(sum(exp(logits)))`, summed in double precision around the highest.
fn log_sum_exp(logits: &[f32]) -> f32 {
    let highest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - highest).exp()).sum();
    (highest + sum.ln()) as f32
}

/// The `count` highest logits, best first, lower ids first among equals.
fn most_likely(logits: &[f32], count: usize) -> Vec<(u32, f32)> {
    if count == 0 {
        return Vec::new();
    }
    let better = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    let mut all: Vec<(u32, f32)> = logits.iter().enumerate().map(|(id, &logit)| (id as u32, logit)).collect();
    if count < all.len() {
        all.select_nth_unstable_by(count - 1, better);
        all.truncate(count);
    }
    all.sort_unstable_by(better);
    all
}

/// The token at this point of the cumulated weights; `point` is in `0.0..1.0`.
fn pick<I: Iterator<Item = (u32, f64)>>(weights: impl Fn() -> I, point: f64) -> Option<u32> {
    let target = weights().map(|(_, weight)| weight).sum::<f64>() * point;
    let mut sum = 0.0;
    let mut last = None;
    for (id, weight) in weights().filter(|(_, weight)| *weight > 0.0) {
        sum += weight;
        last = Some(id);
        if sum > target {
            break;
        }
    }
    last
}

#[cfg(test)]
#[path = "choice_tests.rs"]
mod tests;
