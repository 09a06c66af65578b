//! The worker: turns over an [`ExactCache`], with those who wait.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use opossum_core::cache::{CacheKey, ExactCache, OwnerId, Turn};
use tokio::sync::oneshot;

use super::board::Board;
use super::messages::{Begin, Ended, Flush, LeadEnded, Peek};
use super::turn::{CacheTurn, CachedAnswer, Followed, Follower, LeadGuard};
use crate::clock::moment;
use crate::guardian::{Cx, Handle, Reply, Worker};
use crate::telemetry;

/// Pause between two batches of ended leads: short, because followers wait for them.
const PAUSE: Duration = Duration::from_millis(1);
/// Ended leads in one batch.
const BATCH: usize = 256;
/// How often it is looked whether an outbox overflowed.
const TICK: Duration = Duration::from_secs(1);

pub(super) struct CacheWorker {
    cache: ExactCache<Arc<CachedAnswer>>,
    waiting: HashMap<OwnerId, oneshot::Sender<Followed>>,
    board: Arc<Board>,
    overflowed: u64,
    buffer: Vec<LeadEnded>,
}

impl CacheWorker {
    pub(super) fn new(board: Arc<Board>) -> Self {
        let cache = ExactCache::new(board.config);
        let overflowed = board.ended.overflowed();
        Self { cache, waiting: HashMap::new(), board, overflowed, buffer: Vec::new() }
    }

    /// Takes in every lead that has ended so far, so that whoever asks next finds its answer.
    fn catch_up(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        while self.board.ended.take(BATCH, &mut buffer) > 0 {
            self.fold(&mut buffer);
        }
        self.buffer = buffer;
    }

    fn fold(&mut self, ended: &mut Vec<LeadEnded>) {
        let now = moment().mono;
        for LeadEnded { key, owner, how } in ended.drain(..) {
            match how {
                Ended::Completed(answer) => self.complete(key, owner, answer.as_ref(), now),
                Ended::Replaced(answer) if answer.degraded => {}
                Ended::Replaced(answer) => {
                    let bytes = answer.bytes;
                    self.cache.insert(key, answer, bytes, now);
                }
                Ended::Abandoned => self.abandon(key, owner, now),
            }
        }
        self.publish();
    }

    fn complete(
        &mut self,
        key: CacheKey,
        owner: OwnerId,
        answer: Option<&Arc<CachedAnswer>>,
        now: std::time::Instant,
    ) {
        // What an outage made do with is for those who wait, not for those who come when it is over.
        let kept = answer.filter(|answer| !answer.degraded);
        let value = kept.map(|answer| (Arc::clone(answer), answer.bytes));
        for follower in self.cache.complete(key, owner, value, now).followers {
            let news = answer.map_or(Followed::Alone, |answer| Followed::Answer(Arc::clone(answer)));
            if let Some(waiting) = self.waiting.remove(&follower) {
                // It may have left meanwhile.
                let _ = waiting.send(news);
            }
        }
    }

    /// Makes the first follower that is still there the leader.
    fn abandon(&mut self, key: CacheKey, owner: OwnerId, now: std::time::Instant) {
        let mut leader = owner;
        while let Some(next) = self.cache.abandon(&key, leader, now) {
            if let Some(waiting) = self.waiting.remove(&next).filter(|waiting| !waiting.is_closed()) {
                let lead = LeadGuard::of_flight(Arc::clone(&self.board), key, next);
                // If it leaves at this very moment, the guard comes back as another abandoned lead.
                let _ = waiting.send(Followed::Lead(lead));
                return;
            }
            leader = next;
        }
    }

    fn publish(&self) {
        *self.board.stats.lock() = self.cache.stats();
    }

    fn tick(&mut self) {
        // Followers that left are forgotten when their flight ends; a stuck flight must not keep them all.
        self.waiting.retain(|_, waiting| !waiting.is_closed());
        let overflowed = self.board.ended.overflowed();
        if overflowed > self.overflowed {
            telemetry::outbox_overflowed(&*self.board.telemetry, "cache", overflowed - self.overflowed);
            self.overflowed = overflowed;
        }
    }
}

impl Worker for CacheWorker {
    fn started(&mut self, cx: &mut Cx<'_, Self>) {
        cx.every(TICK, |worker, _| worker.tick());
        cx.drain(Arc::clone(&self.board.ended), BATCH, PAUSE, |worker, ended, _| worker.fold(ended));
    }
}

impl Handle<Begin> for CacheWorker {
    fn handle(&mut self, Begin { key, owner }: Begin, _: &mut Cx<'_, Self>) -> Reply<CacheTurn> {
        self.catch_up();
        let turn = match self.cache.begin(key, owner, moment().mono) {
            Turn::Hit(answer) => CacheTurn::Hit(answer),
            Turn::Lead => CacheTurn::Lead(LeadGuard::of_flight(Arc::clone(&self.board), key, owner)),
            Turn::Join => {
                let (waiting, follower) = Follower::new();
                self.waiting.insert(owner, waiting);
                CacheTurn::Join(follower)
            }
        };
        self.publish();
        turn.into()
    }
}

impl Handle<Peek> for CacheWorker {
    fn handle(
        &mut self,
        Peek { key, owner }: Peek,
        _: &mut Cx<'_, Self>,
    ) -> Reply<Option<Arc<CachedAnswer>>> {
        self.catch_up();
        let now = moment().mono;
        let found = match self.cache.begin(key, owner, now) {
            Turn::Hit(answer) => Some(answer),
            Turn::Lead => {
                self.abandon(key, owner, now);
                None
            }
            // One who does not wait is passed over when the flight ends.
            Turn::Join => None,
        };
        self.publish();
        found.into()
    }
}

impl Handle<Flush> for CacheWorker {
    fn handle(&mut self, _: Flush, _: &mut Cx<'_, Self>) -> Reply<()> {
        self.cache.flush();
        self.publish();
        ().into()
    }
}
