//! All actors together, on their own thread and real time.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all};
use opossum_backends::{BackendError, Call, Reply, UpstreamModel};
use opossum_core::cache::CacheKey;
use opossum_core::class::FailureClass;
use opossum_core::ids::{ArmId, ModelName};
use opossum_core::needs::Needs;
use opossum_core::router::{ArmSpec, ChooseContext};
use tokio::time::Instant;

use super::*;
use crate::cache::{CacheTurn, Followed};
use crate::telemetry::NoTelemetry;
use crate::testing::quiet_panics;

struct Idle(ServiceName);

impl Backend for Idle {
    fn service(&self) -> &ServiceName {
        &self.0
    }

    fn generate(&self, _: Call) -> BoxFuture<'static, Result<Reply, BackendError>> {
        async { Err(BackendError::new(FailureClass::Local, "not part of these tests")) }.boxed()
    }

    fn models(&self) -> BoxFuture<'static, Result<Vec<UpstreamModel>, BackendError>> {
        async { Ok(Vec::new()) }.boxed()
    }

    fn probe(&self) -> BoxFuture<'static, Result<(), BackendError>> {
        async { Ok(()) }.boxed()
    }
}

fn actors() -> Actors {
    let plan = |service: &str| BackendPlan {
        backend: Arc::new(Idle(ServiceName::from(service))),
        breaker: BreakerConfig::default(),
    };
    let no_model = || Err(BackendError::new(FailureClass::ModelMissing, "no model in these tests"));
    let actors = ActorSystem::start(ActorsConfig {
        backends: vec![plan("one"), plan("two")],
        router: RouterConfig::default(),
        cache: CacheConfig::default(),
        probe_interval: Duration::from_secs(30),
        probe_timeout: Duration::from_secs(2),
        dependencies: Vec::new(),
        inference: Some(InferencePlan::new(Vec::new(), true, Arc::new(no_model))),
        encoder: None,
        telemetry: Arc::new(NoTelemetry),
    });
    actors.unwrap()
}

/// One request's way through the actors; whether every one of them played its part.
async fn request(actors: &Actors, number: u64) -> bool {
    let breaker = &actors.breakers["one"];
    let mut key = [0; 32];
    key[..8].copy_from_slice(&number.to_le_bytes());
    let turn = actors.cache.begin(CacheKey(key)).await;
    let chosen = actors.router.choose(&ChooseContext::new(Needs::CHAT));
    let entered = breaker.enter(&ModelName::from("m"), number).await;
    let played = matches!(turn, CacheTurn::Lead(_)) && chosen.decision.ranked.len() == 1 && entered.is_ok();
    if let Ok(attempt) = entered {
        attempt.finish(crate::breaker::AttemptOutcome::Ok { slow: false });
    }
    played
}

async fn ready() -> Actors {
    // As the service does; the default hook may take longer to print a backtrace than the actor to be back.
    quiet_panics();
    let actors = actors();
    actors.router.set_arms(vec![ArmSpec::new(ArmId::new("one", "m"), Needs::CHAT)]);
    actors.monitor.refresh().await;
    while actors.router.policy().arms().count() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    actors
}

#[tokio::test]
async fn every_actor_is_listed_and_ends_with_the_system() {
    let actors = ready().await;
    let names: Vec<String> = actors.monitor.snapshot().actors.into_iter().map(|actor| actor.name).collect();
    assert_eq!(names, ["inference", "breaker:one", "breaker:two", "router", "cache", "monitor"]);
    assert!(actors.inference().is_some());
    assert!(actors.monitor.snapshot().backends.values().all(|backend| backend.available));
    assert!(actors.shutdown());
    assert!(actors.registry().report().iter().all(|actor| !actor.alive));
    // Without its actor every handle fails open, at once.
    assert!(matches!(actors.cache.begin(CacheKey([1; 32])).await, CacheTurn::Bypass));
    assert!(actors.breakers["one"].enter(&ModelName::from("m"), 1).await.is_ok());
}

#[tokio::test]
async fn a_panic_in_any_actor_costs_no_request_and_it_is_back_within_100_ms() {
    let actors = ready().await;
    for (round, kind) in ["breaker", "router", "cache", "monitor", "inference"].into_iter().enumerate() {
        let base = 1_000 * round as u64;
        let before = join_all((0..50).map(|number| request(&actors, base + number)));
        let registry = actors.registry();
        let poison = registry.poison(kind);
        let after = join_all((50..100).map(|number| request(&actors, base + number)));
        let begun = Instant::now();
        let (before, poisoned, after) = futures::join!(before, poison, after);
        assert_eq!(poisoned, Some(ActorError::Panicked), "{kind}");
        let failed = before.iter().chain(&after).filter(|played| !**played).count();
        assert_eq!(failed, 0, "{kind}");
        assert!(request(&actors, base + 100).await, "{kind}");
        // Poisoned, rebuilt and a hundred requests answered.
        assert!(begun.elapsed() < Duration::from_millis(100), "{kind}: {:?}", begun.elapsed());
    }
    let restarts: u64 = actors.registry().report().iter().map(|actor| actor.restarts.total()).sum();
    assert_eq!(restarts, 5);
    assert_eq!(actors.registry().poison("nobody").await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_on_other_threads_share_one_flight() {
    let actors = ready().await;
    let key = CacheKey([9; 32]);
    let follow = |actors: Actors| async move {
        match actors.cache.begin(key).await {
            CacheTurn::Lead(lead) => {
                // Long enough for the others to join.
                tokio::time::sleep(Duration::from_millis(50)).await;
                lead.complete(None);
                true
            }
            CacheTurn::Join(follower) => {
                assert!(matches!(follower.wait().await, Followed::Alone));
                false
            }
            other => panic!("{other:?}"),
        }
    };
    let callers: Vec<_> = (0..100).map(|_| tokio::spawn(follow(actors.clone()))).collect();
    let leads = join_all(callers).await.into_iter().filter(|led| *led.as_ref().unwrap()).count();
    assert_eq!(leads, 1);
}
