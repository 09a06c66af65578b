//! Ollama's dialect against a server that misbehaves as told.
#![expect(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::{Duration, Instant};

use common::{ABORT_LIMIT, PATIENCE, chat, classes, client, hear, hear_out, reply, stream, whole};
use futures::StreamExt as _;
use opossum_backends::ollama::{OllamaBackend, OllamaConfig, PROTOCOL_CAN};
use opossum_backends::{Backend, Reply};
use opossum_core::answer::FinishReason;
use opossum_core::class::FailureClass as Class;
use opossum_core::needs::Needs;
use opossum_core::request::Prompt;
use opossum_testkit::{RefusedAddr, Script, Step, Upstream};

fn backend(upstream: &Upstream) -> OllamaBackend {
    OllamaBackend::new(OllamaConfig::new("ollama", upstream.base_url()), client()).unwrap()
}

fn upstream(script: Script) -> (Upstream, OllamaBackend) {
    let upstream = Upstream::ollama().script(script).start();
    let backend = backend(&upstream);
    (upstream, backend)
}

#[tokio::test]
async fn answers_come_whole_and_streamed_with_their_usage() {
    let (upstream, backend) = upstream(Script::text("one two three"));
    let answer = whole(&backend).await.unwrap();
    assert_eq!(answer.choices[0].text.as_deref(), Some("one two three"));
    assert_eq!(answer.usage.unwrap().completion, 3);
    let heard = hear(&backend).await;
    assert_eq!(
        (heard.text.as_str(), heard.finish, heard.class()),
        ("one two three", Some(FinishReason::Stop), None)
    );
    assert_eq!(heard.tokens, Some(3));
    let seen = upstream.seen();
    assert!(seen.iter().all(|seen| seen.path == "/api/chat"));
    assert_eq!((&seen[0].body["stream"], &seen[1].body["stream"]), (&false.into(), &true.into()));
}

#[tokio::test]
async fn raw_prompts_go_to_their_own_route() {
    let (upstream, backend) = upstream(Script::text("world"));
    for stream in [false, true] {
        let mut request = chat(stream);
        request.prompt = Prompt::Text { prompt: "hello".into(), suffix: None, echo: false };
        match reply(&backend, request).await.unwrap() {
            Reply::Whole(answer) => assert_eq!(answer.choices[0].text.as_deref(), Some("world")),
            Reply::Stream(stream) => assert_eq!(hear_out(stream).await.text, "world"),
        }
    }
    assert!(upstream.seen().iter().all(|seen| seen.path == "/api/generate" && seen.body["raw"] == true));
}

#[tokio::test]
async fn fault_u4_bytes_cut_anywhere_give_the_same_text() {
    let text = "zwölf Boxkämpfer \u{1F94A} jagen \"Viktor\"";
    for size in [1, 2, 3, 5, 7, 16, 61] {
        let (_upstream, backend) = upstream(Script::new().then(Step::SplitEvery(size)).answer(text));
        let heard = hear(&backend).await;
        assert_eq!((heard.text.as_str(), heard.class()), (text, None), "{size}");
    }
}

#[tokio::test]
async fn fault_u4_what_is_no_answer_is_a_bad_response() {
    for script in [Script::html(), Script::empty(), Script::invalid_json()] {
        let (_upstream, backend) = upstream(script.clone());
        assert_eq!(
            classes(&backend).await,
            (Some(Class::BadResponse), Some(Class::BadResponse)),
            "{script:?}"
        );
    }
}

#[tokio::test]
async fn fault_u3_a_cut_is_never_a_clean_end() {
    for script in [Script::cut_after(2), Script::eof_without_finish(2)] {
        let (_upstream, backend) = upstream(script.clone());
        let heard = hear(&backend).await;
        assert_eq!(heard.text, "word0 word1 ", "{script:?}");
        assert_eq!((heard.finish, heard.class()), (None, Some(Class::Truncated)), "{script:?}");
    }
}

#[tokio::test]
async fn fault_u13_busy_is_a_limit_and_a_missing_model_is_no_broken_server() {
    let busy = r#"{"error":"server busy, please try again.  maximum pending requests exceeded"}"#;
    let (_upstream, backend) = upstream(Script::body(503, "application/json", busy));
    assert_eq!(classes(&backend).await, (Some(Class::RateLimited), Some(Class::RateLimited)));
    for (status, class) in [
        (400, Class::CallerError),
        (401, Class::BadCredential),
        (404, Class::ModelMissing),
        (500, Class::ServerError),
        (502, Class::ServerError),
    ] {
        let (_upstream, backend) = upstream(Script::status(status));
        assert_eq!(classes(&backend).await, (Some(class), Some(class)), "{status}");
    }
    let long = r#"{"error":"the input length exceeds the context length"}"#;
    let (_upstream, backend) = upstream(Script::body(400, "application/json", long));
    assert_eq!(classes(&backend).await, (Some(Class::ContextLength), Some(Class::ContextLength)));
}

#[tokio::test]
async fn fault_u1_no_answer_at_all_is_transport() {
    let refused = RefusedAddr::new();
    let config = OllamaConfig::new("ollama", refused.base_url());
    let backend = OllamaBackend::new(config, client()).unwrap();
    assert_eq!(classes(&backend).await, (Some(Class::Transport), Some(Class::Transport)));
    assert_eq!(backend.probe().await.unwrap_err().class, Class::Transport);
    let (_upstream, backend) = upstream(Script::reset());
    assert_eq!(classes(&backend).await, (Some(Class::Transport), Some(Class::Transport)));
}

#[tokio::test]
async fn an_error_line_ends_the_stream_with_its_class() {
    let error =
        Step::ErrorEvent { code: "500".into(), message: "llama runner process has terminated".into() };
    let (_upstream, backend) =
        upstream(Script::new().then(Step::Head).chunks(&["a"]).then(error).then(Step::Stall));
    let heard = hear(&backend).await;
    assert_eq!((heard.text.as_str(), heard.class()), ("a", Some(Class::ServerError)));
}

#[tokio::test]
async fn fault_h7_leaving_stops_the_upstream() {
    for script in [Script::slow(1000, Duration::from_millis(5)), Script::stall_after(2)] {
        let (upstream, backend) = upstream(script);
        let mut events = stream(&backend).await.unwrap();
        assert!(events.next().await.unwrap().is_ok());
        let left = Instant::now();
        drop(events);
        assert!(upstream.wait_abort(0, PATIENCE).await.is_some());
        assert!(left.elapsed() < ABORT_LIMIT, "{:?}", left.elapsed());
    }
}

#[tokio::test]
async fn a_slow_load_is_waited_for() {
    let (_upstream, backend) = upstream(Script::new().delay(Duration::from_millis(1500)).answer("loaded"));
    assert_eq!(hear(&backend).await.text, "loaded");
}

#[tokio::test]
async fn the_server_tells_what_its_models_can_do() {
    let upstream = Upstream::ollama().models(&["llama3.2:1b", "qwen3:4b"]).start();
    let backend = backend(&upstream);
    let models = backend.models().await.unwrap();
    let names: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
    assert_eq!(names, ["llama3.2:1b", "qwen3:4b"]);
    assert!(models[0].can.contains(Needs::CHAT | Needs::TOOLS));
    assert!(!models[0].can.intersects(Needs::IMAGES | Needs::IMAGE_URLS | Needs::REASONING));
    assert_eq!(models[0].context_tokens, Some(131_072));
    backend.probe().await.unwrap();
    let paths: Vec<String> = upstream.probes().into_iter().map(|seen| seen.path).collect();
    assert_eq!(paths[0], "/api/tags");
    assert_eq!(paths.last().map(String::as_str), Some("/api/version"));
}

#[tokio::test]
async fn a_health_url_of_its_own_is_asked_in_place_of_the_server() {
    let (server, sidecar) = (Upstream::ollama().start(), Upstream::ollama().start());
    let mut config = OllamaConfig::new("ollama", server.base_url());
    config.health_url = Some(format!("{}/api/tags", sidecar.base_url()));
    let backend = OllamaBackend::new(config, client()).unwrap();
    backend.probe().await.unwrap();
    assert_eq!((server.probes().len(), sidecar.probes().len()), (0, 1));
}

#[tokio::test]
async fn a_server_that_does_not_describe_its_models_still_lists_them() {
    // One answer for every question: a list of models, which is no description.
    let list = serde_json::json!({"models": [{"name": "old"}], "model_info": 1});
    let upstream = Upstream::ollama().probe(Script::json(&list)).start();
    let models = backend(&upstream).models().await.unwrap();
    assert_eq!(
        (models[0].name.as_str(), models[0].can, models[0].context_tokens),
        ("old", PROTOCOL_CAN, None)
    );
}
