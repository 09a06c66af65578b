//! Model files that lie, break or vanish, and an engine that fails: a typed error each time, the process lives, and the
//! next request is answered.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use opossum_testkit::models::{ChangedModel, DEFAULT_MODEL_FILE, folder_with};
use opossum_testkit::temp::TempDir;
use opossum_testkit::{Client, Service, Upstream, ask, ask_stream, eventually};
use serde_json::{Value, json};

const BIN: &str = env!("CARGO_BIN_EXE_opossum");

/// Seeds of a fuzz target; those whose name begins with `lie-` are not what they say.
fn seeds(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn lies(target: &str) -> Vec<PathBuf> {
    let lies = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("lie-");
    let found: Vec<PathBuf> = seeds(target).into_iter().filter(lies).collect();
    assert!(found.len() >= 8, "{found:?}");
    found
}

fn verify(path: &Path) -> Output {
    let mut command = Command::new(BIN);
    command.args(["models", "verify"]).arg(path).env_clear().current_dir(std::env::temp_dir());
    command.output().unwrap()
}

/// `None`, with a word about it, where the default model is not on this machine.
fn changed() -> Option<ChangedModel> {
    let copy = ChangedModel::copy();
    if copy.is_none() {
        eprintln!("not run: {DEFAULT_MODEL_FILE} is not here; `make test` fetches it");
    }
    copy
}

/// A few greedy words about anything, from the embedded model.
fn short() -> Value {
    let mut body = ask("Say hello.");
    body["max_tokens"] = json!(4);
    // Next to greedy, and yet not stored: each answer is the engine's own.
    body["temperature"] = json!(1e-5);
    body
}

async fn completion(client: &Client) -> opossum_testkit::Answer {
    let body = json!({"model": "auto", "prompt": "Once upon a time", "max_tokens": 4});
    client.post("/v1/completions", &body).await
}

/// Fault L1, on the command line.
#[test]
fn a_file_that_lies_is_refused_with_a_reason() {
    let folder = TempDir::new("hostile");
    for (index, seed) in lies("gguf").into_iter().chain(lies("safetensors")).enumerate() {
        let model = folder.path().join(index.to_string());
        std::fs::create_dir(&model).unwrap();
        let is_folder = seed.parent().unwrap().ends_with("safetensors");
        let file = model.join(if is_folder { "model.safetensors" } else { "model.gguf" });
        std::fs::copy(&seed, &file).unwrap();
        let refused = verify(if is_folder { &model } else { &file });
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{}: {said}", seed.display());
        assert!(said.contains("refused: ") && !said.contains("panicked"), "{}: {said}", seed.display());
    }
}

/// Fault L1, in the service.
#[tokio::test]
async fn a_service_told_to_run_a_file_that_lies_says_so_and_lives() {
    for name in ["lie-product-wraps", "lie-truncated-data", "lie-entries-2e63"] {
        let folder = TempDir::new("hostile");
        let model = folder.path().join("model.gguf");
        let seed = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/gguf").join(name);
        std::fs::copy(seed, &model).unwrap();
        let service = Service::of(BIN).embedded_file(&model).start().await;
        let answer = service.client().chat(&short()).await;
        assert_eq!((answer.status, answer.error_code().as_str()), (503, "model_unavailable"), "{name}");
        assert!(
            !answer.body_text().contains("tensor"),
            "the file's text reached a caller: {}",
            answer.body_text()
        );
        assert_eq!(service.client().get("/health/live").await.status, 200);
        let why = "the model file is invalid";
        let said = eventually(Duration::from_secs(5), async || service.logs().contains(why));
        assert!(said.await, "{name}: {}", service.logs());
    }
}

/// Fault L1, for the encoder.
#[tokio::test]
async fn a_folder_that_lies_embeds_nothing_and_the_rest_goes_on() {
    let folder = TempDir::new("hostile");
    let model = folder.path().join("encoder");
    std::fs::create_dir(&model).unwrap();
    std::fs::copy(&lies("safetensors")[0], model.join("model.safetensors")).unwrap();
    for name in ["tokenizer.json", "config.json"] {
        std::fs::write(model.join(name), "{}").unwrap();
    }
    let up = Upstream::openai().text("fine").start();
    let service = Service::of(BIN).named("only", &up).embedded(folder.path());
    let service = service.env("TRANSFORMERS_EMBEDDING_MODEL", model.display()).start().await;
    service.settled(&["only"]).await;
    let client = service.client().limit(Duration::from_secs(60));
    let answer = client.embed(&json!({"model": "transformers/encoder", "input": "x"})).await;
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (503, "model_unavailable"),
        "{}",
        answer.body_text()
    );
    assert_eq!(client.chat(&ask("x")).await.status, 200);
}

/// Fault L2.
#[tokio::test]
async fn a_template_without_end_is_an_error_of_that_request_only() {
    for (name, template) in [
        ("ranges", "{% for a in range(9999) %}{% for b in range(9999) %}{{ b }}{% endfor %}{% endfor %}"),
        (
            "growth",
            "{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(64) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}",
        ),
        ("missing", "{{ nothing.at.all }}"),
    ] {
        let Some(model) = changed() else { return };
        let model = model.with_template(template);
        let service = Service::of(BIN).embedded_file(&model.path()).start().await;
        service.settled(&["transformers"]).await;
        let client = service.client().limit(Duration::from_secs(60));
        // Loaded by now, so that what is timed is the template.
        assert_eq!(completion(&client).await.status, 200);
        for _ in 0..8 {
            let answer = client.chat(&short()).await;
            let told = (answer.status, answer.error_code());
            assert_eq!(told, (500, "template_error".to_owned()), "{name}: {}", answer.body_text());
            // The limit is 100 ms in an optimised build on a machine of its own.
            assert!(answer.elapsed < Duration::from_secs(2), "{name} took {:?}", answer.elapsed);
        }
        // What needs no template is answered as if nothing had happened.
        let answer = completion(&client).await;
        assert_eq!((answer.status, answer.text().is_empty()), (200, false), "{}", answer.body_text());
    }
}

/// Fault L3: no room for the model.
#[tokio::test]
async fn a_model_larger_than_memory_is_unavailable_and_the_service_lives() {
    let Some(models) = folder_with(DEFAULT_MODEL_FILE) else { return };
    let plain = Service::of(BIN).start().await;
    // Enough for the service, not for the weights.
    let limit = plain.address_space_kib() + 300 * 1024;
    drop(plain);
    let service = Service::of(BIN).embedded(&models).address_space_kib(limit).start().await;
    let client = service.client().limit(Duration::from_secs(60));
    for _ in 0..3 {
        let answer = client.chat(&short()).await;
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (503, "model_unavailable"),
            "{}",
            answer.body_text()
        );
    }
    assert_eq!(client.get("/health/live").await.status, 200);
    let counted = eventually(Duration::from_secs(5), async || service.logs().contains("MiB"));
    assert!(counted.await, "the log has no figures: {}", service.logs());
}

/// Fault L3: the file is cut while its model runs, and the engine fails on top of it.
#[tokio::test]
async fn a_file_cut_while_it_is_loaded_takes_nobody_along() {
    let Some(model) = changed() else { return };
    let service = Service::of(BIN).embedded_file(&model.path()).env("OPOSSUM_TEST_HOOKS", "1").start().await;
    service.settled(&["transformers"]).await;
    let client = service.client().limit(Duration::from_secs(60));
    let before = client.chat(&short()).await;
    model.cut_to(0.5);
    let after = client.chat(&short()).await;
    assert_eq!((before.status, after.status), (200, 200), "{}", after.body_text());
    // The weights are in memory: they are good, whatever became of the file.
    poison(&client).await;
    let again = eventually(Duration::from_secs(10), async || client.chat(&short()).await.status == 200);
    assert!(again.await, "{}", service.logs());
    let failed = eventually(Duration::from_secs(5), async || service.logs().contains("starts afresh"));
    assert!(failed.await, "nothing failed: {}", service.logs());
}

/// Fault L4: numbers that are none.
#[tokio::test]
async fn a_model_that_computes_no_numbers_fails_over_and_is_no_end() {
    let Some(model) = changed() else { return };
    let model = model.with_last_number(f32::NAN);
    let alone = Service::of(BIN).embedded_file(&model.path()).start().await;
    alone.settled(&["transformers"]).await;
    let client = alone.client().limit(Duration::from_secs(60));
    let answer = client.chat(&short()).await;
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (502, "upstream_error"),
        "{}",
        answer.body_text()
    );
    let stream = client.stream(&ask_stream("x")).await.collect().await;
    assert!(!stream.has_done() && stream.text().is_empty(), "{stream:?}");
    assert_eq!(client.get("/health/live").await.status, 200);

    let up = Upstream::openai().text("numbers").start();
    let service = Service::of(BIN).named("only", &up).embedded_file(&model.path());
    let service = service.first_choice("transformers").start().await;
    service.settled(&["only", "transformers"]).await;
    for _ in 0..3 {
        let answer = service.client().chat(&short()).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "numbers"), "{}", answer.body_text());
    }
}

async fn poison(client: &Client) {
    let poisoned = client.post("/debug/poison/engine", &json!({})).await;
    assert_eq!(poisoned.status, 200, "{}", poisoned.body_text());
}

/// Fault L4: a panic inside the tensor work.
#[tokio::test]
async fn a_panic_in_the_engine_fails_what_is_in_flight_and_the_next_is_answered() {
    let Some(models) = folder_with(DEFAULT_MODEL_FILE) else { return };
    let service = Service::of(BIN).embedded(&models).env("OPOSSUM_TEST_HOOKS", "1").start().await;
    service.settled(&["transformers"]).await;
    let client = service.client().limit(Duration::from_secs(60));
    let first = client.chat(&short()).await;
    assert_eq!(first.status, 200, "{}", first.body_text());
    for _ in 0..3 {
        let mut body = ask_stream("Count from one to one hundred.");
        body["max_tokens"] = json!(400);
        let mut stream = client.stream(&body).await;
        assert!(stream.next_text().await.is_some());
        poison(&client).await;
        let rest = stream.collect().await;
        assert!(!rest.has_done() && !rest.error_code().is_empty(), "{rest:?}");
        assert!(!rest.events.iter().any(|event| event.data.contains("poisoned")), "{rest:?}");
        let began = Instant::now();
        let answer = client.chat(&short()).await;
        // Not the same words: prompts are cut by measured costs, and which kernel computes a piece rounds its own way.
        assert!(answer.status == 200 && !answer.text().is_empty(), "{}", answer.body_text());
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    }
    let idle = eventually(Duration::from_secs(5), async || {
        client.metrics().await.sum("opossum_engine_active_sequences", &[]) == Some(0.0)
    });
    assert!(idle.await, "a sequence was left behind");
}
