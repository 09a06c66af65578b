//! With no remote backend at all, the embedded encoder embeds.

use std::time::Duration;

use opossum_testkit::models::{DEFAULT_ENCODER_FILE, folder_with};
use opossum_testkit::{Answer, Script, Service, ServiceBuilder, Upstream, eventually};
use serde_json::{Value, json};

const BIN: &str = env!("CARGO_BIN_EXE_opossum");
const PINNED: &str = "transformers/all-minilm-l6-v2";

/// `None`, with a word about it, where the model is not on this machine.
#[expect(clippy::print_stderr, reason = "a suite that did not run has to say so")]
fn service() -> Option<ServiceBuilder> {
    let found = folder_with(DEFAULT_ENCODER_FILE);
    if found.is_none() {
        eprintln!("not run: {DEFAULT_ENCODER_FILE} is not here; `make test` fetches it");
    }
    Some(Service::of(BIN).embedded(&found?))
}

fn asked(model: &str, input: impl Into<Value>) -> Value {
    json!({"model": model, "input": input.into()})
}

fn vectors(answer: &Answer) -> Vec<Vec<f64>> {
    assert_eq!(answer.status, 200, "{}", answer.body_text());
    let numbers = |item: &Value| {
        item["embedding"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect::<Vec<_>>()
    };
    answer.json()["data"].as_array().into_iter().flatten().map(numbers).collect()
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

#[tokio::test]
async fn texts_of_one_meaning_lie_close_together() {
    let Some(service) = service() else { return };
    let service = service.start().await;
    let texts = ["A cat sits on the mat.", "A kitten rests on a rug.", "Interest rates rose again."];
    let answer = service.client().embed(&asked("auto", texts.to_vec())).await;
    let found = vectors(&answer);
    assert_eq!((found.len(), found[0].len()), (3, 384));
    assert_eq!((answer.backend(), answer.degraded()), ("transformers", false));
    assert_eq!(answer.header("x-opossum-model"), Some("all-minilm-l6-v2"));
    for vector in &found {
        assert!((cosine(vector, vector) - 1.0).abs() < 1e-5, "not of unit length");
    }
    let (near, far) = (cosine(&found[0], &found[1]), cosine(&found[0], &found[2]));
    assert!(near > 0.4 && far < 0.2, "near {near}, far {far}");
    assert!(answer.json()["usage"]["prompt_tokens"].as_u64().is_some_and(|n| (20..40).contains(&n)));
    // Alone or in company, a text has the same vector.
    let alone = vectors(&service.client().embed(&asked(PINNED, texts[1])).await);
    assert!(cosine(&alone[0], &found[1]) > 0.9999);
}

#[tokio::test]
async fn what_it_cannot_do_is_refused_by_name() {
    let Some(service) = service() else { return };
    let service = service.start().await;
    let client = service.client();
    let mut shorter = asked(PINNED, "x");
    shorter["dimensions"] = json!(64);
    let error = client.embed(&shorter).await.json();
    assert_eq!(
        (&error["error"]["param"], &error["error"]["code"]),
        (&json!("dimensions"), &json!("unsupported_parameter"))
    );
    let long = client.embed(&asked(PINNED, "word ".repeat(2000))).await;
    let error = &long.json()["error"];
    assert_eq!((long.status, &error["code"]), (400, &json!("context_length_exceeded")), "{error}");
    assert_eq!(error["param"], "input");
    let tokens = client.embed(&asked(PINNED, json!([[101, 7592, 102]]))).await;
    assert_eq!(vectors(&tokens).len(), 1);
    let unknown = client.embed(&asked(PINNED, json!([[4_000_000]]))).await;
    assert_eq!(unknown.status, 400, "{}", unknown.body_text());
}

#[tokio::test]
async fn it_stands_in_for_a_server_of_the_same_model_only() {
    let Some(service) = service() else { return };
    let up = Upstream::openai().start();
    let service = service.quick().named_at("a", &up.openai_base_url(), "all-MiniLM-L6-v2").start().await;
    service.settled(&["a"]).await;
    let client = service.client();
    assert_eq!(client.embed(&asked("auto", "one")).await.backend(), "a");
    up.set_default(Script::status(500));
    let stood_in = eventually(Duration::from_secs(10), async || {
        let answer = client.embed(&asked("auto", "two")).await;
        answer.status == 200 && answer.backend() == "transformers" && answer.degraded()
    });
    assert!(stood_in.await, "the embedded encoder did not stand in");
}
