//! What the InferenceActor and its handles share.

use std::sync::Arc;

use futures::future::BoxFuture;
use opossum_backends::BackendError;
use opossum_backends::transformers::{
    EncodeOrder, LocalEncoder, LocalInference, LocalJob, LocalModelInfo, LocalState, LocalStatus,
    LocalStream, LocalVectors,
};
use tokio::sync::watch;

use crate::guardian::BackoffPolicy;
use crate::outbox::Outbox;

/// Makes an engine; may block for as long as loading takes.
pub type EngineFactory<E = dyn LocalInference> = Arc<dyn Fn() -> Result<Arc<E>, BackendError> + Send + Sync>;

/// What the actor keeps alive: an engine of any kind.
pub trait Hosted: Send + Sync + 'static {
    /// What it is asked to do; cloned for the next engine when this one is found gone.
    type Job: Clone + Send + 'static;
    /// What it gives for a job that it took.
    type Taken: Send + 'static;

    /// Hands over a job; resolves when it is queued.
    fn submit(&self, job: Self::Job) -> BoxFuture<'static, Result<Self::Taken, BackendError>>;

    /// The models that can be asked for.
    fn models(&self) -> Vec<LocalModelInfo>;

    /// How it is. Never blocks.
    fn status(&self) -> LocalStatus;
}

impl Hosted for dyn LocalInference {
    type Job = LocalJob;
    type Taken = LocalStream;

    fn submit(&self, job: LocalJob) -> BoxFuture<'static, Result<LocalStream, BackendError>> {
        LocalInference::submit(self, job)
    }

    fn models(&self) -> Vec<LocalModelInfo> {
        LocalInference::models(self)
    }

    fn status(&self) -> LocalStatus {
        LocalInference::status(self)
    }
}

impl Hosted for dyn LocalEncoder {
    type Job = EncodeOrder;
    type Taken = LocalVectors;

    fn submit(&self, job: EncodeOrder) -> BoxFuture<'static, Result<LocalVectors, BackendError>> {
        LocalEncoder::submit(self, job)
    }

    fn models(&self) -> Vec<LocalModelInfo> {
        LocalEncoder::models(self)
    }

    fn status(&self) -> LocalStatus {
        LocalEncoder::status(self)
    }
}

/// Events on their way at most. Each is an idempotent hint, so losing old ones loses nothing.
const EVENTS: usize = 64;

/// What a handle noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Noticed {
    /// Someone wants an engine that is not there.
    Wanted,
    /// The engine of this generation took no job because it is gone.
    Gone { generation: u64 },
}

/// The engine's state.
pub(super) enum Engine<E: ?Sized> {
    /// Not wanted yet.
    Absent,
    Loading,
    Ready {
        engine: Arc<E>,
        /// Engines made so far.
        generation: u64,
    },
    /// Loading failed; it is tried again by itself.
    Failed {
        why: String,
    },
}

impl<E: ?Sized> Clone for Engine<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Absent => Self::Absent,
            Self::Loading => Self::Loading,
            Self::Ready { engine, generation } => {
                Self::Ready { engine: Arc::clone(engine), generation: *generation }
            }
            Self::Failed { why } => Self::Failed { why: why.clone() },
        }
    }
}

impl<E: ?Sized> Engine<E> {
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Loading => "loading",
            Self::Ready { .. } => "ready",
            Self::Failed { .. } => "failed",
        }
    }

    pub(super) fn state(&self) -> LocalState {
        match self {
            Self::Absent => LocalState::Absent,
            Self::Loading => LocalState::Loading,
            Self::Ready { .. } => LocalState::Ready,
            Self::Failed { why } => LocalState::Failed(why.clone()),
        }
    }
}

pub(super) struct Board<E: ?Sized> {
    pub(super) factory: EngineFactory<E>,
    /// What is known of the models before one is loaded.
    pub(super) models: Vec<LocalModelInfo>,
    pub(super) lazy: bool,
    pub(super) retry: BackoffPolicy,
    pub(super) engine: watch::Sender<Engine<E>>,
    pub(super) noticed: Arc<Outbox<Noticed>>,
}

impl<E: Hosted + ?Sized> Board<E> {
    pub(super) fn new(
        models: Vec<LocalModelInfo>,
        lazy: bool,
        retry: BackoffPolicy,
        factory: EngineFactory<E>,
    ) -> Self {
        let first = if lazy { Engine::Absent } else { Engine::Loading };
        Self {
            factory,
            models,
            lazy,
            retry,
            engine: watch::Sender::new(first),
            noticed: Arc::new(Outbox::new(EVENTS)),
        }
    }

    pub(super) fn engine(&self) -> Engine<E> {
        self.engine.borrow().clone()
    }
}
