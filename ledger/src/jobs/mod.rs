//! Jobs: who works on what, and what came of it. What may follow what is decided by
//! [`opossum_core::jobs::Entry`]; the statements do the same in one step each.

mod sql;

use std::time::Duration;

use opossum_core::jobs::{BodyHash, JobKey, JobState, StoredReply};

use crate::error::LedgerError;
use crate::names;

pub(crate) use sql::{cancel, claim, enqueue, finish, get, known, list, prune, release, release_all, renew};

/// A worker wants a job.
#[derive(Clone, Debug)]
pub struct Claiming {
    /// The job.
    pub key: JobKey,
    /// What it asks.
    pub hash: BodyHash,
    /// The worker's name.
    pub worker: String,
    /// For how long the claim holds unless it is renewed.
    pub lease: Duration,
}

/// What came of noting a job as queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enqueued {
    /// It is noted.
    New,
    /// It was there already, in this state.
    Known(JobState),
    /// The identity belongs to a job that asks something else.
    Reused,
}

/// A job without its reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSummary {
    /// The job.
    pub key: JobKey,
    /// Where it stands. One whose worker has let the lease end waits again.
    pub state: JobState,
    /// How often it has been claimed.
    pub runs: u32,
    /// When it was first seen, in Unix milliseconds.
    pub created_ms: i64,
    /// When it was last claimed, given up, cancelled or answered, in Unix milliseconds.
    pub changed_ms: i64,
}

/// A job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRecord {
    /// All but the reply.
    pub summary: JobSummary,
    /// The reply, once there is one.
    pub reply: Option<StoredReply>,
}

/// Refuses names that cannot be stored.
pub(crate) fn check(key: &JobKey, worker: Option<&str>) -> Result<(), LedgerError> {
    names::check([&*key.tenant, &*key.id].into_iter().chain(worker))
}
