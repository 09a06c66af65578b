//! When to try again, how long to wait before, and how long one attempt may take.
//!
//! Three rules meet here:
//!
//! * *A client sees no error as long as one backend can answer.* So a request's first attempt at any backend
//!   is never refused (a breaker bounds what a backend in an outage gets), and neither is one at the last
//!   resort, which runs in this process and loads nobody else.
//! * *Retries must not feed an outage.* So repeating the same backend, and going on to another of its models,
//!   is paid from a budget: a tenth of the requests of the last ten seconds, and three a second that keep
//!   small deployments from starving. First failovers are charged too, which stops the optional retries
//!   first. (The shape is Finagle's retry budget: deposits that expire, and a reserve.)
//! * *While another candidate is left, no attempt may use the whole deadline.* See [`attempt_budget`].

use std::time::{Duration, Instant};

/// The numbers of a [`RetryBudget`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryConfig {
    /// Retries allowed for each request, from 0 to 1.
    pub share: f64,
    /// Retries a second allowed whatever the number of requests.
    pub reserve_per_second: f64,
    /// Over how long both are counted.
    pub window: Duration,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self { share: 0.1, reserve_per_second: 3.0, window: Duration::from_secs(10) }
    }
}

/// What a further attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same backend again.
    Repeat,
    /// Another backend, for the first time in this request.
    FirstFailover,
    /// Another model of a backend that this request has called already.
    LaterFailover,
    /// The backend of last resort.
    LastResort,
}

const BUCKETS: usize = 10;

/// A budget of retries over a sliding window.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    config: RetryConfig,
    buckets: [Bucket; BUCKETS],
    /// Number of the newest bucket since `origin`.
    head: u64,
    origin: Instant,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    requests: u64,
    retries: u64,
}

impl RetryBudget {
    /// An unused budget. Shares that are not finite or negative count as 0.
    pub fn new(mut config: RetryConfig, now: Instant) -> Self {
        for number in [&mut config.share, &mut config.reserve_per_second] {
            *number = if number.is_finite() { number.max(0.0) } else { 0.0 };
        }
        config.window = config.window.max(Duration::from_millis(10));
        Self { config, buckets: [Bucket::default(); BUCKETS], head: 0, origin: now }
    }

    /// Notes a request (not an attempt).
    pub fn on_request(&mut self, now: Instant) {
        self.newest(now).requests += 1;
    }

    /// Asks for a further attempt and, when it is allowed, charges it.
    pub fn try_spend(&mut self, retry: Retry, now: Instant) -> bool {
        let bucket = self.newest(now);
        match retry {
            Retry::LastResort => return true,
            Retry::FirstFailover => {
                bucket.retries += 1;
                return true;
            }
            Retry::Repeat | Retry::LaterFailover => {}
        }
        let allowed = self.left(now) >= 1.0;
        if allowed {
            self.newest(now).retries += 1;
        }
        allowed
    }

    /// Retries left now; below zero when first failovers have overdrawn it.
    pub fn left(&mut self, now: Instant) -> f64 {
        self.newest(now);
        let sum = self.buckets.iter().fold(Bucket::default(), |sum, bucket| Bucket {
            requests: sum.requests + bucket.requests,
            retries: sum.retries + bucket.retries,
        });
        let reserve = self.config.reserve_per_second * self.config.window.as_secs_f64();
        reserve + self.config.share * sum.requests as f64 - sum.retries as f64
    }

    fn newest(&mut self, now: Instant) -> &mut Bucket {
        let width = self.config.window.as_nanos() / BUCKETS as u128;
        let since = now.saturating_duration_since(self.origin).as_nanos();
        let number = u64::try_from(since / width).unwrap_or(u64::MAX);
        for passed in 1..=number.saturating_sub(self.head).min(BUCKETS as u64) {
            self.buckets[((self.head + passed) % BUCKETS as u64) as usize] = Bucket::default();
        }
        self.head = self.head.max(number);
        &mut self.buckets[(self.head % BUCKETS as u64) as usize]
    }
}

/// The delay before asking the same backend again: uniform between nothing and `base` doubled for each
/// earlier `attempt` (0 for the first repeat), at most `cap`. `roll` is uniform in [0, 1).
///
/// Full jitter, as in M. Brooker, "Exponential Backoff And Jitter" (2015).
pub fn backoff(attempt: u32, base: Duration, cap: Duration, roll: f64) -> Duration {
    let longest = base.saturating_mul(1 << attempt.min(30)).min(cap);
    let roll = if roll.is_finite() { roll.clamp(0.0, 1.0) } else { 0.5 };
    // `mul_f64` may round up by a nanosecond, and panics beyond what a `Duration` can hold.
    Duration::try_from_secs_f64(longest.as_secs_f64() * roll).unwrap_or(longest).min(longest)
}

/// No attempt is worth making with less than this, as long as half the time left allows it.
const FLOOR: Duration = Duration::from_millis(250);

/// How long one attempt may stay silent before another candidate is asked.
///
/// With no candidate left: all that remains. Otherwise an equal share of it, but at least 250 ms, and at the
/// most half, so that there is always time for another answer. Never more than `cap`, the usual budget for
/// a first token.
pub fn attempt_budget(remaining: Duration, candidates_left: usize, cap: Duration) -> Duration {
    if candidates_left == 0 {
        return remaining.min(cap);
    }
    let sharers = u32::try_from(candidates_left).unwrap_or(u32::MAX).saturating_add(1);
    (remaining / sharers).max(FLOOR.min(remaining / 2)).min(cap)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn a_hang_leaves_time_for_the_other_candidate() {
        assert_eq!(attempt_budget(MS(5000), 1, MS(20_000)), MS(2500));
        assert_eq!(attempt_budget(MS(5000), 0, MS(20_000)), MS(5000));
        assert_eq!(attempt_budget(MS(300_000), 2, MS(20_000)), MS(20_000));
        assert_eq!(attempt_budget(MS(600), 5, MS(20_000)), MS(250));
        assert_eq!(attempt_budget(MS(100), 5, MS(20_000)), MS(50));
    }

    #[test]
    fn sustained_repeats_stay_at_a_tenth() {
        let start = Instant::now();
        let mut budget =
            RetryBudget::new(RetryConfig { reserve_per_second: 0.0, ..Default::default() }, start);
        let mut spent = 0_u32;
        for i in 0..60_000_u64 {
            let now = start + MS(i);
            budget.on_request(now);
            spent += u32::from(budget.try_spend(Retry::Repeat, now));
        }
        assert!((5_900..=6_000).contains(&spent), "{spent}");
    }

    #[test]
    fn the_reserve_serves_quiet_times_and_runs_out() {
        let start = Instant::now();
        let mut budget = RetryBudget::new(RetryConfig::default(), start);
        let granted = (0..100).filter(|_| budget.try_spend(Retry::Repeat, start)).count();
        assert_eq!(granted, 30);
        assert!(budget.try_spend(Retry::FirstFailover, start), "a first failover is never refused");
        assert!(budget.try_spend(Retry::LastResort, start));
        assert!(!budget.try_spend(Retry::LaterFailover, start));
        assert!(budget.try_spend(Retry::Repeat, start + Duration::from_secs(10)));
    }

    #[test]
    fn first_failovers_starve_the_optional_retries() {
        let start = Instant::now();
        let mut budget = RetryBudget::new(RetryConfig::default(), start);
        for _ in 0..30 {
            assert!(budget.try_spend(Retry::FirstFailover, start));
        }
        assert!(!budget.try_spend(Retry::Repeat, start));
    }

    proptest! {
        #[test]
        fn back_off_is_within_its_doubling_and_its_cap(
            attempt in 0u32..100, base in 0u64..10_000, cap in 0u64..10_000, roll in 0.0..1.0f64,
        ) {
            let longest = MS(base).saturating_mul(1 << attempt.min(30)).min(MS(cap));
            let wait = backoff(attempt, MS(base), MS(cap), roll);
            prop_assert!(wait <= longest);
            let full = backoff(attempt, MS(base), MS(cap), 1.0);
            prop_assert!(longest.saturating_sub(full) <= Duration::from_nanos(1));
            prop_assert_eq!(backoff(attempt, MS(base), MS(cap), 0.0), Duration::ZERO);
        }

        #[test]
        fn an_attempt_never_uses_what_others_need(
            remaining in 0u64..400_000, left in 0usize..12, cap in 1u64..100_000,
        ) {
            let budget = attempt_budget(MS(remaining), left, MS(cap));
            prop_assert!(budget <= MS(remaining) && budget <= MS(cap));
            if left > 0 {
                prop_assert!(budget <= MS(remaining) / 2);
            }
        }

        #[test]
        fn what_is_granted_is_paid_for(
            steps in proptest::collection::vec((0u64..3000, 0u8..3), 1..300),
        ) {
            let start = Instant::now();
            let mut now = start;
            let mut budget = RetryBudget::new(RetryConfig::default(), start);
            let (mut requests, mut grants) = (Vec::new(), Vec::new());
            for (wait, what) in steps {
                now += MS(wait);
                let granted = match what {
                    0 => { budget.on_request(now); requests.push(now); false }
                    1 => budget.try_spend(Retry::Repeat, now),
                    _ => budget.try_spend(Retry::LaterFailover, now),
                };
                if granted {
                    grants.push(now);
                    // Ten buckets hold at least nine seconds; what paid lies at most ten before its grant.
                    let within = |times: &[Instant], secs| {
                        times.iter().filter(|&&t| now.duration_since(t) < Duration::from_secs(secs)).count()
                    };
                    let paid = 30.0 + 0.1 * within(&requests, 20) as f64;
                    prop_assert!(within(&grants, 9) as f64 <= paid);
                }
            }
        }
    }
}
