//! Panics, back-off and bounds of a guarded actor, on paused time and one thread.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use actix::{Arbiter, Message};
use tokio::time::Instant;

use super::*;
use crate::outbox::Outbox;
use crate::registry::Registry;
use crate::telemetry::NoTelemetry;
use crate::testing::on_paused_time;

const SECOND: Duration = Duration::from_secs(1);

/// What the tests steer from outside the worker.
#[derive(Default)]
struct Knobs {
    built: AtomicUsize,
    factory_panics: AtomicBool,
    started_panics: AtomicBool,
    drop_panics: AtomicBool,
    outbox: Option<Arc<Outbox<u64>>>,
    drained: AtomicUsize,
    batches: AtomicUsize,
    ticks: AtomicUsize,
}

struct Counter {
    knobs: Arc<Knobs>,
    count: u64,
}

impl Counter {
    fn new(knobs: &Arc<Knobs>) -> Self {
        assert!(!knobs.factory_panics.load(Ordering::SeqCst), "factory told to panic");
        knobs.built.fetch_add(1, Ordering::SeqCst);
        Self { knobs: Arc::clone(knobs), count: 0 }
    }
}

impl Worker for Counter {
    fn started(&mut self, cx: &mut Cx<'_, Self>) {
        assert!(!self.knobs.started_panics.load(Ordering::SeqCst), "started told to panic");
        cx.every(SECOND, |worker, _| {
            worker.knobs.ticks.fetch_add(1, Ordering::SeqCst);
        });
        if let Some(outbox) = &self.knobs.outbox {
            cx.drain(Arc::clone(outbox), 100, Duration::from_millis(20), |worker, events, _| {
                assert!(!events.contains(&u64::MAX), "event told to panic");
                worker.knobs.batches.fetch_add(1, Ordering::SeqCst);
                worker.knobs.drained.fetch_add(events.len(), Ordering::SeqCst);
            });
        }
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        assert!(!self.knobs.drop_panics.load(Ordering::SeqCst), "drop told to panic");
    }
}

#[derive(Message)]
#[rtype(result = "u64")]
struct Add(u64);

impl Handle<Add> for Counter {
    fn handle(&mut self, Add(n): Add, _: &mut Cx<'_, Self>) -> Reply<u64> {
        self.count += n;
        self.count.into()
    }
}

/// Sleeps, then answers or panics; says whether it got to its end.
#[derive(Message)]
#[rtype(result = "()")]
struct Slow {
    time: Duration,
    panics: bool,
    done: Arc<AtomicBool>,
}

impl Handle<Slow> for Counter {
    fn handle(&mut self, msg: Slow, _: &mut Cx<'_, Self>) -> Reply<()> {
        Reply::later(async move {
            tokio::time::sleep(msg.time).await;
            assert!(!msg.panics, "slow work told to panic");
            msg.done.store(true, Ordering::SeqCst);
        })
    }
}

/// Adds in the background, or panics there.
#[derive(Message)]
#[rtype(result = "()")]
struct AddLater {
    n: u64,
    panics: bool,
}

impl Handle<AddLater> for Counter {
    fn handle(&mut self, msg: AddLater, cx: &mut Cx<'_, Self>) -> Reply<()> {
        let work = async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert!(!msg.panics, "background work told to panic");
            msg.n
        };
        cx.spawn(work, |worker, n, _| worker.count += n);
        ().into()
    }
}

/// Panics in a timer, `0.0` from now.
#[derive(Message)]
#[rtype(result = "()")]
struct PanicLater(Duration);

impl Handle<PanicLater> for Counter {
    fn handle(&mut self, msg: PanicLater, cx: &mut Cx<'_, Self>) -> Reply<()> {
        cx.after(msg.0, |_, _| panic!("timer told to panic"));
        ().into()
    }
}

fn counter(knobs: &Arc<Knobs>) -> ActorRef<Counter> {
    let knobs = Arc::clone(knobs);
    Registry::default().spawn(
        &Arbiter::current(),
        "counter",
        BackoffPolicy::default(),
        Arc::new(NoTelemetry),
        move || Counter::new(&knobs),
    )
}

async fn add(actor: &ActorRef<Counter>, n: u64) -> Result<u64, ActorError> {
    actor.ask(Add(n), SECOND).await
}

#[test]
fn one_poisoned_message_of_a_hundred_fails_alone() {
    on_paused_time(async {
        let actor = counter(&Arc::default());
        assert_eq!(add(&actor, 5).await, Ok(5));
        let begun = Instant::now();
        let good = |actor: ActorRef<Counter>| async move { add(&actor, 1).await };
        let before = (0..50).map(|_| good(actor.clone()));
        let after = (0..49).map(|_| good(actor.clone()));
        let (before, poisoned, after) = futures::join!(
            futures::future::join_all(before),
            actor.poison(),
            futures::future::join_all(after),
        );
        assert_eq!(before, (6..56).map(Ok).collect::<Vec<_>>());
        assert_eq!(poisoned, Err(ActorError::Panicked));
        // The same address and queue, but a new state.
        assert_eq!(after, (1..50).map(Ok).collect::<Vec<_>>());
        assert!(begun.elapsed() < Duration::from_millis(100));
        assert_eq!(actor.restarts().of(RestartCause::Handler), 1);
        assert_eq!(actor.restarts().total(), 1);
    });
}

#[test]
fn several_poisoned_messages_in_one_queue_fail_only_themselves() {
    on_paused_time(async {
        let actor = counter(&Arc::default());
        let begun = Instant::now();
        let (a, first, b, second, c) =
            futures::join!(add(&actor, 1), actor.poison(), add(&actor, 1), actor.poison(), add(&actor, 1),);
        assert_eq!((a, b, c), (Ok(1), Ok(1), Ok(1)));
        assert_eq!((first, second), (Err(ActorError::Panicked), Err(ActorError::Panicked)));
        assert!(begun.elapsed() < Duration::from_millis(100));
    });
}

#[test]
fn repeated_panics_back_off_and_refuse_at_once_while_the_delay_is_long() {
    on_paused_time(async {
        let actor = counter(&Arc::default());
        for _ in 0..6 {
            assert_eq!(actor.poison().await, Err(ActorError::Panicked));
        }
        // Delays 0, 10, 20, 40, 80 are over; the sixth is 160 ms.
        let refused = Instant::now();
        assert_eq!(add(&actor, 1).await, Err(ActorError::Restarting));
        assert_eq!(refused.elapsed(), Duration::ZERO);
        tokio::time::sleep(Duration::from_millis(161)).await;
        assert_eq!(add(&actor, 1).await, Ok(1));
        assert_eq!(actor.restarts().of(RestartCause::Handler), 6);
    });
}

#[test]
fn a_settled_worker_restarts_at_once_again() {
    on_paused_time(async {
        let actor = counter(&Arc::default());
        for _ in 0..3 {
            assert_eq!(actor.poison().await, Err(ActorError::Panicked));
        }
        assert_eq!(add(&actor, 1).await, Ok(1));
        tokio::time::sleep(2 * SECOND).await;
        assert_eq!(actor.poison().await, Err(ActorError::Panicked));
        let begun = Instant::now();
        assert_eq!(add(&actor, 1).await, Ok(1));
        assert_eq!(begun.elapsed(), Duration::ZERO);
    });
}

#[test]
fn a_factory_that_panics_is_tried_again_until_it_succeeds() {
    on_paused_time(async {
        let knobs: Arc<Knobs> = Arc::default();
        knobs.factory_panics.store(true, Ordering::SeqCst);
        let actor = counter(&knobs);
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(add(&actor, 1).await, Err(ActorError::Restarting));
        assert_eq!(actor.restarts().of(RestartCause::Factory), 6);
        knobs.factory_panics.store(false, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(add(&actor, 1).await, Ok(1));
        assert_eq!(knobs.built.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_panic_in_started_counts_as_its_own_cause_and_heals() {
    on_paused_time(async {
        let knobs: Arc<Knobs> = Arc::default();
        knobs.started_panics.store(true, Ordering::SeqCst);
        let actor = counter(&knobs);
        tokio::time::sleep(Duration::from_millis(15)).await;
        assert_eq!(actor.restarts().of(RestartCause::Started), 3);
        knobs.started_panics.store(false, Ordering::SeqCst);
        // Within the held delay the message waits instead of failing.
        assert_eq!(add(&actor, 1).await, Ok(1));
    });
}

#[test]
fn a_state_that_panics_while_it_is_dropped_leaves_the_mailbox_open() {
    on_paused_time(async {
        let knobs: Arc<Knobs> = Arc::default();
        let actor = counter(&knobs);
        assert_eq!(add(&actor, 1).await, Ok(1));
        knobs.drop_panics.store(true, Ordering::SeqCst);
        assert_eq!(actor.poison().await, Err(ActorError::Panicked));
        knobs.drop_panics.store(false, Ordering::SeqCst);
        assert_eq!(add(&actor, 1).await, Ok(1));
        assert_eq!(actor.restarts().failed_tasks, 1);
    });
}

#[test]
fn a_panic_in_a_timer_restarts_and_loses_no_message() {
    on_paused_time(async {
        let actor = counter(&Arc::default());
        assert_eq!(actor.ask(PanicLater(SECOND / 2), SECOND).await, Ok(()));
        assert_eq!(add(&actor, 3).await, Ok(3));
        tokio::time::sleep(SECOND).await;
        assert_eq!(add(&actor, 3).await, Ok(3));
        assert_eq!(actor.restarts().of(RestartCause::Timer), 1);
    });
}

#[test]
fn a_panic_in_an_asynchronous_answer_fails_one_message_and_keeps_the_state() {
    on_paused_time(async {
        let actor = counter(&Arc::default());
        assert_eq!(add(&actor, 7).await, Ok(7));
        let slow = Slow { time: SECOND / 4, panics: true, done: Arc::default() };
        assert_eq!(actor.ask(slow, SECOND).await, Err(ActorError::Panicked));
        assert_eq!(add(&actor, 1).await, Ok(8));
        assert_eq!(actor.restarts().total(), 0);
        assert_eq!(actor.restarts().failed_tasks, 1);
    });
}

#[test]
fn asynchronous_answers_outlive_a_restart_of_the_worker() {
    on_paused_time(async {
        let actor = counter(&Arc::default());
        let slow = Slow { time: SECOND / 4, panics: false, done: Arc::default() };
        let (slow, poisoned) = futures::join!(actor.ask(slow, SECOND), actor.poison());
        assert_eq!(slow, Ok(()));
        assert_eq!(poisoned, Err(ActorError::Panicked));
    });
}

#[test]
fn a_caller_that_leaves_cancels_its_asynchronous_answer_but_tell_runs_to_its_end() {
    on_paused_time(async {
        let actor = counter(&Arc::default());
        let (asked, told) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let slow = |done: &Arc<AtomicBool>| Slow { time: SECOND, panics: false, done: Arc::clone(done) };
        let outcome = actor.ask(slow(&asked), SECOND / 2).await;
        assert_eq!(outcome, Err(ActorError::Timeout));
        actor.tell(slow(&told)).unwrap();
        tokio::time::sleep(2 * SECOND).await;
        assert!(!asked.load(Ordering::SeqCst));
        assert!(told.load(Ordering::SeqCst));
    });
}

#[test]
fn a_message_whose_caller_left_the_queue_is_not_handled() {
    on_paused_time(async {
        let actor = counter(&Arc::default());
        let left = futures::poll!(std::pin::pin!(actor.ask(Add(100), SECOND)));
        assert!(left.is_pending());
        // `poll!` has dropped the pinned request by now.
        assert_eq!(add(&actor, 1).await, Ok(1));
    });
}

#[test]
fn background_work_reaches_the_worker_and_its_panic_does_not() {
    on_paused_time(async {
        let actor = counter(&Arc::default());
        actor.ask(AddLater { n: 4, panics: false }, SECOND).await.unwrap();
        actor.ask(AddLater { n: 4, panics: true }, SECOND).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(add(&actor, 1).await, Ok(5));
        assert_eq!(actor.restarts().total(), 0);
        assert_eq!(actor.restarts().failed_tasks, 1);
    });
}

#[test]
fn background_work_of_a_dropped_state_is_not_handed_to_the_next() {
    on_paused_time(async {
        let actor = counter(&Arc::default());
        actor.ask(AddLater { n: 4, panics: false }, SECOND).await.unwrap();
        assert_eq!(actor.poison().await, Err(ActorError::Panicked));
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(add(&actor, 1).await, Ok(1));
    });
}

#[test]
fn timers_belong_to_one_state_and_do_not_pile_up() {
    on_paused_time(async {
        let knobs: Arc<Knobs> = Arc::default();
        let actor = counter(&knobs);
        for _ in 0..3 {
            assert_eq!(actor.poison().await, Err(ActorError::Panicked));
        }
        tokio::time::sleep(10 * SECOND + SECOND / 2).await;
        assert_eq!(knobs.ticks.load(Ordering::SeqCst), 10);
    });
}

#[test]
fn a_full_mailbox_refuses_at_once_and_lets_a_ping_in() {
    on_paused_time(async {
        let actor = counter(&Arc::default());
        assert_eq!(add(&actor, 1).await, Ok(1));
        let accepted = (0..1_000).filter(|_| actor.clone().tell(Add(1)).is_ok()).count();
        assert_eq!(accepted, MAILBOX_CAPACITY);
        assert_eq!(actor.tell(Add(1)), Err(ActorError::Full));
        assert_eq!(add(&actor, 1).await, Err(ActorError::Full));
        tokio::task::yield_now().await;
        assert_eq!(add(&actor, 1).await, Ok(2 + MAILBOX_CAPACITY as u64));
    });
}

#[test]
fn ten_thousand_events_reach_the_worker_in_few_batches_and_at_a_bounded_rate() {
    on_paused_time(async {
        let outbox = Arc::new(Outbox::new(16_384));
        let knobs = Arc::new(Knobs { outbox: Some(Arc::clone(&outbox)), ..Knobs::default() });
        let _actor = counter(&knobs);
        (0..10_000).for_each(|event| outbox.push(event));
        let begun = Instant::now();
        while !outbox.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(knobs.drained.load(Ordering::SeqCst), 10_000);
        assert_eq!(knobs.batches.load(Ordering::SeqCst), 100);
        let rounds_per_second = 100.0 / begun.elapsed().as_secs_f64();
        assert!(rounds_per_second < 52.0, "{rounds_per_second} rounds a second");
    });
}

#[test]
fn an_event_that_panics_costs_its_batch_and_the_next_one_is_drained() {
    on_paused_time(async {
        let outbox = Arc::new(Outbox::new(64));
        let knobs = Arc::new(Knobs { outbox: Some(Arc::clone(&outbox)), ..Knobs::default() });
        let actor = counter(&knobs);
        outbox.push(u64::MAX);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(actor.restarts().of(RestartCause::Timer), 1);
        outbox.push(1);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(knobs.drained.load(Ordering::SeqCst), 1);
        assert_eq!(actor.restarts().total(), 1);
    });
}

#[test]
fn an_actor_ends_with_the_last_reference_to_it() {
    on_paused_time(async {
        let knobs: Arc<Knobs> = Arc::default();
        let actor = counter(&knobs);
        let other = actor.clone();
        drop(actor);
        assert_eq!(add(&other, 1).await, Ok(1));
        assert_eq!(Arc::strong_count(&knobs), 3);
        drop(other);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(Arc::strong_count(&knobs), 1);
    });
}
