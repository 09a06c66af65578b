//! Takes batches that nobody works on, and works on them.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use opossum_jobs::Door;
use opossum_ledger::{BatchRecord, Ledger};
use tokio::sync::{Notify, watch};

use super::drive::{Stopped, drive};

/// Batches worked on at once. Others wait for their turn, or for another replica.
const MOST: usize = 8;

/// How often batches are looked for that another worker has let go.
const LOOK: Duration = Duration::from_secs(2);

/// How long a batch is a worker's unless it says that it still is. One whose worker died waits so long.
pub(super) const LEASE: Duration = Duration::from_secs(15);

/// What all work on batches needs.
pub(super) struct Parts {
    pub(super) ledger: Ledger,
    pub(super) door: Door,
    /// This worker's name, unlike any other's.
    pub(super) worker: String,
}

/// Works until it is told to leave.
pub(super) async fn run(ledger: Ledger, door: Door, news: &Notify, mut leaving: watch::Receiver<bool>) {
    let worker = format!("batches-{:016x}", rand::random::<u64>());
    let parts = Parts { ledger, door, worker };
    tokio::select! {
        () = work(&parts, news) => {}
        _ = leaving.wait_for(|leaving| *leaving) => {}
    }
    if let Err(error) = parts.ledger.release_batches(parts.worker.clone()).await {
        tracing::warn!(%error, "batches were not given back; their leases will end");
    }
}

async fn work(parts: &Parts, news: &Notify) {
    let mut underway = FuturesUnordered::new();
    loop {
        while underway.len() < MOST
            && let Some(record) = take(parts).await
        {
            underway.push(guarded(parts, record));
        }
        tokio::select! {
            Some(()) = underway.next() => {}
            () = news.notified() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn take(parts: &Parts) -> Option<BatchRecord> {
    let taken = parts.ledger.take_batch(parts.worker.clone(), LEASE).await;
    taken.unwrap_or_else(|error| {
        tracing::debug!(%error, "no batch can be taken");
        None
    })
}

/// Whatever happens to one batch is no matter of the others.
async fn guarded(parts: &Parts, record: BatchRecord) {
    let batch = Arc::clone(&record.key.id);
    tracing::info!(%batch, status = ?record.batch.status, "a batch is taken up");
    match AssertUnwindSafe(drive(parts, record)).catch_unwind().await {
        Ok(Ok(status)) => tracing::info!(%batch, ?status, "a batch is over"),
        Ok(Err(Stopped::Lost)) => tracing::warn!(%batch, "a batch went to another worker"),
        Ok(Err(Stopped::Ledger(error))) => {
            tracing::warn!(%batch, %error, "the work on a batch stops; it is taken up again");
        }
        Ok(Err(Stopped::Input)) => tracing::warn!(%batch, "the file of a batch is not what it was"),
        Err(_) => tracing::error!(%batch, "the work on a batch panicked; it is taken up again"),
    }
}
