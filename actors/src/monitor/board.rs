//! What the ServiceMonitor and its handles share.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use jiff::Timestamp;
use opossum_backends::{Backend, UpstreamModel};
use opossum_core::ids::ServiceName;
use tokio::sync::watch;

use super::snapshot::{ActorHealth, BackendHealth, HealthSnapshot};
use crate::breaker::BreakerHandle;
use crate::clock::moment;
use crate::registry::Registry;
use crate::telemetry::{self, Telemetry};

/// Asks a dependency for a sign of life; the error in a few words, without anything secret.
pub type Probe = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// A dependency to be watched.
#[derive(Clone)]
pub struct DependencyPlan {
    /// Its name in health.
    pub name: String,
    /// How it is asked; `None` when it is not configured, which health shows as `disabled`.
    pub probe: Option<Probe>,
}

impl fmt::Debug for DependencyPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DependencyPlan")
            .field("name", &self.name)
            .field("configured", &self.probe.is_some())
            .finish()
    }
}

/// A backend to be watched.
pub(super) struct WatchedBackend {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) breaker: BreakerHandle,
}

/// How a probe ended: well, or why not in a word or a few.
pub(super) type Outcome = Result<(), Cow<'static, str>>;

fn why_not(outcome: &Outcome) -> Result<(), &str> {
    outcome.as_ref().err().map_or(Ok(()), |why| Err(why))
}

/// What a probe said, and since when.
#[derive(Clone, Debug)]
pub(super) struct Said {
    /// `None` before the first probe.
    pub(super) good: Option<bool>,
    pub(super) detail: Cow<'static, str>,
    pub(super) since: Timestamp,
}

impl Said {
    fn nothing() -> Self {
        Self { good: None, detail: Cow::Borrowed("not probed yet"), since: Timestamp::now() }
    }

    /// The outcome of another probe; whether it turned.
    fn heard(&mut self, outcome: &Outcome) -> bool {
        let turned = self.good != Some(outcome.is_ok());
        if turned {
            self.since = Timestamp::now();
        }
        self.good = Some(outcome.is_ok());
        self.detail = outcome.as_ref().err().map_or(Cow::Borrowed("ok"), Clone::clone);
        turned
    }
}

#[derive(Clone, Default)]
pub(super) struct Seen {
    pub(super) backends: BTreeMap<ServiceName, Said>,
    pub(super) models: BTreeMap<ServiceName, Arc<[UpstreamModel]>>,
    pub(super) dependencies: BTreeMap<String, Said>,
}

pub(super) struct Board {
    pub(super) backends: Vec<WatchedBackend>,
    pub(super) dependencies: Vec<DependencyPlan>,
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    pub(super) telemetry: Arc<dyn Telemetry>,
    registry: Registry,
    seen: ArcSwap<Seen>,
    /// Counts changes of any backend's models.
    pub(super) models_changed: watch::Sender<u64>,
}

impl Board {
    pub(super) fn new(
        backends: Vec<WatchedBackend>,
        dependencies: Vec<DependencyPlan>,
        (interval, timeout): (Duration, Duration),
        registry: Registry,
        telemetry: Arc<dyn Telemetry>,
    ) -> Self {
        let named = |watched: &WatchedBackend| (watched.backend.service().clone(), Said::nothing());
        let seen = Seen {
            backends: backends.iter().map(named).collect(),
            models: BTreeMap::new(),
            dependencies: dependencies.iter().map(|d| (d.name.clone(), Said::nothing())).collect(),
        };
        Self {
            backends,
            dependencies,
            interval,
            timeout,
            telemetry,
            registry,
            seen: ArcSwap::from_pointee(seen),
            models_changed: watch::Sender::new(0),
        }
    }

    pub(super) fn is_down(&self, service: &ServiceName) -> bool {
        self.seen.load().backends.get(service).is_some_and(|said| said.good == Some(false))
    }

    pub(super) fn backend_said(&self, service: &ServiceName, outcome: &Outcome) {
        let turned = self.update(|seen| seen.backends.get_mut(service).is_some_and(|s| s.heard(outcome)));
        if turned {
            telemetry::backend_probed(&*self.telemetry, service, why_not(outcome));
        }
    }

    pub(super) fn dependency_said(&self, name: &str, outcome: &Outcome) {
        let turned = self.update(|seen| seen.dependencies.get_mut(name).is_some_and(|s| s.heard(outcome)));
        if turned {
            telemetry::dependency_probed(&*self.telemetry, name, why_not(outcome));
        }
    }

    pub(super) fn models_listed(&self, service: &ServiceName, models: &[UpstreamModel]) {
        let same = self.seen.load().models.get(service).is_some_and(|known| are_same(known, models));
        if same {
            return;
        }
        self.update(|seen| seen.models.insert(service.clone(), models.into()));
        self.models_changed.send_modify(|changes| *changes += 1);
    }

    /// Several probes may end at once on different threads, hence a loop under the hood.
    fn update<R>(&self, change: impl Fn(&mut Seen) -> R) -> R {
        let mut output = None;
        self.seen.rcu(|seen| {
            let mut seen = Seen::clone(seen);
            output = Some(change(&mut seen));
            seen
        });
        match output {
            Some(output) => output,
            // `rcu` calls its closure at least once.
            None => change(&mut Seen::clone(&self.seen.load())),
        }
    }

    pub(super) fn snapshot(&self) -> HealthSnapshot {
        let seen = self.seen.load();
        let at = moment();
        let health = |watched: &WatchedBackend| {
            let service = watched.backend.service();
            let said = seen.backends.get(service).cloned().unwrap_or_else(Said::nothing);
            let health = BackendHealth {
                available: said.good == Some(true) && watched.breaker.is_open_to_someone(at),
                detail: said.detail,
                since: said.since,
                breaker: watched.breaker.state(),
                models: seen.models.get(service).cloned(),
            };
            (service.clone(), health)
        };
        HealthSnapshot {
            backends: self.backends.iter().map(health).collect(),
            dependencies: self.dependencies.iter().map(|d| (d.name.clone(), word(d, &seen))).collect(),
            actors: actors(&self.registry),
        }
    }
}

fn word(dependency: &DependencyPlan, seen: &Seen) -> String {
    match seen.dependencies.get(&dependency.name) {
        _ if dependency.probe.is_none() => "disabled".to_owned(),
        Some(Said { good: Some(true), .. }) => "ok".to_owned(),
        Some(said) => format!("error: {}", said.detail),
        None => "error: not probed yet".to_owned(),
    }
}

fn actors(registry: &Registry) -> Vec<ActorHealth> {
    let health = |actor: crate::registry::ActorReport| ActorHealth {
        name: actor.name.to_string(),
        alive: actor.alive,
        restarts: actor.restarts.total(),
    };
    registry.report().into_iter().map(health).collect()
}

fn are_same(known: &[UpstreamModel], listed: &[UpstreamModel]) -> bool {
    let key = |model: &UpstreamModel| (model.name.clone(), model.can, model.context_tokens);
    known.len() == listed.len() && known.iter().map(key).eq(listed.iter().map(key))
}
