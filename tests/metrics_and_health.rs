//! What operators look at: health, liveness, readiness and metrics, by the names that are promised.

use std::time::Duration;

use opossum_testkit::{RefusedAddr, Script, Service, Upstream, ask, ask_stream, eventually};
use serde_json::json;

const BIN: &str = env!("CARGO_BIN_EXE_opossum");

#[tokio::test]
async fn health_has_its_shape_and_tells_what_is_down() {
    let gemini = Upstream::gemini().start();
    let mut ollama = Upstream::ollama().start();
    let service = Service::of(BIN).gemini(&gemini).ollama(&ollama).start().await;
    service.settled(&["gemini", "ollama"]).await;
    let client = service.client();
    let health = client.health(true).await;
    assert_eq!(health["status"], "ok", "{health:#}");
    assert!(health["version"].as_str().is_some_and(|v| v.starts_with(env!("CARGO_PKG_VERSION"))));
    assert!(health["timestamp"].as_str().is_some_and(|t| t.contains('T')), "{health:#}");
    let services = &health["services"];
    for name in ["redis", "amqp"] {
        assert_eq!(services[name], "disabled", "{health:#}");
    }
    assert_eq!(services["model_backends"]["gemini"], "available");

    ollama.stop();
    let health = client.health(true).await;
    assert_eq!(health["status"], "degraded", "{health:#}");
    assert_eq!(health["services"]["model_backends"]["ollama"], "unavailable");
    assert_eq!(health["services"]["model_backends"]["gemini"], "available");
    let metrics = client.metrics().await;
    assert_eq!(metrics.sum("opossum_service_availability", &[("service_name", "ollama")]), Some(0.0));
    assert_eq!(metrics.sum("opossum_service_availability", &[("service_name", "gemini")]), Some(1.0));

    ollama.restart();
    let up = eventually(Duration::from_secs(5), async || client.health(true).await["status"] == "ok");
    assert!(up.await);
}

#[tokio::test]
async fn health_never_waits_for_a_slow_dependency() {
    let slow = Upstream::openai().probe(Script::hang()).start();
    let service = Service::of(BIN).named("slow", &slow).start().await;
    for path in ["/health", "/health/live", "/health/ready", "/metrics"] {
        let answer = service.client().get(path).await;
        assert!(answer.elapsed < Duration::from_millis(200), "{path}: {:?}", answer.elapsed);
    }
    assert_eq!(service.client().get("/health").await.status, 200);
}

#[tokio::test]
async fn a_service_without_a_usable_backend_is_alive_and_degraded() {
    let refused = RefusedAddr::new();
    let service = Service::of(BIN).named_at("gone", &format!("{}/v1", refused.base_url()), "m").start().await;
    let client = service.client();
    assert_eq!(client.get("/health/live").await.status, 200);
    let degraded =
        eventually(Duration::from_secs(5), async || client.health(false).await["status"] == "degraded");
    assert!(degraded.await);
    let answer = client.chat(&ask("x")).await;
    assert_eq!(answer.error_code(), "backends_unavailable");
}

#[tokio::test]
async fn the_promised_metrics_are_there_and_well_formed() {
    let up = Upstream::openai().text("one two three").start();
    let service = Service::of(BIN).named("only", &up).start().await;
    service.settled(&["only"]).await;
    let client = service.client();
    let mut exact = ask("x");
    exact["temperature"] = json!(0);
    for _ in 0..2 {
        assert_eq!(client.chat(&exact).await.status, 200);
    }
    assert!(client.stream(&ask_stream("y")).await.collect().await.done());
    assert_eq!(client.chat(&json!({})).await.status, 400);

    let counted = eventually(Duration::from_secs(2), async || {
        let good = [("method", "POST"), ("endpoint", "/v1/chat/completions"), ("status", "200")];
        client.metrics().await.sum("opossum_requests_total", &good) == Some(3.0)
    });
    assert!(counted.await, "{}", client.metrics().await.text());
    let metrics = client.metrics().await;
    let chat = ("endpoint", "/v1/chat/completions");
    assert_eq!(metrics.sum("opossum_requests_total", &[chat, ("status", "400")]), Some(1.0));
    assert_eq!(metrics.sum("opossum_response_time_seconds_count", &[("method", "POST"), chat]), Some(4.0));
    assert!(metrics.sum("opossum_model_usage_total", &[]).is_some_and(|n| n >= 2.0));
    assert_eq!(metrics.sum("opossum_cache_hits_total", &[("cache_type", "exact")]), Some(1.0));
    assert!(metrics.sum("opossum_cache_misses_total", &[("cache_type", "exact")]).is_some());
    assert_eq!(metrics.sum("opossum_service_availability", &[("service_name", "only")]), Some(1.0));

    let families = metrics.families();
    assert!(families.len() >= 15, "{families:?}");
    for name in
        ["batch_size", "queue_wait_seconds", "time_to_first_token_seconds", "tokens_total", "kv_blocks"]
    {
        assert!(
            metrics.has_help(&format!("opossum_engine_{name}")),
            "nothing of the embedded engine's {name}"
        );
    }
    for (name, kind) in families {
        assert!(metrics.has_help(name), "{name} has no help");
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
        assert!(!name.contains("milli") && !name.contains("_ms"), "{name} is not in base units");
    }
}

#[tokio::test]
async fn a_caller_cannot_create_series() {
    let up = Upstream::openai().start();
    let service = Service::of(BIN).named("only", &up).start().await;
    service.settled(&["only"]).await;
    let client = service.client();
    let before = client.metrics().await.series("opossum_requests_total");
    for i in 0..50 {
        let mut body = ask("x");
        body["model"] = json!(format!("invented-{i}"));
        assert_eq!(client.chat(&body).await.status, 404);
        assert_eq!(client.get(&format!("/v1/invented/{i}")).await.status, 404);
        client.call("BREW", "/v1/chat/completions", None).await;
    }
    let metrics = client.metrics().await;
    assert!(!metrics.text().contains("invented") && !metrics.text().contains("BREW"));
    let more = metrics.series("opossum_requests_total") - before;
    assert!(more < 10, "{more} more: {}", metrics.text());
}

#[tokio::test]
async fn a_request_keeps_its_id_and_gets_one_where_it_has_none() {
    let up = Upstream::openai().start();
    let service = Service::of(BIN).named("only", &up).start().await;
    service.settled(&["only"]).await;
    let own = service.client().with("x-request-id", "my-id-1").chat(&ask("x")).await;
    assert_eq!(own.header("x-request-id"), Some("my-id-1"));
    let made = service.client().chat(&ask("x")).await;
    assert!(made.header("x-request-id").is_some_and(|id| id.len() >= 16));
    let evil = service.client().with("x-request-id", "a b\u{7f}").chat(&ask("x")).await;
    assert_ne!(evil.header("x-request-id"), Some("a b\u{7f}"));
}

#[tokio::test]
async fn every_answer_says_where_it_comes_from() {
    let up = Upstream::openai().start();
    let service = Service::of(BIN).named("only", &up).start().await;
    service.settled(&["only"]).await;
    let whole = service.client().chat(&ask("x")).await;
    let stream = service.client().stream(&ask_stream("y")).await;
    for name in [
        "x-request-id",
        "x-opossum-backend",
        "x-opossum-model",
        "x-opossum-attempts",
        "x-opossum-cache",
        "server-timing",
    ] {
        assert!(whole.header(name).is_some(), "whole: no {name}: {:?}", whole.headers);
        assert!(stream.header(name).is_some(), "streamed: no {name}");
    }
    assert_eq!((whole.backend(), whole.attempts()), ("only", 1));
    assert_eq!(whole.header("x-opossum-model"), Some("test-model"));
    assert!(stream.header("content-type").is_some_and(|t| t.starts_with("text/event-stream")));
}
