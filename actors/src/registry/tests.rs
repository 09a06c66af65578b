//! Loss of actors and of their thread. Only these tests use real time and threads.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use actix::Message;
use tokio::time::Instant;

use super::*;
use crate::guardian::{Cx, Handle, Reply};
use crate::telemetry::NoTelemetry;
use crate::testing::quiet_panics;

const PATIENCE: Duration = Duration::from_secs(10);

struct Echo;

impl Worker for Echo {}

#[derive(Message)]
#[rtype(result = "u64")]
struct Say(u64);

impl Handle<Say> for Echo {
    fn handle(&mut self, Say(n): Say, _: &mut Cx<'_, Self>) -> Reply<u64> {
        n.into()
    }
}

/// Blocks the actors' thread until the sender of the gate is dropped; says when it does.
#[derive(Message)]
#[rtype(result = "()")]
struct Block {
    blocks: oneshot::Sender<()>,
    gate: mpsc::Receiver<()>,
}

impl Handle<Block> for Echo {
    fn handle(&mut self, Block { blocks, gate }: Block, _: &mut Cx<'_, Self>) -> Reply<()> {
        blocks.send(()).unwrap();
        let _ = gate.recv();
        ().into()
    }
}

/// Quick rounds, but patience enough for a machine that is busy with other things.
fn quick_watch() -> Watch {
    Watch {
        interval: Duration::from_millis(5),
        misses: 40,
        host_patience: Duration::from_millis(200),
        ..Watch::default()
    }
}

fn system() -> ActorThreads {
    quiet_panics();
    ActorThreads::start(quick_watch(), BackoffPolicy::default(), Arc::new(NoTelemetry)).unwrap()
}

async fn say(actor: &ActorRef<Echo>, n: u64) -> Result<u64, ActorError> {
    actor.ask(Say(n), Duration::from_millis(100)).await
}

/// Asks until there is an answer; how long that took.
async fn until_answered(actor: &ActorRef<Echo>) -> Duration {
    let begun = Instant::now();
    while say(actor, 1).await != Ok(1) {
        assert!(begun.elapsed() < PATIENCE, "{} never came back", actor.name());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    begun.elapsed()
}

#[tokio::test]
async fn a_reference_works_from_any_runtime_and_thread() {
    let system = system();
    let actor = system.spawn("echo", || Echo);
    assert_eq!(say(&actor, 3).await, Ok(3));
    let elsewhere = actor.clone();
    let answer = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(say(&elsewhere, 4))
    });
    assert_eq!(answer.join().unwrap(), Ok(4));
    assert!(system.stop(PATIENCE));
    assert_eq!(say(&actor, 5).await, Err(ActorError::Closed));
}

#[tokio::test]
async fn a_closed_mailbox_is_replaced_behind_the_same_reference() {
    let system = system();
    let (dead, bystander) = (system.spawn("dead", || Echo), system.spawn("bystander", || Echo));
    assert_eq!(say(&dead, 1).await, Ok(1));
    dead.kill();
    until_answered(&dead).await;
    assert_eq!(dead.restarts().of(RestartCause::Dead), 1);
    assert_eq!(bystander.restarts().total(), 0);
}

#[tokio::test]
async fn a_blocked_thread_is_left_behind_and_all_actors_move_to_a_new_one() {
    let system = system();
    let (stuck, bystander) = (system.spawn("stuck", || Echo), system.spawn("bystander", || Echo));
    let (open, gate) = mpsc::channel();
    let (blocks, blocked) = oneshot::channel();
    stuck.tell(Block { blocks, gate }).unwrap();
    blocked.await.unwrap();
    assert_eq!(say(&bystander, 1).await, Err(ActorError::Timeout));
    until_answered(&stuck).await;
    until_answered(&bystander).await;
    assert_eq!(stuck.restarts().of(RestartCause::Silent), 1);
    assert_eq!(bystander.restarts().of(RestartCause::Silent), 1);
    drop(open);
}

#[tokio::test]
async fn a_lost_thread_is_replaced_with_all_its_actors() {
    let system = system();
    let actors = [system.spawn("a", || Echo), system.spawn("b", || Echo)];
    assert_eq!(say(&actors[0], 1).await, Ok(1));
    assert!(system.lose_host());
    for actor in &actors {
        until_answered(actor).await;
        assert_eq!(actor.restarts().total(), 1);
    }
}

#[tokio::test]
async fn an_actor_started_on_a_lost_thread_comes_to_life_with_the_next() {
    let system = system();
    assert!(system.lose_host());
    let late = system.spawn("late", || Echo);
    until_answered(&late).await;
}

#[tokio::test]
async fn a_healthy_actor_is_left_alone() {
    let system = system();
    let actor = system.spawn("echo", || Echo);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(actor.restarts().total(), 0);
    assert_eq!(say(&actor, 1).await, Ok(1));
}

#[tokio::test]
async fn the_registry_lists_the_living_in_order_and_forgets_the_dropped() {
    let system = system();
    let first = system.spawn("first", || Echo);
    let second = system.spawn("second", || Echo);
    let names = |system: &ActorThreads| -> Vec<Arc<str>> {
        system.registry().report().into_iter().map(|actor| actor.name).collect()
    };
    assert_eq!(names(&system), ["first".into(), "second".into()]);
    drop(first);
    assert_eq!(names(&system), ["second".into()]);
    assert!(system.registry().report().iter().all(|actor| actor.alive));
    drop(second);
    assert_eq!(names(&system), []);
}
