//! What is known of an arm before anything was seen of it.

use std::time::Duration;

use crate::ids::ArmId;
use crate::needs::Needs;

/// An arm's place in a policy; means something only together with that policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ArmIx(pub u16);

impl ArmIx {
    /// As an index.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// An arm as configured.
#[derive(Clone, Debug, PartialEq)]
pub struct ArmSpec {
    /// Service and model.
    pub id: ArmId,
    /// What it can do.
    pub can: Needs,
    /// How good its answers are expected to be, from 0 to 1.
    pub capability: f32,
    /// USD for a million tokens of prompt.
    pub price_in: f32,
    /// USD for a million tokens of answer.
    pub price_out: f32,
    /// Longest context in tokens; `None` where unknown.
    pub context_tokens: Option<u32>,
    /// Whether it comes after all others, however it scores, unless its weight is above 1.
    pub last_resort: bool,
    /// How long a call is expected to take before any was seen.
    pub expected_latency: Duration,
    /// The operator's multiplier of its score; 1 is neutral, 0 never chooses it.
    pub weight: f32,
}

impl ArmSpec {
    /// An arm of middling quality, without price, that can do what is said.
    pub fn new(id: ArmId, can: Needs) -> Self {
        Self {
            id,
            can,
            capability: 0.5,
            price_in: 0.0,
            price_out: 0.0,
            context_tokens: None,
            last_resort: false,
            expected_latency: Duration::from_secs(1),
            weight: 1.0,
        }
    }

    /// The same with every number finite and in its range.
    #[must_use]
    pub(super) fn bounded(mut self) -> Self {
        self.capability = finite_or(self.capability, 0.5).clamp(0.0, 1.0);
        self.weight = finite_or(self.weight, 1.0).clamp(0.0, 1e6);
        self.price_in = finite_or(self.price_in, 0.0).clamp(0.0, 1e6);
        self.price_out = finite_or(self.price_out, 0.0).clamp(0.0, 1e6);
        self
    }
}

pub(super) fn finite_or(number: f32, default: f32) -> f32 {
    if number.is_finite() { number } else { default }
}
