//! The ledger's face.

use std::sync::Arc;
use std::time::Duration;

use opossum_core::jobs::{BodyHash, Claimed, Finished, JobKey, JobState, Renewal, StoredReply};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::address::Address;
use crate::error::LedgerError;
use crate::jobs::{self, Claiming, Enqueued, JobRecord, JobSummary};
use crate::keeper;
use crate::observer::LedgerObserver;
use crate::store::Store;
use crate::tasks::Tasks;
use crate::usage::{self, Recorder, UsageRecord};

/// How a ledger is kept.
#[derive(Clone, Debug)]
pub struct LedgerConfig {
    /// Where it is.
    pub address: Address,
    /// The longest a call may take.
    pub timeout: Duration,
    /// Usage rows that may wait to be written.
    pub usage_queue: usize,
    /// How long a job that ended is kept.
    pub keep_jobs: Duration,
    /// How long a job is kept that neither ended nor changed.
    pub keep_stale_jobs: Duration,
    /// How long a usage row is kept.
    pub keep_usage: Duration,
    /// How long a batch is kept after its end.
    pub keep_batches: Duration,
    /// How long a file is kept whose writing neither ends nor fails.
    pub keep_unfinished_files: Duration,
    /// How often old rows are looked for.
    pub prune_interval: Duration,
}

impl LedgerConfig {
    /// The usual figures: 5 s a call, 8192 rows in the queue, ended jobs for 24 hours, others for a week,
    /// usage and batches for 90 days, unfinished files for an hour.
    pub fn new(address: Address) -> Self {
        const DAY: Duration = Duration::from_secs(86_400);
        Self {
            address,
            timeout: Duration::from_secs(5),
            usage_queue: 8192,
            keep_jobs: DAY,
            keep_stale_jobs: DAY * 7,
            keep_usage: DAY * 90,
            keep_batches: DAY * 90,
            keep_unfinished_files: Duration::from_secs(3600),
            prune_interval: Duration::from_secs(600),
        }
    }
}

/// The ledger. Clones share everything.
#[derive(Clone)]
pub struct Ledger {
    pub(crate) store: Arc<Store>,
    recorder: Arc<Recorder>,
    tasks: Arc<Tasks>,
    closing: Arc<watch::Sender<bool>>,
}

impl Ledger {
    /// Starts to connect and returns at once. Must run inside a tokio runtime.
    pub fn start(config: LedgerConfig, observer: Arc<dyn LedgerObserver>) -> Self {
        let (closing, closed) = watch::channel(false);
        let store = Arc::new(Store::new(config.address.clone(), config.timeout, Arc::clone(&observer)));
        let tasks = Tasks::default();
        let (recorder, writer) =
            Recorder::new(config.usage_queue, Arc::clone(&store), observer, closed.clone());
        tasks.start("ledger usage", writer.run());
        let keep = keeper::run(Arc::clone(&store), config, closed);
        tasks.start("ledger keeper", keep);
        Self { store, recorder: Arc::new(recorder), tasks: Arc::new(tasks), closing: Arc::new(closing) }
    }

    /// Hands a usage row over. Never waits, never fails: see the module's words on drops.
    pub fn record(&self, row: UsageRecord) {
        self.recorder.record(row);
    }

    /// The newest usage rows since a time in Unix milliseconds, newest first.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn usage(&self, since_ms: i64, limit: u32) -> Result<Vec<UsageRecord>, LedgerError> {
        self.store
            .read(Box::new(move |connection| Box::pin(usage::recent(connection, since_ms, limit))))
            .await
    }

    /// Notes a job as waiting, once the broker has confirmed its message.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn enqueue(&self, key: JobKey, hash: BodyHash) -> Result<Enqueued, LedgerError> {
        jobs::check(&key, None)?;
        self.store
            .write(Box::new(move |connection| {
                Box::pin(async move { jobs::enqueue(connection, &key, hash).await })
            }))
            .await
    }

    /// Takes a job for a worker.
    ///
    /// # Errors
    /// See [`LedgerError`]; the claim may hold all the same until its lease ends.
    pub async fn claim(&self, claiming: Claiming) -> Result<Claimed, LedgerError> {
        jobs::check(&claiming.key, Some(&claiming.worker))?;
        self.store
            .write(Box::new(move |connection| {
                Box::pin(async move { jobs::claim(connection, &claiming).await })
            }))
            .await
    }

    /// Prolongs a claim, counted from now.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn renew(&self, key: JobKey, worker: String, lease: Duration) -> Result<Renewal, LedgerError> {
        jobs::check(&key, Some(&worker))?;
        self.store
            .write(Box::new(move |connection| {
                Box::pin(async move { jobs::renew(connection, &key, &worker, lease).await })
            }))
            .await
    }

    /// Gives a claim up without a reply; whether the worker had it.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn release(&self, key: JobKey, worker: String) -> Result<bool, LedgerError> {
        jobs::check(&key, Some(&worker))?;
        self.store
            .write(Box::new(move |connection| {
                Box::pin(async move { jobs::release(connection, &key, &worker).await })
            }))
            .await
    }

    /// Gives up every claim of a worker that stops; how many.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn release_all(&self, worker: String) -> Result<u64, LedgerError> {
        self.store
            .write(Box::new(move |connection| {
                Box::pin(async move { jobs::release_all(connection, &worker).await })
            }))
            .await
    }

    /// Stores a job's reply, whoever has the claim: the first one is the job's for good.
    ///
    /// # Errors
    /// See [`LedgerError`]; the reply may be stored all the same, and storing it again is safe.
    pub async fn finish(
        &self,
        key: JobKey,
        hash: BodyHash,
        reply: StoredReply,
    ) -> Result<Finished, LedgerError> {
        jobs::check(&key, None)?;
        self.store
            .write(Box::new(move |connection| {
                Box::pin(async move { jobs::finish(connection, &key, hash, &reply).await })
            }))
            .await
    }

    /// Calls a job off, also one that has not been seen yet; false when it was already, or has its reply.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn cancel(&self, key: JobKey) -> Result<bool, LedgerError> {
        jobs::check(&key, None)?;
        self.store
            .write(Box::new(move |connection| Box::pin(async move { jobs::cancel(connection, &key).await })))
            .await
    }

    /// A job with its reply.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn job(&self, key: JobKey) -> Result<Option<JobRecord>, LedgerError> {
        jobs::check(&key, None)?;
        self.store
            .read(Box::new(move |connection| Box::pin(async move { jobs::get(connection, &key).await })))
            .await
    }

    /// The jobs last seen in a state, the one that changed last first.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn jobs(&self, state: JobState, limit: u32) -> Result<Vec<JobSummary>, LedgerError> {
        self.store.read(Box::new(move |connection| Box::pin(jobs::list(connection, state, limit)))).await
    }

    /// Writes and flushes one small row, connecting first where that has not been done: what the database
    /// says to that it says to everything. Goes on when its caller gives up, so that [`Ledger::fault`] tells
    /// the outcome.
    ///
    /// # Errors
    /// What is wrong.
    pub async fn probe(&self) -> Result<(), LedgerError> {
        let store = Arc::clone(&self.store);
        let work = async move {
            store.connect().await?;
            store.write(Box::new(|connection| Box::pin(crate::store::beat(connection)))).await
        };
        self.store.at_home(work).await
    }

    /// What the last call that wrote, or failed, showed to be wrong with the database. Asks nobody.
    pub fn fault(&self) -> Option<LedgerError> {
        self.store.fault()
    }

    /// Writes what waits, then disconnects. What cannot be written is counted as dropped, given a call's
    /// time and a little more.
    pub async fn close(&self, within: Duration) {
        let by = Instant::now() + within;
        self.closing.send_replace(true);
        self.tasks.end(by).await;
        self.store.close(by).await;
    }
}
