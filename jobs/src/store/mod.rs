//! Where jobs are remembered.

mod memory;

use std::time::Duration;

use futures::future::BoxFuture;
use opossum_core::jobs::{BodyHash, Claimed, Finished, JobKey, JobState, Renewal, StoredReply};

pub use memory::MemoryStore;

/// A store's answer.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// The store did not answer as it should, or not in time; what it was told may hold all the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the job store failed: {0}")]
pub struct StoreError(pub String);

/// A worker wants a job.
#[derive(Clone, Copy, Debug)]
pub struct Claiming<'a> {
    /// The job.
    pub key: &'a JobKey,
    /// What it asks.
    pub hash: BodyHash,
    /// The worker.
    pub worker: &'a str,
    /// How long the claim is to hold.
    pub lease: Duration,
}

/// A job as those who ask for it see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobView {
    /// Where it stands.
    pub state: JobState,
    /// Its reply, once there is one.
    pub reply: Option<StoredReply>,
}

/// Remembers jobs: who runs which, and the replies. The rules are those of `opossum_core::jobs::claims`; every
/// call is one step that no other call sees half done.
pub trait JobStore: Send + Sync + 'static {
    /// Notes a job that was published, unless it is known already.
    fn enqueue<'a>(&'a self, key: &'a JobKey, hash: BodyHash) -> Answer<'a, ()>;

    /// Takes a job for a worker.
    fn claim<'a>(&'a self, claiming: Claiming<'a>) -> Answer<'a, Claimed>;

    /// Prolongs a claim, counted from now.
    fn renew<'a>(&'a self, key: &'a JobKey, worker: &'a str, lease: Duration) -> Answer<'a, Renewal>;

    /// Gives a claim back without a reply.
    fn release<'a>(&'a self, key: &'a JobKey, worker: &'a str) -> Answer<'a, ()>;

    /// Gives back all claims of a worker that stops.
    fn release_all<'a>(&'a self, worker: &'a str) -> Answer<'a, ()>;

    /// Stores a reply.
    fn finish<'a>(&'a self, key: &'a JobKey, hash: BodyHash, reply: &'a StoredReply) -> Answer<'a, Finished>;

    /// Cancels a job, also one that has not been seen yet; the state it is in then.
    fn cancel<'a>(&'a self, key: &'a JobKey) -> Answer<'a, JobState>;

    /// Reads a job.
    fn get<'a>(&'a self, key: &'a JobKey) -> Answer<'a, Option<JobView>>;
}
