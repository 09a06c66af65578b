//! The desk: jobs that were fetched wait here for a free place, and are taken by turns.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use lapin::message::Delivery;
use lapin::options::BasicNackOptions;
use opossum_core::jobs::{Lane, Turns};
use tokio::sync::Notify;

use super::running::Running;
use super::watch::LaneWatch;
use crate::broker::publisher::Publisher;
use crate::broker::soon;
use crate::tasks::unix_millis;
use crate::{DoorConfig, JobEvents, JobStore, Runner, tasks};

/// How long the end waits for claims to be given up.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What a desk works with.
pub(crate) struct DeskParts {
    pub config: DoorConfig,
    pub store: Arc<dyn JobStore>,
    pub events: Arc<dyn JobEvents>,
    pub publisher: Publisher,
    pub runner: Rc<dyn Runner>,
}

/// Jobs on this worker, waiting and under way.
pub(crate) struct Desk {
    pub(super) parts: DeskParts,
    pub(super) running: Running,
    waiting: RefCell<[VecDeque<Parcel>; 3]>,
    turns: RefCell<Turns>,
    free: Cell<u16>,
    lanes: [LaneWatch; 3],
    /// No job is begun any more.
    leaving: Cell<bool>,
    /// The consumers are cancelled: what still comes goes back at once.
    closed: Cell<bool>,
    freed: Notify,
}

/// A message of a job queue, until it is settled.
pub(super) struct Parcel {
    pub lane: Lane,
    pub delivery: Delivery,
    /// Since when it waits, in milliseconds since the Unix epoch.
    since: i64,
    desk: Rc<Desk>,
}

impl Drop for Parcel {
    fn drop(&mut self) {
        self.desk.lanes[self.lane.index()].settled();
    }
}

impl Parcel {
    /// Gives the message back to the broker, for any worker to take.
    async fn give_back(&self) {
        let options = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
        soon("giving a job back", self.delivery.acker.nack(options)).await.ok();
        self.desk.parts.events.ended(self.lane, "given_back");
    }
}

/// What becomes of a message that was looked at.
pub(super) enum After {
    /// It is settled, or not ours any more.
    Settled,
    /// It is to be looked at again.
    Later(Duration),
    /// Another worker is to have it.
    GiveBack,
}

impl Desk {
    pub(crate) fn new(parts: DeskParts) -> Self {
        let free = Cell::new(parts.config.slots.max(1));
        Self {
            parts,
            running: Running::default(),
            waiting: RefCell::default(),
            turns: RefCell::default(),
            free,
            lanes: Default::default(),
            leaving: Cell::new(false),
            closed: Cell::new(false),
            freed: Notify::new(),
        }
    }

    /// Jobs run at once.
    pub(crate) fn slots(&self) -> u16 {
        self.parts.config.slots.max(1)
    }

    pub(crate) fn events(&self) -> &dyn JobEvents {
        &*self.parts.events
    }

    /// Whether this worker takes no more jobs.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.get()
    }

    /// Takes a message of a job queue.
    pub(crate) fn put(self: &Rc<Self>, lane: Lane, delivery: Delivery) {
        let since = self.lanes[lane.index()].came(&delivery.properties);
        self.line_up(Parcel { lane, delivery, since, desk: Rc::clone(self) });
    }

    fn line_up(self: &Rc<Self>, parcel: Parcel) {
        if self.closed.get() {
            tasks::local("giving a job back", async move { parcel.give_back().await });
            return;
        }
        self.waiting.borrow_mut()[parcel.lane.index()].push_back(parcel);
        self.turn();
    }

    /// Gives free places to those who wait.
    fn turn(self: &Rc<Self>) {
        while self.free.get() > 0 && !self.is_leaving() {
            let Some(parcel) = self.next() else { return };
            self.free.set(self.free.get() - 1);
            let desk = Rc::clone(self);
            tasks::local("job", desk.work(parcel));
        }
    }

    fn next(&self) -> Option<Parcel> {
        let mut waiting = self.waiting.borrow_mut();
        let has_work = [0, 1, 2].map(|lane: usize| !waiting[lane].is_empty());
        let lane = self.turns.borrow_mut().next(has_work)?;
        waiting[lane.index()].pop_front()
    }

    /// Forgets messages of a connection that is gone: they come again.
    pub(crate) fn drop_stale(&self) {
        for lane in &mut *self.waiting.borrow_mut() {
            lane.retain(|parcel| parcel.delivery.acker.usable());
        }
    }

    async fn work(self: Rc<Self>, parcel: Parcel) {
        let handled = AssertUnwindSafe(self.handle(&parcel)).catch_unwind().await;
        let after = handled.unwrap_or_else(|_| {
            tracing::error!("handling a job panicked; it is given back");
            After::GiveBack
        });
        self.free.set(self.free.get() + 1);
        self.freed.notify_waiters();
        self.turn();
        match after {
            After::Settled => {}
            After::GiveBack => parcel.give_back().await,
            After::Later(pause) => {
                tokio::time::sleep(pause).await;
                if parcel.delivery.acker.usable() {
                    self.line_up(parcel);
                }
            }
        }
    }

    /// So many jobs of a lane wait at the broker. Tells how old the oldest is, here or there, and says whether
    /// they are held back from a consumer that has room for them.
    pub(crate) fn counted(&self, lane: Lane, ready: u32) -> bool {
        let (watch, now) = (&self.lanes[lane.index()], unix_millis());
        let there = watch.counted(ready, now).age(now);
        let waiting = self.waiting.borrow();
        let here = waiting[lane.index()].iter().map(|parcel| tasks::since(parcel.since, now)).max();
        self.events().age(lane.queue(), there.max(here.unwrap_or_default()));
        watch.is_starved(ready, self.slots()) && !self.is_leaving()
    }

    /// Begins no job any more. Those that wait are kept until the consumers are cancelled, or the broker would
    /// hand them out to this worker again.
    pub(crate) fn leave(&self) {
        self.leaving.set(true);
    }

    /// Gives back what waits, once the consumers are cancelled.
    pub(crate) fn give_back_waiting(self: &Rc<Self>) {
        self.leave();
        self.closed.set(true);
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        for parcel in waiting.into_iter().flatten() {
            tasks::local("giving a job back", async move { parcel.give_back().await });
        }
    }

    /// Waits until no job is under way.
    pub(crate) async fn empty(&self) {
        loop {
            let freed = self.freed.notified();
            if self.free.get() == self.slots() {
                return;
            }
            freed.await;
        }
    }

    /// Gives up the claims of jobs that are still under way, so that no worker waits for this one's leases.
    pub(crate) async fn release_all(&self) {
        self.waiting.take();
        let released = self.parts.store.release_all(&self.parts.config.worker);
        if !matches!(tokio::time::timeout(LAST_WORDS, released).await, Ok(Ok(()))) {
            tracing::warn!("claims were not given up; their leases will end");
        }
    }
}
