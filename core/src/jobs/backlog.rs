//! How long the oldest message of a queue has waited, by what one consumer of it sees.
//!
//! AMQP tells how many messages wait, not since when, and looking at one would count as a delivery. But a queue is
//! first in, first out: what waits was published after the newest message that was ever taken, and it came after
//! the queue was last seen empty. The nearer of the two is the age that is told. It grows while nobody takes
//! anything, and it needs no message to say when it was published, only gets better by it.

use std::time::Duration;

use super::UnixMillis;

/// What a consumer has seen of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// How many messages waited at the last look.
    ready: u32,
    /// When it was last seen empty.
    empty: Option<UnixMillis>,
    /// When the newest message that was taken was published.
    newest: Option<UnixMillis>,
    /// The first look at it.
    first: Option<UnixMillis>,
}

impl Backlog {
    /// A message was taken, which says that it was published then.
    pub fn took(&mut self, published: UnixMillis, now: UnixMillis) {
        // Nothing was published later than now, whatever it says.
        self.newest = self.newest.max(Some(published.min(now)));
    }

    /// So many messages wait now.
    pub fn counted(&mut self, ready: u32, now: UnixMillis) {
        self.ready = ready;
        self.first.get_or_insert(now);
        if ready == 0 {
            self.empty = Some(now);
        }
    }

    /// How long the oldest one has waited; zero when none waits. A queue that had messages at the first look
    /// is taken for one that came to have them then, until one of them says better.
    pub fn age(&self, now: UnixMillis) -> Duration {
        if self.ready == 0 {
            return Duration::ZERO;
        }
        let since = self.empty.max(self.newest).or(self.first).unwrap_or(now);
        Duration::from_millis(now.saturating_sub(since).max(0).unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: UnixMillis = 1000;

    fn age(backlog: &Backlog, now: UnixMillis) -> u64 {
        backlog.age(now).as_secs()
    }

    #[test]
    fn nothing_that_waits_has_no_age() {
        let mut backlog = Backlog::default();
        assert_eq!(age(&backlog, 5 * SECOND), 0);
        backlog.counted(0, 5 * SECOND);
        backlog.took(SECOND, 5 * SECOND);
        assert_eq!(age(&backlog, 500 * SECOND), 0);
    }

    #[test]
    fn what_nobody_takes_grows_old() {
        let mut backlog = Backlog::default();
        backlog.counted(0, 10 * SECOND);
        backlog.counted(1, 12 * SECOND);
        assert_eq!(age(&backlog, 12 * SECOND), 2);
        backlog.counted(9, 70 * SECOND);
        assert_eq!(age(&backlog, 70 * SECOND), 60);
        backlog.counted(0, 71 * SECOND);
        assert_eq!(age(&backlog, 71 * SECOND), 0);
    }

    #[test]
    fn a_backlog_that_moves_is_as_old_as_what_is_taken_from_it() {
        let mut backlog = Backlog::default();
        backlog.counted(0, 0);
        for now in 100..200 {
            backlog.took((now - 30) * SECOND, now * SECOND);
            backlog.counted(1000, now * SECOND);
            assert_eq!(age(&backlog, now * SECOND), 30);
        }
        // One that comes again is older, and says nothing of those behind it.
        backlog.took(SECOND, 200 * SECOND);
        assert_eq!(age(&backlog, 200 * SECOND), 31);
    }

    #[test]
    fn a_backlog_that_was_there_before_counts_from_the_first_look_until_a_message_says_more() {
        let mut backlog = Backlog::default();
        backlog.counted(5, 100 * SECOND);
        backlog.counted(5, 130 * SECOND);
        assert_eq!(age(&backlog, 130 * SECOND), 30);
        backlog.took(10 * SECOND, 130 * SECOND);
        assert_eq!(age(&backlog, 130 * SECOND), 120);
    }

    proptest! {
        /// Messages come and are taken, first in, first out, by this consumer or another; now and then it is
        /// looked at how many there are.
        #[test]
        fn the_age_is_never_less_than_that_of_the_oldest(steps in prop::collection::vec(0..4_u8, 1..200)) {
            let (mut backlog, mut queue) = (Backlog::default(), std::collections::VecDeque::new());
            backlog.counted(0, 0);
            for (now, step) in (1..).zip(steps) {
                match step {
                    0 => queue.push_back(now),
                    1 => if let Some(published) = queue.pop_front() { backlog.took(published, now) },
                    2 => { queue.pop_front(); }
                    _ => {}
                }
                backlog.counted(u32::try_from(queue.len()).unwrap_or(u32::MAX), now);
                let oldest = queue.front().map_or(0, |published| now - published);
                prop_assert!(backlog.age(now) >= Duration::from_millis(oldest.unsigned_abs()));
            }
        }
    }
}
