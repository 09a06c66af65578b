//! Files of callers, in pieces.
//!
//! A file is `writing`, `ready` or `gone`; only what is ready and has not expired is seen. Taking one away
//! changes its state alone, so it takes no longer for a large one; the keeper deletes the pieces.

mod sql;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::error::LedgerError;
use crate::{Ledger, names};

pub(crate) use sql::prune;

/// Bytes of each piece of a file but the last.
pub const PIECE: usize = 256 * 1024;

/// Whose something is, and its id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectKey {
    /// Whose it is.
    pub tenant: Arc<str>,
    /// Its id.
    pub id: Arc<str>,
}

impl ObjectKey {
    /// Joins a tenant and an id.
    pub fn new(tenant: impl Into<Arc<str>>, id: impl Into<Arc<str>>) -> Self {
        Self { tenant: tenant.into(), id: id.into() }
    }

    pub(crate) fn check(&self) -> Result<(), LedgerError> {
        names::check([&*self.tenant, &*self.id])
    }
}

/// What is known of a file once all of it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFile {
    /// What it is for.
    pub purpose: String,
    /// How its owner calls it.
    pub filename: String,
    /// How many bytes it has.
    pub bytes: u64,
    /// How long it is kept from the beginning of its writing.
    pub keep: Duration,
}

/// A file without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRecord {
    /// Its id.
    pub id: Arc<str>,
    /// What it is for.
    pub purpose: String,
    /// How its owner calls it.
    pub filename: String,
    /// How many bytes it has.
    pub bytes: u64,
    /// When its writing began, in Unix milliseconds.
    pub created_ms: i64,
    /// When it goes away by itself, in Unix milliseconds.
    pub expires_ms: i64,
}

/// What came of taking a file away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// It is gone.
    Gone,
    /// There is none.
    Missing,
    /// A batch that is not over reads it.
    InUse,
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// What follows this id, which must be one of the list's; `None` begins at the beginning.
    pub after: Option<Arc<str>>,
    /// At most so many.
    pub limit: u32,
    /// Whether the newest come first.
    pub newest_first: bool,
}

impl Ledger {
    /// Begins to write a file. One that was begun before under this id is begun anew.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn begin_file(&self, key: ObjectKey) -> Result<(), LedgerError> {
        key.check()?;
        self.store
            .write(Box::new(move |connection| Box::pin(async move { sql::begin(connection, &key).await })))
            .await
    }

    /// Writes a piece, numbered from 0; all but the last have [`PIECE`] bytes. Writing one again is safe.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn add_piece(&self, key: ObjectKey, number: u64, piece: Bytes) -> Result<(), LedgerError> {
        key.check()?;
        self.store
            .write(Box::new(move |connection| {
                Box::pin(async move { sql::add(connection, &key, number, &piece).await })
            }))
            .await
    }

    /// Ends the writing of a file, from when on it is seen; `None` when it was not being written.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn finish_file(
        &self,
        key: ObjectKey,
        file: NewFile,
    ) -> Result<Option<FileRecord>, LedgerError> {
        key.check()?;
        names::check([&*file.purpose, &*file.filename])?;
        self.store
            .write(Box::new(move |connection| {
                Box::pin(async move { sql::finish(connection, &key, &file).await })
            }))
            .await
    }

    /// A file.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn file(&self, key: ObjectKey) -> Result<Option<FileRecord>, LedgerError> {
        key.check()?;
        self.store
            .read(Box::new(move |connection| Box::pin(async move { sql::get(connection, &key).await })))
            .await
    }

    /// A tenant's files, of one purpose or of all.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn files(
        &self,
        tenant: Arc<str>,
        purpose: Option<String>,
        page: Page,
    ) -> Result<Vec<FileRecord>, LedgerError> {
        names::check([&*tenant])?;
        names::check(page.after.as_deref().into_iter().chain(purpose.as_deref()))?;
        self.store
            .read(Box::new(move |connection| {
                Box::pin(async move { sql::list(connection, &tenant, purpose.as_deref(), &page).await })
            }))
            .await
    }

    /// A piece of a file's content, numbered from 0; `None` after the last, and of a file that is gone. One that
    /// a batch still reads has it for longer than it is seen.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn piece(&self, key: ObjectKey, number: u64) -> Result<Option<Bytes>, LedgerError> {
        key.check()?;
        self.store
            .read(Box::new(move |connection| {
                Box::pin(async move { sql::piece(connection, &key, number).await })
            }))
            .await
    }

    /// Takes a file away, written or not.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub async fn delete_file(&self, key: ObjectKey) -> Result<Deleted, LedgerError> {
        key.check()?;
        self.store
            .write(Box::new(move |connection| Box::pin(async move { sql::delete(connection, &key).await })))
            .await
    }
}
