//! Group commit: whatever waits for the one writing connection is committed with one flush of the disk
//! (DeWitt et al., "Implementation Techniques for Main Memory Database Systems", 1984).

use futures::future::BoxFuture;
use parking_lot::Mutex;
use sqlx::{Any, AnyConnection, AnyPool, Connection as _, Transaction};
use tokio::sync::{mpsc, oneshot};

use super::Work;
use crate::address::Dialect;
use crate::error::LedgerError;

/// Most calls that wait; a caller beyond that is told so at once.
const WAITING: usize = 4096;
/// Most calls in one commit.
const TOGETHER: usize = 128;

/// The way to the writing connection.
pub(super) struct Group {
    /// `None` once closed.
    queue: Mutex<Option<mpsc::Sender<Box<dyn Entry>>>>,
}

/// A waiting call, whatever its result.
trait Entry: Send {
    /// Whether somebody still waits for the result.
    fn is_wanted(&self) -> bool;
    fn run<'c>(&'c mut self, connection: &'c mut AnyConnection) -> BoxFuture<'c, Result<(), sqlx::Error>>;
    /// Tells the caller, once the commit is done.
    fn settle(self: Box<Self>, outcome: Result<(), LedgerError>);
}

struct Call<T> {
    work: Option<Work<T>>,
    made: Option<T>,
    reply: oneshot::Sender<Result<T, LedgerError>>,
}

impl<T: Send> Entry for Call<T> {
    fn is_wanted(&self) -> bool {
        !self.reply.is_closed()
    }

    fn run<'c>(&'c mut self, connection: &'c mut AnyConnection) -> BoxFuture<'c, Result<(), sqlx::Error>> {
        Box::pin(async move {
            if let Some(work) = self.work.take() {
                self.made = Some(work(connection).await?);
            }
            Ok(())
        })
    }

    fn settle(self: Box<Self>, outcome: Result<(), LedgerError>) {
        let Call { made, reply, .. } = *self;
        let result = outcome.and_then(|()| made.ok_or(LedgerError::Failed));
        // Whoever does not wait any more has counted it as a timeout.
        let _ = reply.send(result);
    }
}

impl Group {
    /// The way, and the task at its end.
    pub(super) fn new(pool: AnyPool) -> (Self, impl Future<Output = ()> + Send) {
        let (queue, waiting) = mpsc::channel(WAITING);
        (Self { queue: Mutex::new(Some(queue)) }, serve(pool, waiting))
    }

    /// Has `work` done and committed.
    pub(super) async fn run<T: Send + 'static>(&self, work: Work<T>) -> Result<T, LedgerError> {
        let (reply, result) = oneshot::channel();
        let call = Box::new(Call { work: Some(work), made: None, reply });
        match self.queue.lock().as_ref().map(|queue| queue.try_send(call)) {
            Some(Ok(())) => {}
            Some(Err(mpsc::error::TrySendError::Full(_))) => return Err(LedgerError::Overloaded),
            Some(Err(mpsc::error::TrySendError::Closed(_))) | None => return Err(LedgerError::Closed),
        }
        result.await.unwrap_or(Err(LedgerError::Closed))
    }

    /// Takes no more calls; the task ends once it has done those that wait.
    pub(super) fn close(&self) {
        self.queue.lock().take();
    }
}

async fn serve(pool: AnyPool, mut waiting: mpsc::Receiver<Box<dyn Entry>>) {
    let mut group = Vec::with_capacity(TOGETHER);
    while waiting.recv_many(&mut group, TOGETHER).await > 0 {
        group.retain(|call| call.is_wanted());
        let outcome =
            commit(&pool, &mut group).await.map_err(|error| LedgerError::of(Dialect::Sqlite, &error));
        for call in group.drain(..) {
            call.settle(outcome);
        }
    }
    pool.close().await;
}

/// All or nothing: a statement fails here only when the database does, and then for everybody.
async fn commit(pool: &AnyPool, group: &mut [Box<dyn Entry>]) -> Result<(), sqlx::Error> {
    if group.is_empty() {
        return Ok(());
    }
    let mut connection = pool.acquire().await?;
    // Taking the lock at once, since a transaction that reads first may be refused it later.
    let transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let outcome = run_all(transaction, group).await;
    if outcome.is_err() {
        // On a full disk SQLite rolls back by itself, which the library does not see: it would refuse this
        // connection every further transaction.
        connection.close_on_drop();
    }
    outcome
}

async fn run_all(
    mut transaction: Transaction<'_, Any>,
    group: &mut [Box<dyn Entry>],
) -> Result<(), sqlx::Error> {
    for call in group {
        call.run(&mut transaction).await?;
    }
    transaction.commit().await
}
