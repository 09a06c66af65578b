//! What a requester is promised, against a real broker: one answer to each job, whatever it says.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;
#[path = "common/forgetful.rs"]
mod forgetful;
#[path = "common/tls.rs"]
mod tls;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::{PATIENCE, Requester, Worker, config};
use forgetful::Forgetful;
use lapin::BasicProperties;
use lapin::options::{BasicGetOptions, BasicNackOptions, BasicPublishOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use opossum_core::jobs::{Endpoint, JobKey, JobState, Lane};
use opossum_jobs::{MemoryStore, PublishError, Submission};
use opossum_testkit::requester::payload;
use opossum_testkit::{Broker, eventually};
use serde_json::json;
use serde_json::value::RawValue;

/// One broker, and a virtual host for each promise. All of them at once: most of it is waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_job_is_answered_once_and_as_promised() {
    let broker = Broker::start("").await;
    tokio::join!(
        a_job_is_answered_on_its_reply_queue(&broker, 0),
        what_is_no_job_is_told_so_or_put_among_the_dead(&broker, 1),
        a_message_that_comes_twice_is_run_once(&broker, 2),
        a_job_that_is_too_late_is_told_so(&broker, 3),
        a_cancelled_job_is_told_so(&broker, 4),
        a_reply_whose_queue_is_gone_is_parked(&broker, 5),
        pieces_of_an_answer_are_numbered(&broker, 6),
        an_urgent_job_overtakes_a_backlog(&broker, 7),
        a_poisoned_job_is_given_up_after_three_attempts(&broker, 8),
        a_job_of_a_caller_is_fetched(&broker, 9),
        a_worker_that_leaves_finishes_what_it_began(&broker, 10),
        a_full_queue_refuses_and_drops_nothing(&broker, 11),
        a_broker_by_tls_is_believed_by_its_certificate(&broker, 12),
        a_reply_that_is_only_stored_is_stored_in_the_end(&broker, 13),
        a_job_that_was_only_passed_around_is_run(&broker, 14),
    );
}

async fn worker(broker: &Broker, vhost: usize, slots: u16) -> Worker {
    let mut config = config(&broker.url("opossum", vhost));
    config.slots = slots;
    Worker::ready(config, Arc::new(MemoryStore::default())).await
}

async fn a_job_is_answered_on_its_reply_queue(broker: &Broker, vhost: usize) {
    let worker = worker(broker, vhost, 8).await;
    let acme = Requester::new(broker, "acme", vhost).await;
    for (n, queue) in Lane::ALL.map(Lane::queue).into_iter().enumerate() {
        let id = format!("m{n}");
        acme.publish(queue, acme.properties(&id), &payload(&json!({}))).await;
        let reply = acme.reply(&id, 1).await;
        assert_eq!(reply.status(), Some(200));
        assert_eq!(reply.body, json!({ "answer": id, "run": 1 }));
        assert_eq!(reply.message_id, format!("{id}:r"));
        assert_eq!(reply.text("x-opossum-backend").as_deref(), Some("fake"));
        assert!(reply.persistent, "a reply outlives the broker");
    }
    acme.ask("bad", &json!({ "stop": true })).await;
    assert_eq!(acme.reply("bad", 1).await.status(), Some(400));
    assert_eq!(worker.runs.of("bad"), 1, "a caller's error is not tried again");
}

async fn what_is_no_job_is_told_so_or_put_among_the_dead(broker: &Broker, vhost: usize) {
    let worker = worker(broker, vhost, 8).await;
    let acme = Requester::new(broker, "acme", vhost).await;
    let normal = "opossum.jobs.normal";
    let odd = |name: &str, value: AMQPValue| {
        let mut headers = FieldTable::default();
        headers.insert(name.into(), value);
        headers
    };
    let good = |id: &str| acme.properties(id);
    let cases = [
        ("json", 400, good("json"), b"{".to_vec()),
        ("empty", 400, good("empty"), Vec::new()),
        ("large", 413, good("large"), vec![b' '; (1 << 20) + 1]),
        ("gzip", 415, good("gzip").with_content_encoding("gzip".into()), payload(&json!({}))),
        ("plain", 415, good("plain").with_content_type("text/plain".into()), payload(&json!({}))),
        ("kind", 400, good("kind").with_type("opossum.job.v2".into()), payload(&json!({}))),
        (
            "odd",
            400,
            good("odd").with_headers(odd("x-opossum-deadline", AMQPValue::Boolean(true))),
            payload(&json!({})),
        ),
    ];
    for (id, status, properties, payload) in cases {
        acme.publish(normal, properties, &payload).await;
        assert_eq!(acme.reply(id, 1).await.status(), Some(status), "{id}");
    }
    let nowhere = BasicProperties::default().with_message_id("nowhere".into());
    acme.publish(normal, nowhere.clone(), &payload(&json!({}))).await;
    let dead = acme.take("opossum.jobs.dead").await;
    assert_eq!(dead.text("x-opossum-reason").as_deref(), Some("missing_reply_to"));
    acme.publish(normal, nowhere, b"{").await;
    let dead = acme.take("opossum.jobs.dead").await;
    assert_eq!(dead.text("x-opossum-reason").as_deref(), Some("invalid_message"));
    for queue in [normal, "opossum.reply.mallory.r1"] {
        acme.publish(normal, good("foreign").with_reply_to(queue.into()), &payload(&json!({}))).await;
        let dead = acme.take("opossum.jobs.dead").await;
        assert_eq!(dead.text("x-opossum-reason").as_deref(), Some("reply_to_forbidden"), "{queue}");
    }
    assert_eq!(worker.runs.total(), 0, "nothing was computed");
    forged_user(broker, vhost).await;
}

/// The broker lets nobody speak for another user.
async fn forged_user(broker: &Broker, vhost: usize) {
    let mallory = Requester::new(broker, "mallory", vhost).await;
    let forged = mallory.properties("forged").with_user_id("acme".into());
    let options = BasicPublishOptions::default();
    let queue = "opossum.jobs.normal";
    let payload = payload(&json!({}));
    let sent = mallory.channel.basic_publish("".into(), queue.into(), options, &payload, forged);
    let confirmed = match sent.await {
        Ok(confirm) => confirm.await.is_ok(),
        Err(_) => false,
    };
    assert!(!confirmed, "the broker took a forged message");
}

async fn a_message_that_comes_twice_is_run_once(broker: &Broker, vhost: usize) {
    let worker = worker(broker, vhost, 8).await;
    let acme = Requester::new(broker, "acme", vhost).await;
    acme.ask("twice", &json!({ "ms": 300 })).await;
    acme.ask("twice", &json!({ "ms": 300 })).await;
    acme.reply("twice", 2).await;
    acme.ask("twice", &json!({ "ms": 300 })).await;
    let last = acme.reply("twice", 3).await;
    assert_eq!(last.body, json!({ "answer": "twice", "run": 1 }));
    assert_eq!(worker.runs.of("twice"), 1);
    assert!(acme.heard_of("twice").iter().all(|reply| reply.body == last.body), "replies differ");
    acme.ask("twice", &json!({ "ms": 1 })).await;
    assert_eq!(acme.reply("twice", 4).await.status(), Some(422));
    let other = Requester::new(broker, "mallory", vhost).await;
    other.ask("twice", &json!({})).await;
    let own = other.reply("twice", 1).await;
    assert_eq!(own.body["run"], 2, "another tenant's job of the same name is another job");
}

async fn a_job_that_is_too_late_is_told_so(broker: &Broker, vhost: usize) {
    let worker = worker(broker, vhost, 1).await;
    let acme = Requester::new(broker, "acme", vhost).await;
    let by = |id: &str, millis: i64| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let mut headers = FieldTable::default();
        let deadline = i64::try_from(now).unwrap() + millis;
        headers.insert("x-opossum-deadline".into(), AMQPValue::LongLongInt(deadline));
        acme.properties(id).with_headers(headers)
    };
    let normal = "opossum.jobs.normal";
    acme.publish(normal, by("past", -1), &payload(&json!({}))).await;
    assert_eq!(acme.reply("past", 1).await.status(), Some(504));
    acme.publish(normal, by("slow", 500), &payload(&json!({ "ms": 60_000 }))).await;
    assert_eq!(acme.reply("slow", 1).await.status(), Some(504), "cut off while it runs");
    assert_eq!((worker.runs.of("past"), worker.runs.of("slow")), (0, 1));
    // One place, taken, and as much fetched ahead as there are places: the third waits at the broker.
    acme.ask("busy", &json!({ "ms": 3000 })).await;
    acme.ask("next", &json!({})).await;
    let mortal = acme.properties("waits").with_expiration("200".into());
    acme.publish(normal, mortal, &payload(&json!({}))).await;
    let expired = acme.reply("waits", 1).await;
    assert_eq!((expired.status(), worker.runs.of("waits")), (Some(504), 0));
    let dead = acme.take("opossum.jobs.dead").await;
    assert_eq!(dead.text("x-opossum-reason").as_deref(), Some("expired"));
    assert_eq!(acme.reply("next", 1).await.status(), Some(200), "the others go on");
}

async fn a_cancelled_job_is_told_so(broker: &Broker, vhost: usize) {
    let worker = worker(broker, vhost, 1).await;
    let acme = Requester::new(broker, "acme", vhost).await;
    let cancel = async |id: &str| {
        let properties = BasicProperties::default().with_user_id("acme".into());
        let body = json!({ "cancel": id }).to_string();
        let options = BasicPublishOptions::default();
        let sent = acme.channel.basic_publish(
            "opossum.control".into(),
            "".into(),
            options,
            body.as_bytes(),
            properties,
        );
        sent.await.unwrap().await.unwrap();
    };
    acme.ask("during", &json!({ "ms": 60_000 })).await;
    assert!(eventually(PATIENCE, async || worker.runs.of("during") == 1).await);
    acme.ask("before", &json!({})).await;
    cancel("before").await;
    cancel("during").await;
    for id in ["during", "before"] {
        assert_eq!(acme.reply(id, 1).await.status(), Some(499), "{id}");
    }
    assert_eq!(worker.runs.of("before"), 0);
    acme.ask("after", &json!({})).await;
    let first = acme.reply("after", 1).await;
    cancel("after").await;
    acme.ask("after", &json!({})).await;
    assert_eq!(acme.reply("after", 2).await.body, first.body, "what is answered stays answered");
}

async fn a_reply_whose_queue_is_gone_is_parked(broker: &Broker, vhost: usize) {
    let worker = worker(broker, vhost, 8).await;
    let acme = Requester::new(broker, "acme", vhost).await;
    acme.ask("lost", &json!({ "ms": 2000 })).await;
    acme.channel.queue_delete(acme.queue.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    let parked = acme.take("opossum.replies.parked").await;
    assert_eq!((parked.status(), parked.correlation_id.as_str()), (Some(200), "c-lost"));
    assert_eq!(parked.text("x-opossum-reply-to").as_deref(), Some(acme.queue.as_str()));
    assert_eq!(worker.runs.of("lost"), 1);
}

async fn pieces_of_an_answer_are_numbered(broker: &Broker, vhost: usize) {
    let _worker = worker(broker, vhost, 8).await;
    let acme = Requester::new(broker, "acme", vhost).await;
    acme.ask("stream", &json!({ "chunks": 5 })).await;
    acme.reply("stream", 1).await;
    let came = eventually(PATIENCE, async || acme.heard_of("stream").len() == 6).await;
    assert!(came, "{:?}", acme.heard());
    let heard = acme.heard_of("stream");
    let mut numbers: Vec<_> = heard
        .iter()
        .filter_map(|heard| match heard.header("x-opossum-seq") {
            Some(AMQPValue::LongLongInt(number)) => Some((*number, heard.body["n"].as_i64())),
            _ => None,
        })
        .collect();
    numbers.sort_unstable();
    let expected: Vec<_> = (1..=5).map(|number| (number, Some(number - 1))).collect();
    assert_eq!(numbers, expected);
}

async fn an_urgent_job_overtakes_a_backlog(broker: &Broker, vhost: usize) {
    let worker = worker(broker, vhost, 2).await;
    let acme = Requester::new(broker, "acme", vhost).await;
    for n in 0..60 {
        let id = format!("b{n}");
        acme.publish("opossum.jobs.batch", acme.properties(&id), &payload(&json!({ "ms": 50 }))).await;
    }
    for n in 0..60 {
        let id = format!("n{n}");
        acme.publish("opossum.jobs.normal", acme.properties(&id), &payload(&json!({ "ms": 50 }))).await;
    }
    acme.publish("opossum.jobs.high", acme.properties("urgent"), &payload(&json!({}))).await;
    let begun_before = worker.order.lock().len();
    acme.reply("urgent", 1).await;
    let order = worker.order.lock().clone();
    let place = order.iter().position(|id| id == "urgent").unwrap();
    assert!(place <= begun_before + 4, "urgent came {place}th, {begun_before} had begun");
    acme.reply("b59", 1).await;
    acme.reply("n59", 1).await;
    let order = worker.order.lock().clone();
    let until_normal_ended = order.iter().position(|id| id == "n59").unwrap();
    let batch = order[..until_normal_ended].iter().filter(|id| id.starts_with('b')).count();
    assert!(batch * 20 >= until_normal_ended, "batch got {batch} of {until_normal_ended}");
}

async fn a_poisoned_job_is_given_up_after_three_attempts(broker: &Broker, vhost: usize) {
    let worker = worker(broker, vhost, 8).await;
    let acme = Requester::new(broker, "acme", vhost).await;
    acme.ask("poison", &json!({ "panic": true })).await;
    acme.ask("failing", &json!({ "fail": true })).await;
    acme.ask("healthy", &json!({})).await;
    assert_eq!(acme.reply("healthy", 1).await.status(), Some(200), "other jobs flow");
    for id in ["poison", "failing"] {
        let reply = acme.reply(id, 1).await;
        assert_eq!(reply.status(), Some(500));
        assert_eq!(reply.body["error"]["code"], "job_failed");
        assert_eq!(worker.runs.of(id), 3, "{id}");
    }
    for _ in 0..2 {
        let dead = acme.take("opossum.jobs.dead").await;
        assert_eq!(dead.text("x-opossum-reason").as_deref(), Some("job_failed"));
        assert_eq!(dead.text("x-opossum-tenant").as_deref(), Some("acme"));
    }
}

async fn a_job_of_a_caller_is_fetched(broker: &Broker, vhost: usize) {
    let worker = worker(broker, vhost, 8).await;
    let body = RawValue::from_string(json!({ "ms": 300 }).to_string()).unwrap();
    let key = JobKey::new("acme", "fetched");
    let submission = Submission {
        key: &key,
        lane: Lane::High,
        endpoint: Endpoint::Chat,
        body: &body,
        deadline: None,
        traceparent: None,
    };
    worker.door.submit(submission).await.unwrap();
    let view = worker.door.job(&key).await.unwrap().expect("a job that was submitted is known");
    assert!(!view.state.is_final());
    let done = eventually(PATIENCE, async || {
        worker.door.job(&key).await.unwrap().unwrap().state == JobState::Succeeded
    })
    .await;
    assert!(done);
    let reply = worker.door.job(&key).await.unwrap().unwrap().reply.unwrap();
    assert_eq!((reply.status, &reply.body[..]), (200, &br#"{"answer":"fetched","run":1}"#[..]));
    let late = JobKey::new("acme", "late");
    worker.door.submit(Submission { key: &late, deadline: Some(0), ..submission }).await.unwrap();
    let told = eventually(PATIENCE, async || {
        worker.door.job(&late).await.unwrap().is_some_and(|view| view.state == JobState::Failed)
    })
    .await;
    assert!(told, "an expired job ends too");
    let stopped = JobKey::new("acme", "stopped");
    let long = RawValue::from_string(json!({ "ms": 60_000 }).to_string()).unwrap();
    worker.door.submit(Submission { key: &stopped, body: &long, ..submission }).await.unwrap();
    assert!(eventually(PATIENCE, async || worker.runs.of("stopped") == 1).await);
    worker.door.cancel(&stopped).await.unwrap();
    let cancelled = eventually(PATIENCE, async || {
        let view = worker.door.job(&stopped).await.unwrap().unwrap();
        view.reply.is_some_and(|reply| reply.status == 499)
    })
    .await;
    assert!(cancelled);
}

async fn a_reply_that_is_only_stored_is_stored_in_the_end(broker: &Broker, vhost: usize) {
    let store = Arc::new(Forgetful::failing(3));
    let worker = Worker::ready(config(&broker.url("opossum", vhost)), Arc::clone(&store) as _).await;
    let (key, body) = (JobKey::new("acme", "kept"), RawValue::from_string("{}".to_owned()).unwrap());
    let submission = Submission {
        key: &key,
        lane: Lane::Normal,
        endpoint: Endpoint::Chat,
        body: &body,
        deadline: None,
        traceparent: None,
    };
    worker.door.submit(submission).await.unwrap();
    let succeeded = eventually(PATIENCE, async || {
        worker.door.job(&key).await.unwrap().is_some_and(|view| view.state == JobState::Succeeded)
    });
    assert!(succeeded.await, "its reply is nowhere");
    assert_eq!((worker.runs.of("kept"), store.left()), (1, 0));
}

/// Workers that come and go give back what they never began, and the broker counts that.
async fn a_job_that_was_only_passed_around_is_run(broker: &Broker, vhost: usize) {
    let gone = worker(broker, vhost, 1).await;
    gone.door.leave(PATIENCE).await;
    let acme = Requester::new(broker, "acme", vhost).await;
    acme.ask("passed", &json!({})).await;
    let queue = "opossum.jobs.normal";
    let mut times = 0;
    while let Some(message) = acme.channel.basic_get(queue.into(), BasicGetOptions::default()).await.unwrap()
    {
        times += 1;
        let options = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
        message.delivery.acker.nack(options).await.unwrap();
    }
    assert!(times > 10, "the broker gave it up after {times}");
    let worker = worker(broker, vhost, 1).await;
    assert_eq!(acme.reply("passed", 1).await.status(), Some(200));
    assert_eq!(worker.runs.of("passed"), 1);
}

async fn a_worker_that_leaves_finishes_what_it_began(broker: &Broker, vhost: usize) {
    let store: Arc<MemoryStore> = Arc::default();
    let mut one = config(&broker.url("opossum", vhost));
    one.slots = 1;
    let leaving = Worker::ready(one.clone(), Arc::clone(&store) as _).await;
    let acme = Requester::new(broker, "acme", vhost).await;
    acme.ask("begun", &json!({ "ms": 1000 })).await;
    assert!(eventually(PATIENCE, async || leaving.runs.of("begun") == 1).await);
    acme.ask("waiting", &json!({})).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    leaving.door.leave(PATIENCE).await;
    assert_eq!(acme.reply("begun", 1).await.body["run"], 1);
    assert_eq!(leaving.runs.of("waiting"), 0, "what had not begun is not begun");
    let other =
        Worker::ready(opossum_jobs::DoorConfig { worker: "another".to_owned(), ..one }, store as _).await;
    assert_eq!(acme.reply("waiting", 1).await.status(), Some(200));
    assert_eq!((other.runs.of("begun"), other.runs.of("waiting")), (0, 1));
}

async fn a_full_queue_refuses_and_drops_nothing(broker: &Broker, vhost: usize) {
    const ROOM: usize = 20;
    let host = format!("v{vhost}");
    let full = json!({ "max-length": ROOM }).to_string();
    let pattern = "^opossum\\.jobs\\.normal$";
    broker.control(&["set_policy", "-p", &host, "short", pattern, &full, "--apply-to", "queues"]).await;
    let worker = worker(broker, vhost, 1).await;
    let body = RawValue::from_string(json!({ "ms": 100 }).to_string()).unwrap();
    let submit = async |id: &str| {
        let submission = Submission {
            key: &JobKey::new("acme", id),
            lane: Lane::Normal,
            endpoint: Endpoint::Chat,
            body: &body,
            deadline: None,
            traceparent: None,
        };
        worker.door.submit(submission).await
    };
    let mut accepted = Vec::new();
    let mut refusal = None;
    for n in 0..10 * ROOM {
        let id = format!("m{n}");
        match submit(&id).await {
            Ok(()) => accepted.push(id),
            Err(error) => {
                refusal = Some(error);
                break;
            }
        }
    }
    assert_eq!(refusal, Some(PublishError::Full), "after {} jobs", accepted.len());
    assert!(accepted.len() >= ROOM, "{} jobs", accepted.len());
    for id in &accepted {
        let key = JobKey::new("acme", id.as_str());
        let answered = eventually(PATIENCE, async || {
            worker.door.job(&key).await.unwrap().is_some_and(|view| view.state == JobState::Succeeded)
        });
        assert!(answered.await, "{id} was confirmed and is not answered");
    }
    assert_eq!(submit("later").await, Ok(()), "there is room again");
}

async fn a_broker_by_tls_is_believed_by_its_certificate(broker: &Broker, vhost: usize) {
    let (port, certificate) = tls::before(broker.port()).await;
    let url = Broker::url_by(port, "opossum", vhost)
        .replace("amqp://", "amqps://")
        .replace("127.0.0.1", "localhost");
    let doubtful = Worker::open(config(&url), Arc::new(MemoryStore::default()));
    let refused = eventually(PATIENCE, async || {
        matches!(doubtful.door.health().publishing, opossum_jobs::LinkState::Down(_))
    });
    assert!(refused.await, "{:?}", doubtful.door.health());
    let mut believing = config(&url);
    believing.roots = vec![certificate];
    let worker = Worker::ready(believing, Arc::new(MemoryStore::default())).await;
    let acme = Requester::new(broker, "acme", vhost).await;
    acme.ask("m1", &json!({})).await;
    assert_eq!(acme.reply("m1", 1).await.status(), Some(200));
    assert_eq!(worker.runs.of("m1"), 1);
    assert!(doubtful.door.health().fault().is_some(), "a stranger's certificate is believed");
}
