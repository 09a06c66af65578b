//! The promises of a BreakerActor, on paused time.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use opossum_core::breaker::{BreakerConfig, GateDecision, Refused, RefusedWhy, StateName, Transition};
use opossum_core::class::FailureClass;
use opossum_core::ids::{ModelName, ServiceName};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::*;
use crate::clock::moment;
use crate::guardian::{ActorError, RestartCause};
use crate::registry::ActorThreads;
use crate::telemetry::{NoTelemetry, Telemetry};
use crate::testing::{on_paused_time, pass, threads};

fn model() -> ModelName {
    ModelName::from("m")
}

/// Opens for 60 to 90 s at the fifth failure in a row; two good trials close; no ramp unless asked for.
fn config() -> BreakerConfig {
    BreakerConfig { ramp: Duration::ZERO, ..BreakerConfig::default() }
}

fn breaker(threads: &ActorThreads, config: BreakerConfig) -> BreakerHandle {
    BreakerHandle::start(threads, ServiceName::from("s"), config, Arc::new(NoTelemetry))
}

fn failed(class: FailureClass) -> AttemptOutcome {
    AttemptOutcome::Failed { class, retry_after: None }
}

/// Lets `times` requests fail by a transport error.
async fn fail(breaker: &BreakerHandle, times: u64) {
    for request in 0..times {
        breaker.enter(&model(), request).await.unwrap().finish(failed(FailureClass::Transport));
        pass(5).await;
    }
}

async fn opened(threads: &ActorThreads) -> BreakerHandle {
    let breaker = breaker(threads, config());
    fail(&breaker, 5).await;
    assert_eq!(breaker.state(), StateName::Open);
    breaker
}

/// The same breaker, with its open interval over.
async fn half_open(threads: &ActorThreads) -> BreakerHandle {
    let breaker = opened(threads).await;
    tokio::time::sleep(Duration::from_secs(91)).await;
    breaker
}

fn why(refused: Result<Attempt, Refused>) -> RefusedWhy {
    refused.expect_err("it should have been refused").reason
}

#[test]
fn five_failures_in_a_row_open_it_and_the_gate_refuses_at_once() {
    on_paused_time(async {
        let threads = threads();
        let breaker = opened(&threads).await;
        let begun = Instant::now();
        let refused = breaker.enter(&model(), 9).await.expect_err("open");
        assert_eq!(refused.reason, RefusedWhy::Open);
        assert!(refused.retry_in > Duration::from_secs(59) && refused.retry_in <= Duration::from_secs(90));
        assert_eq!(begun.elapsed(), Duration::ZERO);
        assert!(!breaker.is_open_to_someone(moment()));
        assert_eq!(breaker.status_code(), 2);
    });
}

#[test]
fn a_thousand_plain_successes_send_one_event() {
    on_paused_time(async {
        let threads = threads();
        let breaker = breaker(&threads, config());
        let plain = AttemptOutcome::Ok { slow: false };
        breaker.enter(&model(), 0).await.unwrap().finish(plain);
        // The first of a model travels, so that the actor gives the model a counter.
        assert_eq!(breaker.pending_events(), 1);
        pass(5).await;
        for request in 0..1_000 {
            breaker.enter(&model(), request).await.unwrap().finish(plain);
        }
        assert_eq!(breaker.pending_events(), 0);
        pass(1_500).await;
        assert_eq!(breaker.status().models[&model()].window_calls, 1_001);
    });
}

#[test]
fn ends_that_say_nothing_send_nothing() {
    on_paused_time(async {
        let threads = threads();
        let breaker = breaker(&threads, config());
        drop(breaker.enter(&model(), 1).await.unwrap());
        for class in [FailureClass::CallerError, FailureClass::ContextLength, FailureClass::Local] {
            breaker.enter(&model(), 1).await.unwrap().finish(failed(class));
        }
        assert_eq!(breaker.pending_events(), 0);
        breaker.enter(&model(), 1).await.unwrap().finish(failed(FailureClass::ServerError));
        assert_eq!(breaker.pending_events(), 1);
    });
}

#[test]
fn once_settled_the_gate_knows_of_every_failure_before_it() {
    on_paused_time(async {
        let threads = threads();
        let breaker = breaker(&threads, config());
        for request in 0..5 {
            assert!(breaker.enter_any(request).await.is_ok());
            breaker.enter_any(request).await.unwrap().finish(failed(FailureClass::Transport));
            if request == 4 {
                breaker.settled().await;
            }
        }
        assert_eq!(why(breaker.enter_any(9).await), RefusedWhy::Open);
        // Without its actor it costs its 20 ms at most.
        for _ in 0..10 {
            threads.registry().poison("breaker").await;
        }
        let begun = Instant::now();
        breaker.settled().await;
        assert!(begun.elapsed() <= Duration::from_millis(20));
    });
}

#[test]
fn a_counted_success_interrupts_failures_in_a_row() {
    on_paused_time(async {
        let threads = threads();
        let breaker = breaker(&threads, BreakerConfig { rate_min_calls: 1_000, ..config() });
        for _ in 0..4 {
            fail(&breaker, 4).await;
            breaker.enter(&model(), 7).await.unwrap().finish(AttemptOutcome::Ok { slow: false });
            pass(5).await;
        }
        assert_eq!(breaker.state(), StateName::Closed);
        fail(&breaker, 5).await;
        assert_eq!(breaker.state(), StateName::Open);
    });
}

#[test]
fn of_a_hundred_at_half_open_exactly_one_enters() {
    on_paused_time(async {
        let threads = threads();
        let breaker = half_open(&threads).await;
        let (mut entered, mut refused) = (Vec::new(), 0);
        for outcome in join_all((0..100).map(|request| breaker.enter_any(request))).await {
            match outcome {
                Ok(attempt) => entered.push(attempt),
                Err(Refused { reason, .. }) => {
                    assert_eq!(reason, RefusedWhy::TrialInFlight);
                    refused += 1;
                }
            }
        }
        assert_eq!((entered.len(), refused), (1, 99));
        assert!(entered[0].is_trial());
        assert_eq!(why(breaker.enter_any(1).await), RefusedWhy::TrialInFlight);
    });
}

#[test]
fn a_dropped_trial_gives_its_permit_back_at_once() {
    on_paused_time(async {
        let threads = threads();
        let breaker = half_open(&threads).await;
        for _ in 0..50 {
            let trial = breaker.enter_any(1).await.unwrap();
            assert!(trial.is_trial());
            drop(trial);
            pass(5).await;
        }
        assert!(breaker.enter_any(2).await.unwrap().is_trial());
    });
}

#[test]
fn a_caller_that_leaves_while_it_asks_leaks_no_permit() {
    on_paused_time(async {
        let threads = threads();
        let breaker = half_open(&threads).await;
        for yields in 0..6 {
            let mut asking = Box::pin(breaker.enter_any(1));
            let left_early = futures::poll!(&mut asking).is_pending();
            for _ in 0..yields {
                tokio::task::yield_now().await;
            }
            // Dropped before, while and after the actor grants it, depending on the number of turns.
            drop(asking);
            assert!(left_early);
            pass(5).await;
        }
        assert!(breaker.enter_any(2).await.unwrap().is_trial());
    });
}

#[test]
fn two_good_trials_close_it_and_a_bad_one_opens_it_for_longer() {
    on_paused_time(async {
        let threads = threads();
        let breaker = half_open(&threads).await;
        breaker.enter_any(1).await.unwrap().finish(failed(FailureClass::Transport));
        pass(5).await;
        let refused = breaker.enter_any(2).await.expect_err("open again");
        assert!(refused.retry_in > Duration::from_secs(119), "{refused:?}");
        tokio::time::sleep(Duration::from_secs(181)).await;
        for request in 3..5 {
            let trial = breaker.enter_any(request).await.unwrap();
            assert!(trial.is_trial());
            trial.finish(AttemptOutcome::Ok { slow: false });
            pass(5).await;
        }
        assert_eq!(breaker.state(), StateName::Closed);
        assert!(!breaker.enter_any(9).await.unwrap().is_trial());
    });
}

#[test]
fn a_good_trial_is_followed_by_the_next_at_once() {
    on_paused_time(async {
        let threads = threads();
        let breaker = half_open(&threads).await;
        for request in 1..3 {
            // Nothing passes between the end of one trial and the next caller.
            let trial = breaker.enter(&model(), request).await.unwrap();
            assert!(trial.is_trial());
            trial.finish(AttemptOutcome::Ok { slow: false });
        }
        assert!(!breaker.enter(&model(), 3).await.unwrap().is_trial());
    });
}

#[test]
fn a_bad_trial_is_not_followed_by_another_at_once() {
    on_paused_time(async {
        let threads = threads();
        let breaker = half_open(&threads).await;
        breaker.enter_any(1).await.unwrap().finish(failed(FailureClass::Transport));
        assert!(breaker.enter_any(2).await.is_err());
        pass(5).await;
        assert_eq!(why(breaker.enter_any(2).await), RefusedWhy::Open);
    });
}

#[test]
fn a_ramp_turns_away_only_those_who_can_go_elsewhere() {
    on_paused_time(async {
        let threads = threads();
        let ramp = Duration::from_secs(1_000_000);
        let breaker = breaker(&threads, BreakerConfig { ramp, ramp_start: 0.2, ..config() });
        fail(&breaker, 5).await;
        tokio::time::sleep(Duration::from_secs(91)).await;
        for request in 0..2 {
            breaker.enter_any(request).await.unwrap().finish(AttemptOutcome::Ok { slow: false });
            pass(5).await;
        }
        let (mut must, mut may) = (0, 0);
        for request in 0..1_000 {
            must += u32::from(breaker.enter(&model(), request).await.is_ok());
            may += u32::from(breaker.enter_or_other(&model(), request).await.is_ok());
        }
        assert_eq!(must, 1_000);
        // 200 expected; eight standard deviations either way.
        assert!((100..300).contains(&may), "{may} of 1000 were admitted");
    });
}

#[test]
fn slowness_alone_never_opens_the_last_backend() {
    on_paused_time(async {
        let threads = threads();
        let (last, one_of_many) = (breaker(&threads, config()), breaker(&threads, config()));
        for request in 0..50 {
            let slow = AttemptOutcome::Ok { slow: true };
            last.enter(&model(), request).await.unwrap().finish(slow);
            if let Ok(attempt) = one_of_many.enter_or_other(&model(), request).await {
                attempt.finish(slow);
            }
            pass(5).await;
        }
        assert_eq!(last.state(), StateName::Closed);
        assert_eq!(one_of_many.state(), StateName::Open);
    });
}

#[test]
fn a_panic_costs_one_command_and_the_state_is_taken_over() {
    on_paused_time(async {
        let threads = threads();
        let breaker = opened(&threads).await;
        let left = breaker.status().backend.retry_in_seconds;
        assert_eq!(threads.registry().poison("breaker").await, Some(ActorError::Panicked));
        let begun = Instant::now();
        let status = breaker.restored_status().await;
        assert!(begun.elapsed() < Duration::from_millis(100));
        assert_eq!(status.backend.state, StateName::Open);
        assert!((status.backend.retry_in_seconds - left).abs() < 0.1);
        assert_eq!(why(breaker.enter_any(1).await), RefusedWhy::Open);
        let report = threads.registry().report();
        assert_eq!(report[0].restarts.of(RestartCause::Handler), 1);
    });
}

#[test]
fn a_trial_of_a_worker_that_panicked_proves_nothing_to_the_next() {
    on_paused_time(async {
        let threads = threads();
        let breaker = half_open(&threads).await;
        let stale = breaker.enter_any(1).await.unwrap();
        threads.registry().poison("breaker:s").await;
        // The trial may still be on its way, so the next one waits until its lease is over.
        assert!(breaker.enter_any(2).await.is_err());
        tokio::time::sleep(config().probe_lease).await;
        let fresh = breaker.enter_any(2).await.unwrap();
        assert!(fresh.is_trial());
        stale.finish(AttemptOutcome::Ok { slow: false });
        pass(5).await;
        // Neither closed by the old permit nor open to a second trial because of it.
        assert_eq!(why(breaker.enter_any(3).await), RefusedWhy::TrialInFlight);
        drop(fresh);
    });
}

#[test]
fn operators_open_close_and_reset() {
    on_paused_time(async {
        let threads = threads();
        let breaker = breaker(&threads, config());
        assert!(breaker.open(Some(model())).await.unwrap().models[&model()].forced_open);
        assert_eq!(why(breaker.enter_any(1).await), RefusedWhy::Open);
        assert!(!breaker.is_open_to_someone(moment()));
        assert!(breaker.enter(&ModelName::from("other"), 1).await.is_ok());
        breaker.close(Some(model())).await.unwrap();
        assert_eq!(breaker.check(&model(), moment(), 0.0), GateDecision::Pass);
        fail(&breaker, 5).await;
        assert_eq!(breaker.reset(None).await.unwrap().backend.state, StateName::Closed);
        assert!(breaker.enter_any(1).await.is_ok());
    });
}

#[test]
fn the_status_shows_the_wait_that_is_left() {
    on_paused_time(async {
        let threads = threads();
        let breaker = opened(&threads).await;
        let before = breaker.status().backend.retry_in_seconds;
        pass(10_000).await;
        let passed = before - breaker.status().backend.retry_in_seconds;
        assert!((9.9..10.1).contains(&passed), "{passed}");
    });
}

/// Notes the changes it is told of.
#[derive(Default)]
struct Notes(Mutex<Vec<(StateName, StateName)>>);

impl Telemetry for Notes {
    fn breaker_changed(&self, _: &ServiceName, change: &Transition) {
        self.0.lock().push((change.from, change.to));
    }
}

#[test]
fn every_change_is_told_once() {
    on_paused_time(async {
        let threads = threads();
        let notes = Arc::new(Notes::default());
        let telemetry: Arc<dyn Telemetry> = Arc::<Notes>::clone(&notes);
        let breaker = BreakerHandle::start(&threads, ServiceName::from("s"), config(), telemetry);
        fail(&breaker, 5).await;
        tokio::time::sleep(Duration::from_secs(91)).await;
        for request in 0..2 {
            breaker.enter_any(request).await.unwrap().finish(AttemptOutcome::Ok { slow: false });
            pass(5).await;
        }
        use StateName::{Closed, HalfOpen, Open};
        assert_eq!(*notes.0.lock(), [(Closed, Open), (Open, HalfOpen), (HalfOpen, Closed)]);
    });
}

impl BreakerHandle {
    async fn enter_any(&self, request: u64) -> Result<Attempt, Refused> {
        self.enter(&model(), request).await
    }

    fn pending_events(&self) -> usize {
        self.board().finished.len()
    }

    /// The status after the actor has answered once.
    async fn restored_status(&self) -> opossum_core::breaker::BackendStatus {
        self.reconfigure(config()).await.unwrap();
        self.status()
    }
}
