//! One job, one reply, however often it is sent: what was answered stays answered, whatever is lost between
//! the reply's confirm and the job's acknowledgement.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[expect(dead_code, reason = "what the other suites use")]
mod common;

use std::sync::Arc;

use common::{PATIENCE, Requester, Worker, config};
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use opossum_jobs::{DoorConfig, MemoryStore};
use opossum_testkit::{Broker, Proxy, eventually};
use serde_json::json;

/// What a worker's consuming connection calls itself.
const CONSUMER: &str = "opossum consumer";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_has_one_reply_whatever_is_lost_between_its_confirm_and_the_acknowledgement() {
    let broker = Broker::start("").await;
    tokio::join!(
        a_worker_that_dies_after_its_reply_is_replaced_by_one_that_sends_the_same(&broker, 0),
        a_late_acknowledgement_acknowledges_nobody_elses_job(&broker, 1),
    );
}

/// A worker whose connections go through a proxy.
async fn worker(proxy: &Proxy, vhost: usize, store: &Arc<MemoryStore>) -> Worker {
    let config = DoorConfig { slots: 4, ..config(&Broker::url_by(proxy.port(), "opossum", vhost)) };
    Worker::ready(config, Arc::clone(store) as _).await
}

/// What is in the normal queue for others to take.
async fn ready(acme: &Requester) -> u32 {
    let channel = acme.connection.create_channel().await.unwrap();
    let passive = QueueDeclareOptions::durable().passive();
    let queue = channel.queue_declare("opossum.jobs.normal".into(), passive, FieldTable::default());
    let count = queue.await.unwrap().message_count();
    channel.close(200, "OK".into()).await.unwrap();
    count
}

async fn a_worker_that_dies_after_its_reply_is_replaced_by_one_that_sends_the_same(
    broker: &Broker,
    vhost: usize,
) {
    let store = Arc::<MemoryStore>::default();
    let proxy = Proxy::to(broker.port()).await;
    let first = worker(&proxy, vhost, &store).await;
    let acme = Requester::new(broker, "acme", vhost).await;
    acme.ask("m1", &json!({ "ms": 500 })).await;
    assert!(eventually(PATIENCE, async || first.runs.of("m1") == 1).await);
    proxy.mute(CONSUMER);
    let told = acme.reply("m1", 1).await;
    // The broker has confirmed the reply; the acknowledgement is sent, and lost with the worker.
    assert_eq!(ready(&acme).await, 0, "the job is still the first worker's");
    drop(first);
    drop(proxy);
    let second = Worker::ready(config(&broker.url("opossum", vhost)), store).await;
    let again = acme.reply("m1", 2).await;
    assert_eq!(again.body, told.body);
    assert_eq!((again.status(), &again.message_id), (told.status(), &told.message_id));
    assert_eq!(again.headers, told.headers);
    assert_eq!(second.runs.total(), 0, "nothing was computed again");
    // It is acknowledged now: nothing comes a third time.
    second.door.leave(PATIENCE).await;
    assert_eq!(ready(&acme).await, 0);
}

/// Messages are numbered by channel. The number of one that came on a channel that is gone may be another's
/// on the new channel, which must not be acknowledged in its place.
async fn a_late_acknowledgement_acknowledges_nobody_elses_job(broker: &Broker, vhost: usize) {
    let store = Arc::<MemoryStore>::default();
    let proxy = Proxy::to(broker.port()).await;
    let first = worker(&proxy, vhost, &store).await;
    let acme = Requester::new(broker, "acme", vhost).await;
    // The first message's number on the old channel is 1, so that of `slow` is 2; on the new one that of
    // `slow` is 1, and 2 is that of `slower`.
    acme.ask("quick", &json!({})).await;
    acme.reply("quick", 1).await;
    acme.ask("slow", &json!({ "ms": 6000 })).await;
    assert!(eventually(PATIENCE, async || first.runs.of("slow") == 1).await);
    acme.ask("slower", &json!({ "ms": 60_000 })).await;
    assert!(eventually(PATIENCE, async || first.runs.of("slower") == 1).await);
    proxy.cut(CONSUMER);
    let fell = eventually(PATIENCE, async || first.door.health().consuming.fault().is_some()).await;
    assert!(fell, "the connection was cut");
    first.until_well(PATIENCE).await;
    // `slow` ends, and what acknowledges its first message says 2.
    let told = acme.reply("slow", 1).await;
    let again = acme.reply("slow", 2).await;
    assert_eq!(told.body, again.body);
    drop(first);
    drop(proxy);
    let second = Worker::ready(config(&broker.url("opossum", vhost)), store).await;
    let came = eventually(PATIENCE, async || second.runs.of("slower") == 1).await;
    assert!(came, "the other job was acknowledged by mistake");
    assert_eq!(second.runs.of("slow"), 0);
}
