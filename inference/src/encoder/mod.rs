//! The embedded encoder: texts in, vectors out.
//!
//! [`Encoder::start`] loads a model on its own OS thread. Jobs wait in a bounded queue; the inputs of several are
//! computed in one batch, without padding. Supported are BERT encoders whose vector is the mean over the tokens, such as
//! MiniLM, from a folder with `config.json`, `tokenizer.json` and `model.safetensors`.
//!
//! # Failure
//! A fault of one input ends its job. A panic ends the jobs that were in the batch; the model is then loaded again.

mod bert;
mod load;
mod ops;
#[cfg(test)]
mod tests;
mod text;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, ThreadId};

use crossbeam_channel::{Sender, TrySendError, bounded};

use crate::engine::worker::guarded;
use crate::engine::{FaultHook, SubmitError};
use crate::{DeviceChoice, InferenceError};
use worker::Worker;

/// How to start an [`Encoder`].
#[derive(Debug, Clone)]
pub struct EncoderConfig {
    /// The model's folder.
    pub model_path: PathBuf,
    /// SHA-256 that `model.safetensors` must have, 64 hexadecimal digits; `None` loads whatever is there.
    pub model_sha256: Option<String>,
    /// Where to run.
    pub device: DeviceChoice,
    /// Jobs that may wait, at least 1.
    pub queue_depth: usize,
    /// Tokens computed in one batch, at least 1; a longer input is a batch of its own.
    pub max_batch_tokens: usize,
    /// CPU threads; 0 means one a core.
    pub threads: usize,
    /// Called before each batch, so that a test can make the tensor work panic.
    #[doc(hidden)]
    pub fault: Option<FaultHook>,
}

impl EncoderConfig {
    /// Modest settings for this folder: automatic device, a queue of 64, batches of 2048 tokens, all cores.
    #[must_use]
    pub fn new(model_path: impl Into<PathBuf>) -> Self {
        Self {
            model_path: model_path.into(),
            model_sha256: None,
            device: DeviceChoice::Auto,
            queue_depth: 64,
            max_batch_tokens: 2048,
            threads: 0,
            fault: None,
        }
    }

    fn validate(&self) -> Result<(), InferenceError> {
        for (name, value) in [("queue_depth", self.queue_depth), ("max_batch_tokens", self.max_batch_tokens)]
        {
            if value == 0 {
                return Err(InferenceError::BadParameter { name, reason: "must be at least 1".to_owned() });
            }
        }
        Ok(())
    }
}

/// Something to embed.
#[derive(Clone, PartialEq, Eq)]
pub enum EncodeInput {
    /// A text, not empty.
    Text(String),
    /// Token ids of the model, not empty, without the marks at both ends.
    Tokens(Vec<u32>),
}

/// Inputs to embed, and who waits for them.
pub struct EncodeJob {
    /// What is to be embedded, at least one.
    pub inputs: Vec<EncodeInput>,
    /// Whether an input that is too long is cut; it is an error otherwise.
    pub truncate: bool,
    /// Called once, on the encoder's thread, so it may not block; not called when the job is cancelled.
    pub reply: Box<dyn FnOnce(Result<Encoded, InferenceError>) + Send>,
    /// Whether nobody waits any more. Asked before each batch.
    pub cancelled: Box<dyn Fn() -> bool + Send>,
}

impl std::fmt::Debug for EncodeJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The inputs are a caller's private texts: logs must not carry them.
        f.debug_struct("EncodeJob").field("inputs", &self.inputs.len()).finish_non_exhaustive()
    }
}

/// The vectors of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoded {
    /// One vector of length 1 an input, in their order.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of all inputs, the marks at their ends included.
    pub prompt_tokens: usize,
}

/// What an encoder says about itself, and where it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncoderInfo {
    /// The folder's name.
    pub name: String,
    /// The kind of model, for example `bert`.
    pub architecture: String,
    /// Numbers in a vector.
    pub dimensions: usize,
    /// Most tokens of an input.
    pub context_length: usize,
    /// Number of weights in the file.
    pub parameters: u64,
    /// `cpu` or `cuda:N`.
    pub device: String,
}

/// A running encoder. Dropping it stops the thread, which takes at most one batch, and fails what is queued with
/// [`InferenceError::Stopped`].
#[derive(Debug)]
pub struct Encoder {
    info: EncoderInfo,
    jobs: Option<Sender<EncodeJob>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    thread_id: ThreadId,
}

impl Encoder {
    /// Loads the model on a thread of its own and returns when it can take jobs.
    ///
    /// # Errors
    /// [`InferenceError::BadParameter`] for a setting out of range, [`InferenceError::ModelUnavailable`] when files,
    /// device or memory are missing, [`InferenceError::ModelInvalid`] for files that are damaged or not supported.
    pub fn start(config: EncoderConfig) -> Result<Self, InferenceError> {
        config.validate()?;
        let stopping = Arc::new(AtomicBool::new(false));
        let (jobs, waiting) = bounded(config.queue_depth);
        let (ready, loaded) = bounded(1);
        let on_thread = Arc::clone(&stopping);
        let thread = std::thread::Builder::new()
            .name("encoder".to_owned())
            .spawn(move || {
                let model = guarded(|| load::load(&config)).unwrap_or_else(|panic| {
                    Err(InferenceError::unavailable(format!("loading the model panicked: {panic}")))
                });
                match model {
                    Ok(model) => {
                        let _ = ready.send(Ok(model.info.clone()));
                        Worker { config, model: Some(model), jobs: waiting, stopping: on_thread }.run();
                    }
                    Err(error) => {
                        let _ = ready.send(Err(error));
                    }
                }
            })
            .map_err(|error| InferenceError::unavailable(format!("cannot start a thread: {error}")))?;
        let thread_id = thread.thread().id();
        let info = loaded.recv().unwrap_or(Err(InferenceError::Stopped))?;
        Ok(Self { info, jobs: Some(jobs), stopping, thread: Some(thread), thread_id })
    }

    /// Queues a job. Never blocks.
    ///
    /// # Errors
    /// [`SubmitError::QueueFull`] or [`SubmitError::Stopped`]; the job is dropped then, without a reply.
    pub fn submit(&self, job: EncodeJob) -> Result<(), SubmitError> {
        let jobs = self.jobs.as_ref().ok_or(SubmitError::Stopped)?;
        jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => SubmitError::QueueFull,
            TrySendError::Disconnected(_) => SubmitError::Stopped,
        })
    }

    /// What the loaded model is.
    #[must_use]
    pub fn info(&self) -> &EncoderInfo {
        &self.info
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        // The thread sleeps on this channel: closing it wakes it up.
        self.jobs = None;
        // A reply may own the encoder and be dropped on its thread, which cannot wait for itself.
        let elsewhere = std::thread::current().id() != self.thread_id;
        if let Some(thread) = self.thread.take().filter(|_| elsewhere) {
            // An error is a panic that is already reported; nothing is left to clean up.
            let _ = thread.join();
        }
    }
}
