//! Whatever an upstream does on the wire, the client gets an answer or an error that says what happened, and
//! never something that looks complete and is not.

use std::time::Duration;

use opossum_testkit::{
    BlackHole, End, RefusedAddr, Script, Service, ServiceBuilder, Step, Transcript, Upstream, ask, ask_stream,
};
use serde_json::{Value, json};

const BIN: &str = env!("CARGO_BIN_EXE_opossum");

/// A service with one backend only, which is asked once.
fn alone(upstream: &Upstream) -> ServiceBuilder {
    Service::of(BIN).quick().named("only", upstream).env("ONLY_MAX_RETRIES", 0)
}

/// A service whose first choice misbehaves and whose second answers well.
fn with_fallback(bad: &Upstream, good: &Upstream) -> ServiceBuilder {
    Service::of(BIN).quick().named("bad", bad).named("good", good).first_choice("bad")
}

fn exact(mut body: Value) -> Value {
    body["temperature"] = json!(0);
    body
}

/// A stream that failed after its first content: an error the client cannot miss, and nothing that looks
/// like an end.
fn broke_off(stream: &Transcript, code: &str) {
    assert_eq!(stream.error_code(), code, "{stream:?}");
    assert!(!stream.has_done(), "{stream:?}");
    assert_eq!(stream.finish_reason(), "", "{stream:?}");
    let last = stream.events.last().map(|event| event.json()["error"].is_object());
    assert_eq!(last, Some(true), "the error is not the last word: {stream:?}");
}

#[tokio::test]
async fn an_address_that_is_dead_in_any_way_fails_over_within_the_connect_budget() {
    let good = Upstream::openai().text("fine").start();
    let refused = RefusedAddr::new();
    let hole = BlackHole::syn();
    let bases = [refused.base_url(), hole.base_url(), "http://backend.invalid:9".to_owned()];
    for base in bases {
        let builder = Service::of(BIN).named_at("bad", &format!("{base}/v1"), "m").named("good", &good);
        let service = builder.first_choice("bad").start().await;
        let answer = service.client().chat(&ask("x")).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "fine"), "{base}: {answer:?}");
        assert!(answer.elapsed < Duration::from_millis(2500), "{base}: {:?}", answer.elapsed);
    }
}

#[tokio::test]
async fn a_dead_address_alone_is_a_503() {
    let refused = RefusedAddr::new();
    let hole = BlackHole::syn();
    for base in [refused.base_url(), hole.base_url(), "http://backend.invalid:9".to_owned()] {
        let builder = Service::of(BIN).set("upstream.connect", 0.3).env("BAD_MAX_RETRIES", 0);
        let service = builder.named_at("bad", &format!("{base}/v1"), "m").start().await;
        let answer = service.client().chat(&ask("x")).await;
        assert_eq!((answer.status, answer.error_code().as_str()), (503, "backends_unavailable"), "{base}");
        assert!(answer.header("retry-after").is_some());
    }
}

#[tokio::test]
async fn a_reset_before_the_first_byte_opens_the_breaker_at_the_fifth() {
    let up = Upstream::openai().script(Script::reset()).start();
    let service = alone(&up).start().await;
    service.settled(&["only"]).await;
    for i in 0..8 {
        let answer = service.client().chat(&ask(&format!("question {i}"))).await;
        assert_eq!((answer.status, answer.error_code().as_str()), (503, "backends_unavailable"));
    }
    assert_eq!(up.calls(), 5, "the breaker opens at 5 failures, and then nobody is asked");
}

#[tokio::test]
async fn silence_is_a_504_and_keep_alives_do_not_extend_it() {
    let keep_alives = |head: Script| {
        head.then(Step::Head)
            .then(Step::RoleOnly)
            .then(Step::Comments { every: Duration::from_millis(50), count: None })
    };
    let empty_deltas = (0..200).fold(Script::new().then(Step::Head), |script, _| {
        script.then(Step::RoleOnly).delay(Duration::from_millis(50))
    });
    for (what, script) in
        [("hang", Script::hang()), ("comments", keep_alives(Script::new())), ("empty deltas", empty_deltas)]
    {
        let up = Upstream::openai().script(script).start();
        let service = alone(&up).start().await;
        service.settled(&["only"]).await;
        let stream = service.client().stream(&ask_stream("x")).await.collect().await;
        assert_eq!((stream.status, stream.error_code().as_str()), (504, "upstream_timeout"), "{what}");
        let aborted = up.wait_abort(0, Duration::from_secs(1)).await;
        let budget = Duration::from_millis(300)..Duration::from_millis(1000);
        assert!(aborted.is_some_and(|after| budget.contains(&after)), "{what}: {aborted:?}");
    }
}

#[tokio::test]
async fn silence_before_a_whole_answer_is_a_504_too() {
    let up = Upstream::openai().script(Script::hang()).start();
    let service = alone(&up).start().await;
    service.settled(&["only"]).await;
    let answer = service.client().chat(&ask("x")).await;
    assert_eq!((answer.status, answer.error_code().as_str()), (504, "upstream_timeout"));
    assert!(up.wait_abort(0, Duration::from_secs(1)).await.is_some(), "the upstream still works for nobody");
}

#[tokio::test]
async fn keep_alives_without_content_fail_over_while_nothing_has_been_sent() {
    let comments = Step::Comments { every: Duration::from_millis(50), count: None };
    let bad = Upstream::openai().script(Script::new().then(Step::RoleOnly).then(comments)).start();
    let good = Upstream::openai().text("fine").start();
    let service = with_fallback(&bad, &good).start().await;
    service.settled(&["bad", "good"]).await;
    let stream = service.client().stream(&ask_stream("x")).await.collect().await;
    assert_eq!((stream.text().as_str(), stream.done()), ("fine", true), "{stream:?}");
    assert_eq!((bad.calls(), good.calls()), (1, 1));
}

#[tokio::test]
async fn a_stream_that_stalls_ends_with_an_error_and_is_not_cached() {
    let up = Upstream::openai().script(Script::stall_after(3)).start();
    let service = alone(&up).start().await;
    service.settled(&["only"]).await;
    let client = service.client();
    let stream = client.stream(&exact(ask_stream("x"))).await.collect().await;
    assert_eq!((stream.status, stream.text().as_str()), (200, "word0 word1 word2 "));
    broke_off(&stream, "upstream_stalled");
    up.set_default(Script::text("whole again"));
    let stream = client.stream(&exact(ask_stream("x"))).await.collect().await;
    assert_eq!((stream.text().as_str(), stream.done()), ("whole again", true));
    assert_eq!(up.calls(), 2, "half an answer came out of the cache");
}

#[tokio::test]
async fn keep_alives_do_not_hide_a_stall_in_the_middle_of_a_stream() {
    let begun = || Script::new().then(Step::RoleOnly).chunks(&["one ", "two "]);
    let every = Duration::from_millis(50);
    let comments = begun().then(Step::Comments { every, count: None });
    let empty_deltas = (0..200).fold(begun(), |script, _| script.then(Step::RoleOnly).delay(every));
    let total =
        json!({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}});
    let totals = (0..200).fold(begun(), |script, _| script.then(Step::Event(total.clone())).delay(every));
    for (what, script) in [("comments", comments), ("empty deltas", empty_deltas), ("totals", totals)] {
        let up = Upstream::openai().script(script).start();
        // The limit over everything must not be what ends it.
        let service = alone(&up).set("upstream.total", 10).start().await;
        service.settled(&["only"]).await;
        let stream = service.client().stream(&ask_stream("x")).await.collect().await;
        assert_eq!(stream.text(), "one two ", "{what}");
        broke_off(&stream, "upstream_stalled");
        let last = stream.events.last().map(|event| event.at).unwrap_or_default();
        assert!(last < Duration::from_secs(2), "{what}: the stall was noticed after {last:?}");
    }
}

#[tokio::test]
async fn a_stream_that_is_cut_or_ends_early_says_so_in_every_dialect() {
    for cut in [Script::cut_after(3), Script::eof_without_finish(3)] {
        let openai = Upstream::openai().script(cut.clone()).start();
        let ollama = Upstream::ollama().script(cut.clone()).start();
        let gemini = Upstream::gemini().script(cut.clone()).start();
        let builder = Service::of(BIN).quick().openai(&openai).ollama(&ollama).gemini(&gemini);
        let service = builder.start().await;
        service.settled(&["openai", "ollama", "gemini"]).await;
        for model in ["openai/test-model", "ollama/llama3.2:1b", "gemini/gemini-2.5-flash"] {
            let mut body = ask_stream("x");
            body["model"] = json!(model);
            let stream = service.client().stream(&body).await.collect().await;
            assert_eq!(stream.text(), "word0 word1 word2 ", "{model}");
            broke_off(&stream, "upstream_truncated");
        }
    }
}

#[tokio::test]
async fn an_answer_cut_in_the_middle_fails_over_where_nothing_was_sent() {
    for cut in [Script::cut_after(3), Script::stall_after(3), Script::eof_without_finish(3)] {
        let bad = Upstream::openai().script(cut).start();
        let good = Upstream::openai().text("fine").start();
        let service = with_fallback(&bad, &good).start().await;
        service.settled(&["bad", "good"]).await;
        let answer = service.client().chat(&ask("x")).await;
        assert_eq!((answer.status, answer.text().as_str(), answer.attempts()), (200, "fine", 2));
        assert_eq!(bad.calls(), 1);
    }
}

#[tokio::test]
async fn a_200_that_is_no_answer_is_a_502_and_counts_as_a_failure() {
    let scripts = [
        ("a page", Script::html()),
        ("nothing", Script::empty()),
        ("half JSON", Script::invalid_json()),
        ("other JSON", Script::json(&json!({"ok": true}))),
        ("an array", Script::json(&json!([1, 2]))),
    ];
    for (what, script) in scripts {
        let up = Upstream::openai().script(script).start();
        let service = alone(&up).start().await;
        service.settled(&["only"]).await;
        for i in 0..5 {
            let text = format!("question {i}");
            let (status, code) = if i % 2 == 0 {
                let answer = service.client().chat(&ask(&text)).await;
                (answer.status, answer.error_code())
            } else {
                let stream = service.client().stream(&ask_stream(&text)).await.collect().await;
                (stream.status, stream.error_code())
            };
            assert_eq!((status, code.as_str()), (502, "upstream_bad_response"), "{what}");
        }
        let refused = service.client().chat(&ask("one more")).await;
        assert_eq!((refused.status, up.calls()), (503, 5), "{what}: five bad answers open the breaker");
    }
}

#[tokio::test]
async fn a_line_without_end_is_given_up_at_its_cap() {
    let up = Upstream::openai().script(Script::huge_line(2 << 20)).start();
    let service = alone(&up).start().await;
    service.settled(&["only"]).await;
    let stream = service.client().stream(&ask_stream("x")).await.collect().await;
    assert_eq!((stream.status, stream.error_code().as_str()), (502, "upstream_bad_response"));
    assert!(up.wait_abort(0, Duration::from_secs(1)).await.is_some());
}

#[tokio::test]
async fn bytes_split_anywhere_give_the_same_text() {
    let text =
        "Opossums – 🦝 naïve \"quoted\" \\ back\nnew line, \u{1F468}\u{200D}\u{1F469} data: [DONE] end";
    let split = |n| Script::new().then(Step::SplitEvery(n)).answer(text);
    let openai = Upstream::openai().start();
    let ollama = Upstream::ollama().start();
    let gemini = Upstream::gemini().start();
    let service = Service::of(BIN).openai(&openai).ollama(&ollama).gemini(&gemini).start().await;
    service.settled(&["openai", "ollama", "gemini"]).await;
    for size in [1, 2, 3, 7, 64] {
        for up in [&openai, &ollama, &gemini] {
            up.set_default(split(size));
        }
        for model in ["openai/test-model", "ollama/llama3.2:1b", "gemini/gemini-2.5-flash"] {
            let mut body = ask_stream("x");
            body["model"] = json!(model);
            let stream = service.client().stream(&body).await.collect().await;
            assert_eq!(stream.text(), text, "{model} in pieces of {size}");
            assert!(stream.done() && stream.end == End::Clean, "{model} in pieces of {size}");
            body["stream"] = json!(false);
            assert_eq!(service.client().chat(&body).await.text(), text, "{model} whole, pieces of {size}");
        }
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Upstream::openai().text("stolen").start();
    let location = format!("{}/v1/chat/completions", elsewhere.base_url());
    let up = Upstream::openai().script(Script::status_with(302, &[("location", &location)])).start();
    let service = alone(&up).start().await;
    service.settled(&["only"]).await;
    let answer = service.client().chat(&ask("x")).await;
    assert_eq!(answer.status, 502, "{}", answer.body_text());
    assert_eq!(elsewhere.calls() + elsewhere.probes().len(), 0);
}

#[tokio::test]
async fn nothing_an_upstream_says_in_an_error_reaches_the_client() {
    let canary = "CANARY-7f3a";
    let errors = [
        Script::body(500, "application/json", format!(r#"{{"error":{{"message":"{canary}"}}}}"#)),
        Script::body(
            400,
            "application/json",
            format!(r#"{{"error":{{"message":"{canary}","code":"{canary}"}}}}"#),
        ),
        Script::body(200, "text/html", canary),
        Script::body(401, "application/json", format!(r#"{{"error":{{"message":"key {canary}"}}}}"#)),
    ];
    for script in errors {
        let up = Upstream::openai().script(script).start();
        let service = alone(&up).start().await;
        service.settled(&["only"]).await;
        let answer = service.client().chat(&ask("x")).await;
        assert!(answer.status >= 400);
        assert!(!answer.body_text().contains(canary), "{}", answer.body_text());
        assert!(answer.headers.iter().all(|(_, value)| !value.contains(canary)));
    }
}
