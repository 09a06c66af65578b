//! What the engine's handle and its thread both see.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, ThreadId};
use std::time::Duration;

use super::{EngineObserver, EngineStats, StepReport};

/// Counters and the stop flag. All are independent of each other, so relaxed ordering is enough.
#[derive(Debug)]
pub(super) struct Shared {
    queue_depth: usize,
    queued: AtomicUsize,
    active: AtomicUsize,
    tokens_generated: AtomicU64,
    tokens_prefilled: AtomicU64,
    tokens_reused: AtomicU64,
    steps: AtomicU64,
    preemptions: AtomicU64,
    restarts: AtomicU64,
    blocks: AtomicUsize,
    blocks_in_use: AtomicUsize,
    stopping: AtomicBool,
    worker_thread: OnceLock<ThreadId>,
    observer: Option<Arc<dyn EngineObserver>>,
}

impl Shared {
    pub(super) fn new(queue_depth: usize, observer: Option<Arc<dyn EngineObserver>>) -> Self {
        Self {
            queue_depth,
            queued: AtomicUsize::new(0),
            active: AtomicUsize::new(0),
            tokens_generated: AtomicU64::new(0),
            tokens_prefilled: AtomicU64::new(0),
            tokens_reused: AtomicU64::new(0),
            steps: AtomicU64::new(0),
            preemptions: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            blocks: AtomicUsize::new(0),
            blocks_in_use: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            worker_thread: OnceLock::new(),
            observer,
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

    pub(super) fn set_blocks(&self, blocks: usize) {
        self.blocks.store(blocks, Ordering::Relaxed);
    }

    pub(super) fn set_blocks_in_use(&self, blocks: usize) {
        self.blocks_in_use.store(blocks, Ordering::Relaxed);
    }

    /// A step was computed.
    pub(super) fn step(&self, report: &StepReport) {
        let count = |counter: &AtomicU64, more: usize| counter.fetch_add(more as u64, Ordering::Relaxed);
        count(&self.steps, 1);
        count(&self.tokens_prefilled, report.prefilled);
        count(&self.tokens_generated, report.generated);
        count(&self.tokens_reused, report.reused);
        count(&self.preemptions, report.preempted);
        if let Some(observer) = &self.observer {
            observer.step(report);
        }
    }

    /// A job left the queue.
    pub(super) fn waited(&self, time: Duration) {
        if let Some(observer) = &self.observer {
            observer.waited(time);
        }
    }

    /// A sequence got its first token.
    pub(super) fn first_token(&self, time: Duration) {
        if let Some(observer) = &self.observer {
            observer.first_token(time);
        }
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
            tokens_reused: self.tokens_reused.load(Ordering::Relaxed),
            steps: self.steps.load(Ordering::Relaxed),
            preemptions: self.preemptions.load(Ordering::Relaxed),
            restarts: self.restarts.load(Ordering::Relaxed),
            blocks: self.blocks.load(Ordering::Relaxed),
            blocks_in_use: self.blocks_in_use.load(Ordering::Relaxed),
        }
    }
}
