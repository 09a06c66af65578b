//! Jobs remembered in the ledger: what survives this process, and what replicas that share a database agree on.

use std::time::Duration;

use futures::FutureExt;
use opossum_core::jobs::{BodyHash, Claimed, Finished, JobKey, JobState, Renewal, StoredReply};
use opossum_jobs::{Answer, Claiming, JobStore, JobView, StoreError};
use opossum_ledger::{Ledger, LedgerError};

/// Jobs in the ledger.
#[derive(Clone)]
pub struct LedgerStore(Ledger);

impl LedgerStore {
    /// Jobs in this ledger.
    pub fn new(ledger: Ledger) -> Self {
        Self(ledger)
    }
}

impl JobStore for LedgerStore {
    fn enqueue<'a>(&'a self, key: &'a JobKey, hash: BodyHash) -> Answer<'a, ()> {
        async move { self.0.enqueue(key.clone(), hash).await.map(|_| ()).map_err(failed) }.boxed()
    }

    fn claim<'a>(&'a self, claiming: Claiming<'a>) -> Answer<'a, Claimed> {
        let Claiming { key, hash, worker, lease } = claiming;
        let asked = opossum_ledger::Claiming { key: key.clone(), hash, worker: worker.to_owned(), lease };
        async move { self.0.claim(asked).await.map_err(failed) }.boxed()
    }

    fn renew<'a>(&'a self, key: &'a JobKey, worker: &'a str, lease: Duration) -> Answer<'a, Renewal> {
        async move { self.0.renew(key.clone(), worker.to_owned(), lease).await.map_err(failed) }.boxed()
    }

    fn release<'a>(&'a self, key: &'a JobKey, worker: &'a str) -> Answer<'a, ()> {
        async move { self.0.release(key.clone(), worker.to_owned()).await.map(|_| ()).map_err(failed) }
            .boxed()
    }

    fn release_all<'a>(&'a self, worker: &'a str) -> Answer<'a, ()> {
        async move { self.0.release_all(worker.to_owned()).await.map(drop).map_err(failed) }.boxed()
    }

    fn finish<'a>(&'a self, key: &'a JobKey, hash: BodyHash, reply: &'a StoredReply) -> Answer<'a, Finished> {
        async move { self.0.finish(key.clone(), hash, reply.clone()).await.map_err(failed) }.boxed()
    }

    fn cancel<'a>(&'a self, key: &'a JobKey) -> Answer<'a, JobState> {
        async move {
            if self.0.cancel(key.clone()).await.map_err(failed)? {
                return Ok(JobState::Cancelled);
            }
            // It was cancelled before, or has its reply; neither changes any more.
            let known = self.0.job(key.clone()).await.map_err(failed)?;
            Ok(known.map_or(JobState::Cancelled, |job| job.summary.state))
        }
        .boxed()
    }

    fn get<'a>(&'a self, key: &'a JobKey) -> Answer<'a, Option<JobView>> {
        async move {
            let known = self.0.job(key.clone()).await.map_err(failed)?;
            Ok(known.map(|job| JobView { state: job.summary.state, reply: job.reply }))
        }
        .boxed()
    }
}

/// In the ledger's words, which hold no secrets.
fn failed(error: LedgerError) -> StoreError {
    StoreError(format!("the ledger: {error}"))
}
