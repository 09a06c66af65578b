//! A thread that waits at the gate.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};

use super::job::{Gate, Sight, spin_until};

/// A started worker, as the owner of a job sees it.
pub(super) struct Worker {
    asleep: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Worker {
    pub(super) fn start(index: usize, gate: &Arc<Gate>) -> io::Result<Self> {
        let asleep = Arc::new(AtomicBool::new(false));
        let (gate, flag) = (Arc::clone(gate), Arc::clone(&asleep));
        let thread = Builder::new().name(format!("inference-{index}")).spawn(move || serve(&gate, &flag))?;
        Ok(Self { asleep, thread })
    }

    /// Makes it look at the gate, if it sleeps. The gate has changed before.
    pub(super) fn wake(&self) {
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            self.thread.thread().unpark();
        }
    }

    #[cfg(test)]
    pub(super) fn is_asleep(&self) -> bool {
        self.asleep.load(Ordering::SeqCst)
    }

    /// Returns when it has ended.
    pub(super) fn join(self) {
        // A worker catches what its tasks throw, so there is nothing to learn from the result.
        let _ = self.thread.join();
    }
}

fn serve(gate: &Gate, asleep: &AtomicBool) {
    let mut seen = 0;
    loop {
        match gate.look(seen) {
            Sight::Stopped => return,
            Sight::Job(state) => {
                if gate.join(state) {
                    seen = state;
                }
            }
            Sight::Nothing => {
                if !spin_until(|| !gate.look(seen).is_nothing()) {
                    sleep(gate, asleep, seen);
                }
            }
        }
    }
}

/// Sleeps until somebody wakes this thread.
///
/// No wake-up is lost: here the flag is set and then the gate looked at, in [`Worker::wake`] the gate has changed and
/// then the flag is looked at, all in one order; so at least one of the two sees what the other did.
fn sleep(gate: &Gate, asleep: &AtomicBool, seen: u64) {
    asleep.store(true, Ordering::SeqCst);
    if gate.look(seen).is_nothing() {
        while asleep.load(Ordering::SeqCst) {
            std::thread::park();
        }
    }
    asleep.store(false, Ordering::SeqCst);
}
