//! The backend's side of the InferenceActor.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use opossum_backends::BackendError;
use opossum_backends::transformers::{
    EncodeOrder, LocalEncoder, LocalInference, LocalJob, LocalLoad, LocalModelInfo, LocalStatus, LocalStream,
    LocalVectors,
};
use opossum_core::class::FailureClass;

use super::actor::InferenceWorker;
use super::board::{Board, Engine, EngineFactory, Hosted, Noticed};
use crate::guardian::{ActorRef, BackoffPolicy};
use crate::registry::ActorThreads;
use crate::telemetry::Telemetry;

/// When to come again after an engine that could not be loaded.
const COME_AGAIN: Duration = Duration::from_secs(1);

/// How the embedded engine is to be made.
///
/// It has a handle before any actor is started, so that a backend can be built on it; jobs wait until the
/// actors start and the engine is loaded.
pub struct InferencePlan<E: ?Sized = dyn LocalInference> {
    board: Arc<Board<E>>,
}

impl<E: ?Sized> Clone for InferencePlan<E> {
    fn clone(&self) -> Self {
        Self { board: Arc::clone(&self.board) }
    }
}

impl<E: Hosted + ?Sized> InferencePlan<E> {
    /// A plan for an engine that is loaded as soon as the actors start, or with `lazy` when the first job
    /// comes. `models` is what can be asked for, as far as it is known before loading.
    #[must_use]
    pub fn new(models: Vec<LocalModelInfo>, lazy: bool, factory: EngineFactory<E>) -> Self {
        let retry = BackoffPolicy {
            first: Duration::from_secs(1),
            ceiling: Duration::from_secs(60),
            settled: Duration::from_secs(60),
            hold: Duration::ZERO,
        };
        Self { board: Arc::new(Board::new(models, lazy, retry, factory)) }
    }

    /// The engine's handle.
    #[must_use]
    pub fn handle(&self) -> InferenceHandle<E> {
        InferenceHandle { board: Arc::clone(&self.board) }
    }

    /// Starts the actor under a name of its own. It ends with the reference.
    pub(crate) fn start(
        &self,
        name: &str,
        threads: &ActorThreads,
        telemetry: Arc<dyn Telemetry>,
    ) -> ActorRef<InferenceWorker<E>> {
        let board = Arc::clone(&self.board);
        threads.spawn(name, move || InferenceWorker::new(Arc::clone(&board), Arc::clone(&telemetry)))
    }
}

impl<E: ?Sized> fmt::Debug for InferencePlan<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InferencePlan").field("models", &self.board.models).finish_non_exhaustive()
    }
}

/// The embedded engine, whichever it is at the moment. Cheap to clone; usable from any thread and runtime.
pub struct InferenceHandle<E: ?Sized = dyn LocalInference> {
    board: Arc<Board<E>>,
}

impl<E: ?Sized> Clone for InferenceHandle<E> {
    fn clone(&self) -> Self {
        Self { board: Arc::clone(&self.board) }
    }
}

impl<E: Hosted + ?Sized> InferenceHandle<E> {
    /// Waits for an engine that is being loaded, for as long as the caller keeps the future.
    async fn run(self, job: E::Job) -> Result<E::Taken, BackendError> {
        let mut news = self.board.engine.subscribe();
        let mut was_gone = false;
        loop {
            let engine = news.borrow_and_update().clone();
            match engine {
                Engine::Ready { engine, generation } => match engine.submit(job.clone()).await {
                    // Nothing was begun, so the next engine may have it; but only once, since a job may be
                    // what ends engines.
                    Err(error) if error.class == FailureClass::ServerError && !was_gone => {
                        was_gone = true;
                        self.board.noticed.push(Noticed::Gone { generation });
                    }
                    taken => return taken,
                },
                Engine::Failed { why } => {
                    let error = BackendError::new(FailureClass::NotLoaded, why);
                    return Err(error.with_retry_after(Some(COME_AGAIN)));
                }
                Engine::Absent => self.board.noticed.push(Noticed::Wanted),
                Engine::Loading => {}
            }
            if news.changed().await.is_err() {
                return Err(BackendError::new(FailureClass::ServerError, "the engine's owner is gone"));
            }
        }
    }
}

impl<E: Hosted + ?Sized> InferenceHandle<E> {
    /// What can be asked for.
    fn known_models(&self) -> Vec<LocalModelInfo> {
        match self.board.engine() {
            Engine::Ready { engine, .. } => engine.models(),
            Engine::Absent | Engine::Loading | Engine::Failed { .. } => self.board.models.clone(),
        }
    }

    fn status_now(&self) -> LocalStatus {
        let engine = self.board.engine();
        let load = match &engine {
            Engine::Ready { engine, .. } => engine.status().load,
            Engine::Absent | Engine::Loading | Engine::Failed { .. } => LocalLoad::default(),
        };
        LocalStatus { state: engine.state(), load }
    }
}

impl LocalInference for InferenceHandle {
    fn submit(&self, job: LocalJob) -> BoxFuture<'static, Result<LocalStream, BackendError>> {
        self.clone().run(job).boxed()
    }

    fn models(&self) -> Vec<LocalModelInfo> {
        self.known_models()
    }

    fn status(&self) -> LocalStatus {
        self.status_now()
    }
}

impl LocalEncoder for InferenceHandle<dyn LocalEncoder> {
    fn submit(&self, job: EncodeOrder) -> BoxFuture<'static, Result<LocalVectors, BackendError>> {
        self.clone().run(job).boxed()
    }

    fn models(&self) -> Vec<LocalModelInfo> {
        self.known_models()
    }

    fn status(&self) -> LocalStatus {
        self.status_now()
    }
}

impl<E: Hosted + ?Sized> fmt::Debug for InferenceHandle<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InferenceHandle").field(&self.board.engine().label()).finish()
    }
}
