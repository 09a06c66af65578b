//! Which arms there are: what is configured, and what the backends say they serve.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::ArcSwap;
use opossum_actors::{Actors, HealthSnapshot};
use opossum_backends::{ParamDefaults, UpstreamModel};
use opossum_core::ids::{ArmId, ModelName};
use opossum_core::needs::Needs;
use opossum_core::router::ArmSpec;
use tokio::sync::watch;

use super::backends::BackendSpec;
use crate::service::Price;
use crate::service::catalogue::{Arm, Candidate, Catalogue, ServiceEntry, Target};
use crate::settings::{AliasSettings, AnswerFormat, ParamSettings, Settings, TargetSettings};
use crate::telemetry::Metrics;

/// `auto` uses the models that a backend lists by itself only up to this many; beyond, the operator has to
/// name them. Otherwise a hosted catalogue of a hundred models would be tried one by one.
const MOST_DISCOVERED: usize = 8;

/// All that a catalogue is drawn from, besides what backends say.
pub(super) struct Blueprint {
    settings: Settings,
    specs: Vec<BackendSpec>,
    actors: Actors,
    metrics: Arc<Metrics>,
}

/// A model of one service, from the configuration or from discovery.
struct Served {
    name: ModelName,
    can: Needs,
    context_tokens: Option<u32>,
    in_auto: bool,
}

impl Blueprint {
    /// A blueprint of these settings.
    pub(super) fn new(
        settings: &Settings,
        specs: Vec<BackendSpec>,
        actors: &Actors,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { settings: settings.clone(), specs, actors: actors.clone(), metrics }
    }

    /// Draws the catalogue that fits what the backends said last.
    pub(super) fn draw(&self, seen: &HealthSnapshot) -> Catalogue {
        let mut services = Vec::new();
        let mut arms: Vec<Arc<Arm>> = Vec::new();
        let mut auto = Vec::new();
        for spec in &self.specs {
            let Some(breaker) = self.actors.breakers.get(&spec.name) else { continue };
            let discovered = seen.backends.get(&spec.name).and_then(|b| b.models.clone());
            let entry = Arc::new(spec.entry(breaker.clone(), discovered.is_some(), &self.settings));
            for served in served(spec, discovered.as_deref()) {
                let arm = Arc::new(self.arm(&entry, &served, arms.len()));
                if served.in_auto {
                    let defaults = Arc::new(defaults(&self.settings.params_for(spec.name.as_str()), None));
                    auto.push(Candidate { arm: Arc::clone(&arm), defaults, weight: 1.0, stand_in: false });
                }
                arms.push(arm);
            }
            services.push(entry);
        }
        let aliases = self.settings.models.iter();
        let aliases = aliases.map(|(name, alias)| (name.clone(), self.alias(alias, &services, &arms, &auto)));
        let aliases = aliases.collect();
        Catalogue::new(services, arms, auto, aliases)
    }

    fn arm(&self, service: &Arc<ServiceEntry>, served: &Served, index: usize) -> Arm {
        let id = ArmId { service: service.name.clone(), model: served.name.clone() };
        let believed = self.settings.routing.arm(id.service.as_str(), id.model.as_str());
        Arm {
            index,
            service: Arc::clone(service),
            can: served.can,
            context_tokens: believed.context_tokens.or(served.context_tokens),
            capability: believed.capability.unwrap_or(service.capability),
            warm: AtomicBool::new(false),
            price: Price { prompt: believed.price_in, answer: believed.price_out },
            metrics: self.metrics.arm(&id),
            id,
        }
    }

    /// An alias's targets that exist now; where it allows, all of `auto` behind them as stand-ins.
    fn alias(
        &self,
        alias: &AliasSettings,
        services: &[Arc<ServiceEntry>],
        arms: &[Arc<Arm>],
        auto: &[Candidate],
    ) -> Target {
        let of = |target: &TargetSettings| {
            let same = |arm: &&Arc<Arm>| {
                arm.id.service.as_str() == target.service
                    && same_model(arm.id.model.as_str(), &target.api_name)
            };
            let arm = arms.iter().find(same)?;
            let defaults = Arc::new(defaults(&self.settings.params_for(&target.service), Some(target)));
            Some(Candidate {
                arm: Arc::clone(arm),
                defaults,
                weight: target.weight.unwrap_or(1.0),
                stand_in: false,
            })
        };
        let mut candidates: Vec<Candidate> = alias.targets.iter().filter_map(of).collect();
        if alias.reroute {
            let named: Vec<usize> = candidates.iter().map(|c| c.arm.index).collect();
            let others = auto.iter().filter(|c| !named.contains(&c.arm.index));
            candidates.extend(others.map(|c| Candidate { stand_in: true, ..c.clone() }));
        }
        let unasked = |target: &TargetSettings| {
            services.iter().any(|s| s.name.as_str() == target.service && !s.models_known)
        };
        Target { awaited: alias.targets.iter().any(unasked), ..Target::new(candidates, true) }
    }

    /// The arms as the router knows them.
    pub(super) fn arm_specs(&self, catalogue: &Catalogue) -> Vec<ArmSpec> {
        let spec = |arm: &Arc<Arm>| {
            let believed = self.settings.routing.arm(arm.id.service.as_str(), arm.id.model.as_str());
            let policy = self.settings.service_policy(arm.id.service.as_str());
            ArmSpec {
                capability: arm.capability,
                price_in: believed.price_in.unwrap_or(0.0) as f32,
                price_out: believed.price_out.unwrap_or(0.0) as f32,
                context_tokens: arm.context_tokens,
                last_resort: arm.service.last_resort,
                weight: policy.weight as f32,
                ..ArmSpec::new(arm.id.clone(), arm.can)
            }
        };
        catalogue.arms().iter().map(spec).collect()
    }
}

/// Ollama's `gemma` is `gemma:latest`.
fn same_model(ours: &str, asked: &str) -> bool {
    ours == asked || ours.strip_suffix(":latest") == Some(asked)
}

/// Models of a service: the configured ones, else those it lists.
fn served(spec: &BackendSpec, discovered: Option<&[UpstreamModel]>) -> Vec<Served> {
    let listed = discovered.unwrap_or_default();
    let known = |name: &str| listed.iter().find(|m| m.name.as_str() == name);
    let configured = spec.models.iter().map(|name| {
        let listed = known(name);
        Served {
            name: ModelName::from(name.as_str()),
            can: spec.can(name, listed),
            context_tokens: listed.and_then(|m| m.context_tokens),
            in_auto: true,
        }
    });
    let few = listed.len() <= MOST_DISCOVERED;
    let extra =
        listed.iter().filter(|m| !spec.models.iter().any(|name| name == m.name.as_str())).map(|m| Served {
            name: m.name.clone(),
            can: spec.can(m.name.as_str(), Some(m)),
            context_tokens: m.context_tokens,
            in_auto: spec.models.is_empty() && few,
        });
    configured
        .chain(extra)
        .filter(|s| s.can.intersects(Needs::CHAT | Needs::COMPLETION | Needs::EMBED))
        .collect()
}

fn defaults(all: &ParamSettings, target: Option<&TargetSettings>) -> ParamDefaults {
    let params = target.map_or_else(|| all.clone(), |target| target.params(all));
    ParamDefaults {
        temperature: params.temperature,
        top_p: params.top_p,
        top_k: params.top_k,
        max_tokens: params.max_tokens,
        json_object: target.and_then(|t| t.response_format) == Some(AnswerFormat::JsonObject),
    }
}

/// Draws a new catalogue whenever discovery has news, for as long as the service runs.
/// `news` is as old as what the first catalogue was drawn from, so that no change between the two is missed.
pub(super) fn follow_discovery(
    blueprint: Blueprint,
    catalogue: Arc<ArcSwap<Catalogue>>,
    mut news: watch::Receiver<u64>,
    actors: &Actors,
) {
    let (monitor, router) = (actors.monitor.clone(), actors.router.clone());
    crate::tasks::background("discovery", async move {
        while news.changed().await.is_ok() {
            let mut drawn = blueprint.draw(&monitor.snapshot());
            let old = catalogue.load_full();
            drawn.take_over(&old);
            let specs = blueprint.arm_specs(&drawn);
            // An arm of the same name may have learned what it can do or how much it can read.
            if specs != blueprint.arm_specs(&old) {
                tracing::info!(arms = drawn.arms().len(), "the catalogue changed");
                router.set_arms(specs);
            }
            catalogue.store(Arc::new(drawn));
        }
    });
}
