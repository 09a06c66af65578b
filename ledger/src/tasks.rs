//! Tasks with names; closing waits for all of them.

use std::future::Future;

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

/// The tasks of one ledger.
#[derive(Default)]
pub(crate) struct Tasks(Mutex<Vec<(&'static str, JoinHandle<()>)>>);

impl Tasks {
    /// Starts a task that closing waits for.
    pub(crate) fn start(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.0.lock().push((name, tokio::spawn(work)));
    }

    /// Waits for all tasks, and ends those that are not done by then.
    pub(crate) async fn end(&self, by: Instant) {
        let tasks = std::mem::take(&mut *self.0.lock());
        for (name, mut task) in tasks {
            match timeout_at(by, &mut task).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => tracing::error!(task = name, "a task of the ledger panicked"),
                Err(_) => {
                    tracing::warn!(task = name, "a task of the ledger was ended before it was done");
                    task.abort();
                }
            }
        }
    }
}
