//! What is known of a lane: what of it is held here, whether its consumer lives, how long its jobs wait.

use std::cell::Cell;

use lapin::BasicProperties;
use opossum_core::jobs::Backlog;

use crate::broker::convert;
use crate::tasks::unix_millis;

/// After so many looks at a queue with jobs that do not come, its consumer is taken for dead.
const STARVED_LOOKS: u8 = 3;

/// What is known of a lane.
#[derive(Default)]
pub(super) struct LaneWatch {
    /// Messages of it that are not acknowledged.
    held: Cell<u16>,
    /// Messages that ever came.
    came: Cell<u64>,
    /// The same, at the last look.
    came_before: Cell<u64>,
    /// Looks in a row at which jobs did not come although they could.
    starved: Cell<u8>,
    backlog: Cell<Backlog>,
}

impl LaneWatch {
    /// A message came. Since when it waits: by its own word, else from now.
    pub(super) fn came(&self, properties: &BasicProperties) -> i64 {
        self.came.set(self.came.get() + 1);
        self.held.set(self.held.get().saturating_add(1));
        let now = unix_millis();
        let Some(published) = convert::published(properties) else { return now };
        let mut backlog = self.backlog.get();
        backlog.took(published, now);
        self.backlog.set(backlog);
        published.min(now)
    }

    /// A message that came is settled.
    pub(super) fn settled(&self) {
        self.held.set(self.held.get().saturating_sub(1));
    }

    /// So many messages wait at the broker; how that stands with the queue then.
    pub(super) fn counted(&self, ready: u32, now: i64) -> Backlog {
        let mut backlog = self.backlog.get();
        backlog.counted(ready, now);
        self.backlog.set(backlog);
        backlog
    }

    /// Whether jobs do not come although there are some, and places for them: looked at again and again, the
    /// consumer is dead then.
    pub(super) fn is_starved(&self, ready: u32, slots: u16) -> bool {
        let came = self.came.get();
        let silent = self.came_before.replace(came) == came;
        let starves = silent && ready > 0 && self.held.get() < slots;
        self.starved.set(if starves { self.starved.get() + 1 } else { 0 });
        if self.starved.get() < STARVED_LOOKS {
            return false;
        }
        self.starved.set(0);
        true
    }
}
