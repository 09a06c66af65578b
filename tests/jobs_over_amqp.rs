//! A request that is published to a queue is answered as one that is posted, and the queue's troubles are not
//! the callers' over HTTP.

use std::io::ErrorKind::TimedOut;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use opossum_testkit::requester::{PATIENCE, payload, payload_of};
use opossum_testkit::service::ServiceBuilder;
use opossum_testkit::{Broker, Requester, Script, Service, Upstream, ask, ask_stream, eventually};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

const BIN: &str = env!("CARGO_BIN_EXE_opossum");
const NORMAL: &str = "opossum.jobs.normal";

/// RabbitMQ 3.10 may lose a queue whose node is killed within a second of its declaration.
const SETTLED: Duration = Duration::from_secs(3);

/// One broker, and a virtual host for each promise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_go_the_path_of_requests() {
    let mut broker = Broker::start("").await;
    tokio::join!(
        a_job_is_answered_as_a_request_is(&broker, 0),
        pieces_of_an_answer_come_as_numbered_messages(&broker, 1),
        a_job_fails_over_and_is_tried_again(&broker, 2),
        a_job_under_way_is_finished_before_the_exit_and_the_others_are_given_back(&broker, 3),
        a_job_over_http_is_promised_followed_fetched_and_cancelled(&broker, 5),
        the_examples_of_the_documentation_work(&broker, 6),
        the_command_line_publishes_waits_looks_and_cancels(&broker, 7),
    );
    http_answers_while_the_broker_is_away(&mut broker, 4).await;
}

/// A service with a queue and one upstream, ready for both.
async fn service(broker: &Broker, vhost: usize, builder: ServiceBuilder) -> Service {
    let service = builder.env("AMQP_URL", broker.url("opossum", vhost)).start().await;
    let well = eventually(PATIENCE, async || {
        let health = service.client().health(false).await;
        health["services"]["amqp"] == "ok" && health["status"] == "ok"
    });
    assert!(well.await, "the queue never came up: {}", service.logs());
    service
}

async fn a_job_is_answered_as_a_request_is(broker: &Broker, vhost: usize) {
    let up = Upstream::openai().text("from the queue").start();
    let service = service(broker, vhost, Service::of(BIN).named("only", &up)).await;
    let acme = Requester::new(broker, "acme", vhost).await;
    acme.ask("m1", &ask("x")).await;
    let reply = acme.reply("m1", 1).await;
    assert_eq!(reply.status(), Some(200), "{reply:?}");
    assert_eq!(reply.body["object"], "chat.completion");
    assert_eq!(reply.body["choices"][0]["message"]["content"], "from the queue");
    assert_eq!(reply.text("x-opossum-backend").as_deref(), Some("only"));
    assert!(reply.text("x-request-id").is_some_and(|id| id.starts_with("req_")));
    // Again: the stored reply, and no second call of the upstream.
    acme.ask("m1", &ask("x")).await;
    let again = acme.reply("m1", 2).await;
    assert_eq!((&again.body, &again.headers), (&reply.body, &reply.headers));
    assert_eq!(up.calls(), 1);
    // A caller's error names the field, as over HTTP.
    acme.ask("bad", &json!({ "model": "auto", "messages": [], "n": 0 })).await;
    let bad = acme.reply("bad", 1).await;
    assert_eq!((bad.status(), &bad.body["error"]["type"]), (Some(400), &json!("invalid_request_error")));
    assert!(bad.body["error"]["param"].is_string(), "{bad:?}");
    let unknown = json!({ "model": "nowhere/none", "messages": [{ "role": "user", "content": "x" }] });
    acme.publish("opossum.jobs.batch", acme.properties("unknown"), &payload(&unknown)).await;
    assert_eq!(acme.reply("unknown", 1).await.body["error"]["code"], "model_not_found");
    acme.publish(NORMAL, acme.properties("elsewhere"), &payload_of("/v1/models", &json!({}))).await;
    assert_eq!(acme.reply("elsewhere", 1).await.body["error"]["param"], "endpoint");
    let metrics = service.client().metrics().await;
    for (lane, outcome, count) in
        [("normal", "succeeded", 1.0), ("normal", "replayed", 1.0), ("batch", "failed", 1.0)]
    {
        let labels = [("lane", lane), ("outcome", outcome)];
        assert_eq!(metrics.sum("opossum_jobs_total", &labels), Some(count), "{lane} {outcome}");
    }
    assert_eq!(metrics.sum("opossum_amqp_connected", &[]), Some(2.0), "{}", metrics.text());
    let counted = eventually(PATIENCE, async || {
        let metrics = service.client().metrics().await;
        metrics.sum("opossum_queue_depth", &[("queue", "opossum.jobs.dead")]) == Some(0.0)
    });
    assert!(counted.await, "queues are counted");
}

async fn pieces_of_an_answer_come_as_numbered_messages(broker: &Broker, vhost: usize) {
    let up =
        Upstream::openai().script(Script::new().chunks(&["one ", "two ", "three"]).finish("stop")).start();
    let _service = service(broker, vhost, Service::of(BIN).named("only", &up)).await;
    let acme = Requester::new(broker, "acme", vhost).await;
    let mut asked = ask_stream("x");
    asked["stream_options"] = json!({ "include_usage": true });
    acme.ask("stream", &asked).await;
    let reply = acme.reply("stream", 1).await;
    assert_eq!(
        reply.body["choices"][0]["message"]["content"], "one two three",
        "the reply is whole by itself"
    );
    assert_eq!(reply.body["object"], "chat.completion");
    let text = || -> String {
        let pieces = acme.heard_of("stream").into_iter().filter(|heard| heard.status().is_none());
        pieces
            .map(|piece| piece.body["choices"][0]["delta"]["content"].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    assert!(eventually(PATIENCE, async || text() == "one two three").await, "{:?}", acme.heard());
    let usage = || acme.heard_of("stream").iter().any(|heard| heard.body["usage"]["prompt_tokens"].is_u64());
    assert!(eventually(PATIENCE, async || usage()).await, "{:?}", acme.heard());
}

async fn a_job_fails_over_and_is_tried_again(broker: &Broker, vhost: usize) {
    let down = Upstream::openai().script(Script::status(500)).start();
    let up = Upstream::openai().script(Script::status(500)).start();
    let builder =
        Service::of(BIN).named("first", &down).named("second", &up).quick().env("DEFAULT_MAX_RETRIES", 0);
    let builder = builder.env("CIRCUIT_BREAKER_FAILURE_THRESHOLD", 1000);
    let service = service(broker, vhost, builder).await;
    let acme = Requester::new(broker, "acme", vhost).await;
    acme.ask("later", &ask("x")).await;
    let retried = eventually(PATIENCE, async || {
        service.client().metrics().await.sum("opossum_jobs_total", &[("outcome", "retried")]) == Some(1.0)
    });
    assert!(retried.await, "{}", service.logs());
    assert!(acme.heard().is_empty(), "nobody is told of an attempt that another follows");
    assert!(down.calls() > 0 && up.calls() > 0, "both were asked");
    up.set_default(Script::text("at last"));
    let reply = acme.reply("later", 1).await;
    assert_eq!((reply.status(), reply.text("x-opossum-backend").as_deref()), (Some(200), Some("second")));
}

async fn a_job_under_way_is_finished_before_the_exit_and_the_others_are_given_back(
    broker: &Broker,
    vhost: usize,
) {
    let up = Upstream::openai().script(Script::new().delay(Duration::from_secs(3)).answer("slow")).start();
    let builder =
        Service::of(BIN).named("only", &up).set("server.max_in_flight", 1).set("server.drain_delay", 0);
    let mut leaving = service(broker, vhost, builder.clone()).await;
    let acme = Requester::new(broker, "acme", vhost).await;
    acme.ask("begun", &ask("x")).await;
    assert!(up.wait_calls(1, PATIENCE).await);
    acme.ask("waiting", &ask("y")).await;
    leaving.terminate();
    let status = leaving.wait_exit(PATIENCE).await;
    assert_eq!(status.and_then(|status| status.code()), Some(0), "{}", leaving.logs());
    assert_eq!(acme.reply("begun", 1).await.status(), Some(200));
    assert_eq!((up.calls(), acme.heard_of("waiting").len()), (1, 0), "what had not begun is not begun");
    let _next = service(broker, vhost, builder).await;
    assert_eq!(acme.reply("waiting", 1).await.status(), Some(200));
    assert_eq!(up.calls(), 2);
}

async fn a_job_over_http_is_promised_followed_fetched_and_cancelled(broker: &Broker, vhost: usize) {
    let up =
        Upstream::openai().script(Script::new().delay(Duration::from_secs(4)).answer("in good time")).start();
    let service = service(broker, vhost, Service::of(BIN).named("only", &up)).await;
    let client = service.client();
    let job = json!({ "endpoint": "/v1/chat/completions", "body": ask("x"), "lane": "high" });
    let accepted = client.post("/v1/jobs", &job).await;
    assert_eq!(accepted.status, 202, "{}", accepted.body_text());
    let submitted = accepted.json();
    assert_eq!(submitted["status"], "queued");
    let place = format!("/v1/jobs/{}", submitted["id"].as_str().unwrap_or_default());
    assert_eq!(accepted.header("location"), Some(place.as_str()));
    let mut conn = client.connect().await;
    let follow = client.request("GET", &format!("{place}/events"), None);
    assert!(conn.send(&follow).await.is_ok());
    let events = conn.events().await;
    assert!(events.is_ok(), "no events: {:?}", events.err());
    let mut states = Vec::new();
    if let Ok(events) = events {
        states.extend(events.collect().await.events.iter().map(|event| event.json()["status"].clone()));
    }
    assert_eq!(states.last(), Some(&json!("succeeded")), "{states:?}");
    assert!(states.len() > 1, "it was followed from before its end: {states:?}");
    let done = client.get(&place).await.json();
    assert_eq!((&done["status"], &done["result"]["status"]), (&json!("succeeded"), &json!(200)));
    assert_eq!(done["result"]["body"]["choices"][0]["message"]["content"], "in good time");

    up.set_default(Script::hang());
    let long = client.post("/v1/jobs", &job).await.json();
    let place = format!("/v1/jobs/{}", long["id"].as_str().unwrap_or_default());
    assert!(up.wait_calls(2, PATIENCE).await);
    let cancelled = client.call("DELETE", &place, None).await;
    assert_eq!((cancelled.status, &cancelled.json()["status"]), (200, &json!("cancelled")));
    assert!(up.wait_abort(1, PATIENCE).await.is_some(), "the upstream goes on for nobody");
    let told = eventually(PATIENCE, async || client.get(&place).await.json()["result"]["status"] == 499);
    assert!(told.await);

    let bad = json!({ "endpoint": "/v1/chat/completions", "body": { "model": "auto", "messages": "x" } });
    let bad = client.post("/v1/jobs", &bad).await;
    assert_eq!((bad.status, bad.error_param().as_str()), (400, "body.messages"), "{}", bad.body_text());
    assert_eq!(client.get("/v1/jobs/job_none").await.status, 404);
    assert_eq!(client.call("DELETE", "/v1/jobs/job_none", None).await.status, 404);
}

async fn the_examples_of_the_documentation_work(broker: &Broker, vhost: usize) {
    let up = Upstream::openai().script(Script::echo()).start();
    let service = service(broker, vhost, Service::of(BIN).named("only", &up)).await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join(".venv/bin/python").display().to_string();
    for (program, example) in [(python.as_str(), "ask_by_queue.py"), ("node", "ask_by_queue.mjs")] {
        let run = tokio::process::Command::new(program)
            .arg(root.join("docs/examples").join(example))
            .arg(format!("from {example}"))
            .env("AMQP_URL", broker.url("acme", vhost))
            .kill_on_drop(true)
            .output();
        let ran = tokio::time::timeout(PATIENCE, run).await.unwrap_or_else(|_| Err(TimedOut.into()));
        assert!(ran.is_ok(), "{example}: {ran:?}; scripts/test-setup.sh installs what it needs");
        let said = ran.map(|output| (output.stdout, String::from_utf8_lossy(&output.stderr).into_owned()));
        let (out, err) = said.unwrap_or_default();
        assert_eq!(
            String::from_utf8_lossy(&out).trim(),
            format!("from {example}"),
            "{err}\n{}",
            service.logs()
        );
    }
}

/// Runs `opossum jobs` with a text as its input: its exit code, output and complaints.
async fn jobs(service: &Service, args: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut command = tokio::process::Command::new(BIN);
    command.arg("jobs").args(args).args(["--url", &service.base_url()]).current_dir(service.dir());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let run = async {
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).await?;
        }
        child.wait_with_output().await
    };
    let ran = tokio::time::timeout(PATIENCE, run).await.unwrap_or_else(|_| Err(TimedOut.into()));
    assert!(ran.is_ok(), "{args:?}: {ran:?}");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    ran.map(|ran| (ran.status.code(), text(ran.stdout), text(ran.stderr))).unwrap_or_default()
}

async fn the_command_line_publishes_waits_looks_and_cancels(broker: &Broker, vhost: usize) {
    let up = Upstream::openai().script(Script::echo()).start();
    let service = service(broker, vhost, Service::of(BIN).named("only", &up)).await;
    let json_of = |text: &str| -> Value { serde_json::from_str(text).unwrap_or_default() };
    let job = json!({ "endpoint": "/v1/chat/completions", "body": ask("from a shell"), "lane": "high" });
    let (code, out, err) = jobs(&service, &["publish", "--file", "-", "--wait"], &job.to_string()).await;
    let done = json_of(&out);
    assert_eq!((code, &done["status"]), (Some(0), &json!("succeeded")), "{err}");
    assert_eq!(done["result"]["body"]["choices"][0]["message"]["content"], "from a shell");
    let id = done["id"].as_str().unwrap_or_default().to_owned();
    assert!(err.contains(&id), "who stops waiting knows what to ask for: {err}");
    let (code, again, _) = jobs(&service, &["get", &id], "").await;
    assert_eq!((code, json_of(&again)), (Some(0), done));

    up.set_default(Script::hang());
    let place = service.dir().join("job.json");
    assert!(std::fs::write(&place, job.to_string()).is_ok());
    let (code, out, err) = jobs(&service, &["publish", "--file", "job.json"], "").await;
    let queued = json_of(&out);
    assert_eq!((code, &queued["status"]), (Some(0), &json!("queued")), "{err}");
    let id = queued["id"].as_str().unwrap_or_default().to_owned();
    let (code, out, err) = jobs(&service, &["cancel", &id], "").await;
    assert_eq!((code, &json_of(&out)["status"]), (Some(0), &json!("cancelled")), "{err}");
    let (code, out, err) = jobs(&service, &["get", &id, "--wait"], "").await;
    assert_eq!((code, &json_of(&out)["status"]), (Some(1), &json!("cancelled")), "{err}");

    let (code, out, err) = jobs(&service, &["get", "none"], "").await;
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("404 not_found"), "{err}");
    let (code, _, err) = jobs(&service, &["publish", "--file", "-"], "{\"endpoint\":\"/v1/models\"}").await;
    assert!(code == Some(1) && err.contains("invalid_value (endpoint)"), "{err}");
    let short = ["publish", "--file", "-", "--wait", "--timeout-ms", "1"];
    let (code, out, _) = jobs(&service, &short, &job.to_string()).await;
    assert_eq!((code, &json_of(&out)["result"]["status"]), (Some(1), &json!(504)));
}

async fn http_answers_while_the_broker_is_away(broker: &mut Broker, vhost: usize) {
    let up = Upstream::openai().text("over HTTP").start();
    let service = service(broker, vhost, Service::of(BIN).named("only", &up)).await;
    let acme = Requester::new(broker, "acme", vhost).await;
    let client = service.client();
    tokio::time::sleep(SETTLED).await;
    broker.kill();
    let told = eventually(PATIENCE, async || {
        let health = client.health(false).await;
        health["status"] == "degraded"
            && health["services"]["amqp"].as_str().is_some_and(|state| state.starts_with("error"))
    });
    assert!(told.await, "{:#}", client.health(false).await);
    assert_eq!(client.get("/health/ready").await.status, 200, "requests can be admitted");
    let began = Instant::now();
    for _ in 0..20 {
        let answer = client.chat(&ask("x")).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "over HTTP"));
    }
    assert!(began.elapsed() < Duration::from_secs(5), "20 answers took {:?}", began.elapsed());
    let submitted = Instant::now();
    let job = json!({ "endpoint": "/v1/chat/completions", "body": ask("x") });
    let refused = client.post("/v1/jobs", &job).await;
    assert_eq!((refused.status, refused.error_code().as_str()), (503, "queue_unavailable"));
    assert!(submitted.elapsed() < Duration::from_secs(7), "{:?}", submitted.elapsed());
    assert!(refused.header("retry-after").is_some());
    drop(acme);
    broker.restart().await;
    let back = eventually(PATIENCE, async || client.health(false).await["status"] == "ok");
    assert!(back.await, "{:#}", client.health(false).await);
    let acme = Requester::new(broker, "acme", vhost).await;
    acme.ask("after", &ask("x")).await;
    assert_eq!(acme.reply("after", 1).await.status(), Some(200));
}

#[tokio::test]
async fn without_a_broker_jobs_are_refused_and_nothing_else() {
    let up = Upstream::openai().text("over HTTP").start();
    let service = Service::of(BIN).named("only", &up).start().await;
    service.settled(&["only"]).await;
    let client = service.client();
    let job = json!({ "endpoint": "/v1/chat/completions", "body": ask("x") });
    let refused = client.post("/v1/jobs", &job).await;
    assert_eq!((refused.status, refused.error_code().as_str()), (503, "queue_unavailable"));
    assert_eq!(client.get("/v1/jobs/job_1").await.status, 503);
    assert_eq!(client.chat(&ask("x")).await.status, 200);
    assert_eq!(client.health(false).await["services"]["amqp"], "disabled");
}

#[tokio::test]
async fn an_address_that_is_none_is_bad_configuration() {
    let (status, said) = Service::of(BIN).env("AMQP_URL", "amqp://user:canary@host:none/").refused().await;
    assert_eq!(status.code(), Some(78), "{said}");
    assert!(said.contains("AMQP_URL") || said.contains("amqp.url"), "{said}");
    assert!(!said.contains("canary"), "{said}");
}
