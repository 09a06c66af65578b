//! The worker: loads, watches, replaces.

use std::sync::Arc;
use std::time::Duration;

use opossum_backends::BackendError;
use opossum_backends::transformers::{LocalInference, LocalState};
use opossum_core::class::FailureClass;
use tokio::time::Instant;

use super::board::{Board, Engine, Hosted, Noticed};
use crate::guardian::{Backoff, Cx, Worker};
use crate::telemetry::{self, Telemetry};

/// How often a ready engine is looked at.
const TICK: Duration = Duration::from_secs(1);
/// Pause between two batches of hints.
const PAUSE: Duration = Duration::from_millis(10);
/// Hints in one batch.
const BATCH: usize = 64;

pub(crate) struct InferenceWorker<E: ?Sized = dyn LocalInference> {
    board: Arc<Board<E>>,
    telemetry: Arc<dyn Telemetry>,
    backoff: Backoff,
    /// Whether a load is under way or waits for its delay.
    busy: bool,
    generation: u64,
}

type Loaded<E> = Result<Arc<E>, BackendError>;

impl<E: Hosted + ?Sized> InferenceWorker<E> {
    pub(super) fn new(board: Arc<Board<E>>, telemetry: Arc<dyn Telemetry>) -> Self {
        let generation = match board.engine() {
            Engine::Ready { generation, .. } => generation,
            Engine::Absent | Engine::Loading | Engine::Failed { .. } => 0,
        };
        let backoff = Backoff::new(board.retry);
        Self { board, telemetry, backoff, busy: false, generation }
    }

    fn show(&self, engine: Engine<E>) {
        let why = match &engine {
            Engine::Failed { why } => Some(why.as_str()),
            Engine::Absent | Engine::Loading | Engine::Ready { .. } => None,
        };
        telemetry::inference_changed(&*self.telemetry, engine.label(), why);
        self.board.engine.send_replace(engine);
    }

    fn load(&mut self, cx: &mut Cx<'_, Self>) {
        self.busy = true;
        self.show(Engine::Loading);
        let factory = Arc::clone(&self.board.factory);
        let work = async move {
            let loaded = tokio::task::spawn_blocking(move || factory()).await;
            // A panic of the factory is a load that failed.
            loaded
                .unwrap_or_else(|error| Err(BackendError::new(FailureClass::ServerError, error.to_string())))
        };
        cx.spawn(work, Self::loaded);
    }

    fn loaded(&mut self, loaded: Loaded<E>, cx: &mut Cx<'_, Self>) {
        let now = Instant::now();
        match loaded {
            Ok(engine) => {
                self.busy = false;
                self.generation += 1;
                self.backoff.alive(now);
                self.show(Engine::Ready { engine, generation: self.generation });
            }
            Err(error) => {
                self.show(Engine::Failed { why: error.to_string() });
                let delay = self.backoff.failed(now);
                self.load_after(delay, cx);
            }
        }
    }

    fn load_after(&mut self, delay: Duration, cx: &mut Cx<'_, Self>) {
        self.busy = true;
        cx.after(delay, Self::load);
    }

    /// The engine is gone: the next one, at once unless the last one hardly lived.
    fn replace(&mut self, cx: &mut Cx<'_, Self>) {
        self.busy = true;
        self.show(Engine::Loading);
        let delay = self.backoff.failed(Instant::now());
        self.load_after(delay, cx);
    }

    fn notice(&mut self, noticed: Noticed, cx: &mut Cx<'_, Self>) {
        if self.busy {
            return;
        }
        match (noticed, self.board.engine()) {
            (Noticed::Wanted, Engine::Absent) => self.load(cx),
            (Noticed::Gone { generation }, Engine::Ready { generation: present, .. })
                if generation == present =>
            {
                tracing::error!(generation, "the embedded engine is gone");
                self.replace(cx);
            }
            // Wanted and already there, or gone and already replaced.
            (Noticed::Wanted | Noticed::Gone { .. }, _) => {}
        }
    }

    fn look(&mut self, cx: &mut Cx<'_, Self>) {
        let Engine::Ready { engine, generation } = self.board.engine() else { return };
        if let LocalState::Failed(_) = engine.status().state {
            self.notice(Noticed::Gone { generation }, cx);
        }
    }
}

impl<E: Hosted + ?Sized> Worker for InferenceWorker<E> {
    fn started(&mut self, cx: &mut Cx<'_, Self>) {
        match self.board.engine() {
            Engine::Ready { .. } => {}
            Engine::Absent if self.board.lazy => {}
            Engine::Absent | Engine::Loading | Engine::Failed { .. } => self.load(cx),
        }
        cx.every(TICK, Self::look);
        cx.drain(Arc::clone(&self.board.noticed), BATCH, PAUSE, |worker, noticed, cx| {
            for noticed in noticed.drain(..) {
                worker.notice(noticed, cx);
            }
        });
    }
}
