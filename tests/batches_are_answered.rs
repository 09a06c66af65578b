//! Every line of a batch is answered exactly once, by what it asked, whatever dies in between; and what cannot be
//! answered is told line by line.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::time::Duration;

use opossum_testkit::form::Form;
use opossum_testkit::requester::PATIENCE;
use opossum_testkit::service::ServiceBuilder;
use opossum_testkit::temp::TempDir;
use opossum_testkit::{Broker, Client, Requester, Script, Service, Step, Upstream, ask, eventually};
use serde_json::{Value, json};

const BIN: &str = env!("CARGO_BIN_EXE_opossum");

/// RabbitMQ 3.10 may lose a queue whose node is killed within a second of its declaration.
const SETTLED: Duration = Duration::from_secs(3);

/// One broker, and a virtual host for each promise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_are_answered() {
    let mut broker = Broker::start("").await;
    tokio::join!(
        each_line_is_answered_and_told_in_its_file(&broker, 0),
        a_file_with_bad_lines_is_refused_line_by_line(&broker, 1),
        a_batch_that_is_called_off_tells_of_every_line(&broker, 2),
        a_batch_goes_on_where_a_killed_service_left_it(&broker, 3),
        another_replica_takes_over_from_a_killed_one(&broker, 4),
        a_batch_shares_no_jobs_with_other_tenants(&broker, 5),
        a_batch_outlives_a_service_that_stood_still(&broker, 7),
    );
    a_batch_waits_for_the_broker(&mut broker, 6).await;
}

/// A service with a queue and one upstream, ready for both.
async fn service(broker: &Broker, vhost: usize, builder: ServiceBuilder) -> Service {
    let service = builder.env("AMQP_URL", broker.url("opossum", vhost)).start().await;
    settled(&service).await;
    service
}

async fn settled(service: &Service) {
    let well = eventually(PATIENCE, async || {
        let health = service.client().health(false).await;
        health["services"]["amqp"] == "ok" && health["status"] == "ok"
    });
    assert!(well.await, "the queue never came up: {}", service.logs());
}

fn line(custom_id: &str, body: &Value) -> String {
    json!({ "custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body })
        .to_string()
}

fn lines(count: usize) -> String {
    (0..count).map(|n| line(&format!("r-{n}"), &ask(&format!("say {n}"))) + "\n").collect()
}

fn order(file: &Value) -> Value {
    let window = "24h";
    json!({ "input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": window })
}

/// A batch of this file, as it was answered at first.
async fn ordered(client: &Client, file: &str) -> Value {
    let uploaded = Form::batch(file.as_bytes()).upload(client).await;
    assert_eq!(uploaded.status, 200, "{}", uploaded.body_text());
    let created = client.post("/v1/batches", &order(&uploaded.json())).await;
    assert_eq!(created.status, 200, "{}", created.body_text());
    created.json()
}

async fn get(client: &Client, batch: &Value) -> Value {
    client.get(&format!("/v1/batches/{}", batch["id"].as_str().unwrap())).await.json()
}

/// The batch once it has this status.
async fn reached(service: &Service, batch: &Value, status: &str) -> Value {
    let client = service.client();
    let there = eventually(PATIENCE, async || get(&client, batch).await["status"] == status).await;
    let now = get(&client, batch).await;
    assert!(there, "not {status}: {now:#}\n{}", service.logs());
    now
}

/// The lines of a file that a batch wrote, by what their senders know them by.
async fn told(client: &Client, file: &Value) -> BTreeMap<String, Value> {
    let Some(id) = file.as_str() else { return BTreeMap::new() };
    let content = client.get(&format!("/v1/files/{id}/content")).await;
    assert_eq!(content.status, 200, "{}", content.body_text());
    let mut told = BTreeMap::new();
    for line in content.body_text().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let custom_id = line["custom_id"].as_str().unwrap().to_owned();
        assert_eq!(told.insert(custom_id, line), None, "a line is told twice");
    }
    told
}

fn said(line: &Value) -> &str {
    line["response"]["body"]["choices"][0]["message"]["content"].as_str().unwrap_or_default()
}

/// Every line `r-N` of so many was answered by what it asked.
async fn assert_all_answered(client: &Client, batch: &Value, count: usize) {
    assert_eq!(batch["request_counts"], json!({ "total": count, "completed": count, "failed": 0 }));
    assert_eq!(batch["error_file_id"], Value::Null);
    let told = told(client, &batch["output_file_id"]).await;
    assert_eq!(told.len(), count);
    for n in 0..count {
        assert_eq!(said(&told[&format!("r-{n}")]), format!("say {n}"));
    }
}

/// How often the upstream was asked each question.
fn asked(up: &Upstream) -> BTreeMap<String, usize> {
    let mut asked = BTreeMap::new();
    for seen in up.seen() {
        if let Some(question) = seen.body["messages"][0]["content"].as_str() {
            *asked.entry(question.to_owned()).or_default() += 1;
        }
    }
    asked
}

async fn each_line_is_answered_and_told_in_its_file(broker: &Broker, vhost: usize) {
    let up = Upstream::openai().script(Script::echo()).start();
    let service = service(broker, vhost, Service::of(BIN).named("only", &up)).await;
    let client = service.client();
    let wrong = json!({ "model": "auto", "messages": [], "n": 0 });
    let missing = json!({ "model": "nowhere/none", "messages": [{ "role": "user", "content": "x" }] });
    let file = lines(40) + &line("wrong", &wrong) + "\n\n" + &line("missing", &missing);
    let uploaded = Form::batch(file.as_bytes()).upload(&client).await.json();
    let mut wish = order(&uploaded);
    wish["metadata"] = json!({ "night": "ly" });
    wish["output_expires_after"] = json!({ "anchor": "created_at", "seconds": 7200 });
    let created = client.post("/v1/batches", &wish).await.json();
    assert_eq!((&created["object"], &created["status"]), (&json!("batch"), &json!("validating")));
    assert_eq!(created["expires_at"].as_i64().unwrap() - created["created_at"].as_i64().unwrap(), 86_400);
    assert_eq!((&created["metadata"]["night"], &created["errors"]), (&json!("ly"), &Value::Null));

    let done = reached(&service, &created, "completed").await;
    assert_eq!(done["request_counts"], json!({ "total": 42, "completed": 40, "failed": 2 }));
    for time in ["in_progress_at", "finalizing_at", "completed_at"] {
        assert!(done[time].is_i64(), "{time}: {done:#}");
    }
    assert_eq!((&done["failed_at"], &done["model"]), (&Value::Null, &json!("test-model")));
    assert!(done["usage"]["total_tokens"].as_u64().unwrap() > 0, "{done:#}");
    let good = told(&client, &done["output_file_id"]).await;
    for n in 0..40 {
        let line = &good[&format!("r-{n}")];
        assert_eq!(
            (said(line), &line["response"]["status_code"]),
            (format!("say {n}").as_str(), &json!(200))
        );
        assert!(line["id"].as_str().unwrap().starts_with("batch_req_"), "{line}");
        assert!(line["response"]["request_id"].as_str().unwrap().starts_with("req_"), "{line}");
        assert_eq!(line["error"], Value::Null);
    }
    let bad = told(&client, &done["error_file_id"]).await;
    assert_eq!(bad["wrong"]["response"]["status_code"], 400);
    assert_eq!(bad["wrong"]["response"]["body"]["error"]["type"], "invalid_request_error");
    assert_eq!(bad["missing"]["response"]["body"]["error"]["code"], "model_not_found");
    assert_eq!(
        asked(&up).values().sum::<usize>(),
        40,
        "each line was asked once, and those that are wrong never"
    );

    let output = client.get(&format!("/v1/files/{}", done["output_file_id"].as_str().unwrap())).await.json();
    assert_eq!(output["purpose"], "batch_output");
    assert_eq!(output["expires_at"].as_i64().unwrap() - output["created_at"].as_i64().unwrap(), 7200);
    let cancel = format!("/v1/batches/{}/cancel", created["id"].as_str().unwrap());
    assert_eq!(client.post(&cancel, &json!({})).await.json(), done, "what is over stays as it is");

    let second = ordered(&client, &lines(1)).await;
    let list = client.get("/v1/batches?limit=1").await.json();
    assert_eq!((&list["data"][0]["id"], &list["has_more"]), (&second["id"], &json!(true)));
    let rest = client.get(&format!("/v1/batches?after={}", list["last_id"].as_str().unwrap())).await.json();
    assert_eq!((&rest["data"], &rest["has_more"]), (&json!([done]), &json!(false)));

    for (field, value, code) in [
        ("input_file_id", json!("file-none"), "invalid_value"),
        ("input_file_id", done["output_file_id"].clone(), "invalid_value"),
        ("endpoint", json!("/v1/responses"), "invalid_value"),
        ("completion_window", json!("7d"), "invalid_value"),
        ("model", json!("auto"), "unsupported_parameter"),
    ] {
        let mut wish = order(&uploaded);
        wish[field] = value;
        let refused = client.post("/v1/batches", &wish).await;
        assert_eq!(
            (refused.status, refused.error_code().as_str(), refused.error_param().as_str()),
            (400, code, field)
        );
    }
    for path in ["/v1/batches/none", "/v1/batches/batch_1"] {
        assert_eq!(client.get(path).await.status, 404);
    }
    assert_eq!(client.get("/v1/batches?limit=101").await.error_param(), "limit");
}

async fn a_file_with_bad_lines_is_refused_line_by_line(broker: &Broker, vhost: usize) {
    let up = Upstream::openai().script(Script::echo()).start();
    let service = service(broker, vhost, Service::of(BIN).named("only", &up)).await;
    let good = line("a", &ask("x"));
    let file = format!("{good}\n{{\n{good}\n{}\n", good.replace("POST", "GET").replace("\"a\"", "\"b\""));
    let batch = ordered(&service.client(), &file).await;
    let failed = reached(&service, &batch, "failed").await;
    let faults: Vec<_> = failed["errors"]["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|fault| {
            (fault["code"].as_str().unwrap(), fault["line"].as_u64().unwrap(), fault["param"].as_str())
        })
        .collect();
    let wanted = [
        ("invalid_json_line", 2, None),
        ("duplicate_custom_id", 3, Some("custom_id")),
        ("invalid_method", 4, Some("method")),
    ];
    assert_eq!(faults, wanted);
    assert!(failed["failed_at"].is_i64() && failed["output_file_id"].is_null());
    assert_eq!(up.calls(), 0, "nothing of it is asked");
    let empty = ordered(&service.client(), "").await;
    assert_eq!(reached(&service, &empty, "failed").await["errors"]["data"][0]["code"], "empty_file");
}

async fn a_batch_that_is_called_off_tells_of_every_line(broker: &Broker, vhost: usize) {
    let up = Upstream::openai().first((0..3).map(|_| Script::echo())).script(Script::hang()).start();
    let builder =
        Service::of(BIN).named("only", &up).set("upstream.first_token", 600).set("upstream.total", 600);
    let service = service(broker, vhost, builder).await;
    let client = service.client();
    let batch = ordered(&client, &lines(50)).await;
    let some = eventually(PATIENCE, async || {
        get(&client, &batch).await["request_counts"]["completed"] == 3 && up.in_flight() > 0
    });
    assert!(some.await, "{:#}\n{}", get(&client, &batch).await, service.logs());
    let input = format!("/v1/files/{}", batch["input_file_id"].as_str().unwrap());
    assert_eq!(client.call("DELETE", &input, None).await.status, 400, "it is being read");
    let cancel = format!("/v1/batches/{}/cancel", batch["id"].as_str().unwrap());
    let cancelling = client.post(&cancel, &json!({})).await.json();
    assert_eq!(cancelling["status"], "cancelling");
    let over = reached(&service, &batch, "cancelled").await;
    assert!(over["cancelling_at"].is_i64() && over["cancelled_at"].is_i64());
    assert_eq!(over["request_counts"], json!({ "total": 50, "completed": 3, "failed": 0 }));
    let (good, bad) =
        (told(&client, &over["output_file_id"]).await, told(&client, &over["error_file_id"]).await);
    assert_eq!((good.len(), bad.len()), (3, 47), "every line is told of once");
    assert!(
        bad.values().all(|line| line["error"]["code"] == "batch_cancelled" && line["response"].is_null())
    );
    assert!(eventually(PATIENCE, async || up.in_flight() == 0).await, "the upstream works for nobody");
    assert_eq!(client.call("DELETE", &input, None).await.status, 200);
}

/// Lines answered so far.
async fn completed(client: &Client, batch: &Value) -> u64 {
    get(client, batch).await["request_counts"]["completed"].as_u64().unwrap_or_default()
}

async fn a_batch_goes_on_where_a_killed_service_left_it(broker: &Broker, vhost: usize) {
    const LINES: usize = 150;
    const SLOTS: usize = 8;
    let work = Script::new().delay(Duration::from_millis(30)).then(Step::Echo);
    let up = Upstream::openai().script(work).start();
    let builder = Service::of(BIN).named("only", &up).set("server.max_in_flight", SLOTS);
    let mut service = service(broker, vhost, builder).await;
    let batch = ordered(&service.client(), &lines(LINES)).await;
    let mut kills = 0;
    for goal in [1, 40, 80] {
        let client = service.client();
        let there = eventually(PATIENCE, async || completed(&client, &batch).await >= goal);
        assert!(there.await, "{}", service.logs());
        service.kill();
        kills += 1;
        service = service.restart().await;
    }
    let done = reached(&service, &batch, "completed").await;
    assert_all_answered(&service.client(), &done, LINES).await;
    let asked = asked(&up);
    let calls: usize = asked.values().sum();
    assert!(asked.len() == LINES && calls <= LINES + kills * SLOTS, "{calls} calls for {LINES} lines");
}

async fn another_replica_takes_over_from_a_killed_one(broker: &Broker, vhost: usize) {
    const LINES: usize = 120;
    let shared = TempDir::new("ledger");
    let up =
        Upstream::openai().script(Script::new().delay(Duration::from_millis(20)).then(Step::Echo)).start();
    let builder = Service::of(BIN)
        .named("only", &up)
        .set("server.max_in_flight", 4)
        .env("DATABASE_URL", format!("sqlite://{}", shared.path().join("ledger.db").display()));
    let mut first = service(broker, vhost, builder.clone()).await;
    let batch = ordered(&first.client(), &lines(LINES)).await;
    let begun = eventually(PATIENCE, async || completed(&first.client(), &batch).await > 0);
    assert!(begun.await, "{}", first.logs());
    let second = service(broker, vhost, builder).await;
    assert_eq!(get(&second.client(), &batch).await["id"], batch["id"], "replicas share batches");
    first.kill();
    let done = reached(&second, &batch, "completed").await;
    assert_all_answered(&second.client(), &done, LINES).await;
}

/// Longer than the lease of its batches: it takes up again what it still works on.
async fn a_batch_outlives_a_service_that_stood_still(broker: &Broker, vhost: usize) {
    const LINES: usize = 120;
    let work = Script::new().delay(Duration::from_millis(20)).then(Step::Echo);
    let up = Upstream::openai().script(work).start();
    let builder = Service::of(BIN).named("only", &up).set("server.max_in_flight", 4);
    let service = service(broker, vhost, builder).await;
    let client = service.client();
    let batch = ordered(&client, &lines(LINES)).await;
    assert!(eventually(PATIENCE, async || completed(&client, &batch).await > 0).await, "{}", service.logs());
    service.signal("STOP");
    tokio::time::sleep(Duration::from_secs(17)).await;
    service.signal("CONT");
    let done = reached(&service, &batch, "completed").await;
    // What the slower of two workers would do to the files of the other, it would do soon.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_all_answered(&client, &done, LINES).await;
}

async fn a_batch_shares_no_jobs_with_other_tenants(broker: &Broker, vhost: usize) {
    let up = Upstream::openai().script(Script::hang()).start();
    let builder =
        Service::of(BIN).named("only", &up).set("upstream.first_token", 600).set("upstream.total", 600);
    let service = service(broker, vhost, builder).await;
    let client = service.client();
    let acme = Requester::new(broker, "acme", vhost).await;
    let batch = ordered(&client, &lines(1)).await;
    assert!(up.wait_calls(1, PATIENCE).await);
    // Somebody guesses the identity of a line's job, cancels it and asks something else by its name.
    let id = format!("{}:0:1", batch["id"].as_str().unwrap());
    up.set_default(Script::echo());
    let cancel = json!({ "cancel": id }).to_string().into_bytes();
    let properties = acme.properties("cancel");
    let sent = acme.channel.basic_publish(
        "opossum.control".into(),
        "".into(),
        Default::default(),
        &cancel,
        properties,
    );
    sent.await.unwrap().await.unwrap();
    acme.ask(&id, &ask("of acme")).await;
    let reply = acme.reply(&id, 1).await;
    assert!(reply.status().is_some());
    assert_eq!(get(&client, &batch).await["status"], "in_progress", "it is another's job");
    assert_eq!(up.in_flight(), 1, "and it is not cancelled");
}

async fn a_batch_waits_for_the_broker(broker: &mut Broker, vhost: usize) {
    const LINES: usize = 20;
    let up = Upstream::openai().script(Script::echo()).start();
    let service = service(broker, vhost, Service::of(BIN).named("only", &up)).await;
    tokio::time::sleep(SETTLED).await;
    broker.kill();
    let batch = ordered(&service.client(), &lines(LINES)).await;
    reached(&service, &batch, "in_progress").await;
    assert_eq!(up.calls(), 0);
    broker.restart().await;
    let done = reached(&service, &batch, "completed").await;
    assert_all_answered(&service.client(), &done, LINES).await;
    assert_eq!(asked(&up).values().sum::<usize>(), LINES);
}

#[tokio::test]
async fn without_a_broker_batches_are_refused_and_files_are_not() {
    let service = Service::of(BIN).start().await;
    let client = service.client();
    let file = Form::batch(lines(1).as_bytes()).upload(&client).await;
    assert_eq!(file.status, 200);
    let refused = client.post("/v1/batches", &order(&file.json())).await;
    assert_eq!((refused.status, refused.error_code().as_str()), (503, "queue_unavailable"));
    for path in ["/v1/batches", "/v1/batches/batch_1"] {
        assert_eq!(client.get(path).await.error_code(), "queue_unavailable");
    }
    assert_eq!(client.post("/v1/batches/batch_1/cancel", &json!({})).await.status, 503);
}
