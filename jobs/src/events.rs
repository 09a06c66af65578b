//! What the door tells those who count.

use std::time::Duration;

use opossum_core::jobs::Lane;

/// Hears what happens to jobs. Called on the door's thread, so it must not wait.
pub trait JobEvents: Send + Sync + 'static {
    /// A job was taken to be run, so long after it was published (where its message says when that was).
    fn started(&self, lane: Lane, age: Option<Duration>);

    /// A job left the worker: `succeeded`, `failed`, `cancelled`, `replayed` (its stored reply was sent again),
    /// `retried`, `refused` (it was no job), `given_back` or `dead`.
    fn ended(&self, lane: Lane, outcome: &'static str);

    /// So many messages wait in a queue.
    fn depth(&self, queue: &'static str, messages: u32);

    /// So long the oldest message of a job queue has waited, at the broker or here; see
    /// [`Backlog`](opossum_core::jobs::Backlog).
    fn age(&self, queue: &'static str, oldest: Duration);

    /// Depths and ages are unknown until they are told again: the connection that consumes is gone.
    fn uncounted(&self);

    /// A connection came or went.
    fn link(&self, name: &'static str, up: bool);
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoEvents;

impl JobEvents for NoEvents {
    fn started(&self, _lane: Lane, _age: Option<Duration>) {}
    fn ended(&self, _lane: Lane, _outcome: &'static str) {}
    fn depth(&self, _queue: &'static str, _messages: u32) {}
    fn age(&self, _queue: &'static str, _oldest: Duration) {}
    fn uncounted(&self) {}
    fn link(&self, _name: &'static str, _up: bool) {}
}
