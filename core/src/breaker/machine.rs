//! The state machine of one breaker: of a model, or of a backend's transport.

use std::time::{Duration, Instant};

use super::config::{BreakerConfig, QuotaRenewal};
use super::face::{Admission, Face, Lease, Renewal, Trip};
use super::window::{Counts, Window};
use super::words::Refused;
use crate::moment::Moment;
use crate::quota::next_pacific_midnight;

/// What an outcome says to one breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It works.
    Good { slow: bool },
    /// It fails.
    Bad,
    /// No failure of this breaker's own, but a trial has not proved what it was to prove.
    Unproven,
    /// Nothing.
    Neutral,
}

/// What the upstream asked for beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    None,
    Cool(Option<Duration>),
    Exhaust(Option<Duration>),
    Disable,
}

/// An outcome as one breaker sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signal {
    pub(super) verdict: Verdict,
    pub(super) hold: Hold,
    /// Whether, in a trial, it shows that an allowance is renewed or a configuration mended.
    pub(super) lifts_holds: bool,
    /// Set where repeated failures of one request count once.
    pub(super) once_for: Option<u64>,
    pub(super) last_backend: bool,
}

/// Jitter of a calendar renewal, so that many processes do not come at once.
const RENEWAL_JITTER: Duration = Duration::from_secs(60);

/// One breaker.
#[derive(Clone, Debug)]
pub(super) struct Breaker {
    pub(super) face: Face,
    pub(super) window: Window,
    pub(super) consecutive: u32,
    pub(super) trips: u64,
    /// Trials failed in a row: how often the open interval has doubled.
    failed_trials: u32,
    good_trials: u32,
    /// The first permit that counts for what is being tried now; older ones are of an earlier episode.
    first_lease: Option<u64>,
    /// Limits in a row that named no wait.
    unnamed_cools: u32,
    counted: Ring,
    pub(super) last_used: Instant,
}

impl Breaker {
    pub(super) fn new(config: &BreakerConfig, now: Instant) -> Self {
        Self {
            face: Face::NEW,
            window: Window::new(config.window),
            consecutive: 0,
            trips: 0,
            failed_trials: 0,
            good_trials: 0,
            first_lease: None,
            unnamed_cools: 0,
            counted: Ring::default(),
            last_used: now,
        }
    }

    /// Makes it as new, but for the count of its openings.
    pub(super) fn renew(&mut self, config: &BreakerConfig, now: Instant) {
        *self = Self { trips: self.trips, ..Self::new(config, now) };
    }

    pub(super) fn admit(&self, config: &BreakerConfig, at: Moment, roll: f64) -> Result<Admission, Refused> {
        self.face.admit(config, at, roll)
    }

    /// Grants the one permit; only after [`Breaker::admit`] said that a trial is due.
    pub(super) fn grant(&mut self, id: u64, config: &BreakerConfig, now: Instant) {
        if matches!(self.face.trip, Trip::Open { .. }) {
            self.face.trip = Trip::HalfOpen;
            self.good_trials = 0;
        }
        self.first_lease.get_or_insert(id);
        self.face.lease = Some(Lease { id, expires: now + config.probe_lease });
        if self.face.disabled.is_some() {
            // Moved on at the grant and not at the outcome, so that cancelled trials are rare too.
            self.face.disabled = Some(now + config.disabled_retry);
        }
    }

    /// Takes one outcome in. `roll` is uniform in [0, 1).
    pub(super) fn apply(
        &mut self,
        signal: Signal,
        lease: Option<u64>,
        config: &BreakerConfig,
        at: Moment,
        roll: f64,
    ) {
        self.last_used = self.last_used.max(at.mono);
        let trial = lease.is_some_and(|id| self.takes_back(id));
        let again = trial && self.face.exhausted.is_some();
        if trial && signal.lifts_holds {
            self.face.exhausted = None;
            self.face.disabled = None;
        }
        match self.face.trip {
            Trip::HalfOpen if trial => self.judge_trial(signal.verdict, config, at.mono, roll),
            Trip::Closed { .. } => self.count(signal, config, at.mono, roll),
            // What began before the opening proves nothing about now.
            Trip::HalfOpen | Trip::Open { .. } => {}
        }
        self.hold(signal.hold, again, config, at, roll);
        if self.face.exhausted.is_none() && self.face.disabled.is_none() && self.face.trip != Trip::HalfOpen {
            self.first_lease = None;
        }
    }

    /// Successes of the closed state that were counted elsewhere and come in one number.
    pub(super) fn succeed(&mut self, n: u32, now: Instant) {
        self.last_used = self.last_used.max(now);
        if n > 0 && matches!(self.face.trip, Trip::Closed { .. }) {
            self.window.add(now, Counts { calls: n, ..Counts::default() });
            self.consecutive = 0;
            self.unnamed_cools = 0;
        }
    }

    /// Gives a permit back; says whether it counts for what is being tried now. A lease that has run out
    /// still counts: a slow proof is a proof.
    fn takes_back(&mut self, id: u64) -> bool {
        if self.face.lease.is_some_and(|lease| lease.id == id) {
            self.face.lease = None;
        }
        self.first_lease.is_some_and(|first| id >= first)
    }

    fn judge_trial(&mut self, verdict: Verdict, config: &BreakerConfig, now: Instant, roll: f64) {
        match verdict {
            Verdict::Good { .. } => {
                self.good_trials += 1;
                if self.good_trials >= config.probe_successes {
                    self.close(Some(now));
                }
            }
            Verdict::Bad | Verdict::Unproven => {
                self.failed_trials = self.failed_trials.saturating_add(1);
                self.open(config, now, roll);
            }
            Verdict::Neutral => {}
        }
    }

    fn count(&mut self, signal: Signal, config: &BreakerConfig, now: Instant, roll: f64) {
        match signal.verdict {
            Verdict::Good { slow } => {
                self.succeed(1, now);
                self.window.add(now, Counts { slow: u32::from(slow), ..Counts::default() });
            }
            Verdict::Bad if signal.once_for.is_some_and(|request| self.counted.has_or_add(request)) => return,
            Verdict::Bad => {
                self.window.add(now, Counts { calls: 1, failures: 1, slow: 0 });
                self.consecutive = self.consecutive.saturating_add(1);
            }
            Verdict::Unproven | Verdict::Neutral => return,
        }
        if config.enabled && self.is_over(signal, config, now) {
            self.failed_trials = 0;
            self.open(config, now, roll);
        }
    }

    /// Whether the counts are beyond a threshold that this outcome can cross.
    fn is_over(&self, signal: Signal, config: &BreakerConfig, now: Instant) -> bool {
        let counts = self.window.totals(now);
        let share = |part: u32| f64::from(part) / f64::from(counts.calls.max(1));
        match signal.verdict {
            Verdict::Bad => {
                self.consecutive >= config.failure_threshold
                    || counts.calls >= config.rate_min_calls
                        && share(counts.failures) >= config.rate_threshold
            }
            Verdict::Good { slow: true } => {
                !signal.last_backend
                    && counts.calls >= config.slow_min_calls
                    && share(counts.slow) >= config.slow_threshold
            }
            Verdict::Good { slow: false } | Verdict::Unproven | Verdict::Neutral => false,
        }
    }

    fn open(&mut self, config: &BreakerConfig, now: Instant, roll: f64) {
        let jitter = 1.0 + 0.5 * unit(roll);
        let interval = config.open_interval(self.failed_trials).mul_f64(jitter);
        self.face.trip = Trip::Open { until: now + interval };
        self.face.lease = None;
        self.first_lease = None;
        self.trips = self.trips.saturating_add(1);
    }

    /// Closes, with a ramp from `ramp_from` on or with none.
    pub(super) fn close(&mut self, ramp_from: Option<Instant>) {
        self.face.trip = Trip::Closed { ramp_from };
        self.face.lease = None;
        self.window.clear();
        self.consecutive = 0;
        self.failed_trials = 0;
        self.good_trials = 0;
        self.counted = Ring::default();
    }

    fn hold(&mut self, hold: Hold, again: bool, config: &BreakerConfig, at: Moment, roll: f64) {
        match hold {
            Hold::None => {}
            Hold::Cool(named) => self.cool(named, config, at.mono),
            Hold::Exhaust(named) => {
                let next = renewal(named, again, config, at, roll);
                let longer = self.face.exhausted.is_none_or(|old| old.left(at) < next.left(at));
                if longer {
                    self.face.exhausted = Some(next);
                    self.first_lease = None;
                }
            }
            Hold::Disable => {
                let next = at.mono + config.disabled_retry;
                self.face.disabled = Some(self.face.disabled.map_or(next, |old| old.max(next)));
            }
        }
    }

    fn cool(&mut self, named: Option<Duration>, config: &BreakerConfig, now: Instant) {
        // A wait of nothing is no wait named: "come at once" beside a refusal would be a busy loop.
        let wait = match named.filter(|wait| !wait.is_zero()) {
            Some(wait) => wait,
            None => {
                let wait = config.unnamed_wait(self.unnamed_cools);
                // The calls of one burst are refused together: only a limit met after the last pause is new.
                if self.face.cooling.is_none_or(|until| until <= now) {
                    self.unnamed_cools = self.unnamed_cools.saturating_add(1);
                }
                wait
            }
        };
        let until = now + wait.min(config.cool_max);
        self.face.cooling = Some(self.face.cooling.map_or(until, |old| old.max(until)));
    }
}

/// When a spent allowance comes back. `again`: it was still spent at its own renewal, so it is asked for
/// after the usual retry and not after another whole day, which a clock that differs from the vendor's
/// would cost otherwise.
fn renewal(named: Option<Duration>, again: bool, config: &BreakerConfig, at: Moment, roll: f64) -> Renewal {
    if config.quota == QuotaRenewal::PacificMidnight && !again {
        let jitter = RENEWAL_JITTER.mul_f64(unit(roll));
        let midnight = next_pacific_midnight(at.wall);
        return Renewal::Wall(midnight.checked_add(jitter).unwrap_or(midnight));
    }
    let wait = named.filter(|wait| !wait.is_zero()).unwrap_or(config.quota_retry);
    Renewal::Mono(at.mono + wait.min(Duration::from_secs(24 * 3600)))
}

/// A roll as a number from 0 to 1, whatever was given.
fn unit(roll: f64) -> f64 {
    if roll.is_finite() { roll.clamp(0.0, 1.0) } else { 0.5 }
}

/// The last 64 requests whose server error was counted.
#[derive(Clone, Debug)]
struct Ring {
    seen: [Option<u64>; 64],
    next: usize,
}

impl Default for Ring {
    fn default() -> Self {
        Self { seen: [None; 64], next: 0 }
    }
}

impl Ring {
    fn has_or_add(&mut self, request: u64) -> bool {
        let known = self.seen.contains(&Some(request));
        if !known {
            self.seen[self.next] = Some(request);
            self.next = (self.next + 1) % self.seen.len();
        }
        known
    }
}
