//! What the InferenceActor and its handles share.

use std::sync::Arc;

use opossum_backends::BackendError;
use opossum_backends::transformers::{LocalInference, LocalModelInfo, LocalState};
use tokio::sync::watch;

use crate::guardian::BackoffPolicy;
use crate::outbox::Outbox;

/// Makes an engine; may block for as long as loading takes.
pub type EngineFactory = Arc<dyn Fn() -> Result<Arc<dyn LocalInference>, BackendError> + Send + Sync>;

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
#[derive(Clone)]
pub(super) enum Engine {
    /// Not wanted yet.
    Absent,
    Loading,
    Ready {
        engine: Arc<dyn LocalInference>,
        /// Engines made so far.
        generation: u64,
    },
    /// Loading failed; it is tried again by itself.
    Failed {
        why: String,
    },
}

impl Engine {
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

pub(super) struct Board {
    pub(super) factory: EngineFactory,
    /// What is known of the models before one is loaded.
    pub(super) models: Vec<LocalModelInfo>,
    pub(super) lazy: bool,
    pub(super) retry: BackoffPolicy,
    pub(super) engine: watch::Sender<Engine>,
    pub(super) noticed: Arc<Outbox<Noticed>>,
}

impl Board {
    pub(super) fn new(
        models: Vec<LocalModelInfo>,
        lazy: bool,
        retry: BackoffPolicy,
        factory: EngineFactory,
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

    pub(super) fn engine(&self) -> Engine {
        self.engine.borrow().clone()
    }
}
