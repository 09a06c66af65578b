//! A panic costs the one request that caused it: the actor is back within 100 ms, nobody else notices.

use std::time::{Duration, Instant};

use opossum_testkit::models::{DEFAULT_MODEL_FILE, folder_with};
use opossum_testkit::{Script, Service, Upstream, ask, ask_stream, eventually};
use serde_json::json;

const BIN: &str = env!("CARGO_BIN_EXE_opossum");
const ACTORS: [&str; 4] = ["breaker", "cache", "router", "monitor"];

async fn serve(up: &Upstream) -> Service {
    let service = Service::of(BIN).named("only", up).env("OPOSSUM_TEST_HOOKS", "1").start().await;
    service.settled(&["only"]).await;
    service
}

/// Restarts so far of all actors whose name begins so.
async fn restarts(service: &Service, actor: &str) -> (u64, bool) {
    let health = service.client().health(false).await;
    let actors = health["actors"].as_object().cloned().unwrap_or_default();
    let mine = actors.iter().filter(|(name, _)| name.starts_with(actor));
    let (mut count, mut alive) = (0, true);
    for (_, state) in mine {
        count += state["restarts"].as_u64().unwrap_or(0);
        alive &= state["alive"] == true;
    }
    (count, alive)
}

#[tokio::test]
async fn a_panic_in_any_actor_is_not_seen_by_others_and_it_is_back_at_once() {
    let up = Upstream::openai().script(Script::new().delay(Duration::from_millis(20)).answer("fine")).start();
    let service = serve(&up).await;
    for actor in ACTORS {
        let client = service.client();
        let (before, _) = restarts(&service, actor).await;
        let asked = (0..30).map(|i| {
            let client = client.clone();
            async move {
                let mut body = ask(&format!("{actor} {i}"));
                body["temperature"] = json!(0);
                client.chat(&body).await.status
            }
        });
        let poisoning = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let poisoned = client.post(&format!("/debug/poison/{actor}"), &json!({})).await;
            (poisoned.status, Instant::now())
        };
        let (statuses, (poisoned, at)) = tokio::join!(futures::future::join_all(asked), poisoning);
        assert!((200..300).contains(&poisoned), "{actor}: the hook answered {poisoned}");
        assert!(statuses.iter().all(|s| *s == 200), "{actor}: {statuses:?}");
        let back = eventually(Duration::from_secs(2), async || {
            let (count, alive) = restarts(&service, actor).await;
            count > before && alive
        });
        assert!(back.await, "{actor} is not back");
        assert!(at.elapsed() < Duration::from_millis(500), "{actor}: {:?}", at.elapsed());
        assert_eq!(client.chat(&ask(&format!("after {actor}"))).await.status, 200);
    }
    let metrics = service.client().metrics().await;
    assert!(metrics.count("opossum_actor_restarts_total", &[]) >= ACTORS.len() as f64);
}

#[tokio::test]
async fn a_panic_in_a_handler_is_a_500_to_that_request_only() {
    let up = Upstream::openai().script(Script::slow(20, Duration::from_millis(20))).start();
    let service = serve(&up).await;
    let client = service.client();
    let mut stream = client.stream(&ask_stream("x")).await;
    assert!(stream.next_text().await.is_some());
    let answer = client.post("/debug/poison/handler", &json!({})).await;
    assert_eq!((answer.status, answer.error_code().as_str()), (500, "internal_error"));
    assert!(!answer.body_text().contains("panicked"), "{}", answer.body_text());
    assert!(stream.collect().await.done(), "another request was cut by the panic");
}

#[tokio::test]
async fn a_panic_in_the_inference_actor_does_not_stop_the_embedded_model() {
    let Some(models) = folder_with(DEFAULT_MODEL_FILE) else { return };
    let service = Service::of(BIN).embedded(&models).env("OPOSSUM_TEST_HOOKS", "1").start().await;
    service.settled(&["transformers"]).await;
    let client = service.client();
    let mut body = ask_stream("Count from one to twenty.");
    body["max_tokens"] = json!(24);
    let mut stream = client.stream(&body).await;
    assert!(stream.next_text().await.is_some());
    let poisoned = client.post("/debug/poison/inference", &json!({})).await;
    assert_eq!(poisoned.status, 200, "{}", poisoned.body_text());
    assert!(stream.collect().await.done(), "tokens do not pass through the actor");
    assert_eq!(client.chat(&ask("Say hello.")).await.status, 200);
    let (count, alive) = restarts(&service, "inference").await;
    assert!(count >= 1 && alive);
}

#[tokio::test]
async fn ten_panics_in_a_row_leave_no_mailbox_closed() {
    let up = Upstream::openai().text("fine").start();
    let service = serve(&up).await;
    let client = service.client();
    for actor in ACTORS {
        for _ in 0..10 {
            client.post(&format!("/debug/poison/{actor}"), &json!({})).await;
        }
    }
    let well = eventually(Duration::from_secs(10), async || {
        let health = client.health(false).await;
        health["actors"].as_object().is_some_and(|all| all.values().all(|a| a["alive"] == true))
    });
    assert!(well.await, "{:#}", client.health(false).await);
    assert_eq!(client.chat(&ask("x")).await.status, 200);
}

#[tokio::test]
async fn without_the_hook_switched_on_nothing_can_be_poisoned() {
    let service = Service::of(BIN).start().await;
    let answer = service.client().post("/debug/poison/router", &json!({})).await;
    assert_eq!((answer.status, answer.error_code().as_str()), (404, "not_found"));
}
