//! What a breaker shows: all that admission depends on, small enough to be copied into a snapshot.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::config::BreakerConfig;
use super::words::{Refused, RefusedWhy, StateName};
use crate::moment::Moment;

/// The trip state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Trip {
    /// Admits, in part while a ramp lasts.
    Closed { ramp_from: Option<Instant> },
    /// Refuses until then; afterwards the next caller is a trial.
    Open { until: Instant },
    /// Admits trials only.
    HalfOpen,
}

/// When an allowance is renewed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Renewal {
    /// By the vendor's calendar.
    Wall(Timestamp),
    /// By a wait.
    Mono(Instant),
}

impl Renewal {
    /// What is left of it.
    pub(super) fn left(self, at: Moment) -> Duration {
        match self {
            Renewal::Wall(then) => Duration::try_from(then.duration_since(at.wall)).unwrap_or_default(),
            Renewal::Mono(then) => then.saturating_duration_since(at.mono),
        }
    }
}

/// The one trial in flight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Lease {
    pub(super) id: u64,
    pub(super) expires: Instant,
}

/// Everything that admission depends on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Face {
    pub(super) trip: Trip,
    pub(super) cooling: Option<Instant>,
    pub(super) exhausted: Option<Renewal>,
    /// Disabled, with the time from which one trial is allowed.
    pub(super) disabled: Option<Instant>,
    pub(super) lease: Option<Lease>,
    pub(super) forced_open: bool,
}

impl Face {
    pub(super) const NEW: Face = Face {
        trip: Trip::Closed { ramp_from: None },
        cooling: None,
        exhausted: None,
        disabled: None,
        lease: None,
        forced_open: false,
    };
}

/// A way in that is not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Pass,
    Trial,
}

/// Keeps the longest of several refusals.
#[derive(Default)]
struct Longest(Option<Refused>);

impl Longest {
    /// Notes a reason if any of it is left; says whether it was over.
    fn is_over(&mut self, reason: RefusedWhy, left: Duration) -> bool {
        if left.is_zero() {
            return true;
        }
        let retry_in = left.max(Duration::from_millis(1));
        if self.0.is_none_or(|longest| longest.retry_in < retry_in) {
            self.0 = Some(Refused { reason, retry_in });
        }
        false
    }
}

impl Face {
    /// Who may go in now. `roll` is uniform in [0, 1).
    pub(super) fn admit(&self, config: &BreakerConfig, at: Moment, roll: f64) -> Result<Admission, Refused> {
        if *self == Face::NEW {
            return Ok(Admission::Pass);
        }
        let mut longest = Longest::default();
        let mut trial = false;
        if self.forced_open {
            longest.is_over(RefusedWhy::Open, config.open_base);
        }
        if let Some(until) = self.cooling {
            longest.is_over(RefusedWhy::Cooling, until.saturating_duration_since(at.mono));
        }
        if let Some(renewal) = self.exhausted {
            trial |= longest.is_over(RefusedWhy::Exhausted, renewal.left(at));
        }
        if let Some(next) = self.disabled {
            trial |= longest.is_over(RefusedWhy::Disabled, next.saturating_duration_since(at.mono));
        }
        match self.trip {
            Trip::Open { until } => {
                trial |= longest.is_over(RefusedWhy::Open, until.saturating_duration_since(at.mono));
            }
            Trip::HalfOpen => trial = true,
            Trip::Closed { .. } => {}
        }
        if trial && let Some(lease) = self.lease {
            longest.is_over(RefusedWhy::TrialInFlight, lease.expires.saturating_duration_since(at.mono));
        }
        match longest.0 {
            Some(refused) => Err(refused),
            None if trial => Ok(Admission::Trial),
            None => self.ramp(config, at.mono, roll),
        }
    }

    fn ramp(&self, config: &BreakerConfig, now: Instant, roll: f64) -> Result<Admission, Refused> {
        let share = self.share(config, now);
        // A roll that is not a number must not shut the door for good.
        if roll.is_nan() || roll < share || share >= 1.0 {
            return Ok(Admission::Pass);
        }
        // The moment at which this very roll would be admitted.
        let wait = config.ramp.mul_f64(((roll.min(1.0) - share) / (1.0 - config.ramp_start)).clamp(0.0, 1.0));
        Err(Refused { reason: RefusedWhy::Ramping, retry_in: wait.max(Duration::from_millis(1)) })
    }

    /// The share that the trip state admits now.
    pub(super) fn share(&self, config: &BreakerConfig, now: Instant) -> f64 {
        match self.trip {
            Trip::Closed { ramp_from: None } => 1.0,
            Trip::Closed { ramp_from: Some(from) } => {
                let passed = now.saturating_duration_since(from);
                if passed >= config.ramp {
                    return 1.0;
                }
                let part = passed.as_secs_f64() / config.ramp.as_secs_f64();
                config.ramp_start + (1.0 - config.ramp_start) * part
            }
            Trip::Open { .. } | Trip::HalfOpen => 0.0,
        }
    }

    /// The state by name: of several things that hold, the one hardest to mend.
    pub(super) fn state(&self, config: &BreakerConfig, now: Instant) -> StateName {
        if self.forced_open {
            return StateName::Open;
        }
        if self.disabled.is_some() {
            return StateName::Disabled;
        }
        if self.exhausted.is_some() {
            return StateName::Exhausted;
        }
        match self.trip {
            Trip::Open { .. } => StateName::Open,
            Trip::HalfOpen => StateName::HalfOpen,
            Trip::Closed { .. } if self.cooling.is_some_and(|until| until > now) => StateName::Cooling,
            Trip::Closed { .. } if self.share(config, now) < 1.0 => StateName::Ramping,
            Trip::Closed { .. } => StateName::Closed,
        }
    }
}
