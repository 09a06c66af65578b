//! The readers' side of the ServiceMonitor.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use opossum_backends::Backend;
use opossum_core::ids::ServiceName;
use tokio::sync::watch;

use super::actor::MonitorWorker;
use super::board::{Board, DependencyPlan, WatchedBackend};
use super::messages::Refresh;
use super::snapshot::HealthSnapshot;
use crate::breaker::BreakerHandle;
use crate::guardian::ActorRef;
use crate::registry::ActorThreads;
use crate::telemetry::Telemetry;

/// How much longer than its probes a refresh may take.
const MARGIN: Duration = Duration::from_secs(1);

/// What is known of everyone's health. Cheap to clone; usable from any thread and runtime.
#[derive(Clone)]
pub struct MonitorHandle {
    board: Arc<Board>,
    actor: ActorRef<MonitorWorker>,
}

/// How often is probed, and how long a probe may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
}

impl MonitorHandle {
    /// Starts the actor, named `monitor`, which probes everything at once.
    pub(crate) fn start(
        threads: &ActorThreads,
        backends: Vec<(Arc<dyn Backend>, BreakerHandle)>,
        dependencies: Vec<DependencyPlan>,
        pace: Pace,
        telemetry: Arc<dyn Telemetry>,
    ) -> Self {
        let backends =
            backends.into_iter().map(|(backend, breaker)| WatchedBackend { backend, breaker }).collect();
        let pace = (pace.interval, pace.timeout);
        let board = Arc::new(Board::new(backends, dependencies, pace, threads.registry(), telemetry));
        let shared = Arc::clone(&board);
        let actor = threads.spawn("monitor", move || MonitorWorker::new(Arc::clone(&shared)));
        Self { board, actor }
    }

    /// Everyone's health: what the probes saw last, joined with what the breakers say now. Never blocks.
    #[must_use]
    pub fn snapshot(&self) -> HealthSnapshot {
        self.board.snapshot()
    }

    /// Whether a backend's last probe was bad. False before the first probe and for unknown names.
    #[must_use]
    pub fn is_down(&self, service: &ServiceName) -> bool {
        self.board.is_down(service)
    }

    /// Probes everything now, or joins the round that is under way, and waits for its end: at most the
    /// timeout of a probe and a second. Outcomes are published one by one, so giving up earlier loses none.
    pub async fn refresh(&self) {
        // A monitor that cannot be asked leaves what was seen last.
        let _ = self.actor.ask(Refresh, self.board.timeout + MARGIN).await;
    }

    /// Resolves on every change of any backend's list of models.
    #[must_use]
    pub fn models_changed(&self) -> watch::Receiver<u64> {
        self.board.models_changed.subscribe()
    }
}

impl fmt::Debug for MonitorHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MonitorHandle").field("interval", &self.board.interval).finish_non_exhaustive()
    }
}
