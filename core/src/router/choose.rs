//! The request path's side: an immutable policy that orders candidates.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use smallvec::SmallVec;

use super::arm::{ArmIx, ArmSpec, finite_or};
use super::health::ArmHealth;
use crate::ids::{ArmId, ServiceName};
use crate::needs::Needs;

/// Latency at which an arm loses the most that latency can cost it.
const SLOWEST_SECONDS: f32 = 10.0;
/// Characters of a prompt for each token, as a rule of thumb for English text.
const CHARS_PER_TOKEN: usize = 4;

/// What a choice depends on, besides the policy.
#[derive(Clone, Copy)]
pub struct ChooseContext<'a> {
    /// What the arm must be able to do.
    pub needs: Needs,
    /// Length of the prompt in characters.
    pub prompt_chars: usize,
    /// Most tokens of the answer, where the request says.
    pub max_tokens: Option<u32>,
    /// Features of the prompt, for a policy that has learned from them; this one does not look at them.
    pub features: Option<&'a [f32]>,
    /// How much cost counts against quality: λ_c, at least 0.
    pub cost_weight: f32,
    /// How much latency counts: λ_l, from 0 to 1.
    pub latency_weight: f32,
    /// The services a caller allows, if it says.
    pub restrict: Option<&'a [ServiceName]>,
    /// The arms that may serve at all, where the model's name or an alias settles it.
    pub pinned: Option<&'a [ArmId]>,
    /// The arm that must go first while it can serve: a loop of tool calls stays with the model it began
    /// with.
    pub sticky: Option<&'a ArmId>,
    /// How available an arm is now, from 0 (its gate refuses) to 1.
    pub availability: &'a dyn Fn(ArmIx, &ArmSpec) -> f32,
}

impl<'a> ChooseContext<'a> {
    /// A context with nothing special about it: everything available, no cost, the usual weight of latency.
    pub fn new(needs: Needs) -> Self {
        Self {
            needs,
            prompt_chars: 0,
            max_tokens: None,
            features: None,
            cost_weight: 0.0,
            latency_weight: 0.3,
            restrict: None,
            pinned: None,
            sticky: None,
            availability: &|_, _| 1.0,
        }
    }
}

impl fmt::Debug for ChooseContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChooseContext")
            .field("needs", &self.needs)
            .field("prompt_chars", &self.prompt_chars)
            .field("restrict", &self.restrict)
            .field("pinned", &self.pinned)
            .field("sticky", &self.sticky)
            .finish_non_exhaustive()
    }
}

/// A candidate and its score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ranked {
    /// The arm.
    pub arm: ArmIx,
    /// Higher is better, within a tier.
    pub score: f32,
    /// What the score is made of.
    pub terms: Terms,
}

/// What a score is made of.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Terms {
    /// Expected quality: weight · capability.
    pub quality: f32,
    /// Success rate.
    pub success: f32,
    /// Availability at the time of choice.
    pub availability: f32,
    /// 1 - λ_l · min(l / 10 s, 1).
    pub latency: f32,
    /// λ_c · c, subtracted.
    pub cost: f32,
}

/// Why an arm that could have been a candidate is none. Arms outside a restriction or a pin are not listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// It cannot honour this field of the request.
    Unable {
        /// The field's name.
        param: &'static str,
    },
    /// The prompt is far beyond its context.
    ContextLength,
    /// The operator's weight is 0.
    Weightless,
    /// Its availability is 0.
    Unavailable,
}

/// Why the first one is first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// There is no candidate.
    NoCandidate,
    /// There is one only.
    Only,
    /// A turn before was answered by it.
    Sticky,
    /// It was drawn.
    Explored,
    /// Its score is the highest.
    Best,
}

impl Reason {
    /// The reason's name in metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            Reason::NoCandidate => "no_candidate",
            Reason::Only => "only",
            Reason::Sticky => "sticky",
            Reason::Explored => "explored",
            Reason::Best => "best",
        }
    }
}

/// A choice: all candidates in the order in which they are to be asked.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Best first.
    pub ranked: SmallVec<[Ranked; 8]>,
    /// Arms that are no candidates, and why.
    pub left_out: SmallVec<[(ArmIx, LeftOut); 8]>,
    /// The policy that chose.
    pub policy_version: u64,
    /// How likely the policy was to put this one first, above 0 to 1; 0 without a candidate.
    pub propensity: f32,
    /// Why the first one is first.
    pub reason: Reason,
}

/// One arm in a policy: its specification and its health, reduced to what a score needs.
#[derive(Clone, Debug)]
pub(super) struct PolicyArm {
    spec: Arc<ArmSpec>,
    success: f32,
    /// l / 10 s, at most 1.
    slowness: f32,
    answer_tokens: f32,
}

impl PolicyArm {
    pub(super) fn new(spec: Arc<ArmSpec>, health: &ArmHealth) -> Self {
        let sound = if health.is_sound() { *health } else { ArmHealth::default() };
        let latency = sound.latency(spec.expected_latency).as_secs_f32();
        Self {
            success: sound.success() as f32,
            slowness: finite_or(latency / SLOWEST_SECONDS, 1.0).clamp(0.0, 1.0),
            answer_tokens: sound.answer_tokens() as f32,
            spec,
        }
    }

    /// The part of the score that depends on no request, at the usual weight of latency.
    pub(super) fn standing(&self) -> f32 {
        self.spec.weight * self.spec.capability * self.success * (1.0 - 0.3 * self.slowness)
    }

    /// Estimated cost in USD.
    fn cost(&self, prompt_tokens: f32, max_tokens: Option<u32>) -> f32 {
        let answer = max_tokens.map_or(self.answer_tokens, |most| self.answer_tokens.min(most as f32));
        (self.spec.price_in * prompt_tokens + self.spec.price_out * answer) / 1e6
    }

    /// 0: an ordinary arm whose context surely holds the prompt. 1: it may not. 2 and 3: the same for the
    /// last resort.
    fn tier(&self, prompt_tokens: usize) -> u8 {
        let doubtful = self.spec.context_tokens.is_some_and(|most| prompt_tokens > most as usize);
        let last = self.spec.last_resort && self.spec.weight <= 1.0;
        2 * u8::from(last) + u8::from(doubtful)
    }

    /// Why it cannot serve, whatever its availability.
    fn cannot(&self, context: &ChooseContext<'_>) -> Option<LeftOut> {
        if let Some(param) = context.needs.first_missing(self.spec.can) {
            return Some(LeftOut::Unable { param });
        }
        // Text of more than twice the usual characters a token is rare: only then is it sure not to fit.
        let least_tokens = context.prompt_chars / (2 * CHARS_PER_TOKEN);
        if self.spec.context_tokens.is_some_and(|most| least_tokens > most as usize) {
            return Some(LeftOut::ContextLength);
        }
        (self.spec.weight <= 0.0).then_some(LeftOut::Weightless)
    }
}

/// How to choose, at one moment; immutable and shared.
#[derive(Clone, Debug)]
pub struct Policy {
    arms: Vec<PolicyArm>,
    explore: f32,
    version: u64,
}

impl Policy {
    pub(super) fn new(arms: Vec<PolicyArm>, explore: f32, version: u64) -> Self {
        Self { arms, explore: finite_or(explore, 0.0).clamp(0.0, 1.0), version }
    }

    /// Its version.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The arm at a place of this policy.
    pub fn arm(&self, arm: ArmIx) -> Option<&ArmSpec> {
        self.arms.get(arm.index()).map(|arm| &*arm.spec)
    }

    /// All arms with their places.
    pub fn arms(&self) -> impl Iterator<Item = (ArmIx, &ArmSpec)> {
        (0..).map(ArmIx).zip(self.arms.iter().map(|arm| &*arm.spec))
    }

    /// The place of an arm.
    pub fn find(&self, id: &ArmId) -> Option<ArmIx> {
        self.arms().find(|(_, spec)| spec.id == *id).map(|(arm, _)| arm)
    }

    /// Orders all candidates. `roll` is uniform in [0, 1). Takes time in proportion to the arms, and up to
    /// eight of them no allocation.
    pub fn choose(&self, context: &ChooseContext<'_>, roll: f64) -> Decision {
        let mut decision = Decision {
            ranked: SmallVec::new(),
            left_out: SmallVec::new(),
            policy_version: self.version,
            propensity: 0.0,
            reason: Reason::NoCandidate,
        };
        self.collect(context, &mut decision);
        self.order(context, &mut decision);
        self.lead(context, roll, &mut decision);
        decision
    }

    fn collect(&self, context: &ChooseContext<'_>, decision: &mut Decision) {
        let prompt_tokens = (context.prompt_chars / CHARS_PER_TOKEN) as f32;
        let cost_weight = finite_or(context.cost_weight, 0.0).max(0.0);
        let latency_weight = finite_or(context.latency_weight, 0.3).clamp(0.0, 1.0);
        let dearest = if cost_weight > 0.0 {
            self.arms.iter().map(|arm| arm.cost(prompt_tokens, context.max_tokens)).fold(0.0, f32::max)
        } else {
            0.0
        };
        for (ix, arm) in (0..).map(ArmIx).zip(&self.arms) {
            if !allowed(&arm.spec, context) {
                continue;
            }
            if let Some(why) = arm.cannot(context) {
                decision.left_out.push((ix, why));
                continue;
            }
            let availability = finite_or((context.availability)(ix, &arm.spec), 0.0).clamp(0.0, 1.0);
            if availability <= 0.0 {
                decision.left_out.push((ix, LeftOut::Unavailable));
                continue;
            }
            let cost =
                if dearest > 0.0 { arm.cost(prompt_tokens, context.max_tokens) / dearest } else { 0.0 };
            let terms = Terms {
                quality: arm.spec.weight * arm.spec.capability,
                success: arm.success,
                availability,
                latency: 1.0 - latency_weight * arm.slowness,
                cost: finite_or(cost_weight * cost, 0.0),
            };
            decision.ranked.push(Ranked { arm: ix, score: terms.score(), terms });
        }
    }

    /// By tier, then by score, then by place, so that equal arms keep the configuration's order.
    fn order(&self, context: &ChooseContext<'_>, decision: &mut Decision) {
        let prompt_tokens = context.prompt_chars / CHARS_PER_TOKEN;
        let tier = |ranked: &Ranked| self.arms[ranked.arm.index()].tier(prompt_tokens);
        decision.ranked.sort_unstable_by(|a, b| {
            tier(a).cmp(&tier(b)).then(b.score.total_cmp(&a.score)).then(a.arm.cmp(&b.arm))
        });
    }

    /// Settles who goes first, and how likely that was.
    fn lead(&self, context: &ChooseContext<'_>, roll: f64, decision: &mut Decision) {
        let ranked = &mut decision.ranked;
        if ranked.len() <= 1 {
            (decision.propensity, decision.reason) =
                if ranked.is_empty() { (0.0, Reason::NoCandidate) } else { (1.0, Reason::Only) };
            return;
        }
        let sticky = context
            .sticky
            .and_then(|id| ranked.iter().position(|ranked| self.arms[ranked.arm.index()].spec.id == *id));
        if let Some(place) = sticky {
            ranked[..=place].rotate_right(1);
            (decision.propensity, decision.reason) = (1.0, Reason::Sticky);
            return;
        }
        let prompt_tokens = context.prompt_chars / CHARS_PER_TOKEN;
        let tier = |ranked: &Ranked| self.arms[ranked.arm.index()].tier(prompt_tokens);
        let best = tier(&ranked[0]);
        let peers = ranked.iter().take_while(|ranked| tier(ranked) == best).count();
        let explore = f64::from(self.explore);
        let uniform = explore / peers as f64;
        if (0.0..explore).contains(&roll) {
            let place = ((roll / uniform) as usize).min(peers - 1);
            ranked[..=place].rotate_right(1);
            let propensity = if place == 0 { 1.0 - explore + uniform } else { uniform };
            (decision.propensity, decision.reason) = (propensity as f32, Reason::Explored);
        } else {
            (decision.propensity, decision.reason) = ((1.0 - explore + uniform) as f32, Reason::Best);
        }
    }
}

impl Terms {
    fn score(&self) -> f32 {
        finite_or(self.quality * self.success * self.availability * self.latency - self.cost, 0.0)
    }
}

fn allowed(spec: &ArmSpec, context: &ChooseContext<'_>) -> bool {
    context.restrict.is_none_or(|services| services.contains(&spec.id.service))
        && context.pinned.is_none_or(|arms| arms.contains(&spec.id))
}
