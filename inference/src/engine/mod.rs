//! The engine: one OS thread that owns the model and turns jobs into tokens.

mod config;
mod job;

#[doc(hidden)]
pub use config::FaultHook;
pub use config::{EngineConfig, EngineStats, ModelInfo, SubmitError};
pub use job::{FinishReason, Job, Prompt, PromptMessage, Readiness, TokenEvent, TokenSink, TokenUsage};

use crate::InferenceError;

/// A running model. Dropping it stops the thread and fails what is in flight with
/// [`InferenceError::Stopped`](crate::InferenceError::Stopped).
#[derive(Debug)]
pub struct Engine {
    info: ModelInfo,
}

impl Engine {
    /// Loads the model on a thread of its own and returns when it can take jobs.
    ///
    /// # Errors
    /// [`InferenceError::ModelInvalid`], [`InferenceError::ModelUnavailable`] or [`InferenceError::BadParameter`].
    pub fn start(config: EngineConfig) -> Result<Self, InferenceError> {
        let (_, device) = config.device.resolve()?;
        Err(InferenceError::unavailable(format!("this build cannot load a model on {device} yet")))
    }

    /// Queues a job. Never blocks.
    ///
    /// # Errors
    /// [`SubmitError::QueueFull`] or [`SubmitError::Stopped`]; the job is dropped then, its sink unused.
    pub fn submit(&self, job: Job) -> Result<(), SubmitError> {
        drop(job);
        Err(SubmitError::Stopped)
    }

    /// What the loaded model is.
    #[must_use]
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// What the engine is doing.
    #[must_use]
    pub fn stats(&self) -> EngineStats {
        EngineStats::default()
    }
}
