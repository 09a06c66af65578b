//! What the RouterActor and its handles share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::ArcSwap;
use opossum_core::router::{ArmSpec, ArmWeight, AttemptSeen, Policy, Router, RouterConfig, RouterState};

use crate::clock::moment;
use crate::outbox::Outbox;
use crate::telemetry::Telemetry;

/// Attempts on their way at most: eight times what 20,000 requests a second bring between two rounds.
const ATTEMPTS: usize = 8192;

pub(super) struct Board {
    pub(super) config: RouterConfig,
    /// The arms that should be; the worker takes them when they are not those it has.
    pub(super) arms: ArcSwap<Vec<ArmSpec>>,
    /// Whether learning should be stopped.
    pub(super) frozen: AtomicBool,
    pub(super) policy: ArcSwap<Policy>,
    pub(super) weights: ArcSwap<Vec<ArmWeight>>,
    pub(super) state: ArcSwap<RouterState>,
    pub(super) seen: Arc<Outbox<AttemptSeen>>,
    pub(super) telemetry: Arc<dyn Telemetry>,
}

impl Board {
    pub(super) fn new(config: RouterConfig, arms: Vec<ArmSpec>, telemetry: Arc<dyn Telemetry>) -> Self {
        let fresh = Router::new(config, arms.clone(), moment().mono);
        Self {
            config,
            arms: ArcSwap::from_pointee(arms),
            frozen: AtomicBool::new(false),
            policy: ArcSwap::from_pointee(fresh.policy()),
            weights: ArcSwap::from_pointee(fresh.weights()),
            state: ArcSwap::from_pointee(fresh.state()),
            seen: Arc::new(Outbox::new(ATTEMPTS)),
            telemetry,
        }
    }

    pub(super) fn publish(&self, router: &Router) {
        self.policy.store(Arc::new(router.policy()));
        self.weights.store(Arc::new(router.weights()));
        self.state.store(Arc::new(router.state()));
    }
}
