//! The order in which a request's candidates are asked.
//!
//! The router scores; this adds what it cannot know: what the gates and the monitor say at this moment, and
//! the order of an alias's own targets. A candidate that is out of use stays in the order, behind the others
//! of its kind: its gate refuses at once and says when to come again, and if all are out, trying a backend
//! that a probe called dead is better than giving up.

use opossum_core::breaker::GateDecision;
use opossum_core::ids::{ArmId, ServiceName};
use opossum_core::moment::Moment;
use opossum_core::needs::Needs;
use opossum_core::router::{ArmIx, ArmSpec, ChooseContext};
use tokio::time::Instant;

use super::Inner;
use super::ask::Ask;
use super::catalogue::{Candidate, Eligible, Target};

/// A gate that refuses: never chosen over anything that may answer.
const REFUSED: f32 = 0.01;
/// A backend that the last probe could not reach, with its gate open to all.
const UNREACHED: f32 = 0.1;

impl Inner {
    /// Orders candidates, best first.
    pub(super) fn order<'c, A: Ask>(
        &self,
        target: &Target,
        eligible: Eligible<'c>,
        request: &A,
        needs: Needs,
        only: &[ServiceName],
    ) -> Eligible<'c> {
        if let [only_one] = eligible.as_slice() {
            self.metrics.chosen(&only_one.arm.id, "only");
            return eligible;
        }
        if target.in_order {
            self.as_listed(eligible)
        } else {
            self.as_routed(target, &eligible, request, needs, only)
        }
    }

    fn availability(&self, candidate: &Candidate, at: Moment) -> f32 {
        let service = &candidate.arm.service;
        match service.breaker.check(&candidate.arm.id.model, at, 0.0) {
            GateDecision::Refused(_) => REFUSED,
            // A trial that is due needs a request to be tried with.
            GateDecision::AskActor => 1.0,
            GateDecision::Pass if self.monitor.is_down(&service.name) => UNREACHED,
            GateDecision::Pass => 1.0,
        }
    }

    /// An alias's targets as its author ordered them, those out of use last, stand-ins after all.
    fn as_listed<'c>(&self, mut eligible: Eligible<'c>) -> Eligible<'c> {
        let at = now();
        let out = |c: &&Candidate| self.availability(c, at) < 1.0;
        // Each is asked once: a gate may change meanwhile, and a sort needs answers that agree.
        eligible.sort_by_cached_key(|c| (c.stand_in, c.stand_in && c.arm.service.last_resort, out(c)));
        if let Some(first) = eligible.first() {
            self.metrics.chosen(&first.arm.id, "alias");
        }
        eligible
    }

    fn as_routed<'c, A: Ask>(
        &self,
        target: &Target,
        eligible: &Eligible<'c>,
        request: &A,
        needs: Needs,
        only: &[ServiceName],
    ) -> Eligible<'c> {
        let at = now();
        let of = |id: &ArmId| eligible.iter().copied().find(|c| c.arm.id == *id);
        let availability = |_: ArmIx, spec: &ArmSpec| of(&spec.id).map_or(0.0, |c| self.availability(c, at));
        let policy = self.router.policy();
        let context = ChooseContext {
            prompt_chars: request.prompt_chars(),
            max_tokens: request.max_tokens(),
            restrict: (!only.is_empty()).then_some(only),
            pinned: Some(&target.ids),
            availability: &availability,
            ..ChooseContext::new(needs)
        };
        let decision = policy.choose(&context, rand::random());
        let ranked = decision.ranked.iter().filter_map(|r| of(&policy.arm(r.arm)?.id));
        let mut ordered: Eligible<'c> = ranked.collect();
        // What the policy does not know yet or left out (a context too short by its estimate) is still asked.
        let rest: Eligible<'c> = eligible
            .iter()
            .copied()
            .filter(|c| !ordered.iter().any(|o| o.arm.index == c.arm.index))
            .collect();
        ordered.extend(rest);
        if let Some(first) = ordered.first() {
            self.metrics.chosen(&first.arm.id, decision.reason.label());
        }
        ordered
    }
}

pub(super) fn now() -> Moment {
    Moment::new(Instant::now().into_std(), jiff::Timestamp::now())
}
