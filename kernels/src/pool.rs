//! Threads that share the work of one kernel.

use crate::Isa;

/// A group of threads, of which the caller is one, and the instructions they use.
#[derive(Debug)]
pub struct Pool {
    threads: usize,
    isa: Isa,
}

impl Pool {
    /// `threads` in all, the caller included; 0 means one a core. They use the widest vectors there are.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        Self::with_isa(threads, Isa::detect())
    }

    /// As [`Pool::new`], with vectors no wider than `widest`.
    #[must_use]
    pub fn with_isa(threads: usize, widest: Isa) -> Self {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        // What the processor lacks is never used, whatever is asked for: kernels rely on it.
        let isa = widest.min(Isa::detect());
        Self { threads: if threads == 0 { cores() } else { threads }, isa }
    }

    /// Threads in all.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The instructions that kernels use here.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Calls `task` once with each number below `tasks` and returns when all are done.
    pub fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        (0..tasks).for_each(task);
    }
}
