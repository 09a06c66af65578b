//! A store that fails to keep replies for a while.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::FutureExt;
use opossum_core::jobs::{BodyHash, Claimed, Finished, JobKey, JobState, Renewal, StoredReply};
use opossum_jobs::{Answer, Claiming, JobStore, JobView, MemoryStore, StoreError};

/// A store in memory whose first so many calls to keep a reply fail.
pub(crate) struct Forgetful {
    store: MemoryStore,
    failures: AtomicU32,
}

impl Forgetful {
    pub(crate) fn failing(times: u32) -> Self {
        Self { store: MemoryStore::default(), failures: AtomicU32::new(times) }
    }

    /// Failures to come.
    pub(crate) fn left(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }
}

impl JobStore for Forgetful {
    fn enqueue<'a>(&'a self, key: &'a JobKey, hash: BodyHash) -> Answer<'a, ()> {
        self.store.enqueue(key, hash)
    }

    fn claim<'a>(&'a self, claiming: Claiming<'a>) -> Answer<'a, Claimed> {
        self.store.claim(claiming)
    }

    fn renew<'a>(&'a self, key: &'a JobKey, worker: &'a str, lease: Duration) -> Answer<'a, Renewal> {
        self.store.renew(key, worker, lease)
    }

    fn release<'a>(&'a self, key: &'a JobKey, worker: &'a str) -> Answer<'a, ()> {
        self.store.release(key, worker)
    }

    fn release_all<'a>(&'a self, worker: &'a str) -> Answer<'a, ()> {
        self.store.release_all(worker)
    }

    fn finish<'a>(&'a self, key: &'a JobKey, hash: BodyHash, reply: &'a StoredReply) -> Answer<'a, Finished> {
        let fewer = |left: u32| left.checked_sub(1);
        if self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer).is_ok() {
            return async { Err(StoreError("away".to_owned())) }.boxed();
        }
        self.store.finish(key, hash, reply)
    }

    fn cancel<'a>(&'a self, key: &'a JobKey) -> Answer<'a, JobState> {
        self.store.cancel(key)
    }

    fn get<'a>(&'a self, key: &'a JobKey) -> Answer<'a, Option<JobView>> {
        self.store.get(key)
    }
}
