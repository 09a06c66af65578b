//! What actors tell, as metrics. The log lines of the same events are written where they happen.

use std::sync::Arc;

use opossum_actors::{RestartCause, Telemetry};
use opossum_core::breaker::Transition;
use opossum_core::ids::ServiceName;
use tokio::sync::Notify;

use crate::telemetry::Metrics;

/// Passes the actors' events on to the metrics.
pub(super) struct Bridge {
    metrics: Arc<Metrics>,
    engine_changed: Arc<Notify>,
}

impl Bridge {
    /// `engine_changed` is notified whenever the embedded engine's state changes.
    pub(super) fn new(metrics: Arc<Metrics>, engine_changed: Arc<Notify>) -> Self {
        Self { metrics, engine_changed }
    }
}

impl Telemetry for Bridge {
    fn actor_restarted(&self, actor: &str, cause: RestartCause) {
        self.metrics.actor_restarted(actor, cause.label());
    }

    fn breaker_changed(&self, service: &ServiceName, change: &Transition) {
        self.metrics.breaker_changed(service.as_str(), change.to.label());
    }

    fn outbox_overflowed(&self, _actor: &str, events: u64) {
        self.metrics.outbox_dropped.inc_by(events);
    }

    fn inference_changed(&self, _state: &'static str) {
        self.engine_changed.notify_one();
    }
}
