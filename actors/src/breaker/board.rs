//! What a BreakerActor and its handles share: the published gate, and the way back for outcomes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arc_swap::ArcSwap;
use opossum_core::breaker::{BackendBreaker, BackendGate, BackendStatus, BreakerConfig};
use opossum_core::ids::{ModelName, ServiceName};
use opossum_core::moment::Moment;

use super::messages::AttemptFinished;
use crate::outbox::Outbox;
use crate::telemetry::Telemetry;

/// Outcomes on their way at most; more than can be in flight.
const OUTCOMES: usize = 4096;
/// Models whose successes are counted apart; those beyond are sent as events.
const COUNTED_MODELS: usize = 1024;

/// States as they were at a moment.
pub(super) struct Published {
    pub(super) status: BackendStatus,
    pub(super) at: Moment,
}

type Counters = HashMap<ModelName, Arc<AtomicU32>>;

pub(super) struct Board {
    pub(super) service: ServiceName,
    pub(super) gate: ArcSwap<BackendGate>,
    pub(super) published: ArcSwap<Published>,
    pub(super) config: ArcSwap<BreakerConfig>,
    pub(super) finished: Arc<Outbox<AttemptFinished>>,
    pub(super) telemetry: Arc<dyn Telemetry>,
    /// Workers built so far.
    pub(super) epoch: AtomicU32,
    /// Plain successes of each model since they were last folded in.
    successes: ArcSwap<Counters>,
}

impl Board {
    pub(super) fn new(
        service: ServiceName,
        config: BreakerConfig,
        telemetry: Arc<dyn Telemetry>,
        at: Moment,
    ) -> Self {
        let closed = BackendBreaker::new(config, 0, at.mono);
        Self {
            service,
            gate: ArcSwap::from_pointee(closed.snapshot()),
            published: ArcSwap::from_pointee(Published { status: closed.status(at), at }),
            config: ArcSwap::from_pointee(config),
            finished: Arc::new(Outbox::new(OUTCOMES)),
            telemetry,
            epoch: AtomicU32::new(0),
            successes: ArcSwap::default(),
        }
    }

    /// Counts a plain success where the model has a counter; whether it has one.
    pub(super) fn count_success(&self, model: &ModelName) -> bool {
        let counters = self.successes.load();
        let counter = counters.get(model);
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        counter.is_some()
    }

    /// Gives a model a counter; only the actor does. Models are few and come once each.
    pub(super) fn add_counter(&self, model: &ModelName) {
        let counters = self.successes.load();
        if counters.len() >= COUNTED_MODELS || counters.contains_key(model) {
            return;
        }
        let mut more = Counters::clone(&counters);
        more.insert(model.clone(), Arc::default());
        self.successes.store(Arc::new(more));
    }

    /// Takes the counted successes, leaving none.
    pub(super) fn take_successes(&self, mut take: impl FnMut(&ModelName, u32)) {
        for (model, counter) in self.successes.load().iter() {
            // The plain load keeps an idle counter's cache line shared.
            if counter.load(Ordering::Relaxed) > 0 {
                take(model, counter.swap(0, Ordering::Relaxed));
            }
        }
    }

    /// The last published states, with the waits reduced by the time since.
    pub(super) fn status(&self, at: Moment) -> BackendStatus {
        let published = self.published.load();
        let passed = at.mono.saturating_duration_since(published.at.mono).as_secs_f64();
        let mut status = published.status.clone();
        for breaker in status.models.values_mut().chain([&mut status.backend]) {
            breaker.retry_in_seconds = (breaker.retry_in_seconds - passed).max(0.0);
        }
        status
    }
}
