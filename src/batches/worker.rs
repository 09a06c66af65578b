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
    worker: String,
}

/// Works until it is told to leave.
pub(super) async fn run(ledger: Ledger, door: Door, news: &Notify, mut leaving: watch::Receiver<bool>) {
    let worker = format!("batches-{:016x}-", rand::random::<u64>());
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
    let mut takes = 0_u64;
    loop {
        while underway.len() < MOST {
            // A name for each take: a process that was stopped for a while may take a batch of its own again, and the
            // work that it was stopped in must not believe that it still has it.
            takes += 1;
            let holder = format!("{}{takes}", parts.worker);
            let Some(record) = take(parts, &holder).await else { break };
            underway.push(guarded(parts, record, holder));
        }
        tokio::select! {
            Some(()) = underway.next() => {}
            () = news.notified() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn take(parts: &Parts, holder: &str) -> Option<BatchRecord> {
    let taken = parts.ledger.take_batch(holder.to_owned(), LEASE).await;
    taken.unwrap_or_else(|error| {
        tracing::debug!(%error, "no batch can be taken");
        None
    })
}

/// Whatever happens to one batch is no matter of the others.
async fn guarded(parts: &Parts, record: BatchRecord, holder: String) {
    let batch = Arc::clone(&record.key.id);
    tracing::info!(%batch, status = ?record.batch.status, "a batch is taken up");
    match AssertUnwindSafe(drive(parts, record, holder)).catch_unwind().await {
        Ok(Ok(status)) => tracing::info!(%batch, ?status, "a batch is over"),
        Ok(Err(Stopped::Lost)) => tracing::warn!(%batch, "a batch went to another worker"),
        Ok(Err(Stopped::Ledger(error))) => {
            tracing::warn!(%batch, %error, "the work on a batch stops; it is taken up again");
        }
        Ok(Err(Stopped::Input)) => tracing::warn!(%batch, "the file of a batch is not what it was"),
        Err(_) => tracing::error!(%batch, "the work on a batch panicked; it is taken up again"),
    }
}
