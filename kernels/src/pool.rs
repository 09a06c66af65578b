//! Threads that share the work of one kernel.

/// A group of threads; the caller is one of them.
#[derive(Debug)]
pub struct Pool {
    threads: usize,
}

impl Pool {
    /// `threads` in all, the caller included; 0 means one a core.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        Self { threads: if threads == 0 { cores() } else { threads } }
    }

    /// Threads in all.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Calls `task` once with each number below `tasks` and returns when all are done.
    pub fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        (0..tasks).for_each(task);
    }
}
