//! The engine: one OS thread that owns the model and turns jobs into tokens.
//!
//! # Scheduling
//! A step is one pass through the model for all sequences at work, at most [`EngineConfig::max_sequences`]: one token
//! each, and beside them as much of new prompts as delays nobody's next token by more than a few steps. Sequences join
//! and leave between steps; further jobs wait in a bounded queue, and a thread of its own turns prompts into tokens.
//! Between steps every listener is asked whether it
//! still listens: one that left frees its place at once, one that is slow only stops its own sequence.
//!
//! Keys and values lie in blocks that are handed out as sequences grow and that later prompts reuse when they begin
//! alike. When there are too few, new sequences wait, and the youngest one at work gives its blocks away and is
//! computed again later: it says nothing twice and loses nothing.
//!
//! # Failure
//! A fault of one sequence ends that sequence. A panic in a step ends all sequences that were in it with
//! [`InferenceError::EnginePanicked`], because nothing says which state it left behind; the cache is thrown away, the
//! weights are tried out and read again from the file if they do not work, and the engine goes on.

mod blocks;
mod config;
mod intake;
mod job;
mod listener;
mod pace;
mod report;
mod scheduler;
mod sequence;
mod shared;
#[cfg(test)]
mod tests;
pub(crate) mod worker;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

#[doc(hidden)]
pub use config::FaultHook;
pub use config::{EngineConfig, EngineStats, ModelInfo, SubmitError};
pub use job::{
    FinishReason, Job, Prompt, PromptMessage, PromptTool, PromptToolCall, Readiness, TokenEvent, TokenSink,
    TokenUsage,
};
pub use report::{EngineObserver, StepReport};

use crate::InferenceError;
use crate::grammar::{Grammar, Grammars};
use shared::Shared;
use worker::{Loaded, Queued, Worker};

/// A running model. Dropping it stops the thread, which takes at most one step, and fails what is queued or in flight
/// with [`InferenceError::Stopped`].
#[derive(Debug)]
pub struct Engine {
    info: ModelInfo,
    grammars: Arc<Grammars>,
    shared: Arc<Shared>,
    jobs: Option<Sender<Queued>>,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Loads the model on a thread of its own and returns when it can take jobs.
    ///
    /// # Errors
    /// [`InferenceError::BadParameter`] for a setting out of range, otherwise as
    /// [`LoadedModel::load`](crate::LoadedModel::load).
    pub fn start(config: EngineConfig) -> Result<Self, InferenceError> {
        config.validate()?;
        let shared = Arc::new(Shared::new(config.queue_depth, config.observer.clone()));
        let (jobs, waiting) = unbounded();
        let (ready, loaded) = bounded(1);
        let on_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("inference".to_owned())
            .spawn(move || run(config, on_thread, waiting, &ready))
            .map_err(|error| InferenceError::unavailable(format!("cannot start a thread: {error}")))?;
        // No answer means that the thread is gone, which only a panic outside the guarded parts explains.
        let (info, grammars) = loaded.recv().unwrap_or(Err(InferenceError::Stopped))?;
        Ok(Self { info, grammars, shared, jobs: Some(jobs), thread: Some(thread) })
    }

    /// Queues a job. Never blocks.
    ///
    /// # Errors
    /// [`SubmitError::QueueFull`] or [`SubmitError::Stopped`]; the job is dropped then, its sink unused.
    pub fn submit(&self, job: Job) -> Result<(), SubmitError> {
        let jobs = self.jobs.as_ref().ok_or(SubmitError::Stopped)?;
        if !self.shared.reserve_place() {
            return Err(SubmitError::QueueFull);
        }
        jobs.send(Queued { job, submitted: Instant::now() }).map_err(|_| {
            self.shared.free_place();
            SubmitError::Stopped
        })
    }

    /// Compiles a grammar ahead of a job that uses it, so that the engine's thread need not. Blocks for milliseconds,
    /// at most for seconds.
    ///
    /// # Errors
    /// As [`Grammars::constraint`].
    pub fn prepare(&self, grammar: &Grammar) -> Result<(), InferenceError> {
        self.grammars.constraint(grammar).map(drop)
    }

    /// What the loaded model is.
    #[must_use]
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// What the engine is doing.
    #[must_use]
    pub fn stats(&self) -> EngineStats {
        self.shared.stats()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.stop();
        // The thread sleeps on this channel: closing it wakes it up.
        self.jobs = None;
        // A sink may own the engine and be dropped on its thread, which cannot wait for itself.
        if let Some(thread) = self.thread.take().filter(|_| !self.shared.is_worker_thread()) {
            // An error is a panic that is already reported; nothing is left to clean up.
            let _ = thread.join();
        }
    }
}

/// The engine thread: loads, reports, works until stopped.
fn run(
    config: EngineConfig,
    shared: Arc<Shared>,
    jobs: Receiver<Queued>,
    ready: &Sender<Result<(ModelInfo, Arc<Grammars>), InferenceError>>,
) {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(config.threads)
        .thread_name(|index| format!("inference-{index}"))
        .build();
    let pool = match pool {
        Ok(pool) => pool,
        Err(error) => {
            let reason = format!("cannot start threads: {error}");
            let _ = ready.send(Err(InferenceError::unavailable(reason)));
            return;
        }
    };
    // Inside the pool, all tensor work uses exactly its threads.
    pool.install(move || {
        shared.set_worker_thread();
        let loaded = Loaded::load(&config, None).and_then(|loaded| {
            let told = (loaded.info(), Arc::clone(loaded.language().grammars()));
            shared.set_blocks(loaded.blocks());
            Ok((Worker::new(config, loaded, shared, jobs)?, told))
        });
        match loaded {
            Ok((worker, told)) => {
                let _ = ready.send(Ok(told));
                worker.run();
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        }
    });
}
