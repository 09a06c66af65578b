//! The owner's side: what was seen, kept as discounted sums, and published as a policy.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::arm::ArmSpec;
use super::choose::{Policy, PolicyArm};
use super::health::ArmHealth;
use crate::ids::ArmId;

/// The numbers of the router.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RouterConfig {
    /// Share of requests whose first arm is drawn evenly from the best tier, from 0 to 1.
    pub explore: f32,
}

impl Default for RouterConfig {
    fn default() -> Self {
        // Health alone is learned, from every attempt, and fades by itself: nothing is gained by exploring.
        Self { explore: 0.0 }
    }
}

/// What was seen of one attempt.
#[derive(Clone, Debug)]
pub struct AttemptSeen {
    /// The arm that was asked.
    pub arm: ArmId,
    /// Whether it answered well. `None` where the end says nothing of the arm: cancelled, the caller's own
    /// error, a limit.
    pub ok: Option<bool>,
    /// From asking to the end.
    pub latency: Duration,
    /// From asking to the first content, where there was any.
    pub ttft: Option<Duration>,
    /// Tokens of the answer, where known.
    pub tokens: Option<u32>,
    /// When it ended.
    pub at: Instant,
}

/// Everything learned, for saving.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RouterState {
    /// Of each arm.
    pub arms: Vec<ArmState>,
}

/// What was learned of one arm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArmState {
    /// The arm.
    pub arm: ArmId,
    /// Its sums.
    pub health: ArmHealth,
}

/// What operators see of one arm.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ArmWeight {
    /// The arm.
    pub arm: ArmId,
    /// The part of its score that depends on no request: weight · capability · success · latency factor.
    pub weight: f32,
    /// As configured.
    pub capability: f32,
    /// Success rate, from 0 to 1.
    pub success: f64,
    /// Usual latency in seconds.
    pub latency_seconds: f64,
    /// Attempts it rests on, discounted.
    pub calls: f64,
    /// Whether it comes after all others.
    pub last_resort: bool,
}

struct Arm {
    spec: Arc<ArmSpec>,
    health: ArmHealth,
    /// The step up to which `health` has faded.
    step: f64,
}

/// What the router has learned. It has one owner, who publishes [`Router::policy`].
pub struct Router {
    config: RouterConfig,
    arms: Vec<Arm>,
    by_id: HashMap<ArmId, usize>,
    /// Outcomes so far, and seconds without any.
    step: f64,
    last: Instant,
    version: u64,
    frozen: bool,
}

impl Router {
    /// A router that has seen nothing. Of arms with the same identity the last one counts; arms beyond
    /// 65,535 are left out.
    pub fn new(config: RouterConfig, specs: Vec<ArmSpec>, now: Instant) -> Self {
        let mut router = Self {
            config,
            arms: Vec::new(),
            by_id: HashMap::new(),
            step: 0.0,
            last: now,
            version: 0,
            frozen: false,
        };
        router.set_arms(specs);
        router
    }

    /// Takes another set of arms; what was learned of those that stay is kept.
    pub fn set_arms(&mut self, specs: Vec<ArmSpec>) {
        let mut known: HashMap<ArmId, Arm> =
            std::mem::take(&mut self.arms).into_iter().map(|arm| (arm.spec.id.clone(), arm)).collect();
        self.by_id.clear();
        for spec in specs {
            let spec = Arc::new(spec.bounded());
            if let Some(&index) = self.by_id.get(&spec.id) {
                self.arms[index].spec = spec;
                continue;
            }
            if self.arms.len() >= usize::from(u16::MAX) {
                break;
            }
            let (health, step) = known
                .remove(&spec.id)
                .map_or((ArmHealth::default(), self.step), |arm| (arm.health, arm.step));
            self.by_id.insert(spec.id.clone(), self.arms.len());
            self.arms.push(Arm { spec, health, step });
        }
        self.version += 1;
    }

    /// Takes in what was seen of one attempt; says whether it changed anything.
    pub fn observe(&mut self, seen: &AttemptSeen) -> bool {
        if self.frozen {
            return false;
        }
        let Some(&index) = self.by_id.get(&seen.arm) else { return false };
        if seen.ok.is_none() && seen.tokens.is_none() {
            return false;
        }
        self.idle_until(seen.at);
        if seen.ok.is_some() {
            self.step += 1.0;
        }
        let step = self.step;
        let arm = &mut self.arms[index];
        arm.fade_to(step);
        if let Some(ok) = seen.ok {
            arm.health.add(ok, seen.latency, arm.spec.expected_latency);
        }
        if let Some(tokens) = seen.tokens {
            arm.health.add_tokens(tokens);
        }
        self.version += 1;
        true
    }

    /// Lets time pass, so that without traffic too an arm drifts back to its prior; says whether a policy
    /// published now would differ.
    pub fn age(&mut self, now: Instant) -> bool {
        if self.frozen || !self.idle_until(now) {
            return false;
        }
        let news = self.arms.iter().any(|arm| arm.health.calls > 1e-3);
        self.version += u64::from(news);
        news
    }

    /// Stops (or resumes) learning and fading.
    pub fn freeze(&mut self, frozen: bool, now: Instant) {
        if self.frozen && !frozen {
            // The frozen time has not passed for what was learned.
            self.last = self.last.max(now);
        }
        self.frozen = frozen;
    }

    /// Whether learning is stopped.
    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// Forgets everything learned.
    pub fn reset(&mut self) {
        for arm in &mut self.arms {
            arm.health = ArmHealth::default();
        }
        self.version += 1;
    }

    /// Grows whenever a policy taken earlier is out of date.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What the request path asks.
    pub fn policy(&self) -> Policy {
        let arms = self.arms.iter().map(|arm| PolicyArm::new(Arc::clone(&arm.spec), &arm.faded(self.step)));
        Policy::new(arms.collect(), self.config.explore, self.version)
    }

    /// What operators see, in the order of the arms.
    pub fn weights(&self) -> Vec<ArmWeight> {
        self.arms.iter().map(|arm| arm.weight(self.step)).collect()
    }

    /// Everything learned, for saving.
    pub fn state(&self) -> RouterState {
        let save = |arm: &Arm| ArmState { arm: arm.spec.id.clone(), health: arm.faded(self.step) };
        RouterState { arms: self.arms.iter().map(save).collect() }
    }

    /// Takes back what was saved, for the arms that are known; returns how many sums were unsound (not
    /// finite, or impossible) and were left at their prior.
    pub fn restore(&mut self, state: &RouterState) -> usize {
        let mut unsound = 0;
        for saved in &state.arms {
            let Some(&index) = self.by_id.get(&saved.arm) else { continue };
            let sound = saved.health.is_sound();
            unsound += usize::from(!sound);
            self.arms[index].health = if sound { saved.health } else { ArmHealth::default() };
            self.arms[index].step = self.step;
        }
        self.version += 1;
        unsound
    }

    /// Counts whole seconds without an outcome as steps; says whether there were any.
    fn idle_until(&mut self, now: Instant) -> bool {
        let seconds = now.saturating_duration_since(self.last).as_secs();
        // The rest of a second waits for the next question.
        self.last += Duration::from_secs(seconds);
        self.step += seconds as f64;
        seconds > 0
    }
}

impl Arm {
    fn fade_to(&mut self, step: f64) {
        self.health = self.faded(step);
        self.step = step;
    }

    fn faded(&self, step: f64) -> ArmHealth {
        let mut health = self.health;
        health.fade(step - self.step);
        health
    }

    fn weight(&self, step: f64) -> ArmWeight {
        let health = self.faded(step);
        ArmWeight {
            arm: self.spec.id.clone(),
            weight: PolicyArm::new(Arc::clone(&self.spec), &health).standing(),
            capability: self.spec.capability,
            success: health.success(),
            latency_seconds: health.latency(self.spec.expected_latency).as_secs_f64(),
            calls: health.calls,
            last_resort: self.spec.last_resort,
        }
    }
}
