//! Connections: how statements reach the database, each within its time.
//!
//! SQLite has one writer at a time and pays a disk's flush for every commit. So one connection writes, and
//! what waits for it is committed together ([`group`]). PostgreSQL does both by itself: there each call takes
//! a connection of its own.

mod connect;
mod group;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use sqlx::{AnyConnection, AnyPool};
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use crate::address::{Address, Dialect};
use crate::error::LedgerError;
use crate::observer::LedgerObserver;
use crate::tasks::Tasks;
use group::Group;

/// What a call does with its connection.
pub(crate) type Work<T> =
    Box<dyn for<'c> FnOnce(&'c mut AnyConnection) -> BoxFuture<'c, Result<T, sqlx::Error>> + Send>;

/// The database, connected or not.
pub(crate) struct Store {
    address: Address,
    timeout: Duration,
    observer: Arc<dyn LedgerObserver>,
    lines: OnceCell<Lines>,
    tasks: Tasks,
    /// Where connections live. Callers may come from runtimes that end earlier or are held up.
    runtime: Handle,
    /// What is wrong; `None` when the last call succeeded.
    fault: Mutex<Option<LedgerError>>,
}

/// The ways to a connected database.
struct Lines {
    write: Write,
    read: AnyPool,
}

enum Write {
    Grouped(Group),
    Direct(AnyPool),
}

impl Store {
    /// Must be called inside the runtime in which connections are to live.
    pub(crate) fn new(address: Address, timeout: Duration, observer: Arc<dyn LedgerObserver>) -> Self {
        let (lines, tasks, runtime) = (OnceCell::new(), Tasks::default(), Handle::current());
        let fault = Mutex::new(Some(LedgerError::Starting));
        Self { address, timeout, observer, lines, tasks, runtime, fault }
    }

    /// What is wrong, as far as calls have shown; `None` when all is well.
    pub(crate) fn fault(&self) -> Option<LedgerError> {
        *self.fault.lock()
    }

    /// Runs in the ledger's runtime, to its end also when nobody waits any more.
    pub(crate) async fn at_home<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, LedgerError>> + Send + 'static,
    ) -> Result<T, LedgerError> {
        self.runtime.spawn(work).await.unwrap_or(Err(LedgerError::Closed))
    }

    /// Connects and brings the tables up to date, unless that is done.
    pub(crate) async fn connect(&self) -> Result<(), LedgerError> {
        // That there are connections says nothing about the database: what is wrong with it stays said.
        if self.lines.initialized() {
            return Ok(());
        }
        let made = self.lines.get_or_try_init(async || match self.address.dialect {
            Dialect::Sqlite => {
                let (write, read) = connect::sqlite(&self.address, self.timeout).await?;
                let (group, work) = Group::new(write);
                self.tasks.start("ledger writer", work);
                Ok(Lines { write: Write::Grouped(group), read })
            }
            Dialect::Postgres => {
                let pool = connect::postgres(&self.address, self.timeout).await?;
                Ok(Lines { write: Write::Direct(pool.clone()), read: pool })
            }
        });
        let outcome = made.await.map(|_| ());
        self.note(outcome)
    }

    /// Runs statements that change something. When this returns without an error they are on disk.
    pub(crate) async fn write<T: Send + 'static>(&self, work: Work<T>) -> Result<T, LedgerError> {
        let outcome = match self.lines() {
            Ok(Lines { write: Write::Grouped(group), .. }) => {
                self.in_time(group.run(work)).await.and_then(|done| done)
            }
            Ok(Lines { write: Write::Direct(pool), .. }) => self.direct(pool, work).await,
            Err(error) => Err(error),
        };
        self.note(outcome)
    }

    /// Runs statements that change nothing. That they succeed says nothing about writing.
    pub(crate) async fn read<T: Send + 'static>(&self, work: Work<T>) -> Result<T, LedgerError> {
        let outcome = match self.lines() {
            Ok(lines) => self.direct(&lines.read, work).await,
            Err(error) => Err(error),
        };
        if outcome.is_err() { self.note(outcome) } else { outcome }
    }

    /// Ends the work where its caller gives up, so that the connection is free again.
    async fn direct<T: Send + 'static>(&self, pool: &AnyPool, work: Work<T>) -> Result<T, LedgerError> {
        let pool = pool.clone();
        let mut task = JoinSet::new();
        let done = async move {
            let mut connection = pool.acquire().await?;
            work(&mut connection).await
        };
        task.spawn_on(done, &self.runtime);
        match self.in_time(task.join_next()).await? {
            Some(Ok(outcome)) => outcome.map_err(|error| LedgerError::of(self.address.dialect, &error)),
            Some(Err(ended)) if ended.is_panic() => Err(LedgerError::Failed),
            Some(Err(_)) | None => Err(LedgerError::Closed),
        }
    }

    async fn in_time<T>(&self, work: impl Future<Output = T>) -> Result<T, LedgerError> {
        timeout(self.timeout, work).await.map_err(|_| LedgerError::Timeout)
    }

    fn lines(&self) -> Result<&Lines, LedgerError> {
        self.lines.get().ok_or_else(|| (*self.fault.lock()).unwrap_or(LedgerError::Starting))
    }

    /// Remembers how the database is; the log hears of every change, and not of every failure.
    fn note<T>(&self, outcome: Result<T, LedgerError>) -> Result<T, LedgerError> {
        let now = outcome.as_ref().err().copied();
        if let Some(error) = now {
            self.observer.failed(error);
        }
        if now.is_none_or(LedgerError::is_of_database) {
            let before = std::mem::replace(&mut *self.fault.lock(), now);
            match (before, now) {
                (Some(LedgerError::Starting), None) => {
                    tracing::info!(at = ?self.address, "the ledger is open");
                }
                (Some(_), None) => tracing::info!(at = ?self.address, "the ledger is back"),
                (before, Some(error)) if before != now => {
                    tracing::warn!(at = ?self.address, %error, "the ledger is unavailable");
                }
                _ => {}
            }
        }
        outcome
    }

    /// Lets the calls under way end, then disconnects. SQLite's file is complete in itself afterwards.
    pub(crate) async fn close(&self, by: Instant) {
        let Some(lines) = self.lines.get() else { return };
        if let Write::Grouped(group) = &lines.write {
            group.close();
        }
        self.tasks.end(by).await;
        if timeout_at(by, lines.read.close()).await.is_err() {
            tracing::warn!("a connection of the ledger is still at work");
        }
    }
}

/// Writes one small row.
pub(crate) async fn beat(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    const BEAT: &str = "
        INSERT INTO opossum_pulse (only_row, at_ms) SELECT 1, c.now_ms FROM opossum_clock c WHERE true
        ON CONFLICT (only_row) DO UPDATE SET at_ms = excluded.at_ms";
    sqlx::query(BEAT).execute(connection).await.map(|_| ())
}

/// A time span in milliseconds: at most a century, so that adding it to the time cannot overflow.
pub(crate) fn millis(span: Duration) -> i64 {
    const CENTURY: i64 = 100 * 365 * 86_400_000;
    i64::try_from(span.as_millis()).map_or(CENTURY, |ms| ms.min(CENTURY))
}
