//! All actors of the service, started and ended together.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use opossum_backends::Backend;
use opossum_backends::transformers::LocalEncoder;
use opossum_core::breaker::BreakerConfig;
use opossum_core::cache::CacheConfig;
use opossum_core::ids::ServiceName;
use opossum_core::router::RouterConfig;

use crate::breaker::BreakerHandle;
use crate::cache::CacheHandle;
use crate::guardian::{ActorError, ActorRef, BackoffPolicy};
use crate::inference::{InferenceHandle, InferencePlan, InferenceWorker};
use crate::monitor::{DependencyPlan, MonitorHandle, Pace};
use crate::registry::{ActorThreads, Registry, Watch};
use crate::router::RouterHandle;
use crate::telemetry::Telemetry;

/// How long shutting down waits for the actors' thread.
const PATIENCE: Duration = Duration::from_secs(5);

/// A backend with the numbers of its breaker.
#[derive(Clone)]
pub struct BackendPlan {
    /// The backend.
    pub backend: Arc<dyn Backend>,
    /// Its breaker's numbers.
    pub breaker: BreakerConfig,
}

impl fmt::Debug for BackendPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BackendPlan").field(self.backend.service()).finish()
    }
}

/// What the actors work on.
pub struct ActorsConfig {
    /// Every backend, the embedded one included.
    pub backends: Vec<BackendPlan>,
    /// The router's numbers. It starts without arms, see [`RouterHandle::set_arms`].
    pub router: RouterConfig,
    /// The cache's numbers.
    pub cache: CacheConfig,
    /// How often backends and dependencies are probed.
    pub probe_interval: Duration,
    /// How long one probe may take.
    pub probe_timeout: Duration,
    /// What else is probed.
    pub dependencies: Vec<DependencyPlan>,
    /// The embedded engine, if there is to be one.
    pub inference: Option<InferencePlan>,
    /// The embedded encoder, if there is to be one.
    pub encoder: Option<InferencePlan<dyn LocalEncoder>>,
    /// Who is told of events.
    pub telemetry: Arc<dyn Telemetry>,
}

impl fmt::Debug for ActorsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActorsConfig")
            .field("backends", &self.backends)
            .field("probe_interval", &self.probe_interval)
            .field("dependencies", &self.dependencies)
            .field("inference", &self.inference)
            .field("encoder", &self.encoder)
            .finish_non_exhaustive()
    }
}

/// Starts all actors.
#[derive(Debug)]
pub struct ActorSystem;

impl ActorSystem {
    /// Starts the actors' thread, the watch over it, and one actor for each part of `config`.
    ///
    /// # Errors
    /// [`ActorError::NotStarted`] when a thread cannot be made.
    pub fn start(config: ActorsConfig) -> Result<Actors, ActorError> {
        Self::start_watched(config, Watch::default(), BackoffPolicy::default())
    }

    /// The same with other numbers for watch and restarts.
    ///
    /// # Errors
    /// As [`ActorSystem::start`].
    pub fn start_watched(
        config: ActorsConfig,
        watch: Watch,
        backoff: BackoffPolicy,
    ) -> Result<Actors, ActorError> {
        let telemetry = config.telemetry;
        let threads = ActorThreads::start(watch, backoff, Arc::clone(&telemetry)).map_err(|error| {
            tracing::error!(%error, "the actors cannot be started");
            ActorError::NotStarted
        })?;
        let inference = config.inference.map(|plan| Inference {
            handle: plan.handle(),
            _actor: plan.start("inference", &threads, Arc::clone(&telemetry)),
        });
        let encoder = config.encoder.map(|plan| plan.start("encoder", &threads, Arc::clone(&telemetry)));
        let mut breakers = BTreeMap::new();
        let mut watched = Vec::new();
        for BackendPlan { backend, breaker } in config.backends {
            let service = backend.service().clone();
            let handle = BreakerHandle::start(&threads, service.clone(), breaker, Arc::clone(&telemetry));
            watched.push((backend, handle.clone()));
            breakers.insert(service, handle);
        }
        let router = RouterHandle::start(&threads, config.router, Vec::new(), Arc::clone(&telemetry));
        let cache = CacheHandle::start(&threads, config.cache, Arc::clone(&telemetry));
        let pace = Pace { interval: config.probe_interval, timeout: config.probe_timeout };
        let monitor = MonitorHandle::start(&threads, watched, config.dependencies, pace, telemetry);
        Ok(Actors {
            breakers: Arc::new(breakers),
            router,
            cache,
            monitor,
            inference: inference.map(Arc::new),
            _encoder: encoder.map(Arc::new),
            threads: Arc::new(threads),
        })
    }
}

#[cfg(test)]
#[path = "system_tests.rs"]
mod tests;

struct Inference {
    handle: InferenceHandle,
    /// The actor lives as long as this.
    _actor: ActorRef<InferenceWorker>,
}

/// Every actor of the service, by its handle. Clones are the same actors; they end with the last clone, or
/// by [`Actors::shutdown`].
#[derive(Clone)]
pub struct Actors {
    /// The breakers of each backend.
    pub breakers: Arc<BTreeMap<ServiceName, BreakerHandle>>,
    /// The router.
    pub router: RouterHandle,
    /// The cache.
    pub cache: CacheHandle,
    /// Health.
    pub monitor: MonitorHandle,
    inference: Option<Arc<Inference>>,
    /// The encoder's actor lives as long as this.
    _encoder: Option<Arc<ActorRef<InferenceWorker<dyn LocalEncoder>>>>,
    threads: Arc<ActorThreads>,
}

impl Actors {
    /// The embedded engine, if there is one.
    #[must_use]
    pub fn inference(&self) -> Option<&InferenceHandle> {
        self.inference.as_deref().map(|inference| &inference.handle)
    }

    /// All actors by name, with their restarts.
    #[must_use]
    pub fn registry(&self) -> Registry {
        self.threads.registry()
    }

    /// Ends the watch and the actors and waits, blocking, at most 5 s; whether they ended. Messages still
    /// queued are dropped, so whatever must be saved is asked for before.
    pub fn shutdown(&self) -> bool {
        self.threads.stop(PATIENCE)
    }
}

impl fmt::Debug for Actors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Actors").field("registry", &self.registry()).finish_non_exhaustive()
    }
}
