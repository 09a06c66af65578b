//! The task that connects, and then keeps the tables small.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::ledger::LedgerConfig;
use crate::store::Store;
use crate::{batches, files, jobs, usage};

/// The first pause before connecting is tried again, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Rows deleted by one statement, so that none holds up others for long.
const AT_ONCE: u32 = 1000;
/// Pieces of files deleted by one statement; each is much larger than a row.
const PIECES_AT_ONCE: u32 = 64;

/// Connects, then prunes at intervals, until the ledger closes.
pub(crate) async fn run(store: Arc<Store>, config: LedgerConfig, mut closing: watch::Receiver<bool>) {
    let mut pause = FIRST_PAUSE;
    while store.connect().await.is_err() {
        if waited(pause, &mut closing).await {
            return;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    loop {
        prune(&store, &config).await;
        prune_files(&store, config.keep_unfinished_files).await;
        prune_batches(&store, config.keep_batches).await;
        if waited(config.prune_interval, &mut closing).await {
            return;
        }
    }
}

/// Waits; true when the ledger closes meanwhile.
async fn waited(pause: Duration, closing: &mut watch::Receiver<bool>) -> bool {
    timeout(pause, closing.wait_for(|closing| *closing)).await.is_ok()
}

/// A failure is heard of by the store; what is left over is deleted next time.
async fn prune(store: &Store, config: &LedgerConfig) {
    let LedgerConfig { keep_jobs, keep_stale_jobs, keep_usage, .. } = *config;
    loop {
        let jobs = store.write(Box::new(move |connection| {
            Box::pin(jobs::prune(connection, keep_jobs, keep_stale_jobs, AT_ONCE))
        }));
        let usage =
            store.write(Box::new(move |connection| Box::pin(usage::prune(connection, keep_usage, AT_ONCE))));
        let (Ok(jobs), Ok(usage)) = (jobs.await, usage.await) else { return };
        if jobs > 0 || usage > 0 {
            tracing::debug!(jobs, usage, "old rows of the ledger are deleted");
        }
        if jobs < u64::from(AT_ONCE) && usage < u64::from(AT_ONCE) {
            return;
        }
    }
}

async fn prune_files(store: &Store, unfinished: Duration) {
    let mut more = true;
    while more {
        let pruned = store.write(Box::new(move |connection| {
            Box::pin(files::prune(connection, unfinished, PIECES_AT_ONCE))
        }));
        more = pruned.await == Ok(u64::from(PIECES_AT_ONCE));
    }
}

async fn prune_batches(store: &Store, keep: Duration) {
    let mut more = true;
    while more {
        let pruned = store
            .write(Box::new(move |connection| Box::pin(batches::prune(connection, keep, PIECES_AT_ONCE))));
        more = pruned.await == Ok(u64::from(PIECES_AT_ONCE));
    }
}
