//! Who may work now, who waits, who is turned away.
//!
//! A slot is taken before work starts and given back when the answer's last byte has left. Two lanes share
//! the slots: a person who waits (`Live`) and work that does not mind (`Batch`).
//!
//! * Batch always has its share of the slots (a tenth, at least one). Beyond it batch takes what is idle, but
//!   leaves a share of the same size free, so that a person never finds every slot held by batch work.
//! * The queue holds twice the slots, parted by the same shares: neither lane can fill the other's places.
//! * A freed slot goes to batch while batch is below its share, else to live first.
//!
//! This type only counts. Its owner keeps those who wait, in the order of their arrival in each lane.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Which share a request belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// Someone waits for the answer.
    Live,
    /// Nobody does.
    Batch,
}

/// The numbers of a [`Limiter`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdmissionConfig {
    /// Requests worked on at once, at least 1.
    pub max_in_flight: u32,
    /// Requests waiting at most, usually twice those worked on.
    pub queue: u32,
    /// The longest wait for a slot.
    pub max_wait: Duration,
    /// Batch work's share, from 0 to 1.
    pub batch_share: f64,
}

impl Default for AdmissionConfig {
    fn default() -> Self {
        Self { max_in_flight: 64, queue: 128, max_wait: Duration::from_secs(10), batch_share: 0.1 }
    }
}

/// What becomes of an arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has a slot.
    Run,
    /// It waits for one, no longer than until then.
    Wait {
        /// When to give up.
        until: Instant,
    },
    /// It is turned away.
    Refuse {
        /// When coming again may succeed: whole seconds, 1 to 60.
        retry_after: Duration,
    },
}

/// Requests of one lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LaneCounts {
    /// Worked on.
    pub running: u32,
    /// Waiting.
    pub waiting: u32,
}

/// Requests of both lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LimiterCounts {
    /// Someone waits.
    pub live: LaneCounts,
    /// Nobody does.
    pub batch: LaneCounts,
}

impl LimiterCounts {
    fn lane(&mut self, lane: Lane) -> &mut LaneCounts {
        match lane {
            Lane::Live => &mut self.live,
            Lane::Batch => &mut self.batch,
        }
    }

    /// Requests with a slot.
    pub fn running(&self) -> u32 {
        self.live.running + self.batch.running
    }

    /// Requests waiting for one.
    pub fn waiting(&self) -> u32 {
        self.live.waiting + self.batch.waiting
    }
}

/// The counting behind admission.
#[derive(Clone, Debug)]
pub struct Limiter {
    slots: u32,
    live_queue: u32,
    batch_slots: u32,
    batch_queue: u32,
    max_wait: Duration,
    counts: LimiterCounts,
    /// Smoothed seconds of service, once any was seen.
    service_seconds: Option<f64>,
}

/// Weight of the newest service time in the smoothed one.
const NEWEST: f64 = 0.1;

impl Limiter {
    /// An idle limiter.
    pub fn new(config: AdmissionConfig) -> Self {
        let slots = config.max_in_flight.max(1);
        let queue = config.queue;
        let share = if config.batch_share.is_finite() { config.batch_share.clamp(0.0, 1.0) } else { 0.1 };
        let part = |of: u32| ((f64::from(of) * share) as u32).clamp(u32::from(of > 0), of);
        Self {
            slots,
            live_queue: queue - part(queue),
            batch_slots: part(slots),
            batch_queue: part(queue),
            max_wait: config.max_wait,
            counts: LimiterCounts::default(),
            service_seconds: None,
        }
    }

    /// A request comes.
    pub fn arrive(&mut self, lane: Lane, now: Instant) -> Verdict {
        // Nobody overtakes those of the same lane who wait.
        if self.counts.lane(lane).waiting == 0 && self.may_run(lane) {
            self.counts.lane(lane).running += 1;
            return Verdict::Run;
        }
        let room = match lane {
            Lane::Live => self.counts.live.waiting < self.live_queue,
            Lane::Batch => self.counts.batch.waiting < self.batch_queue,
        };
        if !room || self.max_wait.is_zero() {
            return Verdict::Refuse { retry_after: self.retry_after() };
        }
        self.counts.lane(lane).waiting += 1;
        Verdict::Wait { until: now + self.max_wait }
    }

    /// A request is done after `service`; its slot is free. Ask [`Limiter::admit_next`] until it says `None`.
    /// A service time is `None` where it says nothing of the next one, such as a request cancelled at once.
    pub fn release(&mut self, lane: Lane, service: Option<Duration>) {
        let counts = self.counts.lane(lane);
        counts.running = counts.running.saturating_sub(1);
        if let Some(seconds) = service.map(|service| service.as_secs_f64()) {
            let old = self.service_seconds.unwrap_or(seconds);
            self.service_seconds = Some(old + NEWEST * (seconds - old));
        }
    }

    /// The lane whose first waiter gets a slot now; the slot is taken and the waiter no longer counted as
    /// one. `None` when there is no slot or nobody for it.
    pub fn admit_next(&mut self) -> Option<Lane> {
        let batch_waits = self.counts.batch.waiting > 0;
        let batch_is_short = self.counts.batch.running < self.batch_slots;
        let order =
            if batch_waits && batch_is_short { [Lane::Batch, Lane::Live] } else { [Lane::Live, Lane::Batch] };
        let lane =
            order.into_iter().find(|&lane| self.counts.lane(lane).waiting > 0 && self.may_run(lane))?;
        let counts = self.counts.lane(lane);
        counts.waiting -= 1;
        counts.running += 1;
        Some(lane)
    }

    /// A waiter leaves, or waited too long. Ask [`Limiter::admit_next`] afterwards: one who waits behind may run.
    pub fn give_up(&mut self, lane: Lane) {
        let counts = self.counts.lane(lane);
        counts.waiting = counts.waiting.saturating_sub(1);
    }

    /// Requests now.
    pub fn counts(&self) -> LimiterCounts {
        self.counts
    }

    /// When a newcomer may expect a slot: all who wait, served in turns of `slots` at the usual service
    /// time (Little's law); whole seconds, 1 to 60. A second where nothing was served yet.
    pub fn retry_after(&self) -> Duration {
        let turns = f64::from(self.counts.waiting() + 1) / f64::from(self.slots);
        let seconds = (turns * self.service_seconds.unwrap_or(0.0)).ceil();
        Duration::from_secs_f64(seconds.clamp(1.0, 60.0))
    }

    fn may_run(&self, lane: Lane) -> bool {
        let free = self.slots.saturating_sub(self.counts.running());
        match lane {
            Lane::Live => free > 0,
            Lane::Batch if self.counts.batch.running < self.batch_slots => free > 0,
            Lane::Batch => self.counts.live.waiting == 0 && free > self.batch_slots,
        }
    }
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
