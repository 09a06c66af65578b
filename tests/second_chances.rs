//! Nobody gets an error for a reason of our own while some backend would answer.

use std::time::Duration;

use opossum_testkit::{Script, Service, Upstream, ask, ask_stream, eventually};
use serde_json::json;

const BIN: &str = env!("CARGO_BIN_EXE_opossum");

#[tokio::test]
async fn a_backend_that_comes_back_slowly_answers_everyone_while_no_other_can() {
    let (one, two) = (Upstream::openai().start(), Upstream::openai().start());
    let builder = Service::of(BIN).quick().named("one", &one).named("two", &two);
    let builder = builder.env("ONE_RESET_TIMEOUT", "1").env("TWO_RESET_TIMEOUT", "60");
    let service = builder.env("ONE_MAX_RETRIES", 0).env("TWO_MAX_RETRIES", 0).start().await;
    service.settled(&["one", "two"]).await;
    one.set_default(Script::status(500));
    two.set_default(Script::status(500));
    let client = service.client();
    for i in 0..5 {
        assert_eq!(client.chat(&ask(&format!("question {i}"))).await.status, 502);
    }
    one.set_default(Script::text("healed"));
    let healed = eventually(Duration::from_secs(5), async || client.chat(&ask("again")).await.status == 200);
    assert!(healed.await);
    // The second good trial closes the breaker; its ramp then admits a tenth of those who could go elsewhere.
    for i in 0..20 {
        let answer = client.chat(&ask(&format!("more {i}"))).await;
        assert_eq!((answer.status, answer.backend()), (200, "one"), "{i}: {}", answer.body_text());
    }
    assert_eq!(two.calls(), 5, "an open backend was asked");
}

#[tokio::test]
async fn whoever_waits_for_an_identical_question_keeps_time_to_ask_for_itself() {
    let hangs = Upstream::openai().script(Script::hang()).start();
    let good = Upstream::openai().text("in time").start();
    let builder = Service::of(BIN).named("hangs", &hangs).named("good", &good).first_choice("hangs");
    let service = builder.start().await;
    service.settled(&["hangs", "good"]).await;
    let mut body = ask("same");
    body["temperature"] = json!(0);
    let patient = tokio::spawn({
        let (client, body) = (service.client(), body.clone());
        async move { client.chat(&body).await }
    });
    assert!(hangs.wait_calls(1, Duration::from_secs(2)).await);
    let hurried = service.client().with("x-opossum-timeout-ms", "2000").chat(&body).await;
    assert_eq!((hurried.status, hurried.text().as_str()), (200, "in time"), "{}", hurried.body_text());
    assert!(!patient.is_finished(), "it was to have all the time in the world");
    patient.abort();
}

#[tokio::test]
async fn an_alias_of_a_server_that_was_never_up_is_answered_by_its_stand_ins() {
    let mut ollama = Upstream::ollama().models(&["gemma3"]).text("from ollama").start();
    ollama.stop();
    let other = Upstream::openai().text("from another").start();
    let target = r#"[{ service = "ollama", api_name = "gemma3" }]"#;
    let builder = Service::of(BIN).quick().ollama(&ollama).named("other", &other);
    let builder = builder.set("models.gemma.targets", target).set("models.gemma.reroute", true);
    let service = builder.set("models.only-gemma.targets", target).start().await;
    service.settled(&["other"]).await;
    let client = service.client();
    let asked = |name: &str| {
        let mut body = ask("x");
        body["model"] = json!(name);
        body
    };
    let answer = client.chat(&asked("gemma")).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "from another"), "{}", answer.body_text());
    assert!(answer.degraded(), "a stand-in has to say that it is one");
    let refused = client.chat(&asked("only-gemma")).await;
    assert_eq!((refused.status, refused.error_code().as_str()), (503, "backends_unavailable"));
    assert_eq!(client.chat(&asked("gemma4")).await.status, 404);
    ollama.restart();
    let found = eventually(Duration::from_secs(10), async || {
        client.health(true).await;
        client.chat(&asked("only-gemma")).await.status == 200
    });
    assert!(found.await, "the alias was not found again");
    let answer = client.chat(&asked("gemma")).await;
    assert_eq!((answer.text().as_str(), answer.degraded()), ("from ollama", false));
}

#[tokio::test]
async fn a_refusal_and_a_stand_ins_answer_are_not_kept_for_later() {
    let first = Upstream::openai().script(Script::new().chunks(&["I"]).finish("content_filter")).start();
    let last = Upstream::ollama().text("poor").start();
    let builder = Service::of(BIN).quick().named("first", &first).env("FIRST_MAX_RETRIES", 0).ollama(&last);
    let service = builder.set("policy.ollama.last_resort", true).start().await;
    service.settled(&["first", "ollama"]).await;
    let client = service.client();
    let (mut whole, mut streamed) = (ask("same"), ask_stream("same"));
    whole["temperature"] = json!(0);
    streamed["temperature"] = json!(0);
    let refused = client.stream(&streamed).await.collect().await;
    assert!(refused.done(), "{refused:?}");
    first.set_default(Script::status(500));
    let poor = client.chat(&whole).await;
    assert_eq!((poor.text().as_str(), poor.degraded()), ("poor", true), "{}", poor.body_text());
    first.set_default(Script::text("good"));
    let good = client.chat(&whole).await;
    assert_eq!((good.text().as_str(), good.header("x-opossum-cache")), ("good", Some("miss")));
    assert_eq!(client.chat(&whole).await.header("x-opossum-cache"), Some("hit"));
}
