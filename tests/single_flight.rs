//! Identical questions are asked once: while in flight, and afterwards out of the cache.

use std::time::Duration;

use opossum_testkit::{Client, Script, Service, Upstream, ask, ask_stream};
use serde_json::{Value, json};

const BIN: &str = env!("CARGO_BIN_EXE_opossum");

fn exact(mut body: Value) -> Value {
    body["temperature"] = json!(0);
    body
}

async fn serve(up: &Upstream) -> Service {
    let service = Service::of(BIN).named("only", up).env("ONLY_MAX_RETRIES", 0).start().await;
    service.settled(&["only"]).await;
    service
}

fn slow(text: &str) -> Script {
    Script::new().delay(Duration::from_millis(300)).answer(text)
}

#[tokio::test]
async fn a_hundred_identical_questions_in_flight_cost_one_call() {
    let up = Upstream::openai().script(slow("once")).start();
    let service = serve(&up).await;
    let body = exact(ask("same"));
    let answers = futures::future::join_all((0..100).map(|_| {
        let (client, body) = (service.client(), body.clone());
        async move { client.chat(&body).await }
    }))
    .await;
    assert!(answers.iter().all(|a| a.status == 200 && a.text() == "once"));
    assert_eq!(up.calls(), 1);
    let mut ids: Vec<_> = answers.iter().map(|a| a.json()["id"].to_string()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 100, "an answer carries its own request's id");
}

#[tokio::test]
async fn a_repeated_question_is_answered_out_of_the_cache_and_says_so() {
    let up = Upstream::openai().text("stored").start();
    let service = serve(&up).await;
    let client = service.client();
    let body = exact(ask("same"));
    let first = client.chat(&body).await;
    let second = client.chat(&body).await;
    assert_eq!(first.header("x-opossum-cache"), Some("miss"));
    assert_eq!(second.header("x-opossum-cache"), Some("hit"));
    assert_eq!((second.text().as_str(), up.calls()), ("stored", 1));
    assert_ne!(first.json()["id"], second.json()["id"]);
    assert_eq!(first.json()["usage"], second.json()["usage"]);
    let streamed = client.stream(&exact(ask_stream("same"))).await.collect().await;
    assert_eq!((streamed.text().as_str(), streamed.done()), ("stored", true));
    assert_eq!(streamed.header("x-opossum-cache"), Some("hit"), "whole and streamed are one answer");
    assert_eq!(up.calls(), 1);
    let metrics = client.metrics().await;
    assert_eq!(metrics.sum("opossum_cache_hits_total", &[("cache_type", "exact")]), Some(2.0));
    assert_eq!(metrics.sum("opossum_cache_misses_total", &[("cache_type", "exact")]), Some(1.0));
}

#[tokio::test]
async fn a_streamed_answer_is_cached_too() {
    let up = Upstream::openai().text("a streamed answer").start();
    let service = serve(&up).await;
    let stream = service.client().stream(&exact(ask_stream("same"))).await.collect().await;
    assert!(stream.done());
    let whole = service.client().chat(&exact(ask("same"))).await;
    assert_eq!((whole.text().as_str(), whole.header("x-opossum-cache")), ("a streamed answer", Some("hit")));
    assert_eq!(up.calls(), 1);
}

#[tokio::test]
async fn bypass_and_refresh_do_what_they_say() {
    let up = Upstream::openai().text("old").start();
    let service = serve(&up).await;
    let body = exact(ask("same"));
    let cached = |client: Client| {
        let body = body.clone();
        async move {
            let answer = client.chat(&body).await;
            (answer.text(), answer.header("x-opossum-cache").unwrap_or_default().to_owned())
        }
    };
    let plain = service.client();
    assert_eq!(cached(plain.clone()).await.0, "old");
    up.set_default(Script::text("new"));
    let bypass = cached(plain.clone().with("x-opossum-cache", "bypass")).await;
    assert_eq!(bypass, ("new".to_owned(), "bypass".to_owned()));
    assert_eq!(cached(plain.clone()).await, ("old".to_owned(), "hit".to_owned()), "a bypass stores nothing");
    assert_eq!(cached(plain.clone().with("x-opossum-cache", "refresh")).await.0, "new");
    assert_eq!(cached(plain).await, ("new".to_owned(), "hit".to_owned()), "a refresh replaces");
    assert_eq!(up.calls(), 3);
}

#[tokio::test]
async fn an_answer_that_would_differ_each_time_is_not_stored() {
    let up = Upstream::openai().text("dice").start();
    let service = serve(&up).await;
    let mut warm = ask("same");
    warm["temperature"] = json!(0.8);
    for _ in 0..2 {
        assert_eq!(service.client().chat(&warm).await.header("x-opossum-cache"), Some("miss"));
    }
    assert_eq!(up.calls(), 2);
    let mut seeded = warm.clone();
    seeded["seed"] = json!(7);
    service.client().chat(&seeded).await;
    assert_eq!(service.client().chat(&seeded).await.header("x-opossum-cache"), Some("hit"));
    assert_eq!(up.calls(), 3);
}

#[tokio::test]
async fn everything_that_changes_the_answer_is_part_of_the_key() {
    let up = Upstream::openai().text("fine").start();
    let service = serve(&up).await;
    let base = exact(ask("same"));
    let change = |field: &str, value: Value| {
        let mut body = base.clone();
        body[field] = value;
        body
    };
    let tool = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]);
    let variants = vec![
        base.clone(),
        change("max_tokens", json!(5)),
        change("top_p", json!(0.5)),
        change("seed", json!(1)),
        change("stop", json!(["x"])),
        change("tools", tool),
        change("response_format", json!({"type": "json_object"})),
        change("model", json!("only/test-model")),
        change("messages", json!([{"role": "user", "content": "same "}])),
        change(
            "messages",
            json!([{"role": "system", "content": "same"}, {"role": "user", "content": "same"}]),
        ),
    ];
    for (i, body) in variants.iter().enumerate() {
        let answer = service.client().chat(body).await;
        assert_eq!(answer.status, 200, "{body}: {}", answer.body_text());
        assert_eq!(answer.header("x-opossum-cache"), Some("miss"), "{body}");
        assert_eq!(up.calls(), i + 1);
    }
    // The order of fields is no part of the question.
    let reordered = r#"{"temperature":0,"messages":[{"content":"same","role":"user"}],"model":"auto"}"#;
    let answer = service.client().call("POST", "/v1/chat/completions", Some(reordered.as_bytes())).await;
    assert_eq!(answer.header("x-opossum-cache"), Some("hit"));
}

#[tokio::test]
async fn errors_and_halves_are_never_stored() {
    let half = Script::cut_after(2);
    let up = Upstream::openai().text("whole").first([Script::status(500), half]).start();
    let service = serve(&up).await;
    let client = service.client();
    assert_eq!(client.chat(&exact(ask("same"))).await.status, 502);
    let cut = client.stream(&exact(ask_stream("same"))).await.collect().await;
    assert!(!cut.has_done());
    let good = client.chat(&exact(ask("same"))).await;
    assert_eq!((good.text().as_str(), good.header("x-opossum-cache")), ("whole", Some("miss")));
    assert_eq!(up.calls(), 3);
}

#[tokio::test]
async fn followers_are_answered_though_the_first_caller_leaves() {
    let up = Upstream::openai().script(slow("for the others")).start();
    let service = serve(&up).await;
    let client = service.client();
    let body = exact(ask("same"));
    let mut leader = client.connect().await;
    let bytes = client.request("POST", "/v1/chat/completions", Some(body.to_string().as_bytes()));
    assert!(leader.send(&bytes).await.is_ok());
    assert!(up.wait_calls(1, Duration::from_secs(2)).await);
    let followers = futures::future::join_all((0..10).map(|_| {
        let (client, body) = (client.clone(), body.clone());
        async move { client.chat(&body).await }
    }));
    let leaving = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        leader.leave();
    };
    let (answers, ()) = tokio::join!(followers, leaving);
    assert!(answers.iter().all(|a| a.status == 200 && a.text() == "for the others"), "{answers:?}");
    assert!(up.calls() <= 2, "one follower asks again at most, not each: {}", up.calls());
}

#[tokio::test]
async fn a_leader_that_fails_does_not_fail_its_followers_for_ever() {
    let failing = Script::new().delay(Duration::from_millis(200)).then(opossum_testkit::Step::Reset);
    let up = Upstream::openai().text("second time").first([failing]).start();
    let service = serve(&up).await;
    let body = exact(ask("same"));
    let answers = futures::future::join_all((0..10).map(|_| {
        let (client, body) = (service.client(), body.clone());
        async move { client.chat(&body).await.status }
    }))
    .await;
    let failed = answers.iter().filter(|s| **s != 200).count();
    assert!(failed <= 1, "one leader's failure is its own: {answers:?}");
    assert!(up.calls() <= 3, "{} calls", up.calls());
}
