//! One engine, loaded from one file.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt;
use futures::future::BoxFuture;
use opossum_core::class::FailureClass;
use opossum_core::ids::ModelName;
use opossum_inference::{Engine, EngineConfig, ErrorKind, Job, ModelInfo, SubmitError};

use super::errors::{backend_error, not_taken};
use super::{
    BUSY_WAIT, LocalInference, LocalJob, LocalLoad, LocalModelInfo, LocalState, LocalStatus, LocalStream,
};
use crate::BackendError;

/// A loaded model under the name it is asked for by; clones share it.
///
/// Dropping the last clone stops the engine's thread and waits for the step it is at, some tens of
/// milliseconds at most for small models.
#[derive(Clone)]
pub struct LocalEngine {
    inner: Arc<Inner>,
}

struct Inner {
    name: ModelName,
    engine: Engine,
    /// The engine's thread was found gone; it does not come back.
    dead: AtomicBool,
}

impl LocalEngine {
    /// Loads a model; blocks until it can take jobs, so call it where blocking is allowed.
    ///
    /// # Errors
    /// `ModelMissing` when the file cannot be loaded here and now, `CallerError` for a setting out of range.
    pub fn load(name: ModelName, config: EngineConfig) -> Result<Self, BackendError> {
        let engine = Engine::start(config).map_err(|error| backend_error(&error))?;
        Ok(Self { inner: Arc::new(Inner { name, engine, dead: AtomicBool::new(false) }) })
    }

    /// What the loaded file says about itself.
    pub fn info(&self) -> &ModelInfo {
        self.inner.engine.info()
    }

    /// What the engine is doing.
    pub fn load_now(&self) -> LocalLoad {
        self.inner.engine.stats()
    }

    /// Compiles the job's grammar where waiting costs nobody else anything.
    async fn prepare(&self, job: &LocalJob) -> Result<(), BackendError> {
        let Some(grammar) = job.params.grammar.clone() else { return Ok(()) };
        let inner = Arc::clone(&self.inner);
        match tokio::task::spawn_blocking(move || inner.engine.prepare(&grammar)).await {
            // Too many grammars are being compiled: what the engine is at is no concern of theirs.
            Ok(Err(error)) if error.kind() == ErrorKind::GrammarFailed => {
                let busy = BackendError::new(FailureClass::RateLimited, error.to_string());
                Err(busy.with_retry_after(Some(BUSY_WAIT)))
            }
            Ok(prepared) => prepared.map_err(|error| backend_error(&error)),
            Err(error) => Err(BackendError::new(FailureClass::ServerError, error.to_string())),
        }
    }

    async fn submit_now(&self, job: LocalJob) -> Result<LocalStream, BackendError> {
        if job.model != self.inner.name {
            return Err(BackendError::new(FailureClass::ModelMissing, "this engine runs another model"));
        }
        self.prepare(&job).await?;
        let (sink, stream) = LocalStream::channel();
        let job = Job { prompt: job.prompt, params: job.params, sink: Box::new(sink) };
        match self.inner.engine.submit(job) {
            Ok(()) => Ok(stream),
            Err(error) => {
                self.inner.dead.fetch_or(error == SubmitError::Stopped, Ordering::Relaxed);
                Err(not_taken(error))
            }
        }
    }
}

impl LocalInference for LocalEngine {
    fn submit(&self, job: LocalJob) -> BoxFuture<'static, Result<LocalStream, BackendError>> {
        // Not before the future is polled: one that is dropped unpolled must not have queued anything.
        let engine = self.clone();
        async move { engine.submit_now(job).await }.boxed()
    }

    fn models(&self) -> Vec<LocalModelInfo> {
        let info = self.info();
        vec![LocalModelInfo {
            name: self.inner.name.clone(),
            architecture: info.architecture.clone(),
            context_tokens: u32::try_from(info.context_length).unwrap_or(u32::MAX),
            parameters: info.parameters,
            quantization: info.quantization.clone(),
            licence: info.license.clone(),
            device: info.device.clone(),
            chat: info.chat,
            tools: info.tools,
        }]
    }

    fn status(&self) -> LocalStatus {
        let state = match self.inner.dead.load(Ordering::Relaxed) {
            true => LocalState::Failed(SubmitError::Stopped.to_string()),
            false => LocalState::Ready,
        };
        LocalStatus { state, load: self.load_now() }
    }
}
