//! An embedded model whose file is not there says so, and stands in nobody's way.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use opossum_testkit::{Service, Upstream, ask, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const BIN: &str = env!("CARGO_BIN_EXE_opossum");

/// Whether the service's log has these words; it is written beside the answers, not before them.
async fn says(service: &Service, words: &str) -> bool {
    eventually(Duration::from_secs(5), async || service.logs().contains(words)).await
}

#[tokio::test]
async fn alone_it_is_a_503_that_names_the_model_and_the_service_is_not_ready() {
    let nowhere = std::env::temp_dir().join("opossum-no-models-here");
    let service = Service::of(BIN).embedded(&nowhere).start().await;
    let client = service.client();
    let answer = client.chat(&ask("x")).await;
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (503, "model_unavailable"),
        "{}",
        answer.body_text()
    );
    assert!(answer.header("retry-after").is_some_and(|wait| wait.parse::<u64>().is_ok_and(|wait| wait >= 1)));
    let unready =
        eventually(Duration::from_secs(5), async || client.get("/health/ready").await.status == 503);
    assert!(unready.await, "{:#}", client.health(false).await);
    assert_eq!(client.health(false).await["services"]["model_backends"]["transformers"], "unavailable");
    assert!(says(&service, "opossum models pull").await, "the log does not say what to do");
}

#[tokio::test]
async fn beside_a_good_backend_nobody_notices() {
    let up = Upstream::openai().text("fine").start();
    let nowhere = std::env::temp_dir().join("opossum-no-models-here");
    let service = Service::of(BIN).named("only", &up).embedded(&nowhere).start().await;
    service.settled(&["only"]).await;
    let client = service.client();
    let answer = client.chat(&ask("x")).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "fine"));
    assert!(!answer.degraded());
    assert_eq!(client.get("/health/ready").await.status, 200);
}

/// All that comes back for a `HEAD`.
async fn head(addr: std::net::SocketAddr, path: &str) -> String {
    let mut socket = tokio::net::TcpStream::connect(addr).await.unwrap();
    let request = format!("HEAD {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn get_routes_answer_head_and_hang_ups_end_nothing() {
    let up = Upstream::openai().text("fine").start();
    let service = Service::of(BIN).named("only", &up).start().await;
    service.settled(&["only"]).await;
    let client = service.client();
    for path in ["/health", "/health/live", "/v1/models", "/metrics"] {
        let head = head(service.addr(), path).await;
        assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{path}: {head}");
    }
    service.signal("HUP");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(client.chat(&ask("x")).await.status, 200);
    assert_eq!(client.get("/v1/models/test-model").await.status, 200);
}

#[tokio::test]
async fn an_encoder_that_is_not_there_is_a_503_of_its_own_and_no_fault_of_the_service() {
    let up = Upstream::openai().text("fine").start();
    let nowhere = std::env::temp_dir().join("opossum-no-models-here");
    let service = Service::of(BIN).named("only", &up).embedded(&nowhere).start().await;
    service.settled(&["only"]).await;
    let client = service.client();
    let ids = client.get("/v1/models").await.json();
    let ids: Vec<_> = ids["data"].as_array().into_iter().flatten().filter_map(|m| m["id"].as_str()).collect();
    assert!(ids.contains(&"transformers/all-minilm-l6-v2"), "{ids:?}");
    let answer = client.embed(&serde_json::json!({"model": "auto", "input": "x"})).await;
    assert_eq!((answer.status, answer.error_code().as_str()), (503, "model_unavailable"));
    assert!(says(&service, "opossum models pull all-minilm-l6-v2").await, "the log says not what to do");
    assert_eq!(client.chat(&ask("x")).await.status, 200);
    let off = Service::of(BIN).embedded(&nowhere).env("TRANSFORMERS_EMBEDDING_MODEL", "none").start().await;
    let answer = off.client().embed(&serde_json::json!({"model": "auto", "input": "x"})).await;
    assert_eq!((answer.status, &answer.json()["error"]["param"]), (400, &serde_json::json!("model")));
}
