//! Choosing the next token.

use std::collections::HashMap;

use super::scan::{self, Scale, most_likely};
use super::{GenerationParams, split_mix_64};
use crate::InferenceError;
use crate::grammar::Constraint;

/// One sequence's way of choosing tokens.
///
/// In order: the model's own distribution is kept for log-probabilities; bias and penalties change the logits; what
/// the grammar does not allow is ruled out; temperature 0 takes the highest (the lowest id among equals); otherwise the
/// temperature, then `top_k`, then `top_p` cut the distribution ("nucleus sampling", Holtzman et al., 2020), and one
/// random number chooses. Near the limit the grammar may put another token in its place.
#[derive(Debug)]
pub struct Sampler {
    params: GenerationParams,
    constraint: Option<Constraint>,
    /// Tokens left to generate, as far as the constraint is concerned.
    left: usize,
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
    /// A sampler for checked parameters; `seed` is used when they carry none. Without the grammar: see
    /// [`Sampler::constrained`].
    #[must_use]
    pub fn new(params: GenerationParams, seed: u64) -> Self {
        let random = params.seed.unwrap_or(seed);
        Self { params, constraint: None, left: usize::MAX, random, generated: HashMap::new() }
    }

    /// The same, choosing only what the grammar allows, and such that the answer is whole after `limit` tokens if it
    /// can be. The constraint is that of `params.grammar`, at its start.
    #[must_use]
    pub fn constrained(mut self, constraint: Option<Constraint>, limit: usize) -> Self {
        self.constraint = constraint;
        self.left = limit;
        self
    }

    /// Chooses the next token from the logits of the whole vocabulary, which it may change.
    ///
    /// # Errors
    /// [`InferenceError::NumericalFault`] when a logit is not a number or infinitely high, or all are infinitely low;
    /// [`InferenceError::GrammarFailed`] when the grammar cannot be followed any further.
    pub fn choose(&mut self, logits: &mut [f32]) -> Result<Choice, InferenceError> {
        let highest = scan::highest(logits)?;
        // The model's own distribution is gone once penalties are in, so its probabilities are taken first.
        let own = self.params.logprobs.map(|top| Own::of(logits, highest, top));
        self.adjust(logits);
        if let Some(constraint) = &mut self.constraint {
            constraint.mask(logits)?;
        }
        let highest = scan::highest(logits)?;
        let mut id = match self.params.temperature {
            0.0 => scan::first_of(logits, highest),
            temperature => self.draw(logits, Scale { highest, temperature }),
        };
        if let Some(constraint) = &mut self.constraint {
            id = constraint.wind_down(id, self.left);
            constraint.accept(id)?;
        }
        self.left = self.left.saturating_sub(1);
        *self.generated.entry(id).or_default() += 1;
        Ok(Choice { id, logprobs: own.map(|own| own.logprobs(id)) })
    }

    /// Whether the grammar lets nothing follow but the end.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.constraint.as_ref().is_some_and(Constraint::is_complete)
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

    fn draw(&mut self, logits: &[f32], scale: Scale) -> u32 {
        let point = split_mix_64(&mut self.random);
        let picked = if self.params.top_k.is_none() && self.params.top_p >= 1.0 {
            scale.pick(logits, point)
        } else {
            pick(&self.nucleus(logits, scale), point)
        };
        picked.unwrap_or_else(|| scan::first_of(logits, scale.highest))
    }

    /// The tokens `top_k` and `top_p` keep, best first, with their weights. `top_p` is a share of what `top_k` left.
    fn nucleus(&self, logits: &[f32], scale: Scale) -> Vec<(u32, f64)> {
        let weigh = |tokens: &[(u32, f32)]| -> Vec<(u32, f64)> {
            tokens.iter().map(|(id, logit)| (*id, f64::from(scale.weight(*logit)))).collect()
        };
        let share = f64::from(self.params.top_p);
        if let Some(most) = self.params.top_k {
            let mut kept = weigh(&most_likely(logits, scale, most));
            let total: f64 = kept.iter().map(|(_, weight)| weight).sum();
            kept.truncate(reaching(&kept, share * total).unwrap_or(kept.len()));
            return kept;
        }
        let target = share * scale.total(logits);
        let kept = scan::best(logits, scale, |found| {
            // Adding up is cheaper than sorting: most vocabularies carry their weight in few tokens.
            let sum: f64 = found.iter().map(|(_, logit)| f64::from(scale.weight(*logit))).sum();
            if sum < target {
                return None;
            }
            scan::sort(found);
            reaching(&weigh(found), target)
        });
        weigh(&kept)
    }
}

/// What a choice's log-probabilities are drawn from.
struct Own {
    logits: Vec<f32>,
    log_total: f32,
    top: Vec<(u32, f32)>,
}

impl Own {
    fn of(logits: &[f32], highest: f32, top: usize) -> Self {
        let scale = Scale { highest, temperature: 1.0 };
        Self {
            log_total: highest + scale.total(logits).ln() as f32,
            top: most_likely(logits, scale, top),
            logits: logits.to_vec(),
        }
    }

    fn logprobs(self, id: u32) -> (f32, Vec<(u32, f32)>) {
        let top = self.top.into_iter().map(|(id, logit)| (id, logit - self.log_total)).collect();
        (self.logits[id as usize] - self.log_total, top)
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

/// The token at this point of the cumulated weights; `point` is in `0.0..1.0`.
fn pick(weights: &[(u32, f64)], point: f64) -> Option<u32> {
    let target = weights.iter().map(|(_, weight)| weight).sum::<f64>() * point;
    let mut sum = 0.0;
    let mut last = None;
    for (id, weight) in weights.iter().filter(|(_, weight)| *weight > 0.0) {
        sum += weight;
        last = Some(*id);
        if sum > target {
            break;
        }
    }
    last
}

#[cfg(test)]
#[path = "choice_tests.rs"]
mod tests;
