//! Counts of the last seconds.

use std::time::{Duration, Instant};

const BUCKETS: u64 = 10;

/// Calls by how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) calls: u32,
    pub(super) failures: u32,
    pub(super) slow: u32,
}

impl Counts {
    fn add(&mut self, more: Counts) {
        self.calls = self.calls.saturating_add(more.calls);
        self.failures = self.failures.saturating_add(more.failures);
        self.slow = self.slow.saturating_add(more.slow);
    }
}

/// A sliding window in ten buckets: what falls out, falls out a bucket at a time.
#[derive(Clone, Debug)]
pub(super) struct Window {
    width: Duration,
    buckets: [Counts; BUCKETS as usize],
    /// Number of the newest bucket, counted from `origin`.
    head: u64,
    origin: Option<Instant>,
}

impl Window {
    pub(super) fn new(length: Duration) -> Self {
        let width = (length / BUCKETS as u32).max(Duration::from_micros(1));
        Self { width, buckets: [Counts::default(); BUCKETS as usize], head: 0, origin: None }
    }

    pub(super) fn add(&mut self, now: Instant, counts: Counts) {
        self.advance(now);
        self.buckets[(self.head % BUCKETS) as usize].add(counts);
    }

    pub(super) fn totals(&self, now: Instant) -> Counts {
        let head = self.number(now).max(self.head);
        let mut sum = Counts::default();
        // Of the buckets kept, those still inside the window that ends at `now`.
        for back in (head - self.head)..BUCKETS {
            if let Some(number) = head.checked_sub(back) {
                sum.add(self.buckets[(number % BUCKETS) as usize]);
            }
        }
        sum
    }

    pub(super) fn clear(&mut self) {
        self.buckets = [Counts::default(); BUCKETS as usize];
    }

    /// A report that arrives late counts in the newest bucket: its exact second does not matter.
    fn advance(&mut self, now: Instant) {
        self.origin.get_or_insert(now);
        let number = self.number(now);
        for passed in 1..=number.saturating_sub(self.head).min(BUCKETS) {
            self.buckets[((self.head + passed) % BUCKETS) as usize] = Counts::default();
        }
        self.head = self.head.max(number);
    }

    fn number(&self, now: Instant) -> u64 {
        let since = self.origin.map_or(Duration::ZERO, |origin| now.saturating_duration_since(origin));
        u64::try_from(since.as_nanos() / self.width.as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Counts = Counts { calls: 1, failures: 1, slow: 0 };

    #[test]
    fn counts_leave_the_window_a_bucket_at_a_time() {
        let start = Instant::now();
        let at = |secs: u64| start + Duration::from_secs(secs);
        let mut window = Window::new(Duration::from_secs(10));
        window.add(at(0), ONE);
        window.add(at(5), ONE);
        assert_eq!(window.totals(at(9)).failures, 2);
        assert_eq!(window.totals(at(10)).failures, 1);
        assert_eq!(window.totals(at(15)).failures, 0);
        window.add(at(1_000_000), ONE);
        assert_eq!(window.totals(at(1_000_000)), ONE);
    }

    #[test]
    fn a_late_report_counts_in_the_newest_bucket() {
        let start = Instant::now();
        let mut window = Window::new(Duration::from_secs(10));
        window.add(start + Duration::from_secs(7), ONE);
        window.add(start, ONE);
        assert_eq!(window.totals(start + Duration::from_secs(7)).calls, 2);
    }
}
