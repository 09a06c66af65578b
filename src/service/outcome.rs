//! One attempt's record: tells breaker, router and metrics how it ended, exactly once.
//!
//! Dropped without an end it was cancelled, which is neither success nor failure; the breaker's guard inside
//! gives a trial's permit back.

use std::sync::Arc;

use opossum_actors::{Attempt, RouterHandle};
use opossum_core::answer::Usage;
use opossum_core::breaker::Outcome;
use opossum_core::class::FailureClass;
use opossum_core::router::AttemptSeen;
use tokio::time::Instant;

use super::catalogue::Arm;
use super::{Inner, SlowLimits};
use crate::telemetry::Metrics;

/// An attempt under way.
pub(super) struct AttemptRecord {
    attempt: Option<Attempt>,
    arm: Arc<Arm>,
    router: RouterHandle,
    metrics: Arc<Metrics>,
    slow: SlowLimits,
    started: Instant,
    first_content: Option<Instant>,
}

impl AttemptRecord {
    /// Begins with the breaker's leave.
    pub(super) fn begin(inner: &Inner, arm: &Arc<Arm>, attempt: Attempt) -> Self {
        Self {
            attempt: Some(attempt),
            arm: Arc::clone(arm),
            router: inner.router.clone(),
            metrics: Arc::clone(&inner.metrics),
            slow: inner.timeouts.slow,
            started: Instant::now(),
            first_content: None,
        }
    }

    /// The first content of a stream is here.
    pub(super) fn content_began(&mut self) {
        let now = Instant::now();
        self.first_content = Some(now);
        self.arm.metrics.first_token.observe((now - self.started).as_secs_f64());
    }

    /// The answer is whole.
    pub(super) fn succeed(self, usage: Option<&Usage>, refused: bool) {
        let now = Instant::now();
        if let Some(usage) = usage {
            self.arm.metrics.tokens_in.inc_by(usage.prompt);
            self.arm.metrics.tokens_out.inc_by(usage.completion);
        }
        if let (Some(first), Some(usage)) = (self.first_content, usage.filter(|u| u.completion > 1)) {
            let each = (now - first).as_secs_f64() / (usage.completion - 1) as f64;
            self.arm.metrics.token_time.observe(each);
        }
        self.arm.metrics.answers.inc();
        self.arm.metrics.attempts_ok.inc();
        let outcome = if refused {
            Outcome::Failed { class: FailureClass::Refused, retry_after: None }
        } else {
            Outcome::Ok { slow: self.is_slow(now, usage) }
        };
        self.tell(outcome, now, usage);
    }

    /// The attempt ended otherwise.
    pub(super) fn finish(self, outcome: Outcome) {
        if let Outcome::Failed { class, .. } = outcome {
            self.metrics.attempt_failed(&self.arm.id, class);
        }
        self.tell(outcome, Instant::now(), None);
    }

    fn is_slow(&self, now: Instant, usage: Option<&Usage>) -> bool {
        let Some(first) = self.first_content else { return now - self.started > self.slow.whole };
        let late = first - self.started > self.slow.first_token;
        let tokens = usage.map_or(0, |u| u.completion);
        // A rate over a handful of tokens says nothing.
        let crawls =
            tokens >= 8 && (tokens as f64) < (now - first).as_secs_f64() * self.slow.tokens_per_second;
        late || crawls
    }

    fn tell(mut self, outcome: Outcome, now: Instant, usage: Option<&Usage>) {
        let ok = match outcome {
            Outcome::Ok { .. } => Some(true),
            Outcome::Failed { class, .. } if class.lowers_weight() => Some(false),
            Outcome::Failed { .. } => None,
        };
        self.router.report(AttemptSeen {
            arm: self.arm.id.clone(),
            ok,
            latency: now - self.started,
            ttft: self.first_content.map(|first| first - self.started),
            tokens: usage.map(|u| u32::try_from(u.completion).unwrap_or(u32::MAX)),
            at: now.into_std(),
        });
        if let Some(attempt) = self.attempt.take() {
            attempt.finish(outcome);
        }
    }
}

impl Drop for AttemptRecord {
    fn drop(&mut self) {
        if self.attempt.is_some() {
            self.metrics.attempt_failed(&self.arm.id, FailureClass::Cancelled);
        }
    }
}
