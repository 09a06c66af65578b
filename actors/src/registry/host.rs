//! The thread the actors run on.

use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use actix::{ArbiterHandle, System};
use tokio::sync::oneshot;

/// Name of the actors' thread.
pub const HOST_THREAD: &str = "actors";

/// One running actors' thread: an actix system with its single arbiter.
pub(crate) struct Host {
    arbiter: ArbiterHandle,
    system: System,
    /// Disconnected when the thread has ended.
    ended: mpsc::Receiver<()>,
}

impl Host {
    /// Starts the thread and waits until its event loop stands.
    pub(crate) fn start() -> io::Result<Self> {
        let (ready_tx, ready) = mpsc::channel();
        let (ended_tx, ended) = mpsc::channel();
        thread::Builder::new().name(HOST_THREAD.to_owned()).spawn(move || {
            let _ended = ended_tx;
            run(&ready_tx);
        })?;
        // An error here is a thread that ended without a word: its start-up panicked.
        let (arbiter, system) = ready.recv().map_err(io::Error::other)??;
        Ok(Self { arbiter, system, ended })
    }

    /// The thread of a test that runs an actix system itself, on time it can hold still.
    #[cfg(test)]
    pub(crate) fn this_thread() -> Self {
        let (_, ended) = mpsc::channel();
        Self { arbiter: actix::Arbiter::current(), system: System::current(), ended }
    }

    pub(crate) fn arbiter(&self) -> &ArbiterHandle {
        &self.arbiter
    }

    /// A receiver that resolves when the event loop gets to it; an error when there is none.
    pub(crate) fn ping(&self) -> oneshot::Receiver<()> {
        let (tx, rx) = oneshot::channel();
        self.arbiter.spawn_fn(move || {
            // The asker may have stopped waiting.
            let _ = tx.send(());
        });
        rx
    }

    /// Asks the thread to end; it does so as soon as its event loop turns.
    pub(crate) fn stop(&self) {
        self.system.stop();
    }

    /// Waits until the thread has ended; whether it did within `patience`.
    pub(crate) fn ended(&self, patience: Duration) -> bool {
        self.ended.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Disconnected)
    }
}

type Started = io::Result<(ArbiterHandle, System)>;

fn run(ready: &mpsc::Sender<Started>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    let runner = System::with_tokio_rt(|| runtime);
    let system = System::current();
    if ready.send(Ok((system.arbiter().clone(), system))).is_err() {
        return;
    }
    if let Err(error) = runner.run() {
        tracing::error!(%error, "the actors' event loop ended with an error");
    }
}
