//! How an arm has been doing lately.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What fades of the past with each step.
const H: f64 = 0.98;
/// Calls that the prior success rate is worth, and that rate.
const PRIOR_CALLS: f64 = 5.0;
const PRIOR_SUCCESS: f64 = 0.98;
/// Calls that the prior latency is worth.
const PRIOR_LATENCIES: f64 = 2.0;
/// Answers that the prior answer length is worth, and that length in tokens.
const PRIOR_ANSWERS: f64 = 2.0;
const PRIOR_TOKENS: f64 = 256.0;

/// Discounted sums over an arm's attempts, see the module's formulas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ArmHealth {
    /// Σ h^(t-ti) over attempts that ended well or badly.
    pub calls: f64,
    /// Σ h^(t-ti) ok_i.
    pub ok: f64,
    /// Σ h^(t-ti) over attempts whose latency counts.
    pub timed: f64,
    /// Σ h^(t-ti) ln(seconds).
    pub ln_seconds: f64,
    /// Σ h^(t-ti) over answers of known length.
    pub answers: f64,
    /// Σ h^(t-ti) tokens.
    pub tokens: f64,
}

impl ArmHealth {
    /// Lets `steps` pass.
    pub(super) fn fade(&mut self, steps: f64) {
        let factor = H.powf(steps.max(0.0));
        for sum in [
            &mut self.calls,
            &mut self.ok,
            &mut self.timed,
            &mut self.ln_seconds,
            &mut self.answers,
            &mut self.tokens,
        ] {
            *sum *= factor;
        }
    }

    /// Adds an attempt that ended well or badly.
    pub(super) fn add(&mut self, ok: bool, latency: Duration, prior: Duration) {
        self.calls += 1.0;
        self.ok += f64::from(u8::from(ok));
        // Failing quickly is no virtue: a failure's time counts only where it is worse than usual.
        if ok || latency > self.latency(prior) {
            self.timed += 1.0;
            self.ln_seconds += ln_seconds(latency);
        }
    }

    /// Adds an answer's length.
    pub(super) fn add_tokens(&mut self, tokens: u32) {
        self.answers += 1.0;
        self.tokens += f64::from(tokens);
    }

    /// The success rate, from 0 to 1.
    pub fn success(&self) -> f64 {
        ((PRIOR_CALLS * PRIOR_SUCCESS + self.ok) / (PRIOR_CALLS + self.calls)).clamp(0.0, 1.0)
    }

    /// The usual (geometric mean) latency, given what was expected before.
    pub fn latency(&self, prior: Duration) -> Duration {
        let ln = (PRIOR_LATENCIES * ln_seconds(prior) + self.ln_seconds) / (PRIOR_LATENCIES + self.timed);
        Duration::try_from_secs_f64(ln.exp()).unwrap_or(Duration::MAX)
    }

    /// The usual length of an answer in tokens.
    pub fn answer_tokens(&self) -> f64 {
        (PRIOR_ANSWERS * PRIOR_TOKENS + self.tokens) / (PRIOR_ANSWERS + self.answers)
    }

    /// Whether the sums can be what they say they are: finite, none negative that cannot be, no more
    /// successes than calls.
    pub fn is_sound(&self) -> bool {
        let counts = [self.calls, self.ok, self.timed, self.answers, self.tokens];
        counts.iter().all(|sum| sum.is_finite() && (0.0..1e12).contains(sum))
            && self.ln_seconds.is_finite()
            // Each latency lies within e^±20 seconds, by construction.
            && self.ln_seconds.abs() <= 20.0 * self.timed + 1e-6
            && self.ok <= self.calls + 1e-6
    }
}

/// The logarithm of a latency in seconds, from a microsecond to some years.
fn ln_seconds(latency: Duration) -> f64 {
    latency.as_secs_f64().clamp(1e-6, 1e8).ln()
}
