//! Who runs a job, and what a second message of the same identity gets.
//!
//! A store keeps one [`Entry`] for each identity. A worker claims it for a while (a lease, which it renews)
//! before it runs the job, and replaces it by the reply when it has one. So a job runs once however often its
//! message is delivered, a reply never changes, and a worker that died holds nobody up for longer than its
//! lease.

use super::UnixMillis;
use super::words::{BodyHash, JobState, StoredReply};

/// What is known of an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// It was published or waits for its next attempt; nobody runs it.
    Queued {
        /// What it asks.
        hash: BodyHash,
    },
    /// A worker runs it.
    Claimed {
        /// Which one.
        worker: String,
        /// Until when the claim holds.
        until: UnixMillis,
        /// What it asks.
        hash: BodyHash,
    },
    /// It was cancelled before it was answered, perhaps before its message came.
    Cancelled,
    /// It is answered.
    Done {
        /// How.
        reply: StoredReply,
        /// What it asked.
        hash: BodyHash,
    },
}

/// A worker's wish to run a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim<'a> {
    /// The worker.
    pub worker: &'a str,
    /// What the job asks.
    pub hash: BodyHash,
    /// Now.
    pub now: UnixMillis,
    /// Until when the claim is to hold.
    pub until: UnixMillis,
}

/// What a worker that wants to run a job is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// It is the worker's.
    Yours,
    /// Another worker runs it until then, at least.
    Running {
        /// When it may be claimed at the latest, unless the claim is renewed.
        until: UnixMillis,
    },
    /// It was cancelled: the requester is to be told so.
    Cancelled,
    /// It is answered: this reply is sent again.
    Done(StoredReply),
    /// The identity belongs to a job that asks something else.
    Reused,
}

/// What came of storing a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finished {
    /// It is the job's reply.
    Stored,
    /// The job has another one, which is the one to send.
    Already(StoredReply),
    /// The job was cancelled: a reply of status 499 is to be stored and sent instead.
    Cancelled,
    /// The identity belongs to a job that asks something else.
    Reused,
}

/// What came of renewing a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The job is still the worker's.
    Held,
    /// It was cancelled.
    Cancelled,
    /// It is another's, or answered: the lease had ended.
    Lost,
}

impl Entry {
    /// Claims an identity. `Some` entry is what the store keeps from now on; `None` leaves what it has.
    pub fn claim(known: Option<&Entry>, claim: Claim<'_>) -> (Option<Entry>, Claimed) {
        let mine =
            || Entry::Claimed { worker: claim.worker.to_owned(), until: claim.until, hash: claim.hash };
        match known {
            None => (Some(mine()), Claimed::Yours),
            Some(entry) if entry.hash().is_some_and(|hash| hash != claim.hash) => (None, Claimed::Reused),
            Some(Entry::Queued { .. }) => (Some(mine()), Claimed::Yours),
            Some(Entry::Claimed { worker, until, .. }) if worker != claim.worker && *until > claim.now => {
                (None, Claimed::Running { until: *until })
            }
            Some(Entry::Claimed { .. }) => (Some(mine()), Claimed::Yours),
            Some(Entry::Cancelled) => (None, Claimed::Cancelled),
            Some(Entry::Done { reply, .. }) => (None, Claimed::Done(reply.clone())),
        }
    }

    /// Prolongs a worker's own claim.
    pub fn renew(&mut self, by: &str, new: UnixMillis) -> Renewal {
        match self {
            Entry::Claimed { worker, until, .. } if worker == by => {
                *until = new;
                Renewal::Held
            }
            Entry::Cancelled => Renewal::Cancelled,
            Entry::Queued { .. } | Entry::Claimed { .. } | Entry::Done { .. } => Renewal::Lost,
        }
    }

    /// Stores a reply, whoever has the claim: the first one is the job's for good. `Some` entry is what the
    /// store keeps from now on.
    pub fn finish(known: Option<&Entry>, hash: BodyHash, reply: StoredReply) -> (Option<Entry>, Finished) {
        match known {
            Some(entry) if entry.hash().is_some_and(|own| own != hash) => (None, Finished::Reused),
            Some(Entry::Done { reply: first, .. }) => (None, Finished::Already(first.clone())),
            Some(Entry::Cancelled) if reply.state() != JobState::Cancelled => (None, Finished::Cancelled),
            None | Some(Entry::Queued { .. } | Entry::Claimed { .. } | Entry::Cancelled) => {
                (Some(Entry::Done { reply, hash }), Finished::Stored)
            }
        }
    }

    /// Gives a worker's own claim back, for the next attempt; `None` when it is not its own any more.
    pub fn release(&self, by: &str) -> Option<Entry> {
        match self {
            Entry::Claimed { worker, hash, .. } if worker == by => Some(Entry::Queued { hash: *hash }),
            _ => None,
        }
    }

    /// Marks an identity as cancelled; `None` when there is nothing to cancel any more.
    pub fn cancel(known: Option<&Entry>) -> Option<Entry> {
        match known {
            None | Some(Entry::Queued { .. } | Entry::Claimed { .. }) => Some(Entry::Cancelled),
            Some(Entry::Cancelled | Entry::Done { .. }) => None,
        }
    }

    /// Where the job stands.
    pub fn state(&self, now: UnixMillis) -> JobState {
        match self {
            Entry::Queued { .. } => JobState::Queued,
            Entry::Claimed { until, .. } if *until > now => JobState::Running,
            // Its worker is gone; the broker has given the message back.
            Entry::Claimed { .. } => JobState::Queued,
            Entry::Cancelled => JobState::Cancelled,
            Entry::Done { reply, .. } => reply.state(),
        }
    }

    fn hash(&self) -> Option<BodyHash> {
        match self {
            Entry::Queued { hash } | Entry::Claimed { hash, .. } | Entry::Done { hash, .. } => Some(*hash),
            Entry::Cancelled => None,
        }
    }
}

#[cfg(test)]
#[path = "claims_tests.rs"]
mod tests;
