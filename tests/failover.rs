//! As long as one backend can answer, the client sees an answer: whichever of the others is killed, hung,
//! cut, corrupted or at its limit.

use std::time::{Duration, Instant};

use opossum_testkit::{End, RefusedAddr, Script, Service, Step, Upstream, ask, ask_stream};
use serde_json::json;

const BIN: &str = env!("CARGO_BIN_EXE_opossum");
const ALL: [&str; 3] = ["gemini", "ollama", "openai"];

/// What happens to a backend: nothing at all there any more, or a script for whole and streamed answers.
enum Fault {
    Killed,
    Scripts(Script, Script),
}

fn faults() -> Vec<(&'static str, Fault)> {
    let same = |script: Script| Fault::Scripts(script.clone(), script);
    let limited = Script::status_with(429, &[("retry-after", "30")]);
    let breaks_off = Script::new()
        .then(Step::Head)
        .then(Step::RoleOnly)
        .then(Step::ErrorEvent { code: "server_error".to_owned(), message: "scripted".to_owned() });
    vec![
        ("killed", Fault::Killed),
        ("hung", same(Script::hang())),
        ("reset", same(Script::reset())),
        ("cut", Fault::Scripts(Script::cut_after(2), Script::cut_after(0))),
        ("ended early", Fault::Scripts(Script::eof_without_finish(2), Script::eof_without_finish(0))),
        ("a page", same(Script::html())),
        ("nothing", same(Script::empty())),
        ("no JSON", same(Script::invalid_json())),
        ("an error inside", Fault::Scripts(Script::status(500), breaks_off)),
        ("overloaded", same(Script::status(503))),
        ("rate-limited", same(limited)),
        ("key refused", same(Script::status(401))),
        ("model gone", same(Script::status(404))),
    ]
}

struct Backends {
    gemini: Upstream,
    ollama: Upstream,
    openai: Upstream,
}

impl Backends {
    fn start() -> Self {
        Self {
            gemini: Upstream::gemini().text("good answer").start(),
            ollama: Upstream::ollama().text("good answer").start(),
            openai: Upstream::openai().text("good answer").start(),
        }
    }

    fn of(&mut self, name: &str) -> &mut Upstream {
        match name {
            "gemini" => &mut self.gemini,
            "ollama" => &mut self.ollama,
            _ => &mut self.openai,
        }
    }

    async fn serve(&self, first: &str) -> Service {
        let builder = Service::of(BIN).quick().gemini(&self.gemini).ollama(&self.ollama).openai(&self.openai);
        let service = builder.first_choice(first).start().await;
        service.settled(&ALL).await;
        service
    }
}

async fn survives(victim: &str) {
    for (what, fault) in faults() {
        let mut backends = Backends::start();
        let service = backends.serve(victim).await;
        let upstream = backends.of(victim);
        let (whole, streamed) = match fault {
            Fault::Killed => {
                upstream.stop();
                (Script::hang(), Script::hang())
            }
            Fault::Scripts(whole, streamed) => (whole, streamed),
        };
        let client = service.client();
        upstream.set_default(whole);
        let answer = client.chat(&ask("one")).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "good answer"), "{victim} {what}: whole");
        assert_ne!(answer.backend(), victim, "{victim} {what}");
        assert!(answer.attempts() >= 2, "{victim} {what}: {} attempts", answer.attempts());

        // A rate limit cools the backend; what it would do with a stream is then never seen.
        upstream.set_default(streamed);
        let stream = client.stream(&ask_stream("two")).await.collect().await;
        assert_eq!(
            (stream.status, stream.text().as_str()),
            (200, "good answer"),
            "{victim} {what}: streamed"
        );
        assert!(stream.done() && stream.end == End::Clean, "{victim} {what}: {stream:?}");
        assert_ne!(stream.header("x-opossum-backend"), Some(victim), "{victim} {what}");
    }
}

#[tokio::test]
async fn a_gemini_that_fails_in_any_way_is_not_seen_by_the_client() {
    survives("gemini").await;
}

#[tokio::test]
async fn an_ollama_that_fails_in_any_way_is_not_seen_by_the_client() {
    survives("ollama").await;
}

#[tokio::test]
async fn an_openai_that_fails_in_any_way_is_not_seen_by_the_client() {
    survives("openai").await;
}

#[tokio::test]
async fn a_refused_connection_costs_a_client_next_to_nothing() {
    let mut backends = Backends::start();
    let service = backends.serve("openai").await;
    backends.openai.stop();
    let answer = service.client().chat(&ask("x")).await;
    assert_eq!(answer.status, 200);
    assert!(answer.attempts() >= 2, "the dead backend was not even tried");
    assert!(answer.elapsed < Duration::from_millis(250), "{:?}", answer.elapsed);
}

#[tokio::test]
async fn a_hang_under_a_short_deadline_still_fails_over_in_time() {
    let backends = Backends::start();
    // The usual budgets: 20 s for a first token, more than the whole deadline here.
    let builder = Service::of(BIN).openai(&backends.openai).ollama(&backends.ollama).first_choice("openai");
    let service = builder.start().await;
    service.settled(&["openai", "ollama"]).await;
    backends.openai.set_default(Script::hang());
    let client = service.client().with("x-opossum-timeout-ms", "3000");
    let answer = client.chat(&ask("x")).await;
    assert_eq!((answer.status, answer.backend()), (200, "ollama"), "{}", answer.body_text());
    assert!(answer.elapsed < Duration::from_secs(3), "{:?}", answer.elapsed);
    let stream = client.stream(&ask_stream("y")).await.collect().await;
    assert!(stream.done(), "{stream:?}");
}

#[tokio::test]
async fn a_pinned_model_is_retried_and_never_rerouted() {
    let backends = Backends::start();
    let service = backends.serve("ollama").await;
    backends.openai.push([Script::status(500), Script::reset()]);
    let mut body = ask("x");
    body["model"] = json!("openai/test-model");
    let answer = service.client().chat(&body).await;
    assert_eq!((answer.status, answer.backend(), answer.attempts()), (200, "openai", 3), "{answer:?}");
    assert_eq!(answer.header("x-opossum-model"), Some("test-model"));
    assert_eq!((backends.ollama.calls(), backends.gemini.calls()), (0, 0));

    backends.openai.set_default(Script::status(500));
    let spent = service.client().chat(&body).await;
    assert_eq!((spent.status, spent.error_code().as_str()), (502, "upstream_error"));
    assert_eq!(spent.header("x-should-retry"), Some("false"));
    assert_eq!((backends.ollama.calls(), backends.gemini.calls()), (0, 0));
}

#[tokio::test]
async fn a_route_restricts_who_may_answer() {
    let backends = Backends::start();
    let service = backends.serve("openai").await;
    let client = service.client().with("x-opossum-route", "gemini, ollama");
    for _ in 0..4 {
        let answer = client.chat(&ask("x")).await;
        assert_eq!(answer.status, 200);
        assert!(["gemini", "ollama"].contains(&answer.backend()), "{}", answer.backend());
    }
    assert_eq!(backends.openai.calls(), 0);
    backends.gemini.set_default(Script::status(500));
    backends.ollama.set_default(Script::status(500));
    let answer = client.chat(&ask("y")).await;
    assert_eq!(answer.status, 502, "{}", answer.body_text());
    assert_eq!(backends.openai.calls(), 0);
}

#[tokio::test]
async fn a_last_resort_is_marked_degraded_and_only_used_as_such() {
    let backends = Backends::start();
    let builder = Service::of(BIN).quick().openai(&backends.openai).ollama(&backends.ollama);
    let service = builder.set("policy.ollama.last_resort", true).start().await;
    service.settled(&["openai", "ollama"]).await;
    let client = service.client();
    let answer = client.chat(&ask("one")).await;
    assert_eq!((answer.backend(), answer.degraded()), ("openai", false));
    backends.openai.set_default(Script::status(500));
    let answer = client.chat(&ask("two")).await;
    assert_eq!((answer.status, answer.backend(), answer.degraded()), (200, "ollama", true));
    let stream = client.stream(&ask_stream("three")).await.collect().await;
    assert_eq!(stream.header("x-opossum-degraded"), Some("true"));
    assert!(stream.done());
}

#[tokio::test]
async fn when_nothing_can_answer_the_client_is_told_when_to_come_again() {
    let refused = RefusedAddr::new();
    let builder = Service::of(BIN).quick().env("OPENAI_MAX_RETRIES", 1);
    let service = builder.named_at("gone", &format!("{}/v1", refused.base_url()), "m").start().await;
    let started = Instant::now();
    let answer = service.client().chat(&ask("x")).await;
    assert_eq!((answer.status, answer.error_code().as_str()), (503, "backends_unavailable"));
    let wait: u64 = answer.header("retry-after").and_then(|v| v.parse().ok()).unwrap_or(0);
    assert!(wait >= 1, "{answer:?}");
    assert_eq!(answer.header("x-should-retry"), Some("false"));
    assert!(started.elapsed() < Duration::from_secs(3));
    let text = answer.body_text();
    assert!(!text.contains("127.0.0.1"), "an address of a backend is nobody's business: {text}");
}

#[tokio::test]
async fn when_every_backend_is_at_its_limit_the_earliest_says_when() {
    let limited = |seconds: &str| Script::status_with(429, &[("retry-after", seconds)]);
    let soon = Upstream::openai().script(limited("7")).start();
    let late = Upstream::openai().script(limited("50")).start();
    let service = Service::of(BIN).quick().named("soon", &soon).named("late", &late).start().await;
    service.settled(&["soon", "late"]).await;
    for _ in 0..2 {
        let answer = service.client().chat(&ask("x")).await;
        assert_eq!((answer.status, answer.error_code().as_str()), (429, "upstream_rate_limited"));
        let wait: u64 = answer.header("retry-after").and_then(|v| v.parse().ok()).unwrap_or(0);
        assert!((6..=7).contains(&wait), "{answer:?}");
    }
    assert_eq!((soon.calls(), late.calls()), (1, 1), "a cooled backend was asked again");
}

#[tokio::test]
async fn one_good_backend_among_many_bad_ones_is_enough_for_everyone() {
    let bad: Vec<_> = (0..6).map(|_| Upstream::openai().script(Script::html()).start()).collect();
    let good = Upstream::openai().text("good answer").start();
    let mut builder = Service::of(BIN).quick().named("good", &good);
    for (i, upstream) in bad.iter().enumerate() {
        let name = format!("bad{i}");
        // Breakers off, so that each request meets all the failures.
        let off = format!("BAD{i}_CIRCUIT_BREAKER_ENABLED");
        builder = builder.named(&name, upstream).first_choice(&name).env(&off, "false");
    }
    let service = builder.start().await;
    service.settled(&["good", "bad0", "bad5"]).await;
    for i in 0..30 {
        let answer = service.client().chat(&ask(&format!("question {i}"))).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "good answer"), "request {i}");
    }
    for upstream in &bad {
        assert!(upstream.calls() <= 30, "a backend was asked more than once for a request");
    }
}
