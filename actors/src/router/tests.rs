//! The promises of the RouterActor, on paused time.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use opossum_core::ids::ArmId;
use opossum_core::needs::Needs;
use opossum_core::router::{ArmSpec, AttemptSeen, ChooseContext, RouterConfig};

use super::*;
use crate::clock::moment;
use crate::guardian::ActorError;
use crate::registry::ActorThreads;
use crate::telemetry::NoTelemetry;
use crate::testing::{on_paused_time, pass, threads};

fn arm(name: &str, capability: f32) -> ArmSpec {
    ArmSpec { capability, ..ArmSpec::new(ArmId::new(name, "m"), Needs::CHAT) }
}

fn router(threads: &ActorThreads) -> RouterHandle {
    let arms = vec![arm("better", 0.9), arm("worse", 0.6)];
    RouterHandle::start(threads, RouterConfig::default(), arms, Arc::new(NoTelemetry))
}

fn seen(name: &str, ok: bool) -> AttemptSeen {
    AttemptSeen {
        arm: ArmId::new(name, "m"),
        ok: Some(ok),
        latency: Duration::from_secs(1),
        ttft: None,
        tokens: Some(10),
        at: moment().mono,
    }
}

/// The service that would be asked first.
fn first(router: &RouterHandle) -> String {
    let Choice { policy, decision } = router.choose(&ChooseContext::new(Needs::CHAT));
    policy.arm(decision.ranked[0].arm).unwrap().id.service.to_string()
}

fn calls(router: &RouterHandle) -> f64 {
    router.weights().iter().map(|arm| arm.calls).sum()
}

#[test]
fn failures_move_an_arm_behind_and_time_brings_it_back() {
    on_paused_time(async {
        let threads = threads();
        let router = router(&threads);
        assert_eq!(first(&router), "better");
        (0..50).for_each(|_| router.report(seen("better", false)));
        pass(5).await;
        assert_eq!(first(&router), "worse");
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(first(&router), "better");
    });
}

#[test]
fn ten_thousand_reports_cost_few_publications_and_none_is_lost() {
    on_paused_time(async {
        let threads = threads();
        let router = router(&threads);
        let mut publications = 0;
        let mut known = router.policy();
        for millisecond in 0..1_000 {
            (0..10).for_each(|_| router.report(seen("better", millisecond % 2 == 0)));
            pass(1).await;
            let policy = router.policy();
            publications += u32::from(!Arc::ptr_eq(&policy, &known));
            known = policy;
        }
        pass(100).await;
        // At most one every 50 ms, and the ticks of a second.
        assert!((10..=23).contains(&publications), "{publications}");
        // One for each report, one for the arms, and one for each tick.
        let version = router.policy().version();
        assert!((10_001..=10_003).contains(&version), "{version}");
    });
}

#[test]
fn arms_can_be_replaced_and_what_was_learned_of_the_others_stays() {
    on_paused_time(async {
        let threads = threads();
        let router = router(&threads);
        (0..20).for_each(|_| router.report(seen("worse", true)));
        pass(5).await;
        let learned = router.weights()[1].calls;
        router.set_arms(vec![arm("new", 1.0), arm("worse", 0.6)]);
        pass(5).await;
        assert_eq!(first(&router), "new");
        assert_eq!(router.weights().len(), 2);
        assert!((router.weights()[1].calls - learned).abs() < 0.1);
        // What is no arm any more is ignored.
        router.report(seen("better", false));
        pass(100).await;
        assert_eq!(first(&router), "new");
    });
}

#[test]
fn frozen_it_learns_nothing_and_reset_it_knows_nothing() {
    on_paused_time(async {
        let threads = threads();
        let router = router(&threads);
        (0..20).for_each(|_| router.report(seen("worse", true)));
        pass(5).await;
        router.freeze(true);
        pass(5).await;
        let frozen = calls(&router);
        assert!(frozen > 10.0);
        (0..50).for_each(|_| router.report(seen("better", false)));
        pass(5_000).await;
        assert!((calls(&router) - frozen).abs() < 1e-9);
        assert_eq!(first(&router), "better");
        router.reset().await.unwrap();
        assert!(calls(&router).abs() < 1e-9);
    });
}

#[test]
fn a_panic_keeps_the_policy_choosing_and_what_was_learned() {
    on_paused_time(async {
        let threads = threads();
        let router = router(&threads);
        (0..50).for_each(|_| router.report(seen("better", false)));
        pass(5).await;
        let learned = calls(&router);
        router.freeze(true);
        assert_eq!(threads.registry().poison("router").await, Some(ActorError::Panicked));
        assert_eq!(first(&router), "worse");
        pass(50).await;
        assert_eq!(first(&router), "worse");
        assert!((calls(&router) - learned).abs() < 1.0);
        // The operator's wish outlives it too.
        (0..50).for_each(|_| router.report(seen("worse", false)));
        pass(100).await;
        assert_eq!(first(&router), "worse");
    });
}

#[test]
fn reports_made_while_there_is_no_worker_reach_the_next() {
    on_paused_time(async {
        let threads = threads();
        let router = router(&threads);
        for _ in 0..6 {
            threads.registry().poison("router").await;
        }
        (0..50).for_each(|_| router.report(seen("better", false)));
        assert_eq!(first(&router), "better");
        pass(1_000).await;
        assert_eq!(first(&router), "worse");
    });
}

#[test]
fn what_was_saved_can_be_put_back() {
    on_paused_time(async {
        let threads = threads();
        let (old, new) = (router(&threads), router(&threads));
        (0..50).for_each(|_| old.report(seen("better", false)));
        pass(5).await;
        assert_eq!(first(&new), "better");
        let unsound = new.restore(old.state().as_ref().clone()).await.unwrap();
        assert_eq!((unsound, first(&new).as_str()), (0, "worse"));
    });
}
