//! What the actors tell the outside, each event by one function.
//!
//! Whoever starts the actors passes in a [`Telemetry`] and turns the events into metrics. The log line
//! of an event is written here, next to the call, so that no metric is without one.

use opossum_core::breaker::{Scope, Transition};
use opossum_core::ids::ServiceName;

use crate::guardian::RestartCause;

/// Receives events of the actors. Every method is called on the actors' threads and must not block.
pub trait Telemetry: Send + Sync + 'static {
    /// An actor was restarted or replaced.
    fn actor_restarted(&self, actor: &str, cause: RestartCause) {
        let _ = (actor, cause);
    }

    /// A breaker went from one state to another.
    fn breaker_changed(&self, service: &ServiceName, change: &Transition) {
        let _ = (service, change);
    }

    /// A backend's probe turned good or bad.
    fn backend_probed(&self, service: &ServiceName, good: bool) {
        let _ = (service, good);
    }

    /// A dependency's probe turned good or bad.
    fn dependency_probed(&self, dependency: &str, good: bool) {
        let _ = (dependency, good);
    }

    /// Events were lost because an actor did not fetch them in time.
    fn outbox_overflowed(&self, actor: &str, events: u64) {
        let _ = (actor, events);
    }

    /// The embedded engine is absent, loading, ready or failed now.
    fn inference_changed(&self, state: &'static str) {
        let _ = state;
    }
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoTelemetry;

impl Telemetry for NoTelemetry {}

pub(crate) fn breaker_changed(telemetry: &dyn Telemetry, service: &ServiceName, change: &Transition) {
    let model = match &change.scope {
        Scope::Backend => None,
        Scope::Model(model) => Some(model.as_str()),
    };
    let (from, to) = (change.from.label(), change.to.label());
    tracing::warn!(%service, model, from, to, "breaker changed");
    telemetry.breaker_changed(service, change);
}

pub(crate) fn backend_probed(telemetry: &dyn Telemetry, service: &ServiceName, outcome: Result<(), &str>) {
    match outcome {
        Ok(()) => tracing::info!(%service, "backend answers its probe"),
        Err(why) => tracing::warn!(%service, why, "backend fails its probe"),
    }
    telemetry.backend_probed(service, outcome.is_ok());
}

pub(crate) fn dependency_probed(telemetry: &dyn Telemetry, dependency: &str, outcome: Result<(), &str>) {
    match outcome {
        Ok(()) => tracing::info!(dependency, "dependency answers its probe"),
        Err(why) => tracing::warn!(dependency, why, "dependency fails its probe"),
    }
    telemetry.dependency_probed(dependency, outcome.is_ok());
}

pub(crate) fn outbox_overflowed(telemetry: &dyn Telemetry, actor: &str, events: u64) {
    tracing::warn!(actor, events, "events were lost: the actor did not fetch them in time");
    telemetry.outbox_overflowed(actor, events);
}

pub(crate) fn inference_changed(telemetry: &dyn Telemetry, state: &'static str, why: Option<&str>) {
    match why {
        None => tracing::info!(state, "embedded engine"),
        Some(why) => tracing::error!(state, why, "embedded engine"),
    }
    telemetry.inference_changed(state);
}
