//! What actix 0.13.5 really does, one fact a test.
//!
//! The guardian in this crate leans on these facts. When an actix update changes one of them, the
//! test of that name fails here, before the service behaves differently somewhere else.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix::prelude::*;

/// What the probe actor saw, in order; outlives the actor.
#[derive(Clone, Default)]
struct Diary(Rc<RefCell<Vec<&'static str>>>);

impl Diary {
    fn note(&self, entry: &'static str) {
        self.0.borrow_mut().push(entry);
    }

    fn entries(&self) -> Vec<&'static str> {
        self.0.borrow().clone()
    }

    fn count(&self, entry: &str) -> usize {
        self.0.borrow().iter().filter(|seen| **seen == entry).count()
    }
}

/// An actor with a counter for state.
struct Probe {
    diary: Diary,
    counter: usize,
}

impl Probe {
    fn new(diary: &Diary) -> Self {
        Self { diary: diary.clone(), counter: 0 }
    }
}

impl Actor for Probe {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        self.diary.note("started");
    }

    fn stopping(&mut self, _: &mut Self::Context) -> Running {
        self.diary.note("stopping");
        Running::Stop
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.diary.note("stopped");
    }
}

impl Supervised for Probe {
    fn restarting(&mut self, _: &mut Self::Context) {
        self.diary.note("restarting");
    }
}

/// Adds one to the counter and answers it.
#[derive(Message)]
#[rtype(result = "usize")]
struct Count;

impl Handler<Count> for Probe {
    type Result = usize;

    fn handle(&mut self, _: Count, _: &mut Self::Context) -> usize {
        self.diary.note("count");
        self.counter += 1;
        self.counter
    }
}

/// Where the probe panics, or that it stops.
#[derive(Message)]
#[rtype(result = "()")]
enum Fail {
    Handler,
    ResponseFuture,
    ActorFuture,
}

impl Handler<Fail> for Probe {
    type Result = Response<()>;

    fn handle(&mut self, msg: Fail, ctx: &mut Self::Context) -> Response<()> {
        match msg {
            Fail::Handler => panic!("in the handler"),
            Fail::ResponseFuture => Response::fut(async { panic!("in a response future") }),
            Fail::ActorFuture => {
                ctx.spawn(async { panic!("in an actor future") }.into_actor(self));
                Response::reply(())
            }
        }
    }
}

/// Calls `ctx.stop()`.
#[derive(Message)]
#[rtype(result = "()")]
struct Stop;

impl Handler<Stop> for Probe {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

/// Answers after the given time, in a future of its own task or of the actor's context.
#[derive(Message)]
#[rtype(result = "()")]
struct Slow {
    time: Duration,
    in_context: bool,
}

impl Handler<Slow> for Probe {
    type Result = ActorResponseOrFuture;

    fn handle(&mut self, msg: Slow, _: &mut Self::Context) -> ActorResponseOrFuture {
        let diary = self.diary.clone();
        let work = async move {
            actix_rt::time::sleep(msg.time).await;
            diary.note("slow work done");
        };
        if msg.in_context {
            ActorResponseOrFuture::Context(Box::pin(work.into_actor(self)))
        } else {
            ActorResponseOrFuture::Task(Box::pin(work))
        }
    }
}

/// Both kinds of asynchronous answer under one type.
enum ActorResponseOrFuture {
    Context(ResponseActFuture<Probe, ()>),
    Task(ResponseFuture<()>),
}

impl actix::dev::MessageResponse<Probe, Slow> for ActorResponseOrFuture {
    fn handle(self, ctx: &mut Context<Probe>, tx: Option<tokio::sync::oneshot::Sender<()>>) {
        match self {
            Self::Context(work) => actix::dev::MessageResponse::<Probe, Slow>::handle(work, ctx, tx),
            Self::Task(work) => actix::dev::MessageResponse::<Probe, Slow>::handle(work, ctx, tx),
        }
    }
}

/// Holds the mailbox with `ctx.wait` for the given time.
#[derive(Message)]
#[rtype(result = "()")]
struct Hold(Duration);

impl Handler<Hold> for Probe {
    type Result = ();

    fn handle(&mut self, msg: Hold, ctx: &mut Self::Context) {
        ctx.wait(actix_rt::time::sleep(msg.0).into_actor(self));
    }
}

/// A supervised probe with the mailbox capacity given.
fn supervised(diary: &Diary, capacity: usize) -> Addr<Probe> {
    let diary = diary.clone();
    Supervisor::start(move |ctx: &mut Context<Probe>| {
        ctx.set_mailbox_capacity(capacity);
        Probe::new(&diary)
    })
}

/// Runs a test on one thread with paused time, so that a sleep costs nothing.
fn on_paused_time<F: Future<Output = ()>>(test: F) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    System::with_tokio_rt(|| runtime).block_on(test);
}

#[actix::test]
async fn a_panic_in_a_handler_closes_the_mailbox_for_good_even_under_a_supervisor() {
    let diary = Diary::default();
    let addr = supervised(&diary, 16);
    assert_eq!(addr.send(Fail::Handler).await, Err(MailboxError::Closed));
    assert_eq!(addr.send(Count).await, Err(MailboxError::Closed));
    assert!(!addr.connected());
    assert_eq!(diary.count("restarting"), 0);
}

#[actix::test]
async fn a_panic_in_a_handler_loses_the_messages_queued_behind_it() {
    let diary = Diary::default();
    let addr = supervised(&diary, 16);
    let (poisoned, queued) = futures::join!(addr.send(Fail::Handler), addr.send(Count));
    assert_eq!(poisoned, Err(MailboxError::Closed));
    assert_eq!(queued, Err(MailboxError::Closed));
    assert_eq!(diary.count("count"), 0);
}

#[actix::test]
async fn a_panic_in_a_handler_still_runs_stopping_and_stopped_while_unwinding() {
    let diary = Diary::default();
    let addr = supervised(&diary, 16);
    assert_eq!(addr.send(Fail::Handler).await, Err(MailboxError::Closed));
    assert_eq!(diary.entries(), ["started", "stopping", "stopped"]);
}

#[actix::test]
async fn a_panic_in_a_response_future_fails_only_that_message() {
    let diary = Diary::default();
    let addr = supervised(&diary, 16);
    assert_eq!(addr.send(Count).await, Ok(1));
    assert_eq!(addr.send(Fail::ResponseFuture).await, Err(MailboxError::Closed));
    assert_eq!(addr.send(Count).await, Ok(2));
    assert_eq!(diary.count("restarting"), 0);
}

#[actix::test]
async fn a_panic_in_a_future_of_the_actor_context_kills_the_actor() {
    let diary = Diary::default();
    let addr = supervised(&diary, 16);
    assert_eq!(addr.send(Fail::ActorFuture).await, Ok(()));
    assert_eq!(addr.send(Count).await, Err(MailboxError::Closed));
    assert_eq!(diary.count("restarting"), 0);
}

#[actix::test]
async fn stop_under_a_supervisor_restarts_and_keeps_address_queue_and_state() {
    let diary = Diary::default();
    let addr = supervised(&diary, 16);
    assert_eq!(addr.send(Count).await, Ok(1));
    let (stopped, queued) = futures::join!(addr.send(Stop), addr.send(Count));
    assert_eq!(stopped, Ok(()));
    assert_eq!(queued, Ok(2));
    assert!(addr.connected());
}

#[actix::test]
async fn a_restart_calls_restarting_and_then_started_again() {
    let diary = Diary::default();
    let addr = supervised(&diary, 16);
    addr.send(Stop).await.unwrap();
    addr.send(Count).await.unwrap();
    assert_eq!(diary.entries(), ["started", "stopping", "stopped", "restarting", "started", "count"]);
}

#[test]
fn a_restart_cancels_futures_of_the_context_but_not_those_of_their_own_task() {
    on_paused_time(async {
        let diary = Diary::default();
        let addr = supervised(&diary, 16);
        let time = Duration::from_millis(10);
        let in_context = addr.send(Slow { time, in_context: true });
        let in_task = addr.send(Slow { time, in_context: false });
        addr.send(Stop).await.unwrap();
        assert_eq!(in_context.await, Err(MailboxError::Closed));
        assert_eq!(in_task.await, Ok(()));
        assert_eq!(diary.count("slow work done"), 1);
    });
}

#[actix::test]
async fn stop_without_a_supervisor_closes_the_mailbox() {
    let diary = Diary::default();
    let addr = Probe::new(&diary).start();
    addr.send(Stop).await.unwrap();
    assert_eq!(addr.send(Count).await, Err(MailboxError::Closed));
    assert!(matches!(addr.try_send(Count), Err(SendError::Closed(Count))));
}

#[actix::test]
async fn a_supervised_actor_ends_when_its_last_address_is_dropped() {
    let diary = Diary::default();
    let addr = supervised(&diary, 16);
    assert_eq!(addr.send(Count).await, Ok(1));
    drop(addr);
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
    assert_eq!(diary.entries(), ["started", "count", "stopping", "stopped"]);
}

#[test]
fn a_running_timer_keeps_an_actor_alive_without_any_address() {
    on_paused_time(async {
        let diary = Diary::default();
        let ticks = diary.clone();
        drop(Probe::create(|ctx| {
            ctx.run_interval(Duration::from_secs(1), move |_, _| ticks.note("tick"));
            Probe::new(&diary)
        }));
        tokio::time::sleep(Duration::from_millis(3_500)).await;
        assert_eq!(diary.count("tick"), 3);
    });
}

/// Messages one address takes by `try_send` while the actor does not run.
fn accepted_by(addr: &Addr<Probe>, tries: usize) -> usize {
    (0..tries).filter(|_| addr.try_send(Count).is_ok()).count()
}

#[actix::test]
async fn try_send_refuses_at_capacity_and_accepts_again_after_the_actor_ran() {
    let diary = Diary::default();
    let addr = supervised(&diary, 8);
    assert_eq!(accepted_by(&addr, 100), 8);
    assert!(matches!(addr.try_send(Count), Err(SendError::Full(Count))));
    tokio::task::yield_now().await;
    assert_eq!(diary.count("count"), 8);
    assert_eq!(accepted_by(&addr, 100), 8);
}

#[actix::test]
async fn every_clone_of_an_address_gets_one_message_past_a_full_mailbox() {
    let diary = Diary::default();
    let addr = supervised(&diary, 8);
    assert_eq!(accepted_by(&addr, 100), 8);
    let clone = addr.clone();
    assert_eq!(accepted_by(&clone, 100), 1);
    assert_eq!((0..50).filter(|_| addr.clone().try_send(Count).is_ok()).count(), 50);
}

#[actix::test]
async fn do_send_ignores_the_capacity() {
    let diary = Diary::default();
    let addr = supervised(&diary, 8);
    for _ in 0..10_000 {
        addr.do_send(Count);
    }
    assert_eq!(addr.send(Count).await, Ok(10_001));
}

#[actix::test]
async fn send_always_gets_in_past_a_full_mailbox() {
    let diary = Diary::default();
    let addr = supervised(&diary, 8);
    let asked: Vec<_> = (0..1_000).map(|_| addr.send(Count)).collect();
    let answers = futures::future::join_all(asked).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(diary.count("count"), 1_000);
}

#[actix::test]
async fn a_handler_does_not_run_for_a_caller_that_left_while_it_was_queued() {
    let diary = Diary::default();
    let addr = supervised(&diary, 16);
    drop(addr.send(Count));
    assert_eq!(addr.send(Count).await, Ok(1));
    assert_eq!(diary.count("count"), 1);
}

#[test]
fn a_response_future_runs_to_its_end_for_a_caller_that_left() {
    on_paused_time(async {
        let diary = Diary::default();
        let addr = supervised(&diary, 16);
        let time = Duration::from_secs(1);
        let asked = addr.send(Slow { time, in_context: false }).timeout(Duration::from_millis(10));
        assert_eq!(asked.await, Err(MailboxError::Timeout));
        assert_eq!(diary.count("slow work done"), 0);
        actix_rt::time::sleep(time).await;
        assert_eq!(diary.count("slow work done"), 1);
    });
}

#[test]
fn wait_holds_the_mailbox_and_keeps_the_messages() {
    on_paused_time(async {
        let diary = Diary::default();
        let addr = supervised(&diary, 16);
        addr.send(Hold(Duration::from_millis(50))).await.unwrap();
        let begun = tokio::time::Instant::now();
        assert_eq!(addr.send(Count).await, Ok(1));
        assert_eq!(begun.elapsed().as_millis() / 10, 5);
    });
}

#[actix::test]
async fn one_poll_handles_the_whole_mailbox_without_yielding() {
    let diary = Diary::default();
    let busy = supervised(&diary, 16);
    for _ in 0..5_000 {
        busy.do_send(Count);
    }
    tokio::task::yield_now().await;
    assert_eq!(diary.count("count"), 5_000);
}

#[test]
fn an_interval_catches_up_every_tick_it_missed() {
    on_paused_time(async {
        let diary = Diary::default();
        let ticks = diary.clone();
        let _actor = Probe::create(|ctx| {
            ctx.run_interval(Duration::from_secs(1), move |_, _| ticks.note("tick"));
            Probe::new(&diary)
        });
        tokio::task::yield_now().await;
        tokio::time::advance(Duration::from_secs(5)).await;
        tokio::task::yield_now().await;
        assert_eq!(diary.count("tick"), 5);
    });
}

#[test]
fn a_panic_in_the_factory_leaves_a_closed_address_and_a_living_arbiter() {
    on_paused_time(async {
        let arbiter = Arbiter::current();
        let addr: Addr<Probe> = Supervisor::start_in_arbiter(&arbiter, |_| panic!("in the factory"));
        assert_eq!(addr.send(Count).await, Err(MailboxError::Closed));
        let (tx, rx) = tokio::sync::oneshot::channel();
        assert!(arbiter.spawn_fn(move || tx.send(()).unwrap()));
        rx.await.unwrap();
    });
}

#[test]
fn a_mailbox_started_in_an_arbiter_holds_16_until_the_arbiter_has_run_the_factory() {
    on_paused_time(async {
        let addr: Addr<Probe> = Supervisor::start_in_arbiter(&Arbiter::current(), |ctx| {
            ctx.set_mailbox_capacity(256);
            Probe::new(&Diary::default())
        });
        assert_eq!(accepted_by(&addr, 1_000), 16);
        assert_eq!(addr.send(Count).await, Ok(17));
        assert_eq!(accepted_by(&addr, 1_000), 256);
    });
}

#[actix::test]
async fn an_arbiter_that_stopped_refuses_new_actors_with_a_closed_address() {
    let arbiter = Arbiter::new();
    let handle = arbiter.handle();
    arbiter.stop();
    arbiter.join().unwrap();
    let addr: Addr<Probe> = Supervisor::start_in_arbiter(&handle, |_| Probe::new(&Diary::default()));
    assert!(!handle.alive());
    assert_eq!(addr.send(Count).await, Err(MailboxError::Closed));
}

/// A blocking worker that panics when told to.
struct Blocking(Arc<AtomicUsize>);

impl Actor for Blocking {
    type Context = SyncContext<Self>;
}

#[derive(Message)]
#[rtype(result = "()")]
struct Work {
    panics: bool,
}

impl Handler<Work> for Blocking {
    type Result = ();

    fn handle(&mut self, msg: Work, _: &mut Self::Context) {
        assert!(!msg.panics, "in a sync actor");
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[actix::test]
async fn a_sync_arbiter_loses_one_thread_per_panic_and_closes_with_the_last() {
    let done = Arc::new(AtomicUsize::new(0));
    let worker = Arc::clone(&done);
    let pool = SyncArbiter::start(2, move || Blocking(Arc::clone(&worker)));
    assert_eq!(pool.send(Work { panics: true }).await, Err(MailboxError::Closed));
    assert_eq!(pool.send(Work { panics: false }).await, Ok(()));
    assert_eq!(pool.send(Work { panics: true }).await, Err(MailboxError::Closed));
    assert_eq!(pool.send(Work { panics: false }).await, Err(MailboxError::Closed));
    assert_eq!(done.load(Ordering::SeqCst), 1);
}
