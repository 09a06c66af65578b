//! How long to wait before a panicked worker is built again.

use std::time::Duration;

use tokio::time::Instant;

/// The figures of [`Backoff`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackoffPolicy {
    /// Delay before the second restart in a row; the first is immediate. Doubles from there.
    pub first: Duration,
    /// Longest delay.
    pub ceiling: Duration,
    /// A worker that lived this long (or twice its last delay, if longer) has settled: its next
    /// panic counts as the first again.
    pub settled: Duration,
    /// Up to this delay messages wait in the mailbox; during a longer one they are refused.
    pub hold: Duration,
}

impl Default for BackoffPolicy {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(10),
            ceiling: Duration::from_secs(5),
            settled: Duration::from_secs(1),
            hold: Duration::from_millis(80),
        }
    }
}

/// Restart delays of one worker: none, then `first` doubling to `ceiling` while it keeps failing.
#[derive(Debug)]
pub struct Backoff {
    policy: BackoffPolicy,
    /// Failures in a row.
    streak: u32,
    last_delay: Duration,
    alive_since: Option<Instant>,
}

impl Backoff {
    /// A worker that has not failed yet.
    #[must_use]
    pub fn new(policy: BackoffPolicy) -> Self {
        Self { policy, streak: 0, last_delay: Duration::ZERO, alive_since: None }
    }

    /// The worker stands since `now`.
    pub fn alive(&mut self, now: Instant) {
        self.alive_since = Some(now);
    }

    /// The worker failed at `now`: how long until it may be built again.
    pub fn failed(&mut self, now: Instant) -> Duration {
        let lived = self.alive_since.take().map_or(Duration::ZERO, |since| now.duration_since(since));
        if lived >= self.policy.settled.max(self.last_delay * 2) {
            self.streak = 0;
        }
        self.last_delay = match self.streak {
            0 => Duration::ZERO,
            // 2^20 times any useful first delay is past the ceiling.
            failures => (self.policy.first * (1 << (failures - 1).min(20))).min(self.policy.ceiling),
        };
        self.streak = self.streak.saturating_add(1);
        self.last_delay
    }

    /// Whether messages wait in the mailbox during this delay instead of being refused.
    #[must_use]
    pub fn holds(&self, delay: Duration) -> bool {
        delay <= self.policy.hold
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn first_restart_is_immediate_then_the_delay_doubles_to_the_ceiling() {
        let start = Instant::now();
        let mut backoff = Backoff::new(BackoffPolicy::default());
        let delays: Vec<u128> = (0..14)
            .map(|_| {
                backoff.alive(start);
                backoff.failed(start).as_millis()
            })
            .collect();
        assert_eq!(delays, [0, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5000, 5000, 5000, 5000]);
    }

    #[test]
    fn a_worker_that_settled_starts_over() {
        let start = Instant::now();
        let mut backoff = Backoff::new(BackoffPolicy::default());
        for _ in 0..3 {
            backoff.alive(start);
            backoff.failed(start);
        }
        backoff.alive(start);
        assert_eq!(backoff.failed(after(start, 999)).as_millis(), 40);
        backoff.alive(after(start, 2000));
        assert_eq!(backoff.failed(after(start, 3000)).as_millis(), 0);
    }

    #[test]
    fn settling_takes_twice_the_last_delay() {
        let start = Instant::now();
        let mut backoff = Backoff::new(BackoffPolicy::default());
        for _ in 0..20 {
            backoff.failed(start);
        }
        backoff.alive(start);
        assert_eq!(backoff.failed(after(start, 9_999)).as_millis(), 5000);
        backoff.alive(start);
        assert_eq!(backoff.failed(after(start, 10_000)).as_millis(), 0);
    }

    #[test]
    fn a_factory_that_never_succeeds_never_settles() {
        let start = Instant::now();
        let mut backoff = Backoff::new(BackoffPolicy::default());
        backoff.failed(start);
        backoff.failed(after(start, 60_000));
        assert_eq!(backoff.failed(after(start, 120_000)).as_millis(), 20);
    }

    #[test]
    fn the_mailbox_is_held_for_short_delays_only() {
        let backoff = Backoff::new(BackoffPolicy::default());
        assert!(backoff.holds(Duration::from_millis(80)));
        assert!(!backoff.holds(Duration::from_millis(160)));
    }
}
