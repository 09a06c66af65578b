//! The promises of the ServiceMonitor, on paused time.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use opossum_backends::{Backend, BackendError, Call, Reply, UpstreamModel};
use opossum_core::breaker::{BreakerConfig, StateName};
use opossum_core::class::FailureClass;
use opossum_core::ids::{ModelName, ServiceName};
use opossum_core::needs::Needs;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::*;
use crate::breaker::{AttemptOutcome, BreakerHandle};
use crate::guardian::{ActorError, BackoffPolicy};
use crate::registry::{ActorThreads, Watch};
use crate::telemetry::{NoTelemetry, Telemetry};
use crate::testing::{on_paused_time, pass, threads};

const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(2);

/// How a scripted backend meets its probe.
#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Good,
    Bad,
    Hangs,
    Panics,
}

struct Scripted {
    service: ServiceName,
    mood: Mutex<Mood>,
    models: Mutex<Vec<&'static str>>,
    probes: AtomicUsize,
}

impl Scripted {
    fn new(service: &str, mood: Mood) -> Arc<Self> {
        Arc::new(Self {
            service: ServiceName::from(service),
            mood: Mutex::new(mood),
            models: Mutex::new(vec!["a"]),
            probes: AtomicUsize::new(0),
        })
    }

    fn probes(&self) -> usize {
        self.probes.load(Ordering::SeqCst)
    }
}

impl Backend for Scripted {
    fn service(&self) -> &ServiceName {
        &self.service
    }

    fn generate(&self, _: Call) -> BoxFuture<'static, Result<Reply, BackendError>> {
        async { Err(BackendError::new(FailureClass::Local, "not part of these tests")) }.boxed()
    }

    fn models(&self) -> BoxFuture<'static, Result<Vec<UpstreamModel>, BackendError>> {
        let good = *self.mood.lock() == Mood::Good;
        let model = |name: &&str| UpstreamModel {
            name: ModelName::from(*name),
            can: Needs::CHAT,
            context_tokens: None,
        };
        let models = self.models.lock().iter().map(model).collect();
        let failed = || BackendError::new(FailureClass::Transport, "no models");
        async move { if good { Ok(models) } else { Err(failed()) } }.boxed()
    }

    fn probe(&self) -> BoxFuture<'static, Result<(), BackendError>> {
        self.probes.fetch_add(1, Ordering::SeqCst);
        match *self.mood.lock() {
            Mood::Good => async { Ok(()) }.boxed(),
            Mood::Bad => {
                async { Err(BackendError::new(FailureClass::Transport, "upstream's words")) }.boxed()
            }
            Mood::Hangs => std::future::pending().boxed(),
            Mood::Panics => panic!("probe told to panic"),
        }
    }
}

struct Watched {
    monitor: MonitorHandle,
    breakers: Vec<BreakerHandle>,
}

fn watch(threads: &ActorThreads, backends: &[&Arc<Scripted>], dependencies: Vec<DependencyPlan>) -> Watched {
    watch_telling(threads, backends, dependencies, Arc::new(NoTelemetry))
}

fn watch_telling(
    threads: &ActorThreads,
    backends: &[&Arc<Scripted>],
    dependencies: Vec<DependencyPlan>,
    telemetry: Arc<dyn Telemetry>,
) -> Watched {
    let breaker = |backend: &&Arc<Scripted>| {
        let config = BreakerConfig::default();
        BreakerHandle::start(threads, backend.service.clone(), config, Arc::new(NoTelemetry))
    };
    let breakers: Vec<_> = backends.iter().map(breaker).collect();
    let watched = backends
        .iter()
        .zip(&breakers)
        .map(|(backend, breaker)| {
            let backend: Arc<dyn Backend> = Arc::<Scripted>::clone(backend);
            (backend, breaker.clone())
        })
        .collect();
    let pace = Pace { interval: INTERVAL, timeout: TIMEOUT };
    Watched { monitor: MonitorHandle::start(threads, watched, dependencies, pace, telemetry), breakers }
}

fn dependency(name: &str, probe: Option<Probe>) -> DependencyPlan {
    DependencyPlan { name: name.to_owned(), probe }
}

fn health(monitor: &MonitorHandle, service: &str) -> BackendHealth {
    monitor.snapshot().backends[service].clone()
}

#[test]
fn the_first_round_comes_at_once_and_one_that_hangs_delays_no_other() {
    on_paused_time(async {
        let threads = threads();
        let (good, hangs) = (Scripted::new("good", Mood::Good), Scripted::new("hangs", Mood::Hangs));
        let (bad, panics) = (Scripted::new("bad", Mood::Bad), Scripted::new("panics", Mood::Panics));
        let Watched { monitor, .. } = watch(&threads, &[&good, &hangs, &bad, &panics], Vec::new());
        assert_eq!(health(&monitor, "good").detail, "not probed yet");
        pass(1).await;
        assert!(health(&monitor, "good").available);
        assert_eq!(health(&monitor, "bad").detail, "transport");
        assert_eq!(health(&monitor, "panics").detail, "probe panicked");
        assert_eq!(health(&monitor, "hangs").detail, "not probed yet");
        assert!(!monitor.is_down(&hangs.service));
        pass(2_000).await;
        assert_eq!(health(&monitor, "hangs").detail, "timeout");
        for (service, down) in [(&good, false), (&hangs, true), (&bad, true), (&panics, true)] {
            assert_eq!(monitor.is_down(&service.service), down);
            assert_eq!(health(&monitor, service.service.as_str()).available, !down);
        }
    });
}

#[test]
fn a_round_comes_every_interval_with_a_tenth_of_jitter() {
    on_paused_time(async {
        let threads = threads();
        let backend = Scripted::new("s", Mood::Good);
        let _watched = watch(&threads, &[&backend], Vec::new());
        pass(1_000).await;
        assert_eq!(backend.probes(), 1);
        tokio::time::sleep(100 * INTERVAL).await;
        let rounds = backend.probes();
        assert!((90..=112).contains(&rounds), "{rounds}");
    });
}

#[test]
fn many_who_refresh_at_once_share_one_round() {
    on_paused_time(async {
        let threads = threads();
        let backend = Scripted::new("s", Mood::Hangs);
        let Watched { monitor, .. } = watch(&threads, &[&backend], Vec::new());
        let begun = Instant::now();
        futures::future::join_all((0..100).map(|_| monitor.refresh())).await;
        assert_eq!(begun.elapsed(), TIMEOUT);
        assert_eq!(backend.probes(), 1);
        *backend.mood.lock() = Mood::Good;
        monitor.refresh().await;
        assert_eq!(backend.probes(), 2);
        assert!(health(&monitor, "s").available);
    });
}

#[test]
fn a_round_goes_on_when_whoever_asked_for_it_has_left() {
    on_paused_time(async {
        let threads = threads();
        let backend = Scripted::new("s", Mood::Good);
        let Watched { monitor, .. } = watch(&threads, &[&backend], Vec::new());
        pass(1).await;
        *backend.mood.lock() = Mood::Hangs;
        let left = tokio::time::timeout(TIMEOUT / 2, monitor.refresh()).await;
        assert!(left.is_err());
        tokio::time::sleep(TIMEOUT).await;
        assert_eq!(health(&monitor, "s").detail, "timeout");
    });
}

#[test]
fn a_breaker_that_opens_shows_at_once_and_no_probe_closes_it() {
    on_paused_time(async {
        let threads = threads();
        let backend = Scripted::new("s", Mood::Good);
        let Watched { monitor, breakers } = watch(&threads, &[&backend], Vec::new());
        pass(1).await;
        assert!(health(&monitor, "s").available);
        for request in 0..5 {
            let attempt = breakers[0].enter(&ModelName::from("a"), request).await.unwrap();
            attempt.finish(AttemptOutcome::Failed { class: FailureClass::Transport, retry_after: None });
        }
        pass(5).await;
        for _ in 0..3 {
            let health = health(&monitor, "s");
            assert_eq!((health.available, health.breaker), (false, StateName::Open));
            assert_eq!(health.detail, "ok");
            monitor.refresh().await;
        }
    });
}

#[test]
fn models_are_listed_and_only_changes_are_told() {
    on_paused_time(async {
        let threads = threads();
        let backend = Scripted::new("s", Mood::Bad);
        let Watched { monitor, .. } = watch(&threads, &[&backend], Vec::new());
        let mut news = monitor.models_changed();
        monitor.refresh().await;
        assert!(health(&monitor, "s").models.is_none());
        *backend.mood.lock() = Mood::Good;
        monitor.refresh().await;
        assert!(news.has_changed().unwrap());
        news.mark_unchanged();
        monitor.refresh().await;
        assert!(!news.has_changed().unwrap());
        *backend.models.lock() = vec!["a", "b"];
        monitor.refresh().await;
        assert!(news.has_changed().unwrap());
        // What it listed stays known while it is down.
        *backend.mood.lock() = Mood::Bad;
        monitor.refresh().await;
        assert_eq!(health(&monitor, "s").models.unwrap().len(), 2);
    });
}

#[test]
fn dependencies_are_ok_disabled_or_in_error() {
    on_paused_time(async {
        let threads = threads();
        let good: Probe = Arc::new(|| async { Ok(()) }.boxed());
        let bad: Probe = Arc::new(|| async { Err("refused".to_owned()) }.boxed());
        let panics: Probe = Arc::new(|| panic!("told to"));
        let plans = vec![
            dependency("redis", Some(good)),
            dependency("amqp", Some(bad)),
            dependency("database", Some(panics)),
            dependency("other", None),
        ];
        let Watched { monitor, .. } = watch(&threads, &[], plans);
        assert_eq!(monitor.snapshot().dependencies["redis"], "error: not probed yet");
        monitor.refresh().await;
        let seen = monitor.snapshot().dependencies;
        let words: Vec<_> =
            ["redis", "amqp", "database", "other"].iter().map(|name| seen[*name].as_str()).collect();
        assert_eq!(words, ["ok", "error: refused", "error: probe panicked", "disabled"]);
    });
}

#[test]
fn a_panic_keeps_what_was_seen_and_the_next_worker_probes_at_once() {
    on_paused_time(async {
        let threads = threads();
        let backend = Scripted::new("s", Mood::Good);
        let Watched { monitor, .. } = watch(&threads, &[&backend], Vec::new());
        pass(1).await;
        assert_eq!(threads.registry().poison("monitor").await, Some(ActorError::Panicked));
        assert!(health(&monitor, "s").available);
        pass(50).await;
        assert_eq!(backend.probes(), 2);
        let actors = monitor.snapshot().actors;
        let restarts: Vec<_> = actors.iter().map(|actor| (actor.name.as_str(), actor.restarts)).collect();
        assert_eq!(restarts, [("breaker:s", 0), ("monitor", 1)]);
        assert!(actors.iter().all(|actor| actor.alive));
    });
}

/// Counts the turns it is told of.
#[derive(Default)]
struct Turns(Mutex<Vec<bool>>);

impl Telemetry for Turns {
    fn backend_probed(&self, _: &ServiceName, good: bool) {
        self.0.lock().push(good);
    }
}

#[test]
fn a_turn_is_told_once_however_often_it_is_probed() {
    on_paused_time(async {
        let threads = threads();
        let backend = Scripted::new("s", Mood::Good);
        let turns = Arc::new(Turns::default());
        let telemetry: Arc<dyn Telemetry> = Arc::<Turns>::clone(&turns);
        let Watched { monitor, .. } = watch_telling(&threads, &[&backend], Vec::new(), telemetry);
        for mood in [Mood::Good, Mood::Bad, Mood::Good] {
            *backend.mood.lock() = mood;
            for _ in 0..3 {
                monitor.refresh().await;
            }
        }
        assert_eq!(*turns.0.lock(), [true, false, true]);
    });
}

/// On threads and time as they are, since it is a matter of which of them comes first.
#[tokio::test]
async fn a_refresh_right_after_another_probes_anew() {
    let threads =
        ActorThreads::start(Watch::default(), BackoffPolicy::default(), Arc::new(NoTelemetry)).unwrap();
    let backend = Scripted::new("s", Mood::Good);
    let watched = watch(&threads, &[&backend], Vec::new());
    for turn in 0..2000 {
        let mood = if turn % 2 == 0 { Mood::Bad } else { Mood::Good };
        watched.monitor.refresh().await;
        *backend.mood.lock() = mood;
        watched.monitor.refresh().await;
        assert_eq!(watched.monitor.is_down(&backend.service), mood == Mood::Bad, "turn {turn}");
    }
    threads.stop(TIMEOUT);
}
