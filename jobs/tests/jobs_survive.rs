//! What breaks, and what must hold then: every job that was confirmed is answered, alike every time.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "tests")]

#[expect(dead_code, reason = "what the other suites use")]
mod common;

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{PATIENCE, Requester, Worker, config};
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use opossum_core::jobs::{Endpoint, JobKey, Lane};
use opossum_jobs::{LinkState, MemoryStore, PublishError, Submission};
use opossum_testkit::{Broker, Dice, History, eventually};
use serde_json::json;
use serde_json::value::RawValue;

/// RabbitMQ 3.10 may lose a queue whose node is killed within a second of its declaration.
const SETTLED: Duration = Duration::from_secs(3);

/// A publish gives up after five seconds; a busy machine may add some.
const FAILS_WITHIN: Duration = Duration::from_secs(7);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_survive_whatever_dies() {
    // How long a message may go without its acknowledgement, in milliseconds.
    let mut broker = Broker::start("consumer_timeout = 3000\n").await;
    tokio::join!(
        a_queue_with_other_arguments_turns_the_door_off(&broker, 0),
        closed_connections_are_made_anew(&broker, 1),
        a_deleted_queue_is_declared_anew(&broker, 2),
        a_channel_that_the_broker_closes_is_opened_anew(&broker, 3),
        killed_workers_lose_no_job(&broker, 4),
        a_queue_without_a_leader_is_named_and_declared_anew_once_it_is_deleted(&broker, 9),
    );
    an_alarm_delays_and_loses_nothing(&broker, 5).await;
    a_frozen_broker_is_not_waited_for(&broker, 6).await;
    a_killed_broker_loses_no_job(&mut broker, 7).await;
    a_broker_that_is_away_at_the_start_is_found(&mut broker, 8).await;
}

async fn worker(broker: &Broker, vhost: usize) -> Worker {
    Worker::ready(config(&broker.url("opossum", vhost)), Arc::new(MemoryStore::default())).await
}

async fn submit(worker: &Worker, id: &str) -> (Result<(), PublishError>, Duration) {
    let body = RawValue::from_string("{}".to_owned()).unwrap();
    let key = JobKey::new("acme", id);
    let began = Instant::now();
    let submission = Submission {
        key: &key,
        lane: Lane::Normal,
        endpoint: Endpoint::Chat,
        body: &body,
        deadline: None,
        traceparent: None,
    };
    (worker.door.submit(submission).await, began.elapsed())
}

/// Submits a job until it is taken, as a caller does who was told to come back later; it must be answered then.
async fn taken_and_answered(worker: &Worker, id: &str) {
    let taken = eventually(PATIENCE, async || submit(worker, id).await.0.is_ok()).await;
    assert!(taken, "{id} is not taken; {:?}", worker.door.health());
    answered(worker, id).await;
}

async fn answered(worker: &Worker, id: &str) {
    let key = JobKey::new("acme", id);
    let done = eventually(PATIENCE, async || {
        worker.door.job(&key).await.unwrap().is_some_and(|view| view.reply.is_some())
    })
    .await;
    assert!(done, "{id} was confirmed and is not answered; {:?}", worker.door.health());
}

async fn a_queue_with_other_arguments_turns_the_door_off(broker: &Broker, vhost: usize) {
    let url = broker.url("acme", vhost);
    let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let options = QueueDeclareOptions::durable();
    let name = "opossum.jobs.normal";
    channel.queue_declare(name.into(), options, FieldTable::default()).await.unwrap();
    let worker = Worker::open(config(&broker.url("opossum", vhost)), Arc::new(MemoryStore::default()));
    let refused = eventually(
        PATIENCE,
        async || matches!(worker.door.health().consuming, LinkState::Refused(why) if why.contains(name)),
    )
    .await;
    assert!(refused, "{:?}", worker.door.health());
    let (result, took) = submit(&worker, "refused").await;
    assert_eq!(result, Err(PublishError::Unavailable));
    assert!(took < FAILS_WITHIN);
    channel.queue_delete(name.into(), QueueDeleteOptions::default()).await.unwrap();
    worker.until_well(PATIENCE).await;
}

async fn closed_connections_are_made_anew(broker: &Broker, vhost: usize) {
    let worker = worker(broker, vhost).await;
    let host = format!("v{vhost}");
    let close = ["close_all_connections", "-p", &host, "as the test wishes"];
    let (fell, _) = tokio::join!(
        eventually(PATIENCE, async || worker.door.health().fault().is_some()),
        broker.control(&close),
    );
    assert!(fell, "nothing was closed");
    let began = Instant::now();
    worker.until_well(PATIENCE).await;
    eprintln!("connections were back after {:?}", began.elapsed());
    taken_and_answered(&worker, "m1").await;
}

async fn a_deleted_queue_is_declared_anew(broker: &Broker, vhost: usize) {
    let worker = worker(broker, vhost).await;
    let url = broker.url("acme", vhost);
    let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.queue_delete("opossum.jobs.normal".into(), QueueDeleteOptions::default()).await.unwrap();
    let mut accepted = 0;
    let by = Instant::now() + PATIENCE;
    for n in 0.. {
        let id = format!("m{n}");
        match submit(&worker, &id).await.0 {
            Ok(()) => {
                answered(&worker, &id).await;
                accepted += 1;
            }
            Err(error) => {
                assert!(matches!(error, PublishError::Unroutable | PublishError::Unavailable), "{error:?}");
            }
        }
        if accepted == 3 {
            return;
        }
        assert!(Instant::now() < by, "the queue did not come back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The broker closes a channel whose message is not acknowledged in time, and with it the consumer.
async fn a_queue_without_a_leader_is_named_and_declared_anew_once_it_is_deleted(
    broker: &Broker,
    vhost: usize,
) {
    let worker = worker(broker, vhost).await;
    let host = format!("v{vhost}");
    for queue in ["opossum.jobs.normal", "opossum.jobs.undelivered"] {
        taken_and_answered(&worker, &format!("before {queue}")).await;
        broker.behead(vhost, queue).await;
        let named = eventually(PATIENCE, async || {
            worker.door.health().fault().is_some_and(|why| why.contains(queue))
        })
        .await;
        assert!(named, "{queue}: {:?}", worker.door.health());
        broker.control(&["delete_queue", "-p", &host, queue]).await;
        worker.until_well(PATIENCE).await;
        taken_and_answered(&worker, &format!("after {queue}")).await;
    }
}

async fn a_channel_that_the_broker_closes_is_opened_anew(broker: &Broker, vhost: usize) {
    let worker = worker(broker, vhost).await;
    let acme = Requester::new(broker, "acme", vhost).await;
    acme.ask("long", &json!({ "ms": 8000 })).await;
    let fell = eventually(PATIENCE, async || worker.door.health().consuming.fault().is_some()).await;
    assert!(fell, "the acknowledgement timeout did not close the channel");
    worker.until_well(Duration::from_secs(15)).await;
    acme.ask("short", &json!({})).await;
    assert_eq!(acme.reply("short", 1).await.status(), Some(200), "consuming goes on");
    // The first run goes on as well; the message that came again waits for its reply.
    assert_eq!(acme.reply("long", 1).await.body["run"], 1);
    assert_eq!(worker.runs.of("long"), 1);
}

async fn an_alarm_delays_and_loses_nothing(broker: &Broker, vhost: usize) {
    let worker = worker(broker, vhost).await;
    let acme = Requester::new(broker, "acme", vhost).await;
    acme.ask("before", &json!({ "ms": 2000 })).await;
    assert!(eventually(PATIENCE, async || worker.runs.of("before") == 1).await);
    broker.control(&["set_disk_free_limit", "9000GB"]).await;
    let (result, took) = submit(&worker, "during").await;
    assert_eq!(result, Err(PublishError::Unavailable));
    assert!(took < FAILS_WITHIN, "{took:?}");
    broker.control(&["set_disk_free_limit", "50MB"]).await;
    assert_eq!(acme.reply("before", 1).await.body["run"], 1, "the finished reply was kept");
    worker.until_well(PATIENCE).await;
    taken_and_answered(&worker, "after").await;
}

async fn a_frozen_broker_is_not_waited_for(broker: &Broker, vhost: usize) {
    let worker = worker(broker, vhost).await;
    broker.freeze();
    let (result, took) = submit(&worker, "frozen").await;
    let told = eventually(Duration::from_secs(25), async || {
        let health = worker.door.health();
        health.publishing.fault().is_some() && health.consuming.fault().is_some()
    })
    .await;
    broker.thaw();
    assert_eq!(result, Err(PublishError::Unavailable));
    assert!(took < FAILS_WITHIN, "{took:?}");
    assert!(told, "{:?}", worker.door.health());
    worker.until_well(PATIENCE).await;
    taken_and_answered(&worker, "thawed").await;
}

async fn a_killed_broker_loses_no_job(broker: &mut Broker, vhost: usize) {
    let worker = worker(broker, vhost).await;
    tokio::time::sleep(SETTLED).await;
    let mut confirmed = Vec::new();
    for n in 0..100 {
        let id = format!("m{n}");
        if n == 50 {
            broker.kill();
        }
        let (result, took) = submit(&worker, &id).await;
        assert!(took < FAILS_WITHIN, "{took:?}");
        match result {
            Ok(()) => confirmed.push(id),
            Err(_) if n >= 50 => break,
            Err(error) => panic!("{error}"),
        }
    }
    broker.restart().await;
    let began = Instant::now();
    worker.until_well(PATIENCE).await;
    eprintln!("consuming {:?} after the port opened", began.elapsed());
    for id in &confirmed {
        answered(&worker, id).await;
    }
    assert!(confirmed.len() >= 50);
}

async fn a_broker_that_is_away_at_the_start_is_found(broker: &mut Broker, vhost: usize) {
    broker.kill();
    let worker = Worker::open(config(&broker.url("opossum", vhost)), Arc::new(MemoryStore::default()));
    let (result, took) = submit(&worker, "early").await;
    assert_eq!(result, Err(PublishError::Unavailable));
    assert!(took < FAILS_WITHIN);
    assert!(worker.door.health().fault().is_some());
    broker.restart().await;
    worker.until_well(PATIENCE).await;
    taken_and_answered(&worker, "late").await;
}

/// Workers in processes of their own are killed again and again while jobs come.
async fn killed_workers_lose_no_job(broker: &Broker, vhost: usize) {
    const JOBS: usize = 150;
    let mut dice = Dice::from_env();
    let acme = Requester::new(broker, "acme", vhost).await;
    let url = broker.url("opossum", vhost);
    let mut workers: Vec<Process> = (0..2).map(|_| Process::start(&url)).collect();
    let declared = eventually(PATIENCE, async || {
        let channel = acme.connection.create_channel().await.unwrap();
        let passive = QueueDeclareOptions::durable().passive();
        channel.queue_declare("opossum.replies.parked".into(), passive, FieldTable::default()).await.is_ok()
    })
    .await;
    assert!(declared, "no worker came up");
    tokio::time::sleep(SETTLED).await;
    let mut asked = History::default();
    for n in 0..JOBS {
        let id = format!("m{n}");
        asked.asked(&id);
        acme.ask(&id, &json!({ "ms": dice.below(40) })).await;
        asked.confirmed(&id);
        if n % 15 == 14 {
            // The old one is killed as it is replaced.
            workers[dice.below(2) as usize] = Process::start(&url);
        }
    }
    eventually(2 * PATIENCE, async || heard(&asked, &acme).waiting() == 0).await;
    drop(workers);
    let history = heard(&asked, &acme);
    assert!(history.check(1).is_good(), "{}", history.check(1));
}

/// The log with what a requester heard. Each worker here remembers its own jobs only, so two that both ran a
/// job may differ in what they computed, but not in how it ended.
fn heard(asked: &History, acme: &Requester) -> History {
    let mut history = asked.clone();
    for heard in acme.heard() {
        let id = heard.correlation_id.trim_start_matches("c-");
        let speaks_of = heard.body["answer"].as_str().unwrap_or("nothing");
        history.replied(id, speaks_of, &format!("{:?} {}", heard.status(), heard.message_id));
    }
    history
}

/// A worker in a process of its own (this binary, running the test below), killed when dropped.
struct Process(Child);

impl Process {
    fn start(url: &str) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_worker_of_its_own", "--ignored", "--nocapture"])
            .env("OPOSSUM_TEST_WORKER", url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[tokio::test]
#[ignore = "a worker for the other tests, which kill it"]
async fn a_worker_of_its_own() {
    let Ok(url) = std::env::var("OPOSSUM_TEST_WORKER") else { return };
    let mut config = config(&url);
    config.slots = 4;
    let _worker = Worker::open(config, Arc::new(MemoryStore::default()));
    // Longer than any test; whoever started it ends it.
    tokio::time::sleep(Duration::from_secs(600)).await;
}
