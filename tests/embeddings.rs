//! Embeddings over the whole path: every dialect's vectors, one vector space, the faults of upstreams and the
//! mistakes of callers.

use std::time::{Duration, Instant};

use opossum_testkit::upstream::vector_of;
use opossum_testkit::{Answer, Script, Service, ServiceBuilder, Upstream, eventually};
use serde_json::{Value, json};

const BIN: &str = env!("CARGO_BIN_EXE_opossum");
const MODEL: &str = "text-embedding-3-small";

fn asked(model: &str, input: impl Into<Value>) -> Value {
    json!({"model": model, "input": input.into()})
}

/// A service of its own that serves [`MODEL`].
fn serving(builder: ServiceBuilder, name: &str, upstream: &Upstream) -> ServiceBuilder {
    builder.named_at(name, &upstream.openai_base_url(), MODEL)
}

/// An answer's vectors, written as numbers.
fn vectors(answer: &Answer) -> Vec<Vec<f64>> {
    assert_eq!(answer.status, 200, "{}", answer.body_text());
    let body = answer.json();
    let data: Vec<&Value> = body["data"].as_array().into_iter().flatten().collect();
    let indices: Vec<_> = data.iter().map(|item| item["index"].as_u64()).collect();
    assert_eq!(indices, (0..data.len() as u64).map(Some).collect::<Vec<_>>());
    let numbers = |item: &&Value| {
        let vector = item["embedding"].as_array().into_iter().flatten();
        vector.filter_map(Value::as_f64).collect()
    };
    data.iter().map(numbers).collect()
}

#[tokio::test]
async fn every_dialect_gives_vectors_in_the_order_of_the_inputs() {
    let gemini = Upstream::gemini().models(&["gemini-2.5-flash", "gemini-embedding-001"]).start();
    let ollama = Upstream::ollama().models(&["llama3.2:1b", "nomic-embed-text:latest"]).start();
    let openai = Upstream::openai().models(&["test-model", MODEL]).start();
    let service = Service::of(BIN).gemini(&gemini).ollama(&ollama).openai(&openai).start().await;
    service.settled(&["gemini", "ollama", "openai"]).await;
    let client = service.client();
    for (model, backend) in [
        ("gemini/gemini-embedding-001", "gemini"),
        ("ollama/nomic-embed-text:latest", "ollama"),
        ("openai/text-embedding-3-small", "openai"),
    ] {
        let several = client.embed(&asked(model, json!(["one", "three", ""]))).await;
        assert_eq!(several.status, 400, "{model}: an empty input");
        let several = client.embed(&asked(model, json!(["one", "three"]))).await;
        assert_eq!(vectors(&several), [vector_of("one", 4), vector_of("three", 4)], "{model}");
        assert_eq!((several.backend(), several.attempts()), (backend, 1));
        let single = client.embed(&asked(model, json!("four"))).await;
        assert_eq!(vectors(&single), [vector_of("four", 4)], "{model}");
        assert_eq!(single.json()["object"], "list");
        let chat = json!({"model": model, "messages": [{"role": "user", "content": "x"}]});
        let refused = client.chat(&chat).await.json();
        assert_eq!(refused["error"]["param"], "messages", "{model} does not chat: {refused}");
    }
    assert_eq!(openai.calls() + ollama.calls() + gemini.calls(), 6);
    let wrong = client.embed(&asked("openai/test-model", json!("x"))).await;
    assert_eq!((wrong.status, &wrong.json()["error"]["param"]), (400, &json!("model")), "a chat model");
}

#[tokio::test]
async fn base64_holds_what_numbers_say() {
    let up = Upstream::openai().start();
    let service = serving(Service::of(BIN), "only", &up).start().await;
    let mut body = asked(MODEL, json!("ab"));
    body["encoding_format"] = json!("base64");
    let answer = service.client().embed(&body).await;
    assert_eq!(answer.status, 200, "{}", answer.body_text());
    // 2, 196, 197 and 198 as little-endian floats.
    assert_eq!(vector_of("ab", 4), [2.0, 196.0, 197.0, 198.0]);
    assert_eq!(answer.json()["data"][0]["embedding"], "AAAAQAAAREMAAEVDAABGQw==");
    assert_eq!(answer.json()["usage"], json!({"prompt_tokens": 9, "total_tokens": 9}));
    // The form is the caller's wish, not part of the question.
    let again = service.client().embed(&asked(MODEL, json!("ab"))).await;
    assert_eq!((vectors(&again), again.header("x-opossum-cache")), (vec![vector_of("ab", 4)], Some("hit")));
    assert_eq!(up.calls(), 1);
}

#[tokio::test]
async fn dimensions_are_part_of_the_question_and_never_dropped() {
    let up = Upstream::openai().start();
    let service = serving(Service::of(BIN), "only", &up).start().await;
    let client = service.client();
    let mut body = asked(MODEL, json!("ab"));
    assert_eq!(vectors(&client.embed(&body).await)[0].len(), 4);
    body["dimensions"] = json!(2);
    let short = client.embed(&body).await;
    assert_eq!((vectors(&short), short.header("x-opossum-cache")), (vec![vector_of("ab", 2)], Some("miss")));
    assert_eq!(up.seen()[1].body["dimensions"], 2);
    // A server that takes no notice of the field.
    up.set_default(Script::json(&json!({"data": [{"index": 0, "embedding": [1, 2, 3, 4]}]})));
    body["dimensions"] = json!(3);
    let ignored = client.embed(&body).await;
    let error = &ignored.json()["error"];
    assert_eq!((ignored.status, &error["param"]), (400, &json!("dimensions")), "{error}");
    assert_eq!(error["code"], "unsupported_parameter");
}

#[tokio::test]
async fn token_ids_go_only_where_they_are_understood() {
    let ollama = Upstream::ollama().models(&["nomic-embed-text:latest"]).start();
    let up = Upstream::openai().start();
    let service = serving(Service::of(BIN).ollama(&ollama), "only", &up).start().await;
    service.settled(&["ollama"]).await;
    let client = service.client();
    let good = client.embed(&asked(MODEL, json!([[1, 2], [3]]))).await;
    assert_eq!(vectors(&good).len(), 2);
    assert_eq!(up.seen()[0].body["input"], json!([[1, 2], [3]]));
    let single = client.embed(&asked(MODEL, json!([1, 2]))).await;
    assert_eq!(vectors(&single).len(), 1, "one list of ids is one input");
    let refused = client.embed(&asked("ollama/nomic-embed-text:latest", json!([1, 2]))).await;
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("input")));
    assert_eq!(ollama.calls(), 0);
}

#[tokio::test]
async fn failing_over_stays_within_one_model() {
    let mut first = Upstream::openai().start();
    let second = Upstream::openai().start();
    let other = Upstream::openai().start();
    let builder = serving(serving(Service::of(BIN).quick(), "a", &first), "b", &second).first_choice("a");
    let builder = builder.named_at("c", &other.openai_base_url(), "bge-small");
    let service = builder.start().await;
    service.settled(&["a", "b", "c"]).await;
    let client = service.client().with("x-opossum-cache", "bypass");
    let usual = client.embed(&asked("auto", json!("x"))).await;
    assert_eq!((usual.status, usual.backend()), (200, "a"), "{}", usual.body_text());
    for (what, script) in [
        ("an error", Script::status(500)),
        ("a hang", Script::hang()),
        ("a page", Script::html()),
        ("too few", Script::json(&json!({"data": []}))),
        ("a limit", Script::status(429)),
    ] {
        first.set_default(script);
        let answer = client.embed(&asked("auto", json!("x"))).await;
        assert_eq!((answer.status, answer.backend()), (200, "b"), "{what}: {}", answer.body_text());
        assert_eq!(vectors(&answer), [vector_of("x", 4)]);
    }
    first.stop();
    second.set_default(Script::status(500));
    let gone = client.embed(&asked("auto", json!("x"))).await;
    assert!(matches!(gone.status, 502 | 503), "{}", gone.body_text());
    assert_eq!(other.calls(), 0, "vectors of another model cannot be compared with what is stored");
    // Who names the service, means its model.
    let named = client.with("x-opossum-route", "c").embed(&asked("auto", json!("x"))).await;
    assert_eq!((named.status, named.header("x-opossum-model")), (200, Some("bge-small")));
}

#[tokio::test]
async fn auto_stays_with_its_model_when_a_better_placed_one_appears() {
    let mut late = Upstream::openai().models(&["bge-small"]).start();
    let early = Upstream::openai().start();
    late.stop();
    let builder = Service::of(BIN)
        .set("services.a.kind", "\"openai\"")
        .set("services.a.base_url", format_args!("\"{}\"", late.openai_base_url()));
    let service = serving(builder, "b", &early).start().await;
    let client = service.client();
    let first = client.embed(&asked("auto", "one")).await;
    assert_eq!((first.status, first.backend()), (200, "b"), "{}", first.body_text());
    late.restart();
    service.settled(&["a", "b"]).await;
    let found = eventually(Duration::from_secs(3), async || {
        client.embed(&asked("a/bge-small", "there")).await.status == 200
    });
    assert!(found.await, "the late server's model was not found");
    let second = client.embed(&asked("auto", "two")).await;
    assert_eq!((second.status, second.backend()), (200, "b"), "{}", second.body_text());
}

#[tokio::test]
async fn without_an_embedding_model_the_caller_is_told_so() {
    let up = Upstream::openai().start();
    let service = Service::of(BIN).openai(&up).start().await;
    service.settled(&["openai"]).await;
    for model in ["auto", "openai/test-model", "test-model"] {
        let answer = service.client().embed(&asked(model, "x")).await;
        let error = &answer.json()["error"];
        assert_eq!((answer.status, &error["param"]), (400, &json!("model")), "{model}: {error}");
        assert!(error["message"].as_str().is_some_and(|text| text.contains("embeddings")), "{error}");
    }
    assert_eq!(up.calls(), 0, "a chat model must not be asked for vectors");
}

#[tokio::test]
async fn a_service_that_only_embeds_needs_no_telling_names() {
    let up = Upstream::openai().models(&["mine"]).start();
    let service = Service::of(BIN).openai(&up).env("OPENAI_SUPPORTS", "embed").start().await;
    service.settled(&["openai"]).await;
    let client = service.client();
    let answer = client.embed(&asked("auto", "x")).await;
    assert_eq!(
        (answer.status, answer.header("x-opossum-model")),
        (200, Some("mine")),
        "{}",
        answer.body_text()
    );
    let mut shorter = asked("auto", "x");
    shorter["dimensions"] = json!(2);
    let refused = client.embed(&shorter).await;
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("dimensions")));
    assert_eq!(up.calls(), 1);
}

#[tokio::test]
async fn an_alias_says_which_models_stand_in_for_each_other() {
    let (first, second) = (Upstream::openai().start(), Upstream::openai().start());
    let targets =
        r#"[{service = "a", api_name = "text-embedding-3-small"}, {service = "b", api_name = "bge-small"}]"#;
    let service = serving(Service::of(BIN).quick(), "a", &first)
        .named_at("b", &second.openai_base_url(), "bge-small")
        .set("models.vectors.targets", targets)
        .start()
        .await;
    service.settled(&["a", "b"]).await;
    let client = service.client();
    let usual = client.embed(&asked("vectors", json!("x"))).await;
    assert_eq!((usual.status, usual.backend()), (200, "a"), "{}", usual.body_text());
    first.set_default(Script::status(500));
    let other = client.embed(&asked("vectors", json!("y"))).await;
    assert_eq!((other.status, other.backend()), (200, "b"), "{}", other.body_text());
}

#[tokio::test]
async fn the_same_inputs_are_embedded_once() {
    let up = Upstream::openai().script(Script::new().delay(Duration::from_millis(200)).answer("x")).start();
    let service = serving(Service::of(BIN), "only", &up).start().await;
    let client = service.client();
    let body = asked(MODEL, json!(["a", "b"]));
    let (one, two) = tokio::join!(client.embed(&body), client.embed(&body));
    assert_eq!(vectors(&one), vectors(&two));
    let mut states = [one.header("x-opossum-cache"), two.header("x-opossum-cache")];
    states.sort_unstable();
    assert_eq!(states, [Some("hit"), Some("miss")]);
    assert_eq!(client.embed(&asked(MODEL, json!(["b", "a"]))).await.header("x-opossum-cache"), Some("miss"));
    assert_eq!(up.calls(), 2);
}

#[tokio::test]
async fn wrong_bodies_are_refused_with_their_field() {
    let up = Upstream::openai().start();
    let service = serving(Service::of(BIN), "only", &up).start().await;
    let client = service.client();
    for (body, param) in [
        (json!({"model": MODEL}), "input"),
        (json!({"model": MODEL, "input": []}), "input"),
        (json!({"model": MODEL, "input": ""}), "input"),
        (json!({"model": MODEL, "input": ["a", ""]}), "input[1]"),
        (json!({"model": MODEL, "input": ["a", 1]}), "input[1]"),
        (json!({"model": MODEL, "input": vec!["a"; 2049]}), "input"),
        (json!({"model": MODEL, "input": "a", "encoding_format": "int8"}), "encoding_format"),
        (json!({"model": MODEL, "input": "a", "dimensions": 0}), "dimensions"),
        (json!({"model": MODEL, "input": "a", "input_type": "query"}), "input_type"),
        (json!({"input": "a"}), "model"),
    ] {
        let answer = client.embed(&body).await;
        assert_eq!((answer.status, &answer.json()["error"]["param"]), (400, &json!(param)), "{body}");
    }
    let unknown = client.embed(&asked("no-such-model", json!("a"))).await;
    assert_eq!((unknown.status, &unknown.json()["error"]["code"]), (404, &json!("model_not_found")));
    let long = json!({"error": {"message": "This model's maximum context length is 8192 tokens"}});
    up.set_default(Script::body(400, "application/json", long.to_string()));
    let long = client.embed(&asked(MODEL, json!("a"))).await.json();
    assert_eq!(
        (&long["error"]["code"], &long["error"]["param"]),
        (&json!("context_length_exceeded"), &json!("input"))
    );
    assert_eq!(client.get("/v1/embeddings").await.status, 405);
    assert_eq!(up.calls(), 1);
}

#[tokio::test]
async fn a_caller_who_leaves_stops_the_upstream() {
    let up = Upstream::openai().script(Script::hang()).start();
    let service = serving(Service::of(BIN), "only", &up).set("server.max_in_flight", 1).start().await;
    let client = service.client();
    let mut conn = client.connect().await;
    let body = asked(MODEL, json!("x")).to_string();
    assert!(conn.send(&client.request("POST", "/v1/embeddings", Some(body.as_bytes()))).await.is_ok());
    assert!(up.wait_calls(1, Duration::from_secs(3)).await);
    let left = Instant::now();
    conn.leave();
    let aborted = up.wait_abort(0, Duration::from_secs(3)).await;
    assert!(aborted.is_some(), "the upstream still works for nobody");
    assert!(left.elapsed() < Duration::from_secs(1));
    up.set_default(Script::text("next"));
    assert_eq!(client.embed(&asked(MODEL, json!("y"))).await.status, 200, "the permit did not come back");
    let counted = eventually(Duration::from_secs(3), async || {
        let labels = [("endpoint", "/v1/embeddings"), ("status", "499")];
        client.metrics().await.count("opossum_requests_total", &labels) >= 1.0
    });
    assert!(counted.await, "not counted as 499");
}
