//! What operators see of breakers, and what is saved of them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::config::BreakerConfig;
use super::face::{Renewal, Trip};
use super::machine::Breaker;
use super::words::StateName;
use crate::ids::ModelName;
use crate::moment::Moment;

/// All breakers of one backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendStatus {
    /// False when failures never open.
    pub enabled: bool,
    /// The breaker of transport and credential.
    pub backend: BreakerStatus,
    /// The breaker of each model that was asked so far.
    pub models: BTreeMap<ModelName, BreakerStatus>,
}

/// One breaker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BreakerStatus {
    /// Its state; of several that hold, the one hardest to mend.
    pub state: StateName,
    /// Seconds until asking may succeed; 0 when it may now. It may exceed what `state` alone explains.
    pub retry_in_seconds: f64,
    /// Share of callers admitted by the trip state: 1 closed, below 1 ramping, 0 open and half-open.
    pub admitted: f64,
    /// Failures since the last success.
    pub consecutive_failures: u32,
    /// Calls in the window.
    pub window_calls: u32,
    /// Failures among them.
    pub window_failures: u32,
    /// Slow ones among them.
    pub window_slow: u32,
    /// How often it opened since the start.
    pub trips: u64,
    /// Whether a trial is on its way.
    pub trial_in_flight: bool,
    /// Whether it is open by the operator's word.
    pub forced_open: bool,
}

impl BreakerStatus {
    pub(super) fn of(breaker: &Breaker, config: &BreakerConfig, at: Moment) -> Self {
        let counts = breaker.window.totals(at.mono);
        // A roll of 0: a ramp refuses some callers, but not for any time that could be named.
        let refused = breaker.admit(config, at, 0.0).err();
        Self {
            state: breaker.face.state(config, at.mono),
            retry_in_seconds: refused.map_or(0.0, |refused| refused.retry_in.as_secs_f64()),
            admitted: breaker.face.share(config, at.mono),
            consecutive_failures: breaker.consecutive,
            window_calls: counts.calls,
            window_failures: counts.failures,
            window_slow: counts.slow,
            trips: breaker.trips,
            trial_in_flight: breaker.face.lease.is_some_and(|lease| lease.expires > at.mono),
            forced_open: breaker.face.forced_open,
        }
    }

    pub(super) fn put_back(&self, breaker: &mut Breaker, config: &BreakerConfig, at: Moment) {
        // A saved file may say anything: bounded, and never a number that the clock cannot add.
        let left = Duration::try_from_secs_f64(self.retry_in_seconds).unwrap_or_default();
        let until = at.mono + left.min(Duration::from_secs(24 * 3600));
        breaker.renew(config, at.mono);
        breaker.trips = self.trips;
        breaker.face.forced_open = self.forced_open;
        match self.state {
            StateName::Closed | StateName::Ramping => {}
            // Where trips are off an opened breaker would never be tried again by rule, so it stays closed.
            StateName::Open | StateName::HalfOpen if self.forced_open || !config.enabled => {}
            StateName::Open | StateName::HalfOpen => breaker.face.trip = Trip::Open { until },
            StateName::Cooling => breaker.face.cooling = Some(until),
            StateName::Exhausted => breaker.face.exhausted = Some(Renewal::Mono(until)),
            StateName::Disabled => breaker.face.disabled = Some(until),
        }
    }
}
