//! A store that lives and dies with its process: for tests, and where nothing is to be kept.

use std::collections::HashMap;
use std::time::Duration;

use futures::FutureExt;
use futures::future::ready;
use opossum_core::jobs::{BodyHash, Claim, Claimed, Entry, Finished, JobKey, JobState, Renewal, StoredReply};
use parking_lot::Mutex;

use super::{Answer, Claiming, JobStore, JobView};
use crate::tasks::unix_millis;

/// Entries older than this are forgotten.
const KEPT: i64 = 24 * 3600 * 1000;

/// How many entries come between two looks for old ones.
const SWEEP: usize = 1024;

/// Jobs in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    by_key: HashMap<JobKey, Kept>,
    since_sweep: usize,
}

#[derive(Debug)]
struct Kept {
    entry: Entry,
    changed: i64,
}

impl Entries {
    fn get(&self, key: &JobKey) -> Option<&Entry> {
        self.by_key.get(key).map(|kept| &kept.entry)
    }

    fn put(&mut self, key: &JobKey, entry: Option<Entry>) {
        let Some(entry) = entry else { return };
        let now = unix_millis();
        self.since_sweep += 1;
        if self.since_sweep >= SWEEP {
            self.since_sweep = 0;
            self.by_key.retain(|_, kept| now - kept.changed < KEPT);
        }
        self.by_key.insert(key.clone(), Kept { entry, changed: now });
    }
}

impl JobStore for MemoryStore {
    fn enqueue<'a>(&'a self, key: &'a JobKey, hash: BodyHash) -> Answer<'a, ()> {
        let mut entries = self.entries.lock();
        if entries.get(key).is_none() {
            entries.put(key, Some(Entry::Queued { hash }));
        }
        ready(Ok(())).boxed()
    }

    fn claim<'a>(&'a self, claiming: Claiming<'a>) -> Answer<'a, Claimed> {
        let Claiming { key, hash, worker, lease } = claiming;
        let now = unix_millis();
        let until = now.saturating_add(millis(lease));
        let mut entries = self.entries.lock();
        let (kept, claimed) = Entry::claim(entries.get(key), Claim { worker, hash, now, until });
        entries.put(key, kept);
        ready(Ok(claimed)).boxed()
    }

    fn renew<'a>(&'a self, key: &'a JobKey, worker: &'a str, lease: Duration) -> Answer<'a, Renewal> {
        let until = unix_millis().saturating_add(millis(lease));
        let mut entries = self.entries.lock();
        let renewal = match entries.by_key.get_mut(key) {
            Some(kept) => kept.entry.renew(worker, until),
            None => Renewal::Lost,
        };
        ready(Ok(renewal)).boxed()
    }

    fn release<'a>(&'a self, key: &'a JobKey, worker: &'a str) -> Answer<'a, ()> {
        let mut entries = self.entries.lock();
        let released = entries.get(key).and_then(|entry| entry.release(worker));
        entries.put(key, released);
        ready(Ok(())).boxed()
    }

    fn release_all<'a>(&'a self, worker: &'a str) -> Answer<'a, ()> {
        for kept in self.entries.lock().by_key.values_mut() {
            if let Some(released) = kept.entry.release(worker) {
                kept.entry = released;
            }
        }
        ready(Ok(())).boxed()
    }

    fn finish<'a>(&'a self, key: &'a JobKey, hash: BodyHash, reply: &'a StoredReply) -> Answer<'a, Finished> {
        let mut entries = self.entries.lock();
        let (kept, finished) = Entry::finish(entries.get(key), hash, reply.clone());
        entries.put(key, kept);
        ready(Ok(finished)).boxed()
    }

    fn cancel<'a>(&'a self, key: &'a JobKey) -> Answer<'a, JobState> {
        let mut entries = self.entries.lock();
        let cancelled = Entry::cancel(entries.get(key));
        entries.put(key, cancelled);
        let state = entries.get(key).map_or(JobState::Cancelled, |entry| entry.state(unix_millis()));
        ready(Ok(state)).boxed()
    }

    fn get<'a>(&'a self, key: &'a JobKey) -> Answer<'a, Option<JobView>> {
        let entries = self.entries.lock();
        let view = entries.get(key).map(|entry| JobView {
            state: entry.state(unix_millis()),
            reply: match entry {
                Entry::Done { reply, .. } => Some(reply.clone()),
                Entry::Queued { .. } | Entry::Claimed { .. } | Entry::Cancelled => None,
            },
        });
        ready(Ok(view)).boxed()
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
