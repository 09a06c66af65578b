//! Threads that share the work of one kernel.
//!
//! A decode step is some 150 short kernels with a few microseconds between them, so a worker that has nothing to do
//! spins for a moment before it sleeps: waking a thread takes as long as such a kernel. It never spins longer than
//! [`SPIN`], so that an idle engine takes no processor time and a busy host loses little.
//!
//! The caller does not wait for workers to begin: it works itself, and when no task is left it closes the job to whoever
//! has not joined. A worker that the host holds up delays nothing unless it holds a task.

mod job;
mod worker;

use std::fmt;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::Isa;
use job::{Gate, Job, spin_until};
use worker::Worker;

/// How long a thread spins before it sleeps.
const SPIN: Duration = Duration::from_micros(40);

/// A group of threads, of which the caller is one, and the instructions they use.
///
/// Several threads may call [`Pool::run`] at once: one of them gets the workers, the others work alone.
pub struct Pool {
    isa: Isa,
    gate: Arc<Gate>,
    workers: Vec<Worker>,
    /// Whether a caller has the workers.
    taken: AtomicBool,
}

impl Pool {
    /// `threads` in all, the caller included; 0 means one a core. They use the widest vectors there are.
    ///
    /// Where the system refuses a thread there are fewer.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        Self::with_isa(threads, Isa::detect())
    }

    /// As [`Pool::new`], with vectors no wider than `widest`.
    #[must_use]
    pub fn with_isa(threads: usize, widest: Isa) -> Self {
        crate::heap::keep_freed();
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if threads == 0 { cores() } else { threads };
        let gate = Arc::new(Gate::default());
        let workers = (1..threads).map_while(|index| Worker::start(index, &gate).ok()).collect();
        // What the processor lacks is never used, whatever is asked for: kernels rely on it.
        Self { isa: widest.min(Isa::detect()), gate, workers, taken: AtomicBool::new(false) }
    }

    /// Threads in all.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// The instructions that kernels use here.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Calls `task` once with each number below `tasks`, in any order, and returns when all are done.
    ///
    /// # Panics
    /// As a task did. With several threads the others are done first; the pool stays usable.
    pub fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        // A caller that finds the workers taken - by another thread, or by itself when a task runs tasks - works alone.
        if tasks <= 1 || self.workers.is_empty() || self.taken.swap(true, Ordering::Acquire) {
            (0..tasks).for_each(task);
            return;
        }
        let job = Job::new(tasks, task);
        let open = self.gate.open(&job);
        self.workers.iter().take(tasks - 1).for_each(Worker::wake);
        job.work();
        drop(open);
        self.taken.store(false, Ordering::Release);
        if let Some(panic) = job.into_panic() {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.gate.stop();
        self.workers.iter().for_each(Worker::wake);
        self.workers.drain(..).for_each(Worker::join);
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("threads", &self.threads())
            .field("isa", &self.isa)
            .finish_non_exhaustive()
    }
}

/// Waits for what another thread is about to be done with. A host that holds that thread up gets the processor.
pub(crate) fn wait_until(mut condition: impl FnMut() -> bool) {
    while !spin_until(&mut condition) {
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests;
