//! Every request that asks for a model is in the ledger exactly once, whatever its end.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use opossum_core::answer::Usage;
use opossum_core::ids::ArmId;
use opossum_ledger::{Address, Ledger, LedgerConfig, NoObserver, UsageRecord};
use opossum_testkit::client::Conn;
use opossum_testkit::upstream::PROMPT_TOKENS;
use opossum_testkit::{Client, Script, Service, Upstream, ask, ask_stream, eventually};
use serde_json::{Value, json};

const BIN: &str = env!("CARGO_BIN_EXE_opossum");
const SOON: Duration = Duration::from_secs(20);
const PROMPT: u64 = PROMPT_TOKENS as u64;

/// The ledger of a service, opened beside it.
fn beside(service: &Service) -> Ledger {
    let address = Address::in_folder(&service.dir().join("state"));
    Ledger::start(LedgerConfig::new(address), Arc::new(NoObserver))
}

async fn rows(ledger: &Ledger) -> Vec<UsageRecord> {
    ledger.usage(0, u32::MAX).await.unwrap_or_default()
}

/// The rows by request, once there are this many.
async fn by_request(ledger: &Ledger, count: usize) -> BTreeMap<String, UsageRecord> {
    let there = eventually(SOON, async || rows(ledger).await.len() == count);
    let there = there.await;
    let rows = rows(ledger).await;
    assert!(there, "{} rows instead of {count}: {rows:#?}", rows.len());
    rows.into_iter().map(|row| (row.request_id.to_string(), row)).collect()
}

/// A client whose requests have this identity.
fn named(service: &Service, id: &str) -> Client {
    service.client().with("x-request-id", id)
}

fn exact() -> Value {
    let mut body = ask("exact");
    body["temperature"] = json!(0);
    body
}

async fn send(client: &Client, body: &Value) -> Conn {
    let mut conn = client.connect().await;
    let bytes = client.request("POST", "/v1/chat/completions", Some(body.to_string().as_bytes()));
    conn.send(&bytes).await.unwrap();
    conn
}

/// One backend with prices: half a dollar for a million tokens of prompt, two for one of answer.
async fn priced(up: &Upstream) -> Service {
    let builder = Service::of(BIN).named("only", up).quick();
    let builder = builder.env("ONLY_MAX_RETRIES", 0).env("ONLY_CIRCUIT_BREAKER_ENABLED", false);
    let builder = builder.set("routing.arms.only.price_in", 0.5).set("routing.arms.only.price_out", 2.0);
    let service = builder.set("upstream.first_token", 5).start().await;
    service.settled(&["only"]).await;
    service
}

#[tokio::test]
async fn a_row_says_what_was_asked_who_answered_and_what_it_cost() {
    let up = Upstream::openai().text("one two three").start();
    let mut service = priced(&up).await;
    let ledger = beside(&service);
    assert_eq!(named(&service, "whole").chat(&ask("x")).await.status, 200);
    assert!(named(&service, "stream").stream(&ask_stream("x")).await.collect().await.done());
    assert_eq!(named(&service, "first").chat(&exact()).await.status, 200);
    assert_eq!(named(&service, "again").chat(&exact()).await.header("x-opossum-cache"), Some("hit"));
    let mut replay = exact();
    replay["stream"] = json!(true);
    assert!(named(&service, "replay").stream(&replay).await.collect().await.done());
    let bypass = named(&service, "bypass").with("x-opossum-cache", "bypass");
    assert_eq!(bypass.chat(&exact()).await.status, 200);
    let text = json!({"model": "only/test-model", "prompt": "x"});
    assert_eq!(named(&service, "text").post("/v1/completions", &text).await.status, 200);
    // What asks for no model is no row.
    assert_eq!(named(&service, "broken").chat(&json!({"messages": []})).await.status, 400);
    assert_eq!(named(&service, "models").get("/v1/models").await.status, 200);

    let rows = by_request(&ledger, 7).await;
    let whole = &rows["whole"];
    let tokens = Usage { prompt: PROMPT, completion: 3, ..Usage::default() };
    let cost = i64::try_from(PROMPT * 500 + 3 * 2000).unwrap();
    assert_eq!((&*whole.tenant, &*whole.endpoint), ("anonymous", "/v1/chat/completions"));
    assert_eq!((&*whole.asked_model, &*whole.outcome, &*whole.cache), ("auto", "ok", "miss"));
    assert_eq!(whole.arm, Some(ArmId::new("only", "test-model")));
    assert_eq!((whole.attempts, whole.tokens, whole.cost_nano_usd), (1, Some(tokens), Some(cost)));
    assert!(whole.latency > Duration::ZERO && whole.latency < SOON, "{whole:?}");
    assert_eq!(whole.first_token, None);
    let stream = &rows["stream"];
    assert_eq!((&*stream.outcome, stream.tokens, stream.cost_nano_usd), ("ok", Some(tokens), Some(cost)));
    assert!(stream.first_token.is_some_and(|first| first <= stream.latency), "{stream:?}");
    assert_eq!((&*rows["first"].cache, rows["first"].attempts), ("miss", 1));
    for hit in ["again", "replay"] {
        let row = &rows[hit];
        assert_eq!((&*row.cache, &*row.outcome, row.attempts), ("hit", "ok", 0), "{row:?}");
        assert_eq!((row.tokens, row.cost_nano_usd), (None, Some(0)), "a stored answer costs nothing");
        assert_eq!(row.arm, whole.arm);
    }
    assert_eq!(&*rows["bypass"].cache, "bypass");
    let text = &rows["text"];
    assert_eq!((&*text.endpoint, &*text.asked_model), ("/v1/completions", "only/test-model"));

    let metrics = service.client().metrics().await;
    let written = metrics.sum("opossum_ledger_usage_rows_total", &[("result", "written")]);
    assert_eq!(written, Some(7.0));
    assert_eq!(metrics.count("opossum_ledger_failures_total", &[]), 0.0);
    assert_eq!(service.client().health(false).await["services"]["database"], "ok");
    service.terminate();
    assert!(service.wait_exit(SOON).await.is_some_and(|status| status.success()));
    assert_eq!(by_request(&ledger, 7).await.len(), 7, "no row comes twice");
}

#[tokio::test]
async fn a_request_that_fails_or_whose_caller_leaves_is_a_row_too() {
    let up = Upstream::openai().start();
    let mut service = priced(&up).await;
    let ledger = beside(&service);
    let unknown = json!({"model": "unknown", "messages": [{"role": "user", "content": "x"}]});
    assert_eq!(named(&service, "unknown").chat(&unknown).await.status, 404);
    up.push([Script::status(500)]);
    assert_eq!(named(&service, "error").chat(&ask("x")).await.status, 502);
    up.push([Script::cut_after(2)]);
    let cut = named(&service, "cut").stream(&ask_stream("x")).await.collect().await;
    assert_eq!(cut.error_code(), "upstream_truncated");
    up.push([Script::stall_after(3)]);
    let stalled = named(&service, "stalled").stream(&ask_stream("x")).await.collect().await;
    assert_eq!(stalled.error_code(), "upstream_stalled");
    up.push([Script::slow(2000, Duration::from_millis(10))]);
    let mut left = named(&service, "left").stream(&ask_stream("x")).await;
    assert!(left.next_text().await.is_some());
    left.leave();
    let calls = up.calls();
    up.push([Script::hang()]);
    let silent = send(&named(&service, "silent"), &ask("x")).await;
    assert!(up.wait_calls(calls + 1, SOON).await);
    silent.leave();

    let rows = by_request(&ledger, 6).await;
    let said = |id: &str| (&*rows[id].outcome, rows[id].attempts, rows[id].arm.is_some());
    assert_eq!(said("unknown"), ("model_not_found", 0, false));
    assert_eq!(&*rows["unknown"].asked_model, "unknown");
    assert_eq!(said("error"), ("upstream_error", 1, false));
    assert_eq!(said("cut"), ("upstream_truncated", 1, true));
    assert_eq!(said("stalled"), ("upstream_stalled", 1, true));
    assert_eq!(said("left"), ("cancelled", 1, true));
    assert_eq!(said("silent"), ("cancelled", 1, false));
    let pieces = |id: &str| rows[id].tokens.map(|tokens| tokens.completion);
    assert_eq!((pieces("cut"), pieces("stalled"), pieces("error")), (Some(2), Some(3), None));
    let unknown = |id: &str| (rows[id].tokens.map(|tokens| tokens.prompt), rows[id].cost_nano_usd);
    assert_eq!(
        (unknown("cut"), unknown("left")),
        ((Some(0), None), (Some(0), None)),
        "the backend says it at the end"
    );
    assert!(pieces("left").is_some_and(|n| (1..2000).contains(&n)), "{:?}", rows["left"]);
    service.terminate();
    assert!(service.wait_exit(SOON).await.is_some_and(|status| status.success()));
    assert_eq!(by_request(&ledger, 6).await.len(), 6);
}

#[tokio::test]
async fn the_row_of_a_request_that_went_on_names_who_answered() {
    let poor = Upstream::openai().script(Script::status(500)).start();
    let good = Upstream::openai().text("one two").start();
    let builder = Service::of(BIN).named("poor", &poor).named("good", &good).first_choice("poor");
    let service = builder.quick().start().await;
    service.settled(&["poor", "good"]).await;
    let ledger = beside(&service);
    let answer = named(&service, "id").chat(&ask("x")).await;
    assert_eq!((answer.status, answer.backend(), answer.attempts()), (200, "good", 2));
    let row = &by_request(&ledger, 1).await["id"];
    assert_eq!((row.attempts, row.arm.clone()), (2, Some(ArmId::new("good", "test-model"))));
    assert_eq!(row.cost_nano_usd, None, "no price, no cost");
}

#[tokio::test]
async fn a_request_that_is_turned_away_at_the_door_is_a_row() {
    let up = Upstream::openai().script(Script::hang()).start();
    let builder = Service::of(BIN).named("only", &up).set("server.max_in_flight", 1);
    let service = builder.set("server.queue", 0).start().await;
    service.settled(&["only"]).await;
    let ledger = beside(&service);
    let running = send(&named(&service, "running"), &ask("x")).await;
    assert!(up.wait_calls(1, SOON).await);
    assert_eq!(named(&service, "refused").chat(&ask("x")).await.error_code(), "overloaded");
    running.leave();
    let rows = by_request(&ledger, 2).await;
    assert_eq!((&*rows["refused"].outcome, rows["refused"].attempts), ("overloaded", 0));
    assert_eq!((&*rows["running"].outcome, rows["running"].attempts), ("cancelled", 1));
}

#[tokio::test]
async fn vectors_have_their_row() {
    let up = Upstream::openai().models(&["text-embedding-3-small"]).start();
    let builder = Service::of(BIN).named_at("only", &up.openai_base_url(), "text-embedding-3-small");
    let service = builder.set("routing.arms.only.price_in", 0.02).start().await;
    service.settled(&["only"]).await;
    let ledger = beside(&service);
    let body = json!({"model": "auto", "input": ["one", "two"]});
    assert_eq!(named(&service, "made").embed(&body).await.status, 200);
    assert_eq!(named(&service, "kept").embed(&body).await.status, 200);
    let rows = by_request(&ledger, 2).await;
    let made = &rows["made"];
    assert_eq!((&*made.endpoint, &*made.outcome), ("/v1/embeddings", "ok"));
    assert_eq!(made.tokens.map(|tokens| tokens.prompt), Some(PROMPT));
    assert_eq!(made.cost_nano_usd, i64::try_from(PROMPT * 20).ok(), "vectors have no price of answers");
    assert_eq!((&*rows["kept"].cache, rows["kept"].cost_nano_usd), ("hit", Some(0)));
}

#[tokio::test]
async fn rows_outlive_the_process_whether_it_stops_or_is_killed() {
    let up = Upstream::openai().text("hello").start();
    let mut service = Service::of(BIN).named("only", &up).set("server.drain_delay", 0).start().await;
    service.settled(&["only"]).await;
    for n in 0..5 {
        assert_eq!(named(&service, &format!("killed-{n}")).chat(&ask("x")).await.status, 200);
    }
    // A row waits for others for a fraction of a second; from then on it is on disk.
    by_request(&beside(&service), 5).await;
    service.kill();
    let mut service = service.restart().await;
    service.settled(&["only"]).await;
    for n in 0..5 {
        assert_eq!(named(&service, &format!("stopped-{n}")).chat(&ask("x")).await.status, 200);
    }
    service.terminate();
    assert!(service.wait_exit(SOON).await.is_some_and(|status| status.success()));
    let rows = by_request(&beside(&service), 10).await;
    assert_eq!(rows.len(), 10, "{rows:?}");
}
