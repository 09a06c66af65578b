//! Batches: files of requests, answered as jobs.
//!
//! Each batch is driven by one worker at a time, of whatever replica: it holds a lease in the ledger, reads the
//! file, publishes its lines as jobs, a bounded number at once, collects their replies and writes the files with
//! the answers. All that counts is in the ledger before it is relied on, and a line's job is published under the
//! same identity however often that happens. So a worker may end anywhere: the next one goes on from what is
//! there, and asks nothing twice that was answered.
//!
//! What is decided is decided in `opossum_core::batches`. A ledger that fails ends the work on a batch; it is
//! taken up again once the lease has ended.

mod drive;
mod finish;
mod input;
mod worker;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use opossum_jobs::Door;
use opossum_ledger::Ledger;
use tokio::sync::{Notify, watch};

/// The work on batches. Clones share it.
#[derive(Clone)]
pub struct Batches {
    inner: Arc<Inner>,
}

struct Inner {
    news: Arc<Notify>,
    leaving: watch::Sender<bool>,
    thread: parking_lot::Mutex<Option<JoinHandle<()>>>,
}

impl Batches {
    /// Starts to look for batches, on a thread of its own: reading a large file must not hold up anything else.
    ///
    /// # Errors
    /// The thread or its event loop cannot be made.
    pub fn start(ledger: Ledger, door: Door) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let news = Arc::new(Notify::new());
        let (leaving, leave) = watch::channel(false);
        let thread = {
            let news = Arc::clone(&news);
            std::thread::Builder::new().name("batches".to_owned()).spawn(move || {
                runtime.block_on(worker::run(ledger, door, &news, leave));
            })?
        };
        let thread = parking_lot::Mutex::new(Some(thread));
        Ok(Self { inner: Arc::new(Inner { news, leaving, thread }) })
    }

    /// Says that there may be something to do.
    pub fn wake(&self) {
        self.inner.news.notify_one();
    }

    /// Gives all batches back, for other workers to take at once.
    pub async fn leave(&self) {
        self.inner.leaving.send_replace(true);
        let thread = self.inner.thread.lock().take();
        if let Some(thread) = thread {
            tokio::task::spawn_blocking(move || thread.join().ok()).await.ok();
        }
    }
}
