//! Batches: what they are, who works on which, and what came of their lines. What may follow what is decided by
//! [`opossum_core::batches`]; here it is kept.

mod sql;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use opossum_core::batches::{Batch, Mark};
use opossum_core::jobs::{JobState, StoredReply};

use crate::error::LedgerError;
use crate::files::{ObjectKey, Page};
use crate::{Ledger, names};

pub(crate) use sql::prune;

/// A batch and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchRecord {
    /// Whose, and which.
    pub key: ObjectKey,
    /// As it is.
    pub batch: Batch,
}

/// A worker's hold of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// It is the worker's; when it was called off, if it was.
    Yes {
        /// In Unix milliseconds.
        cancelled: Option<i64>,
    },
    /// It is another's: the lease had ended.
    Lost,
}

/// What came of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineNote {
    /// The line, from 0.
    pub line: u32,
    /// What is known of its attempts.
    pub mark: Mark,
    /// Its part of the batch's files, once it is over; whether it succeeded.
    pub outcome: Option<(bool, Bytes)>,
}

/// What is known of a line, without its part of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineMark {
    /// The line, from 0.
    pub line: u32,
    /// What is known of its attempts.
    pub mark: Mark,
    /// Whether it succeeded, once it is over.
    pub outcome: Option<bool>,
}

/// A line's part of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineOutput {
    /// The line, from 0.
    pub line: u32,
    /// Whether it succeeded.
    pub is_good: bool,
    /// The text.
    pub output: Bytes,
}

/// A job that is known, with its reply once there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownJob {
    /// Its message id.
    pub id: String,
    /// Where it stands.
    pub state: JobState,
    /// Its reply.
    pub reply: Option<StoredReply>,
}

impl Ledger {
    /// Keeps a new batch.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn create_batch(&self, key: ObjectKey, batch: Batch) -> Result<(), LedgerError> {
        key.check()?;
        names::check([&*batch.order.input_file_id])?;
        self.store
            .write(Box::new(move |connection| {
                Box::pin(async move { sql::create(connection, &key, &batch).await })
            }))
            .await
    }

    /// A batch.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn batch(&self, key: ObjectKey) -> Result<Option<BatchRecord>, LedgerError> {
        key.check()?;
        self.store
            .read(Box::new(move |connection| Box::pin(async move { sql::get(connection, &key).await })))
            .await
    }

    /// A tenant's batches.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn batches(&self, tenant: Arc<str>, page: Page) -> Result<Vec<BatchRecord>, LedgerError> {
        names::check([&*tenant])?;
        names::check(page.after.as_deref())?;
        self.store
            .read(Box::new(move |connection| {
                Box::pin(async move { sql::list(connection, &tenant, &page).await })
            }))
            .await
    }

    /// Calls a batch off, unless it is over; as it is then. `None` when there is none.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn cancel_batch(&self, key: ObjectKey) -> Result<Option<BatchRecord>, LedgerError> {
        key.check()?;
        self.store
            .write(Box::new(move |connection| Box::pin(async move { sql::cancel(connection, &key).await })))
            .await
    }

    /// Gives a worker a batch that is not over and that nobody works on, the oldest first.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn take_batch(
        &self,
        worker: String,
        lease: Duration,
    ) -> Result<Option<BatchRecord>, LedgerError> {
        names::check([&*worker])?;
        self.store
            .write(Box::new(move |connection| {
                Box::pin(async move { sql::take(connection, &worker, lease).await })
            }))
            .await
    }

    /// Writes how far a worker's batch has come and prolongs the lease; one that is over is nobody's any more.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn save_batch(
        &self,
        record: BatchRecord,
        worker: String,
        lease: Duration,
    ) -> Result<Held, LedgerError> {
        record.key.check()?;
        self.store
            .write(Box::new(move |connection| {
                Box::pin(async move { sql::save(connection, &record, &worker, lease).await })
            }))
            .await
    }

    /// Gives up every batch whose holder's name begins so, for a worker that stops; how many.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn release_batches(&self, worker: String) -> Result<u64, LedgerError> {
        self.store
            .write(Box::new(move |connection| {
                Box::pin(async move { sql::release(connection, &worker).await })
            }))
            .await
    }

    /// Notes what came of lines of a batch. A line that is over stays as it is, so noting again is safe.
    ///
    /// # Errors
    /// See [`LedgerError`]; some of them may be noted all the same.
    pub async fn note_lines(&self, batch: ObjectKey, notes: Vec<LineNote>) -> Result<(), LedgerError> {
        batch.check()?;
        self.store
            .write(Box::new(move |connection| {
                Box::pin(async move { sql::note(connection, &batch, &notes).await })
            }))
            .await
    }

    /// What is known of a batch's lines, in their order.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn line_marks(&self, batch: ObjectKey) -> Result<Vec<LineMark>, LedgerError> {
        batch.check()?;
        self.store
            .read(Box::new(move |connection| Box::pin(async move { sql::marks(connection, &batch).await })))
            .await
    }

    /// The parts of the files of lines that are over, from a line on, in their order.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn line_outputs(
        &self,
        batch: ObjectKey,
        from: u32,
        limit: u32,
    ) -> Result<Vec<LineOutput>, LedgerError> {
        batch.check()?;
        self.store
            .read(Box::new(move |connection| {
                Box::pin(async move { sql::outputs(connection, &batch, from, limit).await })
            }))
            .await
    }

    /// Those of a tenant's jobs with these ids, at most a few hundred, that are known.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn known_jobs(&self, tenant: Arc<str>, ids: Vec<String>) -> Result<Vec<KnownJob>, LedgerError> {
        names::check(ids.iter().map(String::as_str).chain([&*tenant]))?;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        self.store
            .read(Box::new(move |connection| {
                Box::pin(async move { crate::jobs::known(connection, &tenant, &ids).await })
            }))
            .await
    }
}
