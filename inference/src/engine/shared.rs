//! What the engine's handle and its thread both see.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, ThreadId};

use super::EngineStats;

/// Counters and the stop flag. All are independent of each other, so relaxed ordering is enough.
#[derive(Debug)]
pub(super) struct Shared {
    queue_depth: usize,
    queued: AtomicUsize,
    active: AtomicUsize,
    tokens_generated: AtomicU64,
    tokens_prefilled: AtomicU64,
    restarts: AtomicU64,
    stopping: AtomicBool,
    worker_thread: OnceLock<ThreadId>,
}

impl Shared {
    pub(super) fn new(queue_depth: usize) -> Self {
        Self {
            queue_depth,
            queued: AtomicUsize::new(0),
            active: AtomicUsize::new(0),
            tokens_generated: AtomicU64::new(0),
            tokens_prefilled: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            worker_thread: OnceLock::new(),
        }
    }

    /// Takes a place in the queue; `false` when all are taken.
    pub(super) fn reserve_place(&self) -> bool {
        let one_more = |queued: usize| (queued < self.queue_depth).then_some(queued + 1);
        self.queued.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// Gives a place in the queue back.
    pub(super) fn free_place(&self) {
        self.queued.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn set_active(&self, active: usize) {
        self.active.store(active, Ordering::Relaxed);
    }

    pub(super) fn count_tokens(&self, prefilled: usize, generated: usize) {
        self.tokens_prefilled.fetch_add(prefilled as u64, Ordering::Relaxed);
        self.tokens_generated.fetch_add(generated as u64, Ordering::Relaxed);
    }

    pub(super) fn count_restart(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    pub(super) fn set_worker_thread(&self) {
        // Set once, when the thread starts.
        let _ = self.worker_thread.set(thread::current().id());
    }

    pub(super) fn is_worker_thread(&self) -> bool {
        self.worker_thread.get() == Some(&thread::current().id())
    }

    pub(super) fn stats(&self) -> EngineStats {
        EngineStats {
            active: self.active.load(Ordering::Relaxed),
            queued: self.queued.load(Ordering::Relaxed),
            tokens_generated: self.tokens_generated.load(Ordering::Relaxed),
            tokens_prefilled: self.tokens_prefilled.load(Ordering::Relaxed),
            restarts: self.restarts.load(Ordering::Relaxed),
        }
    }
}
