//! With every remote backend down, the embedded model answers within two seconds and says that it stands in.

use std::time::Duration;

use opossum_testkit::models::{DEFAULT_MODEL_FILE, folder_with};
use opossum_testkit::{End, Script, Service, Upstream, ask, ask_stream, eventually};
use serde_json::json;

const BIN: &str = env!("CARGO_BIN_EXE_opossum");

/// `None`, with a word about it, where the model file is not on this machine.
#[expect(clippy::print_stderr, reason = "a suite that did not run has to say so")]
fn models() -> Option<std::path::PathBuf> {
    let found = folder_with(DEFAULT_MODEL_FILE);
    if found.is_none() {
        eprintln!("not run: {DEFAULT_MODEL_FILE} is not here; `make test` fetches it");
    }
    found
}

/// One engine at a time: two on two cores would tell how long both take.
static ENGINE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test]
async fn the_embedded_model_answers_when_all_remotes_die() {
    let Some(models) = models() else { return };
    let _alone = ENGINE.lock().await;
    let mut gemini = Upstream::gemini().start();
    let mut ollama = Upstream::ollama().start();
    let service = Service::of(BIN).gemini(&gemini).ollama(&ollama).embedded(&models).start().await;
    service.settled(&["gemini", "ollama", "transformers"]).await;
    let client = service.client();
    let mut body = ask("Say hello.");
    body["max_tokens"] = json!(8);
    let remote = client.chat(&body).await;
    assert!(["gemini", "ollama"].contains(&remote.backend()), "{}", remote.backend());
    assert!(!remote.degraded());

    gemini.stop();
    ollama.stop();
    let mut streamed = ask_stream("Say hello.");
    streamed["max_tokens"] = json!(8);
    let stream = client.stream(&streamed).await.collect().await;
    assert!(stream.done() && stream.end == End::Clean && !stream.text().is_empty(), "{stream:?}");
    assert_eq!(stream.header("x-opossum-degraded"), Some("true"));
    let first = stream.events.iter().find(|event| !event.text().is_empty()).map(|event| event.at);
    assert!(first.is_some_and(|at| at < Duration::from_secs(2)), "the first token came after {first:?}");

    let answer = client.chat(&body).await;
    assert_eq!((answer.status, answer.backend()), (200, "transformers"), "{}", answer.body_text());
    assert!(answer.degraded(), "a stand-in has to say that it is one: {:?}", answer.headers);
    assert!(!answer.text().is_empty());
    assert_eq!(answer.header("x-opossum-model"), Some("smollm2-135m-instruct"));
    let usage = &answer.json()["usage"];
    assert!(usage["completion_tokens"].as_u64().is_some_and(|n| (1..=8).contains(&n)), "{usage}");

    gemini.restart();
    gemini.set_default(Script::text("back"));
    let back = eventually(Duration::from_secs(5), async || client.chat(&body).await.text() == "back");
    assert!(back.await, "the remote is back and nobody asks it");
}

#[tokio::test]
async fn alone_without_any_remote_it_is_nobodys_stand_in() {
    let Some(models) = models() else { return };
    let _alone = ENGINE.lock().await;
    let service = Service::of(BIN).embedded(&models).start().await;
    service.settled(&["transformers"]).await;
    let client = service.client();
    let mut body = ask("What is the capital of Germany?");
    body["max_tokens"] = json!(8);
    body["temperature"] = json!(0);
    let answer = client.chat(&body).await;
    assert_eq!((answer.status, answer.degraded()), (200, false), "{}", answer.body_text());
    assert!(answer.text().contains("Berlin"), "{}", answer.text());
    let metrics = client.metrics().await;
    let engine = |name: &str| metrics.sum(&format!("opossum_engine_{name}"), &[]).unwrap_or(0.0);
    assert_eq!((engine("queue_wait_seconds_count"), engine("time_to_first_token_seconds_count")), (1.0, 1.0));
    assert!(engine("batch_size_count") >= 1.0 && engine("compute_seconds_total") > 0.0, "{}", metrics.text());
    assert!(engine("kv_blocks") > engine("kv_blocks_in_use"), "{}", metrics.text());
    let models = client.get("/v1/models").await.json();
    let ids: Vec<_> =
        models["data"].as_array().into_iter().flatten().filter_map(|m| m["id"].as_str()).collect();
    assert!(ids.iter().any(|id| id.contains("smollm2-135m-instruct")), "{ids:?}");
}

#[tokio::test]
async fn a_caller_who_leaves_frees_the_embedded_engine() {
    let Some(models) = models() else { return };
    let _alone = ENGINE.lock().await;
    let service = Service::of(BIN).embedded(&models).start().await;
    service.settled(&["transformers"]).await;
    let client = service.client();
    let mut body = ask_stream("Count from one to one thousand.");
    body["max_tokens"] = json!(1500);
    let mut stream = client.stream(&body).await;
    assert!(stream.next_text().await.is_some());
    let busy = client.metrics().await.sum("opossum_engine_active_sequences", &[]);
    assert_eq!(busy, Some(1.0), "the gauge does not see the engine at work");
    stream.leave();
    let free = eventually(Duration::from_secs(2), async || {
        client.metrics().await.sum("opossum_engine_active_sequences", &[]) == Some(0.0)
    });
    assert!(free.await, "the engine still writes for nobody");
}
