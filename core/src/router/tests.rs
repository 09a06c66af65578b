#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::ids::{ArmId, ServiceName};
use crate::needs::Needs;

fn arm(service: &str, capability: f32) -> ArmSpec {
    ArmSpec { capability, ..ArmSpec::new(ArmId::new(service, "m"), Needs::all()) }
}

fn router(specs: Vec<ArmSpec>) -> (Router, Instant) {
    let now = Instant::now();
    (Router::new(RouterConfig::default(), specs, now), now)
}

fn order(policy: &Policy, context: &ChooseContext<'_>) -> Vec<String> {
    services(policy, &policy.choose(context, 0.5))
}

fn services(policy: &Policy, decision: &Decision) -> Vec<String> {
    let name = |ranked: &Ranked| policy.arm(ranked.arm).unwrap().id.service.to_string();
    decision.ranked.iter().map(name).collect()
}

fn seen(service: &str, ok: bool, latency: Duration, at: Instant) -> AttemptSeen {
    AttemptSeen { arm: ArmId::new(service, "m"), ok: Some(ok), latency, ttft: None, tokens: None, at }
}

fn chat() -> ChooseContext<'static> {
    ChooseContext::new(Needs::CHAT)
}

#[test]
fn the_more_capable_goes_first_and_the_last_resort_last() {
    let local = ArmSpec { last_resort: true, ..arm("local", 1.0) };
    let policy = router(vec![local.clone(), arm("small", 0.3), arm("large", 0.9)]).0.policy();
    assert_eq!(order(&policy, &chat()), ["large", "small", "local"]);
    let heavy = ArmSpec { weight: 4.0, ..local };
    let policy = router(vec![heavy, arm("large", 0.9)]).0.policy();
    assert_eq!(order(&policy, &chat()), ["local", "large"], "unless its weight says so");
}

#[test]
fn a_choice_among_eight_arms_allocates_nothing() {
    let specs = (0..8_u16).map(|i| arm(&format!("s{i}"), f32::from(i) / 8.0)).collect();
    let policy = router(specs).0.policy();
    let decision = policy.choose(&chat(), 0.5);
    assert_eq!(decision.ranked.len(), 8);
    assert!(!decision.ranked.spilled() && !decision.left_out.spilled());
}

#[test]
fn failures_lower_an_arm_and_time_brings_it_back() {
    let (mut router, now) = router(vec![arm("a", 0.6), arm("b", 0.5)]);
    for _ in 0..10 {
        assert!(router.observe(&seen("a", false, Duration::from_millis(5), now)));
    }
    let decision = router.policy().choose(&chat(), 0.5);
    assert_eq!(services(&router.policy(), &decision), ["b", "a"]);
    assert_eq!(decision.reason, Reason::Best);
    assert_eq!(decision.policy_version, router.version());
    assert!(router.age(now + Duration::from_secs(300)));
    assert_eq!(order(&router.policy(), &chat()), ["a", "b"]);
}

#[test]
fn the_success_rate_follows_its_formula() {
    let (mut router, now) = router(vec![arm("a", 0.5), arm("b", 0.5)]);
    // Newest first: a bad one, one of another arm, a good one.
    for (service, ok) in [("a", true), ("b", true), ("a", false)] {
        router.observe(&seen(service, ok, Duration::from_secs(1), now));
    }
    let h: f64 = 0.98;
    let calls = 1.0 + h.powi(2);
    let expected = (5.0 * 0.98 + h.powi(2)) / (5.0 + calls);
    let weight = &router.weights()[0];
    assert!((weight.success - expected).abs() < 1e-12, "{} {expected}", weight.success);
    assert!((weight.calls - calls).abs() < 1e-12);
}

#[test]
fn latency_is_a_geometric_mean_over_its_prior_and_a_quick_failure_is_no_virtue() {
    let (mut router, now) = router(vec![arm("a", 0.5)]);
    for _ in 0..100 {
        router.observe(&seen("a", false, Duration::from_millis(1), now));
    }
    assert!((router.weights()[0].latency_seconds - 1.0).abs() < 1e-9);
    router.reset();
    router.observe(&seen("a", true, Duration::from_secs(8), now));
    // Two at 1 s and one at 8 s.
    assert!((router.weights()[0].latency_seconds - 2.0).abs() < 1e-9);
    router.observe(&seen("a", false, Duration::from_secs(20), now));
    assert!(router.weights()[0].latency_seconds > 2.0, "a hang is slow");
}

#[test]
fn a_slower_arm_loses_weight() {
    let (mut router, now) = router(vec![arm("a", 0.5), arm("b", 0.5)]);
    for i in 0..20 {
        let latency = Duration::from_secs(if i % 2 == 0 { 5 } else { 1 });
        router.observe(&seen(["a", "b"][i % 2], true, latency, now));
    }
    assert_eq!(order(&router.policy(), &chat()), ["b", "a"]);
    let patient = ChooseContext { latency_weight: 0.0, ..chat() };
    let terms = router.policy().choose(&patient, 0.5).ranked[0].terms;
    assert!((terms.latency - 1.0).abs() < f32::EPSILON);
}

#[test]
fn cost_counts_by_the_prompt_and_only_when_asked() {
    let dear = ArmSpec { price_in: 10.0, price_out: 40.0, ..arm("dear", 0.9) };
    let cheap = ArmSpec { price_in: 0.1, price_out: 0.4, ..arm("cheap", 0.8) };
    let policy = router(vec![dear, cheap]).0.policy();
    let context = ChooseContext { prompt_chars: 4000, ..chat() };
    assert_eq!(order(&policy, &context), ["dear", "cheap"]);
    let thrifty = ChooseContext { cost_weight: 0.2, ..context };
    assert_eq!(order(&policy, &thrifty), ["cheap", "dear"]);
    let terms = policy.choose(&thrifty, 0.5).ranked[0].terms;
    assert!((terms.cost - 0.2 * 0.01).abs() < 1e-6, "a hundredth of the dearest: {terms:?}");
}

#[test]
fn what_cannot_serve_is_left_out_and_says_why() {
    let blind = ArmSpec { can: Needs::CHAT, ..arm("blind", 0.9) };
    let short = ArmSpec { context_tokens: Some(100), ..arm("short", 0.9) };
    let off = ArmSpec { weight: 0.0, ..arm("off", 0.9) };
    let policy = router(vec![blind, short, off, arm("down", 0.9), arm("good", 0.1)]).0.policy();
    let availability = |_: ArmIx, spec: &ArmSpec| if spec.id.service.as_str() == "down" { 0.0 } else { 1.0 };
    let context = ChooseContext {
        needs: Needs::CHAT | Needs::TOOLS,
        prompt_chars: 1000,
        availability: &availability,
        ..chat()
    };
    let decision = policy.choose(&context, 0.5);
    assert_eq!(services(&policy, &decision), ["good"]);
    assert_eq!((decision.reason, decision.propensity), (Reason::Only, 1.0));
    let expected = [
        (ArmIx(0), LeftOut::Unable { param: "tools" }),
        (ArmIx(1), LeftOut::ContextLength),
        (ArmIx(2), LeftOut::Weightless),
        (ArmIx(3), LeftOut::Unavailable),
    ];
    assert_eq!(decision.left_out.as_slice(), expected);
}

#[test]
fn a_context_that_may_be_too_short_is_asked_later() {
    let short = ArmSpec { context_tokens: Some(100), ..arm("short", 0.9) };
    let policy = router(vec![short, arm("long", 0.1)]).0.policy();
    let of = |prompt_chars| order(&policy, &ChooseContext { prompt_chars, ..chat() });
    assert_eq!(of(400), ["short", "long"]);
    assert_eq!(of(600), ["long", "short"]);
    assert_eq!(of(900), ["long"]);
}

#[test]
fn restriction_and_pin_leave_the_rest_out_and_stickiness_goes_first() {
    let policy = router(vec![arm("a", 0.9), arm("b", 0.5), arm("c", 0.1)]).0.policy();
    let only = [ServiceName::from("c"), ServiceName::from("b")];
    let context = ChooseContext { restrict: Some(&only), ..chat() };
    assert_eq!(order(&policy, &context), ["b", "c"]);
    let pinned = [ArmId::new("a", "m")];
    assert_eq!(order(&policy, &ChooseContext { pinned: Some(&pinned), ..chat() }), ["a"]);
    assert!(order(&policy, &ChooseContext { pinned: Some(&pinned), ..context }).is_empty());
    let sticky = ArmId::new("c", "m");
    let context = ChooseContext { sticky: Some(&sticky), ..chat() };
    assert_eq!(order(&policy, &context), ["c", "a", "b"]);
    assert_eq!(policy.choose(&context, 0.5).reason, Reason::Sticky);
}

#[test]
fn exploration_draws_from_the_best_tier_as_often_as_it_says() {
    let local = ArmSpec { last_resort: true, ..arm("local", 1.0) };
    let specs = vec![arm("a", 0.9), arm("b", 0.5), local];
    let policy = Router::new(RouterConfig { explore: 0.2 }, specs, Instant::now()).policy();
    let mut firsts = [0; 3];
    for i in 0..1000 {
        let decision = policy.choose(&chat(), f64::from(i) / 1000.0);
        let first = decision.ranked[0].arm.index();
        firsts[first] += 1;
        let expected = [0.9, 0.1, 0.0][first];
        assert!((decision.propensity - expected).abs() < 1e-6);
        assert_eq!(decision.ranked.len(), 3);
    }
    assert_eq!(firsts, [900, 100, 0]);
}

#[test]
fn frozen_means_neither_learning_nor_fading() {
    let (mut router, now) = router(vec![arm("a", 0.5)]);
    router.observe(&seen("a", false, Duration::from_secs(1), now));
    let before = router.weights();
    router.freeze(true, now);
    assert!(!router.observe(&seen("a", false, Duration::from_secs(1), now)));
    let later = now + Duration::from_secs(1000);
    assert!(!router.age(later));
    router.freeze(false, later);
    router.age(later);
    assert_eq!(router.weights(), before);
}

#[test]
fn what_was_learned_survives_saving_and_a_new_set_of_arms() {
    let (mut first, now) = router(vec![arm("a", 0.5), arm("b", 0.5)]);
    for _ in 0..5 {
        first.observe(&seen("b", false, Duration::from_secs(3), now));
    }
    first.set_arms(vec![arm("c", 0.5), arm("b", 0.5)]);
    let text = serde_json::to_string(&first.state()).unwrap();
    let (mut second, _) = router(vec![arm("b", 0.5)]);
    assert_eq!(second.restore(&serde_json::from_str(&text).unwrap()), 0);
    assert_eq!(second.weights()[0], first.weights()[1]);
    assert!(second.weights()[0].success < 0.6);
}

#[test]
fn unsound_sums_are_left_at_their_prior() {
    let (mut router, _) = router(vec![arm("a", 0.5)]);
    let prior = router.weights();
    let sound = ArmHealth { calls: 5.0, ok: 5.0, timed: 5.0, ..ArmHealth::default() };
    for health in [
        ArmHealth { ok: f64::NAN, ..sound },
        ArmHealth { calls: f64::INFINITY, ..sound },
        ArmHealth { ok: -3.0, ..sound },
        ArmHealth { ok: 1e9, ..sound },
        ArmHealth { ln_seconds: -1e300, ..sound },
        ArmHealth { tokens: f64::NEG_INFINITY, ..sound },
    ] {
        let arms = vec![ArmState { arm: ArmId::new("a", "m"), health }];
        assert_eq!(router.restore(&RouterState { arms }), 1, "{health:?}");
        assert_eq!(router.weights(), prior);
    }
}

fn any_arm() -> impl Strategy<Value = ArmSpec> {
    (any::<[f32; 4]>(), any::<u64>(), any::<bool>(), any::<Option<u32>>()).prop_map(
        |(f, nanos, last, context)| ArmSpec {
            capability: f[0],
            weight: f[1],
            price_in: f[2],
            price_out: f[3],
            expected_latency: Duration::from_nanos(nanos),
            last_resort: last,
            context_tokens: context,
            ..arm("x", 0.0)
        },
    )
}

proptest! {
    #[test]
    fn any_numbers_give_an_order_of_all_candidates_with_finite_scores(
        specs in proptest::collection::vec(any_arm(), 0..12),
        numbers in any::<[f32; 2]>(),
        available in any::<[f32; 12]>(),
        seen_of in proptest::collection::vec((0usize..12, any::<bool>(), any::<u64>(), any::<Option<u32>>()), 0..40),
        explore in any::<f32>(),
        roll in any::<f64>(),
        prompt_chars in any::<usize>(),
    ) {
        let specs: Vec<ArmSpec> = specs
            .into_iter()
            .enumerate()
            .map(|(i, spec)| ArmSpec { id: ArmId::new(&*format!("s{i}"), "m"), ..spec })
            .collect();
        let (now, count) = (Instant::now(), specs.len());
        let mut router = Router::new(RouterConfig { explore }, specs, now);
        for (i, ok, nanos, tokens) in seen_of {
            let attempt = seen(&format!("s{i}"), ok, Duration::from_nanos(nanos), now);
            router.observe(&AttemptSeen { tokens, ..attempt });
        }
        let policy = router.policy();
        let availability = |arm: ArmIx, _: &ArmSpec| available[arm.index()];
        let context = ChooseContext {
            prompt_chars,
            cost_weight: numbers[0],
            latency_weight: numbers[1],
            availability: &availability,
            ..chat()
        };
        let decision = policy.choose(&context, roll);
        prop_assert_eq!(decision.ranked.len() + decision.left_out.len(), count);
        prop_assert!(decision.ranked.iter().all(|ranked| ranked.score.is_finite()));
        let mut arms: Vec<ArmIx> = decision.ranked.iter().map(|ranked| ranked.arm).collect();
        arms.extend(decision.left_out.iter().map(|(arm, _)| *arm));
        arms.sort_unstable();
        arms.dedup();
        prop_assert_eq!(arms.len(), count);
        if count > decision.left_out.len() {
            prop_assert!(decision.propensity > 0.0 && decision.propensity <= 1.0);
        }
    }

    #[test]
    fn success_and_latency_stay_in_range_and_fade_to_their_prior(
        outcomes in proptest::collection::vec((any::<bool>(), 0u64..1_000_000), 1..100),
    ) {
        let (mut router, now) = router(vec![arm("a", 0.5)]);
        let prior = router.weights()[0].clone();
        for (ok, micros) in outcomes {
            router.observe(&seen("a", ok, Duration::from_micros(micros), now));
            let weight = &router.weights()[0];
            prop_assert!((0.0..=1.0).contains(&weight.success));
            prop_assert!(weight.latency_seconds.is_finite() && weight.latency_seconds > 0.0);
        }
        router.age(now + Duration::from_secs(2000));
        let weight = &router.weights()[0];
        prop_assert!((weight.success - prior.success).abs() < 1e-9);
        prop_assert!((weight.latency_seconds - prior.latency_seconds).abs() < 1e-9);
    }
}
