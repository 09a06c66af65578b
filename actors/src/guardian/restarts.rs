//! How often an actor was restarted, and why.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why an actor was restarted or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RestartCause {
    /// The worker panicked while it handled a message.
    Handler,
    /// The worker panicked in a timer, in a drained outbox or in the end of its background work.
    Timer,
    /// The worker panicked in its `started` hook.
    Started,
    /// The factory panicked, so there was no worker at all.
    Factory,
    /// The mailbox was found closed and the address was replaced.
    Dead,
    /// Pings went unanswered and the address was replaced.
    Silent,
}

impl RestartCause {
    /// All causes, in the order of their counters.
    pub const ALL: [Self; 6] =
        [Self::Handler, Self::Timer, Self::Started, Self::Factory, Self::Dead, Self::Silent];

    /// Label of a metric; one of a fixed set.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Handler => "handler",
            Self::Timer => "timer",
            Self::Started => "started",
            Self::Factory => "factory",
            Self::Dead => "dead",
            Self::Silent => "silent",
        }
    }

    fn index(self) -> usize {
        match self {
            Self::Handler => 0,
            Self::Timer => 1,
            Self::Started => 2,
            Self::Factory => 3,
            Self::Dead => 4,
            Self::Silent => 5,
        }
    }
}

/// Restart counters of one actor; they outlive its restarts and replacements.
#[derive(Debug, Default)]
pub(crate) struct Restarts {
    by_cause: [AtomicU64; RestartCause::ALL.len()],
    failed_tasks: AtomicU64,
}

impl Restarts {
    pub(crate) fn count(&self, cause: RestartCause) {
        self.by_cause[cause.index()].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_failed_task(&self) {
        self.failed_tasks.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> RestartCounts {
        RestartCounts {
            by_cause: std::array::from_fn(|cause| self.by_cause[cause].load(Ordering::Relaxed)),
            failed_tasks: self.failed_tasks.load(Ordering::Relaxed),
        }
    }
}

/// A reading of an actor's restart counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RestartCounts {
    by_cause: [u64; RestartCause::ALL.len()],
    /// Panics in asynchronous answers and background work: these fail one message and restart
    /// nothing, since such work holds none of the worker's state.
    pub failed_tasks: u64,
}

impl RestartCounts {
    /// Restarts with this cause since the process began.
    #[must_use]
    pub fn of(&self, cause: RestartCause) -> u64 {
        self.by_cause[cause.index()]
    }

    /// Restarts and replacements together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.by_cause.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_its_own_counter_and_label() {
        let restarts = Restarts::default();
        for (times, cause) in RestartCause::ALL.into_iter().enumerate() {
            (0..=times).for_each(|_| restarts.count(cause));
        }
        let counts = restarts.snapshot();
        let seen: Vec<u64> = RestartCause::ALL.into_iter().map(|cause| counts.of(cause)).collect();
        assert_eq!(seen, [1, 2, 3, 4, 5, 6]);
        assert_eq!(counts.total(), 21);
        let labels: std::collections::HashSet<_> = RestartCause::ALL.map(RestartCause::label).into();
        assert_eq!(labels.len(), RestartCause::ALL.len());
    }
}
