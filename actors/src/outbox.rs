//! High-rate events on their way into an actor, without one message each.
//!
//! A message to an actor costs two allocations and a wake-up of its thread. Events that follow
//! every request (outcomes, latencies) would pay that on the request path and let a burst fill the
//! mailbox. Instead they go into a bounded lock-free queue; the first one into an idle outbox wakes
//! the actor, and the actor then empties the queue in batches ([`crate::guardian::Cx::drain`]).
//!
//! When the queue is full the oldest event makes room and is counted: news is worth more than old
//! news, and nothing here may block a request. The queue outlives the actor's restarts, so events
//! pushed meanwhile are found by the next worker.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;
use tokio::sync::Notify;

/// A bounded queue of events from any thread to one actor.
#[derive(Debug)]
pub struct Outbox<T> {
    queue: ArrayQueue<T>,
    /// Whether the actor knows that there is something to fetch.
    scheduled: AtomicBool,
    /// A wake-up rather than a message: it cannot meet a full mailbox, cannot be lost with the
    /// queue of an actor that is replaced, and a second one costs nothing.
    wake: Notify,
    overflowed: AtomicU64,
}

impl<T> Outbox<T> {
    /// An empty outbox for `capacity` events (at least 1).
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            queue: ArrayQueue::new(capacity.max(1)),
            scheduled: AtomicBool::new(false),
            wake: Notify::new(),
            overflowed: AtomicU64::new(0),
        }
    }

    /// Adds an event. Never blocks; allocates nothing unless it is the one that wakes the actor.
    pub fn push(&self, event: T) {
        if self.queue.force_push(event).is_some() {
            self.overflowed.fetch_add(1, Ordering::Relaxed);
        }
        // The swap orders the push before the flag: whoever finds the flag set leaves its event to
        // the waiter who has yet to clear it, and who will therefore see the event.
        if !self.scheduled.swap(true, Ordering::AcqRel) {
            self.wake.notify_one();
        }
    }

    /// Resolves when there is something to take. Meant for one waiter.
    pub async fn ready(&self) {
        loop {
            // Cleared before each look, the ones after a wake-up included: a wake-up can come for an
            // event that was taken before its flag was set, and a flag left standing by it would
            // keep the next event from waking anyone.
            self.scheduled.swap(false, Ordering::AcqRel);
            if !self.queue.is_empty() {
                return;
            }
            self.wake.notified().await;
        }
    }

    /// Moves up to `limit` events, oldest first, to the end of `into`; how many.
    pub fn take(&self, limit: usize, into: &mut Vec<T>) -> usize {
        let before = into.len();
        into.extend(std::iter::from_fn(|| self.queue.pop()).take(limit));
        into.len() - before
    }

    /// Events waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether no event waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Events lost to overflow since the outbox was made.
    #[must_use]
    pub fn overflowed(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn events_come_out_in_order_and_up_to_the_limit() {
        let outbox = Outbox::new(8);
        (0..5).for_each(|event| outbox.push(event));
        let mut taken = Vec::new();
        assert_eq!(outbox.take(3, &mut taken), 3);
        assert_eq!(outbox.take(3, &mut taken), 2);
        assert_eq!(taken, [0, 1, 2, 3, 4]);
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_full_outbox_drops_the_oldest_and_counts_it() {
        let outbox = Outbox::new(3);
        (0..10).for_each(|event| outbox.push(event));
        let mut taken = Vec::new();
        outbox.take(10, &mut taken);
        assert_eq!(taken, [7, 8, 9]);
        assert_eq!(outbox.overflowed(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn ready_waits_for_an_event_and_only_for_an_event() {
        let outbox = Arc::new(Outbox::new(8));
        let idle = tokio::time::timeout(Duration::from_secs(60), outbox.ready()).await;
        assert!(idle.is_err());
        outbox.push(1);
        outbox.ready().await;
        outbox.take(8, &mut Vec::new());
        // The wake-up of the first push is used up: an empty outbox is not ready.
        let empty = tokio::time::timeout(Duration::from_secs(60), outbox.ready()).await;
        assert!(empty.is_err());
    }

    #[tokio::test]
    async fn no_event_of_many_threads_is_left_behind_asleep() {
        const THREADS: u64 = 4;
        const EVENTS: u64 = 50_000;
        let outbox = Arc::new(Outbox::new((THREADS * EVENTS) as usize));
        let pushers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let outbox = Arc::clone(&outbox);
                std::thread::spawn(move || {
                    (0..EVENTS).for_each(|event| outbox.push(thread * EVENTS + event));
                })
            })
            .collect();
        let mut seen = vec![false; (THREADS * EVENTS) as usize];
        let mut batch = Vec::new();
        let mut left = seen.len();
        while left > 0 {
            tokio::time::timeout(Duration::from_secs(10), outbox.ready()).await.unwrap();
            left -= outbox.take(256, &mut batch);
            for event in batch.drain(..) {
                assert!(!std::mem::replace(&mut seen[event as usize], true));
            }
        }
        pushers.into_iter().for_each(|pusher| pusher.join().unwrap());
        assert!(outbox.is_empty());
        assert_eq!(outbox.overflowed(), 0);
    }
}
