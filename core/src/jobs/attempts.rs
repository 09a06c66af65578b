//! What follows when an attempt failed.
//!
//! The count is ours and travels in the message: brokers differ in what they count (RabbitMQ 4.3 no longer
//! counts a negative acknowledgement). A failed job is published anew to a queue that gives it back after a
//! while, and the old message is acknowledged once the new one is confirmed.

use std::time::Duration;

/// The queues in which a job waits for its next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RetryQueue {
    /// Five seconds.
    Short,
    /// Half a minute.
    Middle,
    /// Five minutes.
    Long,
}

impl RetryQueue {
    /// All of them, the shortest first.
    pub const ALL: [RetryQueue; 3] = [RetryQueue::Short, RetryQueue::Middle, RetryQueue::Long];

    /// How long a job waits in it.
    pub fn delay(self) -> Duration {
        Duration::from_secs(match self {
            RetryQueue::Short => 5,
            RetryQueue::Middle => 30,
            RetryQueue::Long => 300,
        })
    }

    /// Its name at the broker; the exchange in front of it has the same name.
    pub fn queue(self) -> &'static str {
        match self {
            RetryQueue::Short => "opossum.jobs.retry.5s",
            RetryQueue::Middle => "opossum.jobs.retry.30s",
            RetryQueue::Long => "opossum.jobs.retry.5m",
        }
    }
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another attempt after a wait in this queue.
    Retry(RetryQueue),
    /// There are attempts left but no time for one: the requester is told how this one ended.
    NoTime,
    /// It was the last one.
    GiveUp,
}

/// Attempts that have failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Attempts(u32);

impl Attempts {
    /// How often a job is tried in all.
    pub const MOST: u32 = 3;

    /// The header that carries the count.
    pub const HEADER: &'static str = "x-opossum-attempt";

    /// The count a message carries. Less than none is none, as nobody is given more attempts for saying so.
    pub fn from_header(failed: i64) -> Self {
        Self(u32::try_from(failed.max(0)).unwrap_or(u32::MAX))
    }

    /// How many have failed.
    pub fn failed(self) -> u32 {
        self.0
    }

    /// One more.
    #[must_use]
    pub fn another(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// What follows when the attempt after these failed too.
    ///
    /// `retry_after` is when whoever failed may be asked again: the wait is the usual one of this attempt or
    /// the first that is no shorter. `remaining` is the time until the job's deadline.
    pub fn after_failure(self, retry_after: Option<Duration>, remaining: Duration) -> Next {
        if self.another().0 >= Self::MOST {
            return Next::GiveUp;
        }
        let usual = RetryQueue::ALL[(self.0 as usize).min(RetryQueue::ALL.len() - 1)];
        let asked = retry_after.unwrap_or_default();
        let queue = RetryQueue::ALL
            .into_iter()
            .find(|queue| queue.delay() >= usual.delay() && queue.delay() >= asked)
            .unwrap_or(RetryQueue::Long);
        if queue.delay() >= remaining { Next::NoTime } else { Next::Retry(queue) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LONG: Duration = Duration::from_secs(900);

    fn failed(count: i64) -> Attempts {
        Attempts::from_header(count)
    }

    #[test]
    fn a_job_waits_longer_after_each_failure_and_is_given_up_after_the_third() {
        assert_eq!(failed(0).after_failure(None, LONG), Next::Retry(RetryQueue::Short));
        assert_eq!(failed(1).after_failure(None, LONG), Next::Retry(RetryQueue::Middle));
        assert_eq!(failed(2).after_failure(None, LONG), Next::GiveUp);
        assert_eq!(failed(i64::MAX).after_failure(None, LONG), Next::GiveUp);
    }

    #[test]
    fn who_asks_to_be_left_alone_is() {
        let seconds = |s| Some(Duration::from_secs(s));
        assert_eq!(failed(0).after_failure(seconds(4), LONG), Next::Retry(RetryQueue::Short));
        assert_eq!(failed(0).after_failure(seconds(6), LONG), Next::Retry(RetryQueue::Middle));
        assert_eq!(failed(0).after_failure(seconds(31), LONG), Next::Retry(RetryQueue::Long));
        assert_eq!(failed(1).after_failure(seconds(3600), LONG), Next::Retry(RetryQueue::Long));
    }

    #[test]
    fn nobody_waits_for_an_attempt_that_would_come_too_late() {
        assert_eq!(failed(0).after_failure(None, Duration::from_secs(5)), Next::NoTime);
        assert_eq!(
            failed(0).after_failure(None, Duration::from_millis(5001)),
            Next::Retry(RetryQueue::Short)
        );
    }

    #[test]
    fn a_negative_count_gives_no_further_attempts() {
        assert_eq!(failed(-7), failed(0));
    }

    proptest! {
        #[test]
        fn every_job_ends(count in 0..10_i64, asked in 0..10_000_u64, left in 0..1000_u64) {
            let mut attempts = failed(count);
            let mut remaining = Duration::from_secs(left);
            for _ in 0..Attempts::MOST {
                match attempts.after_failure(Some(Duration::from_secs(asked)), remaining) {
                    Next::Retry(queue) => {
                        prop_assert!(queue.delay() < remaining);
                        remaining -= queue.delay();
                        attempts = attempts.another();
                    }
                    Next::NoTime | Next::GiveUp => return Ok(()),
                }
            }
            prop_assert!(false, "still retried after {} failures", attempts.failed());
        }
    }
}
