//! What is told of the queue is so, by a real broker: how much waits and since when, also while nobody takes
//! anything, and what became of every job.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::join_all;
use opossum_testkit::requester::{PATIENCE, payload};
use opossum_testkit::{Broker, Requester, Script, Service, Upstream, ask, eventually};
use serde_json::json;

const BIN: &str = env!("CARGO_BIN_EXE_opossum");
const DEPTH: &str = "opossum_queue_depth";
const AGE: &str = "opossum_queue_age_seconds";
const HIGH: &str = "opossum.jobs.high";
const NORMAL: &str = "opossum.jobs.normal";
const BATCH: &str = "opossum.jobs.batch";

/// An hour ago, in seconds since 1970.
fn an_hour_ago() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() - 3600
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_queue_is_told_as_it_is() {
    let mut broker = Broker::start("").await;
    tokio::join!(
        what_waits_is_counted_and_grows_old_until_it_is_taken(&broker, 0),
        every_job_is_counted_by_what_became_of_it(&broker, 1),
    );
    nothing_is_told_of_a_broker_that_is_away(&mut broker, 2).await;
}

/// A service that works on one job at a time.
async fn service(broker: &Broker, vhost: usize, up: &Upstream) -> Service {
    let service = Service::of(BIN)
        .named("only", up)
        .set("server.max_in_flight", 1)
        .set("server.drain_delay", 20)
        .set("upstream.first_token", 600)
        .set("upstream.total", 600)
        .env("DEFAULT_MAX_RETRIES", 0)
        .env("CIRCUIT_BREAKER_FAILURE_THRESHOLD", 1000)
        .env("AMQP_URL", broker.url("opossum", vhost))
        .start()
        .await;
    let well = eventually(PATIENCE, async || service.client().health(false).await["status"] == "ok");
    assert!(well.await, "{}", service.logs());
    service
}

/// Waits until a queue's gauge is in a range.
async fn told(service: &Service, gauge: &str, queue: &str, range: std::ops::RangeInclusive<f64>) {
    let mut last = None;
    let so = eventually(PATIENCE, async || {
        last = service.client().metrics().await.sum(gauge, &[("queue", queue)]);
        last.is_some_and(|value| range.contains(&value))
    });
    assert!(so.await, "{gauge} of {queue} is {last:?}, not in {range:?}");
}

async fn what_waits_is_counted_and_grows_old_until_it_is_taken(broker: &Broker, vhost: usize) {
    let up = Upstream::openai().script(Script::hang()).start();
    let service = service(broker, vhost, &up).await;
    let acme = Requester::new(broker, "acme", vhost).await;
    for queue in [HIGH, NORMAL, BATCH] {
        told(&service, DEPTH, queue, 0.0..=0.0).await;
        told(&service, AGE, queue, 0.0..=0.0).await;
    }
    // One is at work and takes the only place.
    acme.ask("hangs", &ask("x")).await;
    assert!(up.wait_calls(1, PATIENCE).await);
    let began = std::time::Instant::now();
    // One more is fetched ahead; the others wait at the broker. None says when it was published.
    join_all((0..5).map(async |n| {
        acme.publish(BATCH, acme.properties(&format!("b{n}")), &payload(&ask("x"))).await;
    }))
    .await;
    told(&service, DEPTH, BATCH, 4.0..=4.0).await;
    told(&service, AGE, BATCH, 3.0..=PATIENCE.as_secs_f64()).await;
    let waited = began.elapsed();
    assert!(waited >= Duration::from_secs(1), "older than they are, after {waited:?}");
    // This one says so; it is fetched ahead, and no less old for it.
    let old = acme.properties("old").with_timestamp(an_hour_ago());
    acme.publish(HIGH, old, &payload(&ask("x"))).await;
    told(&service, AGE, HIGH, 3600.0..=3700.0).await;
    told(&service, DEPTH, HIGH, 0.0..=0.0).await;
    told(&service, AGE, NORMAL, 0.0..=0.0).await;
    // Back to work.
    up.set_default(Script::text("done"));
    acme.cancel("hangs").await;
    assert_eq!(acme.reply("hangs", 1).await.status(), Some(499));
    for id in ["old", "b0", "b1", "b2", "b3", "b4"] {
        assert_eq!(acme.reply(id, 1).await.status(), Some(200));
    }
    for queue in [HIGH, NORMAL, BATCH] {
        told(&service, DEPTH, queue, 0.0..=0.0).await;
        told(&service, AGE, queue, 0.0..=0.0).await;
    }
    let metrics = service.client().metrics().await;
    let wait = |what: &str| metrics.sum(&format!("opossum_job_wait_seconds_{what}"), &[("lane", "high")]);
    assert_eq!(wait("count"), Some(1.0));
    assert!(wait("sum").is_some_and(|sum| (3600.0..3700.0).contains(&sum)), "{:?}", wait("sum"));
}

async fn every_job_is_counted_by_what_became_of_it(broker: &Broker, vhost: usize) {
    let up = Upstream::openai().text("done").start();
    let mut service = service(broker, vhost, &up).await;
    let acme = Requester::new(broker, "acme", vhost).await;
    let good = payload(&ask("x"));
    acme.ask("good", &ask("x")).await;
    acme.reply("good", 1).await;
    acme.ask("good", &ask("x")).await;
    acme.reply("good", 2).await;
    acme.publish(BATCH, acme.properties("none"), b"no job").await;
    acme.reply("none", 1).await;
    acme.ask("wrong", &json!({ "model": "auto", "messages": [] })).await;
    acme.reply("wrong", 1).await;
    up.set_default(Script::status(500));
    let third = acme.with_headers(acme.properties("third"), &json!({ "x-opossum-attempt": 2 }));
    acme.publish(HIGH, third, &good).await;
    acme.reply("third", 1).await;
    acme.publish(HIGH, acme.properties("again"), &good).await;
    counted(&service, "high", "retried").await;
    up.set_default(Script::text("at last"));
    acme.reply("again", 1).await;
    up.set_default(Script::hang());
    let calls = up.calls();
    acme.ask("cancelled", &ask("y")).await;
    assert!(up.wait_calls(calls + 1, PATIENCE).await);
    acme.cancel("cancelled").await;
    acme.reply("cancelled", 1).await;
    for (lane, outcome) in [
        ("normal", "succeeded"),
        ("normal", "replayed"),
        ("batch", "refused"),
        ("normal", "failed"),
        ("high", "dead"),
        ("high", "succeeded"),
        ("normal", "cancelled"),
    ] {
        counted(&service, lane, outcome).await;
    }
    // One at work, one that waits: who leaves gives back the second.
    let calls = up.calls();
    acme.publish(HIGH, acme.properties("work"), &payload(&ask("z"))).await;
    assert!(up.wait_calls(calls + 1, PATIENCE).await);
    acme.publish(BATCH, acme.properties("waits"), &good).await;
    told(&service, AGE, BATCH, 1.0..=PATIENCE.as_secs_f64()).await;
    service.terminate();
    counted(&service, "batch", "given_back").await;
    service.kill();
}

/// Waits until a job is counted so, and no other is.
async fn counted(service: &Service, lane: &str, outcome: &str) {
    let mut last = None;
    let so = eventually(PATIENCE, async || {
        let labels = [("lane", lane), ("outcome", outcome)];
        last = service.client().metrics().await.sum("opossum_jobs_total", &labels);
        last == Some(1.0)
    });
    assert!(so.await, "{last:?} {lane} jobs are {outcome}");
}

async fn nothing_is_told_of_a_broker_that_is_away(broker: &mut Broker, vhost: usize) {
    let up = Upstream::openai().text("done").start();
    let service = service(broker, vhost, &up).await;
    told(&service, DEPTH, NORMAL, 0.0..=0.0).await;
    told(&service, AGE, NORMAL, 0.0..=0.0).await;
    broker.kill();
    let silent = eventually(PATIENCE, async || {
        let metrics = service.client().metrics().await;
        let connected = metrics.sum("opossum_amqp_connected", &[]);
        (connected, metrics.sum(DEPTH, &[]), metrics.sum(AGE, &[])) == (Some(0.0), None, None)
    });
    assert!(silent.await, "{}", service.client().metrics().await.text());
}
