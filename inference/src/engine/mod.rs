//! The engine: one OS thread that owns the model and turns jobs into tokens.
//!
//! # Scheduling
//! Up to [`EngineConfig::max_sequences`] sequences are computed in turn, one token each; a prompt is computed in
//! chunks, so a long one delays the others by one
//! chunk at a time. Further jobs wait in a bounded queue. Between tokens every listener is asked whether it still
//! listens: one that left frees its place at once, one that is slow only stops its own sequence.
//!
//! # Failure
//! A fault of one sequence ends that sequence. A panic ends all sequences in flight with
//! [`InferenceError::EnginePanicked`], because nothing says which state it left behind; their caches are thrown away,
//! the weights are tried out and read again from the file if they do not work, and the next job runs.

mod config;
mod job;
mod sequence;
mod shared;
#[cfg(test)]
mod tests;
mod worker;

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

#[doc(hidden)]
pub use config::FaultHook;
pub use config::{EngineConfig, EngineStats, ModelInfo, SubmitError};
pub use job::{FinishReason, Job, Prompt, PromptMessage, Readiness, TokenEvent, TokenSink, TokenUsage};

use crate::InferenceError;
use crate::model::LoadedModel;
use shared::Shared;
use worker::Worker;

/// A running model. Dropping it stops the thread, which takes at most one step, and fails what is queued or in flight
/// with [`InferenceError::Stopped`].
#[derive(Debug)]
pub struct Engine {
    info: ModelInfo,
    shared: Arc<Shared>,
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Loads the model on a thread of its own and returns when it can take jobs.
    ///
    /// # Errors
    /// [`InferenceError::BadParameter`] for a setting out of range, otherwise as [`LoadedModel::load`].
    pub fn start(config: EngineConfig) -> Result<Self, InferenceError> {
        config.validate()?;
        let shared = Arc::new(Shared::new(config.queue_depth));
        let (jobs, waiting) = unbounded();
        let (ready, loaded) = bounded(1);
        let on_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("inference".to_owned())
            .spawn(move || run(config, on_thread, waiting, &ready))
            .map_err(|error| InferenceError::unavailable(format!("cannot start a thread: {error}")))?;
        // No answer means that the thread is gone, which only a panic outside the guarded parts explains.
        let info = loaded.recv().unwrap_or(Err(InferenceError::Stopped))?;
        Ok(Self { info, shared, jobs: Some(jobs), thread: Some(thread) })
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
        jobs.send(job).map_err(|_| {
            self.shared.free_place();
            SubmitError::Stopped
        })
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
    jobs: Receiver<Job>,
    ready: &Sender<Result<ModelInfo, InferenceError>>,
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
        let options = config.load_options();
        match worker::guarded(|| LoadedModel::load(&options)).unwrap_or_else(|panic| {
            Err(InferenceError::unavailable(format!("loading the model panicked: {panic}")))
        }) {
            Ok(model) => {
                let _ = ready.send(Ok(model.info().clone()));
                Worker::new(config, model, shared, jobs).run();
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        }
    });
}
