//! From requests to rows: a bounded queue and a task that empties it in batches.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::{UsageRecord, sql};
use crate::error::LedgerError;
use crate::observer::LedgerObserver;
use crate::store::Store;

/// Most rows in one transaction.
const BATCH: usize = 512;
/// How long a row waits for others to share its transaction.
const LINGER: Duration = Duration::from_millis(200);
/// The first pause before a batch is tried again, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The end that requests hold.
pub(crate) struct Recorder {
    queue: mpsc::Sender<UsageRecord>,
    observer: Arc<dyn LedgerObserver>,
    /// Rows the full queue has turned away since the writer last said so.
    turned_away: Arc<AtomicU64>,
}

/// The end that writes.
pub(crate) struct Writer {
    queue: mpsc::Receiver<UsageRecord>,
    store: Arc<Store>,
    observer: Arc<dyn LedgerObserver>,
    turned_away: Arc<AtomicU64>,
    closing: watch::Receiver<bool>,
    /// Random, so that no two writers of a shared database number alike.
    name: i64,
    next: i64,
}

/// Ends when the ledger closes, or everybody has let go of it.
async fn closed(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}

impl Recorder {
    /// A queue of this many rows, and its other end.
    pub(crate) fn new(
        capacity: usize,
        store: Arc<Store>,
        observer: Arc<dyn LedgerObserver>,
        closing: watch::Receiver<bool>,
    ) -> (Self, Writer) {
        let (sender, queue) = mpsc::channel(capacity.max(1));
        let turned_away = Arc::new(AtomicU64::new(0));
        let writer = Writer {
            queue,
            store,
            observer: Arc::clone(&observer),
            turned_away: Arc::clone(&turned_away),
            closing,
            name: rand::random(),
            next: 0,
        };
        (Self { queue: sender, observer, turned_away }, writer)
    }

    /// Never waits; a row that finds no place is counted.
    ///
    /// Rows of requests for which no backend was called (refused, or answered from the cache) get half of the
    /// queue only: a flood of them must not take the places of those that cost something.
    pub(crate) fn record(&self, row: UsageRecord) {
        let is_kept = row.attempts > 0 || self.queue.capacity() > self.queue.max_capacity() / 2;
        if !is_kept || self.queue.try_send(row).is_err() {
            self.turned_away.fetch_add(1, Ordering::Relaxed);
            self.observer.usage_dropped(1);
        }
    }
}

impl Writer {
    /// Writes until the ledger closes and the queue is empty.
    pub(crate) async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        while self.fill(&mut batch).await {
            let rows: Vec<_> = batch.drain(..).map(|row| (self.number(), row)).collect();
            self.write(rows).await;
            self.say_what_was_turned_away();
        }
    }

    /// Takes what waits, after a moment for more to come; false once nothing will.
    async fn fill(&mut self, batch: &mut Vec<UsageRecord>) -> bool {
        tokio::select! {
            biased;
            taken = self.queue.recv_many(batch, BATCH) => if taken == 0 { return false },
            () = closed(&mut self.closing) => {
                // Requests that are not over yet may still hold the other end: what is there now is the rest.
                self.queue.close();
                self.queue.recv_many(batch, BATCH).await;
                return !batch.is_empty();
            }
        }
        if batch.len() < BATCH {
            let _ = timeout(LINGER, closed(&mut self.closing)).await;
            while batch.len() < BATCH
                && let Ok(row) = self.queue.try_recv()
            {
                batch.push(row);
            }
        }
        true
    }

    /// Whether the ledger closes, or everybody has let go of it.
    fn is_closing(&self) -> bool {
        *self.closing.borrow() || self.closing.has_changed().is_err()
    }

    fn number(&mut self) -> i64 {
        self.next += 1;
        self.next
    }

    /// Until the rows are written, refused one by one, or the service ends.
    async fn write(&mut self, rows: Vec<(i64, UsageRecord)>) {
        let mut parts = VecDeque::from([Arc::new(rows)]);
        let mut pause = FIRST_PAUSE;
        while let Some(part) = parts.pop_front() {
            match self.insert(&part).await {
                Ok(()) => {
                    self.observer.usage_written(part.len() as u64);
                    pause = FIRST_PAUSE;
                }
                Err(LedgerError::Refused) if part.len() > 1 => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.push_front(Arc::new(second.to_vec()));
                    parts.push_front(Arc::new(first.to_vec()));
                }
                Err(LedgerError::Refused) => {
                    tracing::error!(row = ?part.first(), "the database refuses a usage row");
                    self.observer.usage_dropped(1);
                }
                Err(error) => {
                    parts.push_front(part);
                    if self.is_closing() {
                        self.give_up(&parts, error);
                        return;
                    }
                    let _ = timeout(pause, closed(&mut self.closing)).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    async fn insert(&self, rows: &Arc<Vec<(i64, UsageRecord)>>) -> Result<(), LedgerError> {
        let (name, rows) = (self.name, Arc::clone(rows));
        let work = self.store.write(Box::new(move |connection| {
            Box::pin(async move { sql::insert(connection, name, &rows).await })
        }));
        work.await
    }

    fn give_up(&mut self, parts: &VecDeque<Arc<Vec<(i64, UsageRecord)>>>, error: LedgerError) {
        self.queue.close();
        let mut lost: u64 = parts.iter().map(|part| part.len() as u64).sum();
        while self.queue.try_recv().is_ok() {
            lost += 1;
        }
        tracing::warn!(rows = lost, %error, "usage rows are lost: the service ends and the database is away");
        self.observer.usage_dropped(lost);
    }

    fn say_what_was_turned_away(&self) {
        let rows = self.turned_away.swap(0, Ordering::Relaxed);
        if rows > 0 {
            tracing::warn!(rows, "usage rows are lost: the database does not keep up");
        }
    }
}
