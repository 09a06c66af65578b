//! What the path says about itself: health, models, gauges.

use std::collections::BTreeMap;

use opossum_actors::CacheHandle;
use opossum_backends::transformers::LocalInference as _;
use opossum_core::breaker::GateDecision;
use opossum_core::ids::ArmId;
use opossum_core::moment::Moment;
use opossum_core::needs::Needs;

use super::catalogue::{Arm, ServiceEntry};
use super::order::now;
use super::{Inner, Service};

/// The ledger's name in health.
pub(crate) const LEDGER: &str = "database";

/// The health of everything the service leans on, as last seen.
#[derive(Debug, Default)]
pub struct Health {
    /// Dependencies by name: `ok`, `disabled`, or `error: …`.
    pub dependencies: BTreeMap<String, String>,
    /// Backends by name.
    pub backends: BTreeMap<String, BackendHealth>,
    /// Breakers by service.
    pub breakers: BTreeMap<String, serde_json::Value>,
    /// Actors by name.
    pub actors: BTreeMap<String, ActorHealth>,
}

/// One backend's health.
#[derive(Debug)]
pub struct BackendHealth {
    /// Whether requests can be sent there now.
    pub available: bool,
}

/// One actor's health.
#[derive(Debug)]
pub struct ActorHealth {
    /// Whether it answers.
    pub alive: bool,
    /// How often it came back.
    pub restarts: u64,
}

impl Health {
    /// Whether nothing that is configured is down.
    pub fn is_good(&self) -> bool {
        self.dependencies.values().all(|state| state == "ok" || state == "disabled")
            && self.backends.values().all(|b| b.available)
            && self.actors.values().all(|a| a.alive)
    }
}

/// A name that can be asked for.
#[derive(Debug)]
pub struct ModelEntry {
    /// The name.
    pub id: String,
    /// Whose it is: the service's name, or ours for aliases.
    pub owner: String,
    /// What may answer.
    pub candidates: Vec<CandidateEntry>,
}

/// One way to serve a name.
#[derive(Debug)]
pub struct CandidateEntry {
    /// The arm.
    pub arm: ArmId,
    /// Whether it can be used now.
    pub available: bool,
    /// What it can do.
    pub can: Needs,
    /// Longest context in tokens, where known.
    pub context_tokens: Option<u32>,
}

impl Service {
    /// Health as last seen; with `refresh`, after probing everything now.
    pub async fn health(&self, refresh: bool) -> Health {
        if refresh {
            self.inner.monitor.refresh().await;
        }
        self.inner.health()
    }

    /// Whether work can be admitted.
    ///
    /// # Errors
    /// The reason why not.
    pub fn readiness(&self) -> Result<(), &'static str> {
        if self.inner.admission.is_draining() {
            return Err("draining");
        }
        let catalogue = self.inner.catalogue.load();
        let at = now();
        // A backend whose breaker is open may answer the next request: only a model that cannot be loaded, or
        // no backend at all, leaves nothing to admit work for.
        let usable =
            |arm: &std::sync::Arc<Arm>| !arm.service.last_resort || self.inner.is_available(&arm.service, at);
        if catalogue.arms().iter().any(usable) { Ok(()) } else { Err("no backend can serve any model") }
    }

    /// Everything that can be asked for.
    pub fn models(&self) -> Vec<ModelEntry> {
        let catalogue = self.inner.catalogue.load();
        let at = now();
        let entries = catalogue.names().map(|(name, target)| ModelEntry {
            id: name.to_owned(),
            owner: owner(name).to_owned(),
            candidates: target.candidates.iter().map(|c| self.inner.candidate(&c.arm, at)).collect(),
        });
        entries.collect()
    }

    /// What one name stands for; also a model's bare name.
    pub fn model(&self, name: &str) -> Option<ModelEntry> {
        let catalogue = self.inner.catalogue.load();
        let target = catalogue.resolve(name).ok()?;
        let at = now();
        let candidates = target.candidates.iter().map(|c| self.inner.candidate(&c.arm, at)).collect();
        Some(ModelEntry { id: name.to_owned(), owner: owner(name).to_owned(), candidates })
    }

    /// Brings gauges that are read off, not counted, up to date.
    pub fn refresh_gauges(&self) {
        let inner = &*self.inner;
        let counts = inner.admission.counts();
        inner.metrics.in_flight.set(i64::from(counts.running()));
        inner.metrics.waiting.set(i64::from(counts.waiting()));
        for service in inner.catalogue.load().services() {
            inner.metrics.set_available(service.name.as_str(), inner.is_available(service, now()));
            inner.metrics.set_breaker(service.name.as_str(), service.breaker.status_code());
        }
        if let Some(stats) = inner.cache.as_ref().map(CacheHandle::stats) {
            inner.metrics.cache_entries.set(i64::try_from(stats.keys).unwrap_or(i64::MAX));
            inner.metrics.cache_bytes.set(i64::try_from(stats.bytes).unwrap_or(i64::MAX));
        }
        if let Some(load) = inner.inference.as_ref().map(|engine| engine.status().load) {
            inner.metrics.engine.set(&load);
        }
        for weight in inner.router.weights() {
            inner.metrics.set_weight(&weight.arm, f64::from(weight.weight));
        }
    }
}

impl Inner {
    fn health(&self) -> Health {
        let catalogue = self.catalogue.load();
        let at = now();
        let seen = self.monitor.snapshot();
        let mut health = Health::default();
        for service in catalogue.services() {
            let name = service.name.to_string();
            health.backends.insert(name.clone(), BackendHealth { available: self.is_available(service, at) });
            let status = serde_json::to_value(service.breaker.status()).unwrap_or_default();
            health.breakers.insert(name, status);
        }
        health
            .dependencies
            .extend(seen.dependencies.iter().map(|(name, state)| (name.clone(), state.clone())));
        // Requests write to it all the time: what they saw is newer than what the monitor did.
        let ledger = self.ledger.fault().map_or_else(|| "ok".to_owned(), |fault| format!("error: {fault}"));
        health.dependencies.insert(LEDGER.to_owned(), ledger);
        let actors = seen.actors.iter();
        health
            .actors
            .extend(actors.map(|a| (a.name.clone(), ActorHealth { alive: a.alive, restarts: a.restarts })));
        health
    }

    /// A backend can be used when its last probe was good and its gate lets someone in.
    fn is_available(&self, service: &ServiceEntry, at: Moment) -> bool {
        !self.monitor.is_down(&service.name) && service.breaker.is_open_to_someone(at)
    }

    fn candidate(&self, arm: &Arm, at: Moment) -> CandidateEntry {
        let refused = matches!(arm.service.breaker.check(&arm.id.model, at, 0.0), GateDecision::Refused(_));
        CandidateEntry {
            arm: arm.id.clone(),
            available: !refused && !self.monitor.is_down(&arm.service.name),
            can: arm.can,
            context_tokens: arm.context_tokens,
        }
    }
}

fn owner(name: &str) -> &str {
    name.split_once('/').map_or("opossum", |(service, _)| service)
}
