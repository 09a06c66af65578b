//! The numbers of a backend's breakers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// When a spent allowance is renewed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuotaRenewal {
    /// After the wait that the upstream named, else after [`BreakerConfig::quota_retry`].
    #[default]
    AfterWait,
    /// At the next 00:00 in America/Los_Angeles, and up to a minute later, whatever wait was named: Gemini
    /// names a wait of seconds beside a quota of the day.
    PacificMidnight,
}

/// The numbers of a backend's breakers. A fraction is from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerConfig {
    /// False: failures never open. A wait, a spent allowance or a refused credential still counts, because
    /// those are the upstream's words and not our suspicion.
    pub enabled: bool,
    /// Failures in a row that open.
    pub failure_threshold: u32,
    /// Length of the window of calls, kept in ten buckets.
    pub window: Duration,
    /// Share of failures in the window that opens.
    pub rate_threshold: f64,
    /// Calls in the window below which its share of failures says nothing.
    pub rate_min_calls: u32,
    /// Share of slow calls in the window that opens.
    pub slow_threshold: f64,
    /// Calls in the window below which its share of slow ones says nothing.
    pub slow_min_calls: u32,
    /// The first open interval, before its jitter of 0 to +50 %.
    pub open_base: Duration,
    /// The longest open interval, before its jitter; intervals double while trials fail.
    pub open_max: Duration,
    /// How long a trial may hold the only permit.
    pub probe_lease: Duration,
    /// Good trials that close.
    pub probe_successes: u32,
    /// How long admission rises to all after closing.
    pub ramp: Duration,
    /// Share admitted at the start of the ramp.
    pub ramp_start: f64,
    /// Wait after a limit that named none; doubles for each further one until a call succeeds.
    pub cool_default: Duration,
    /// The longest of those doubled waits.
    pub cool_default_max: Duration,
    /// The longest wait that an upstream can impose by a limit.
    pub cool_max: Duration,
    /// How a spent allowance is renewed.
    pub quota: QuotaRenewal,
    /// Wait after a spent allowance for which no renewal is known.
    pub quota_retry: Duration,
    /// Least time between two trials of what is disabled.
    pub disabled_retry: Duration,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            failure_threshold: 5,
            window: Duration::from_secs(10),
            rate_threshold: 0.5,
            rate_min_calls: 10,
            slow_threshold: 0.8,
            slow_min_calls: 10,
            open_base: Duration::from_secs(60),
            open_max: Duration::from_secs(300),
            probe_lease: Duration::from_secs(20),
            probe_successes: 2,
            ramp: Duration::from_secs(30),
            ramp_start: 0.1,
            cool_default: Duration::from_secs(1),
            cool_default_max: Duration::from_secs(60),
            cool_max: Duration::from_secs(600),
            quota: QuotaRenewal::AfterWait,
            quota_retry: Duration::from_secs(3600),
            disabled_retry: Duration::from_secs(300),
        }
    }
}

/// No wait is longer, so that adding one to a clock cannot overflow and every answer is finite.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// No wait is shorter, so that a refusal always names a time in the future.
const SHORTEST: Duration = Duration::from_millis(1);

impl BreakerConfig {
    /// The same with every number brought into a range in which the breaker is well defined: counts at
    /// least 1, shares from 0 to 1, waits from 1 ms to 24 h, no maximum below its base.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        for count in [
            &mut self.failure_threshold,
            &mut self.rate_min_calls,
            &mut self.slow_min_calls,
            &mut self.probe_successes,
        ] {
            *count = (*count).max(1);
        }
        for (share, default) in
            [(&mut self.rate_threshold, 0.5), (&mut self.slow_threshold, 0.8), (&mut self.ramp_start, 0.1)]
        {
            *share = if share.is_finite() { share.clamp(0.0, 1.0) } else { default };
        }
        for wait in [
            &mut self.window,
            &mut self.open_base,
            &mut self.open_max,
            &mut self.probe_lease,
            &mut self.cool_default,
            &mut self.cool_default_max,
            &mut self.cool_max,
            &mut self.quota_retry,
            &mut self.disabled_retry,
        ] {
            *wait = (*wait).clamp(SHORTEST, LONGEST);
        }
        self.ramp = self.ramp.min(LONGEST);
        self.open_max = self.open_max.max(self.open_base);
        self.cool_default_max = self.cool_default_max.max(self.cool_default);
        self
    }

    /// The open interval after `failed_trials` trials failed in a row, before its jitter.
    pub fn open_interval(&self, failed_trials: u32) -> Duration {
        doubled(self.open_base, failed_trials, self.open_max)
    }

    /// The wait after a limit that named none, when `before` such waits came before it.
    pub(super) fn unnamed_wait(&self, before: u32) -> Duration {
        doubled(self.cool_default, before, self.cool_default_max)
    }
}

/// `base` doubled `times` times, at most `max`.
fn doubled(base: Duration, times: u32, max: Duration) -> Duration {
    // 2^20 of a millisecond is already beyond every maximum that `bounded` allows in practice.
    base.saturating_mul(1 << times.min(20)).min(max)
}
