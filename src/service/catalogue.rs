//! What can be asked for, and who may answer it.
//!
//! A catalogue is immutable. Discovery (an Ollama server that pulled another model) makes a new one, which
//! replaces the old as a whole; requests under way keep the one they began with.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opossum_actors::BreakerHandle;
use opossum_backends::{Backend, ParamDefaults};
use opossum_core::ids::{ArmId, ModelName, ServiceName};
use opossum_core::needs::Needs;
use smallvec::SmallVec;

use super::error::PipelineError;
use super::usage::Price;
use crate::telemetry::metrics::ArmMetrics;

/// The name that leaves the choice to the router.
pub const AUTO: &str = "auto";

/// One backend and how it is treated.
pub struct ServiceEntry {
    /// Its name.
    pub name: ServiceName,
    /// Its protocol.
    pub backend: Arc<dyn Backend>,
    /// Its breaker.
    pub breaker: BreakerHandle,
    /// How often the same backend is asked again.
    pub max_retries: u32,
    /// Base of the delay before that.
    pub retry_delay: Duration,
    /// Longest silence before the first content.
    pub first_token: Duration,
    /// The same when a model may have to be loaded first, where that can be.
    pub cold_load: Option<Duration>,
    /// Whether it is asked only when the others cannot answer.
    pub last_resort: bool,
    /// How good its answers are thought to be where nothing is said of a model, 0 to 1.
    pub capability: f32,
    /// Whether its list of models is known; if not, a model of it is neither there nor missing.
    pub models_known: bool,
}

/// One model behind a service.
pub struct Arm {
    /// Its identity.
    pub id: ArmId,
    /// Its place in the catalogue, which is its place in the router's tables.
    pub index: usize,
    /// The service.
    pub service: Arc<ServiceEntry>,
    /// What it can do.
    pub can: Needs,
    /// Longest context in tokens, where known.
    pub context_tokens: Option<u32>,
    /// How good its answers are thought to be, 0 to 1.
    pub capability: f32,
    /// Whether it has answered, so that no model needs to be loaded.
    pub warm: AtomicBool,
    /// What its tokens cost.
    pub price: Price,
    /// Its series.
    pub metrics: ArmMetrics,
}

/// An arm as one way to serve a name.
#[derive(Clone)]
pub struct Candidate {
    /// The arm.
    pub arm: Arc<Arm>,
    /// Values for what the request leaves open.
    pub defaults: Arc<ParamDefaults>,
    /// Multiplies its score.
    pub weight: f64,
    /// True for a candidate that only stands in when none of an alias's own targets can answer.
    pub stand_in: bool,
}

/// What a name means.
pub struct Target {
    /// The candidates.
    pub candidates: Vec<Candidate>,
    /// Their arms' identities, in the same order.
    pub ids: Vec<ArmId>,
    /// Whether the order of the candidates is the operator's wish, or left to the router.
    pub in_order: bool,
    /// Whether a service that it names could not be asked yet what it serves: the name is good, whoever can
    /// answer it.
    pub awaited: bool,
    /// What the name means now, for cache keys: it changes whenever the candidates do.
    pub revision: String,
}

impl Target {
    /// A target of these candidates.
    pub fn new(candidates: Vec<Candidate>, in_order: bool) -> Self {
        let ids: Vec<ArmId> = candidates.iter().map(|c| c.arm.id.clone()).collect();
        let revision =
            candidates.iter().map(|c| format!("{} {:?} {};", c.arm.id, c.defaults, c.weight)).collect();
        Self { candidates, ids, in_order, awaited: false, revision }
    }
}

/// The candidates of one request.
pub type Eligible<'c> = SmallVec<[&'c Candidate; 8]>;

/// Everything that can be asked for.
pub struct Catalogue {
    arms: Vec<Arc<Arm>>,
    services: Vec<Arc<ServiceEntry>>,
    auto: Target,
    aliases: BTreeMap<String, Target>,
    pinned: BTreeMap<String, Target>,
    /// Models by bare name, for callers who know a model but not our services.
    bare: BTreeMap<String, Target>,
    /// The embedding model that `auto` means, if there is any.
    ///
    /// Vectors of different models cannot be compared, so for embeddings `auto` is one model, whoever serves it,
    /// and stays that model for as long as anyone serves it.
    embedder: Option<ModelName>,
}

impl Catalogue {
    /// Joins services, arms and aliases. An alias none of whose targets exists is left out, unless it may only
    /// be that its service could not be asked yet.
    pub fn new(
        services: Vec<Arc<ServiceEntry>>,
        arms: Vec<Arc<Arm>>,
        auto: Vec<Candidate>,
        aliases: BTreeMap<String, Target>,
    ) -> Self {
        let plain = Arc::new(ParamDefaults::default());
        let defaults_of = |arm: &Arc<Arm>| {
            let as_auto = auto.iter().find(|c| c.arm.index == arm.index);
            as_auto.map_or_else(|| Arc::clone(&plain), |c| Arc::clone(&c.defaults))
        };
        let mut pinned = BTreeMap::new();
        let mut named: BTreeMap<String, Vec<Candidate>> = BTreeMap::new();
        for arm in &arms {
            let candidate =
                Candidate { arm: Arc::clone(arm), defaults: defaults_of(arm), weight: 1.0, stand_in: false };
            pinned.insert(arm.id.to_string(), Target::new(vec![candidate.clone()], true));
            named.entry(arm.id.model.to_string()).or_default().push(candidate);
        }
        let bare =
            named.into_iter().map(|(model, candidates)| (model, Target::new(candidates, false))).collect();
        let is_good = |target: &Target| target.awaited || target.candidates.iter().any(|c| !c.stand_in);
        let aliases = aliases.into_iter().filter(|(_, target)| is_good(target)).collect();
        let embedder = embedder(auto.iter()).cloned();
        Self { arms, services, auto: Target::new(auto, false), aliases, pinned, bare, embedder }
    }

    /// What a request's `model` means.
    ///
    /// # Errors
    /// `ModelNotFound` for a name that means nothing here; `BackendsUnavailable` for a model of a service
    /// that could not be asked yet what it serves.
    pub fn resolve(&self, model: &str) -> Result<&Target, PipelineError> {
        if model == AUTO {
            return if self.auto.candidates.is_empty() { Err(unavailable()) } else { Ok(&self.auto) };
        }
        let found =
            self.aliases.get(model).or_else(|| self.pinned.get(model)).or_else(|| self.bare.get(model));
        if let Some(target) = found {
            return if target.candidates.is_empty() { Err(unavailable()) } else { Ok(target) };
        }
        let unasked = model.split_once('/').is_some_and(|(service, _)| {
            self.services.iter().any(|s| s.name.as_str() == service && !s.models_known)
        });
        if unasked {
            Err(unavailable())
        } else {
            Err(PipelineError::ModelNotFound { model: model.to_owned() })
        }
    }

    /// The candidates of a target that may answer: of the services the caller allows, and able to honour
    /// every field of the request.
    ///
    /// # Errors
    /// `Invalid` for a service that does not exist or serves nothing of this name, `Unsupported` naming the
    /// first field that no candidate can honour.
    pub fn eligible<'c>(
        &'c self,
        target: &'c Target,
        needs: Needs,
        only: &[ServiceName],
    ) -> Result<Eligible<'c>, PipelineError> {
        self.check_services(only)?;
        let allowed = |c: &&Candidate| only.is_empty() || only.contains(&c.arm.service.name);
        let mut known: Eligible<'c> = target.candidates.iter().filter(allowed).collect();
        if needs.contains(Needs::EMBED) && !target.in_order {
            self.keep_one_embedder(&mut known);
        }
        let able: Eligible<'c> = known.iter().copied().filter(|c| c.arm.can.contains(needs)).collect();
        if !able.is_empty() {
            return Ok(able);
        }
        let mut missing = known.iter().filter_map(|c| needs.first_missing(c.arm.can));
        match missing.next() {
            Some(param) => Err(PipelineError::Unsupported { param, reason: None }),
            None => Err(PipelineError::Invalid {
                param: Some("x-opossum-route"),
                message: "none of the services named in x-opossum-route serves this model".into(),
            }),
        }
    }

    /// Leaves only candidates whose vectors can be compared. An alias's targets its author declared to be so.
    fn keep_one_embedder(&self, candidates: &mut Eligible<'_>) {
        let serves = |c: &&Candidate, model: &ModelName| embeds(c) && is_same_model(&c.arm.id.model, model);
        let usual = self.embedder.as_ref().filter(|model| candidates.iter().any(|c| serves(c, model)));
        // A caller who restricts the services may have left out whoever serves the usual one.
        let chosen = usual.or_else(|| embedder(candidates.iter().copied())).cloned();
        if let Some(chosen) = chosen {
            candidates.retain(|c| serves(&&**c, &chosen));
        }
    }

    fn check_services(&self, only: &[ServiceName]) -> Result<(), PipelineError> {
        match only.iter().find(|name| !self.services.iter().any(|s| s.name == **name)) {
            None => Ok(()),
            Some(unknown) => Err(PipelineError::Invalid {
                param: Some("x-opossum-route"),
                message: format!(
                    "x-opossum-route names `{}`, which is not a service here",
                    printable(unknown.as_str())
                ),
            }),
        }
    }

    /// Takes over from the catalogue that this one replaces: which arms have answered already, and the embedding
    /// model that `auto` means.
    pub fn take_over(&mut self, old: &Catalogue) {
        let is_served =
            |model: &&ModelName| self.auto.candidates.iter().any(|c| is_same_model(&c.arm.id.model, model));
        if let Some(kept) = old.embedder.as_ref().filter(is_served) {
            self.embedder = Some(kept.clone());
        }
        for arm in &self.arms {
            let known = old.arms.iter().find(|known| known.id == arm.id);
            let warm = known.is_some_and(|known| known.warm.load(Ordering::Relaxed));
            arm.warm.store(warm, Ordering::Relaxed);
        }
    }

    /// Every arm, by index.
    pub fn arms(&self) -> &[Arc<Arm>] {
        &self.arms
    }

    /// Every service.
    pub fn services(&self) -> &[Arc<ServiceEntry>] {
        &self.services
    }

    /// Every name that can be asked for, with its target: `auto`, aliases, then `service/model`.
    pub fn names(&self) -> impl Iterator<Item = (&str, &Target)> {
        let auto = (!self.auto.candidates.is_empty()).then_some((AUTO, &self.auto));
        let named = self.aliases.iter().chain(&self.pinned).map(|(name, target)| (name.as_str(), target));
        auto.into_iter().chain(named)
    }
}

fn embeds(candidate: &Candidate) -> bool {
    candidate.arm.can.contains(Needs::EMBED)
}

/// The first candidate's model that is made for embedding, else the first that can do it at all.
fn embedder<'c>(candidates: impl Iterator<Item = &'c Candidate> + Clone) -> Option<&'c ModelName> {
    let mut able = candidates.filter(|c| embeds(c));
    let first = able.clone().next();
    let made_for_it = able.find(|c| !c.arm.can.intersects(Needs::CHAT | Needs::COMPLETION));
    made_for_it.or(first).map(|c| &c.arm.id.model)
}

/// Whether two services' names mean the same model: Ollama's `x` is `x:latest`, and case is a matter of taste.
fn is_same_model(one: &ModelName, other: &ModelName) -> bool {
    let bare = |name: &ModelName| name.as_str().trim_end_matches(":latest").to_ascii_lowercase();
    bare(one) == bare(other)
}

fn unavailable() -> PipelineError {
    PipelineError::BackendsUnavailable { retry_after: Duration::from_secs(1) }
}

/// A caller's word, cut to what may stand in a message.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}
