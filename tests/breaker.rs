//! The class of a failure decides: what trips a breaker, what cools a backend, what disables it, and what
//! leaves it untouched.

use std::time::{Duration, Instant, SystemTime};

use opossum_testkit::{Script, Service, ServiceBuilder, Step, Upstream, ask, ask_stream};
use serde_json::json;

const BIN: &str = env!("CARGO_BIN_EXE_opossum");

/// One backend only, asked once a request.
fn alone(upstream: &Upstream) -> ServiceBuilder {
    Service::of(BIN).quick().named("only", upstream).env("ONLY_MAX_RETRIES", 0)
}

async fn started(builder: ServiceBuilder, backends: &[&str]) -> Service {
    let service = builder.start().await;
    service.settled(backends).await;
    service
}

/// Opens the breaker of the only backend by five server errors.
async fn open_by_errors(service: &Service, up: &Upstream) {
    up.push((0..5).map(|_| Script::status(500)));
    let before = up.calls();
    for i in 0..5 {
        assert_eq!(service.client().chat(&ask(&format!("failing {i}"))).await.status, 502);
    }
    assert_eq!(service.client().chat(&ask("refused")).await.error_code(), "backends_unavailable");
    assert_eq!(up.calls() - before, 5);
}

fn wait_of(answer: &opossum_testkit::Answer) -> u64 {
    answer.header("retry-after").and_then(|v| v.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn an_outage_is_hidden_after_at_most_five_failures() {
    let bad = Upstream::openai().script(Script::status(500)).start();
    let good = Upstream::openai().text("fine").start();
    let builder = Service::of(BIN).quick().named("bad", &bad).named("good", &good).first_choice("bad");
    let service = started(builder, &["bad", "good"]).await;
    for i in 0..40 {
        let answer = service.client().chat(&ask(&format!("question {i}"))).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "fine"));
    }
    assert_eq!(bad.calls(), 5);
    let metrics = service.client().metrics().await;
    assert_eq!(metrics.sum("opossum_breaker_state", &[("service_name", "bad")]), Some(2.0));
    assert_eq!(
        metrics.sum("opossum_breaker_transitions_total", &[("service_name", "bad"), ("to", "open")]),
        Some(1.0)
    );
    let failovers = [("service_name", "bad"), ("class", "server_error")];
    assert_eq!(metrics.sum("opossum_failovers_total", &failovers), Some(5.0));
    let health = service.client().health(false).await;
    assert_eq!(health["services"]["model_backends"]["bad"], "unavailable");
    assert_eq!(health["status"], "degraded");
}

#[tokio::test]
async fn a_backend_that_fails_every_other_time_is_opened_by_its_rate() {
    let bad = Upstream::openai().start();
    bad.set_cycle(vec![Script::status(500), Script::text("luck")]);
    let good = Upstream::openai().text("fine").start();
    let builder = Service::of(BIN).quick().named("bad", &bad).named("good", &good).first_choice("bad");
    let service = started(builder, &["bad", "good"]).await;
    for i in 0..60 {
        assert_eq!(service.client().chat(&ask(&format!("question {i}"))).await.status, 200);
    }
    assert!(
        (10..=30).contains(&bad.calls()),
        "never five in a row, yet open by half of ten: {}",
        bad.calls()
    );
}

#[tokio::test]
async fn one_error_in_a_hundred_never_opens_a_breaker_nor_reaches_a_client() {
    let mut cycle = vec![Script::text("ok"); 99];
    cycle.push(Script::status(500));
    let bad = Upstream::openai().start();
    bad.set_cycle(cycle);
    let good = Upstream::openai().text("fine").start();
    let builder = Service::of(BIN).quick().named("bad", &bad).named("good", &good).first_choice("bad");
    let service = started(builder, &["bad", "good"]).await;
    let client = service.client();
    for i in 0..300 {
        assert_eq!(client.chat(&ask(&format!("question {i}"))).await.status, 200);
    }
    assert!(bad.calls() >= 300 - 3, "the first choice was left: {} calls", bad.calls());
    assert!(bad.calls() + good.calls() <= 330, "retries beyond a tenth");
    let opened =
        client.metrics().await.count("opossum_breaker_transitions_total", &[("service_name", "bad")]);
    assert!(opened < 1.0, "{opened} transitions");
}

#[tokio::test]
async fn a_backend_cools_for_as_long_as_it_says_and_never_longer_than_ten_minutes() {
    let in_an_hour = httpdate(SystemTime::now() + Duration::from_secs(3600));
    let in_30_s = httpdate(SystemTime::now() + Duration::from_secs(31));
    let cases = [
        ("retry-after", "3", 2..=3),
        ("retry-after", in_30_s.as_str(), 25..=31),
        ("retry-after", in_an_hour.as_str(), 590..=600),
        ("retry-after", "86400", 590..=600),
        ("retry-after", "Thu, 01 Jan 1970 00:00:00 GMT", 1..=60),
        ("retry-after", "soon, I hope", 1..=60),
        ("retry-after-ms", "4200", 3..=5),
    ];
    for (name, value, expected) in cases {
        let up = Upstream::openai().script(Script::status_with(429, &[(name, value)])).start();
        let service = started(alone(&up), &["only"]).await;
        for i in 0..3 {
            let answer = service.client().chat(&ask(&format!("question {i}"))).await;
            assert_eq!(
                (answer.status, answer.error_code().as_str()),
                (429, "upstream_rate_limited"),
                "{value}"
            );
            assert!(expected.contains(&wait_of(&answer)), "{name}: {value}: {}", wait_of(&answer));
        }
        assert_eq!(up.calls(), 1, "{value}: a cooled backend was asked");
        let metrics = service.client().metrics().await;
        let opened = metrics.count("opossum_breaker_transitions_total", &[("to", "open")]);
        assert!(opened < 1.0, "a limit is no failure");
    }
}

#[tokio::test]
async fn the_longest_of_two_coolings_wins_whatever_comes_last() {
    let wait = Duration::from_millis(150);
    let limited = |seconds: &str, delay: Duration| {
        let headers = vec![("retry-after".to_owned(), seconds.to_owned())];
        Script::new().delay(delay).then(Step::Status { code: 429, headers, body: None })
    };
    let up = Upstream::openai().first([limited("40", wait), limited("1", wait * 2)]).start();
    let service = started(alone(&up), &["only"]).await;
    let client = service.client();
    let (one, two) = (ask("one"), ask("two"));
    let (_, _) = tokio::join!(client.chat(&one), client.chat(&two));
    assert_eq!(up.calls(), 2, "both were on their way before the first limit was known");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let answer = client.chat(&ask("three")).await;
    assert_eq!((answer.status, up.calls()), (429, 2));
    assert!((30..=40).contains(&wait_of(&answer)), "{answer:?}");
}

#[tokio::test]
async fn a_cooled_backend_is_used_again_when_its_time_is_over() {
    let up =
        Upstream::openai().text("back").first([Script::status_with(429, &[("retry-after", "1")])]).start();
    let service = started(alone(&up), &["only"]).await;
    assert_eq!(service.client().chat(&ask("one")).await.status, 429);
    assert_eq!(service.client().chat(&ask("two")).await.status, 429);
    let back = opossum_testkit::eventually(Duration::from_secs(3), async || {
        service.client().chat(&ask("three")).await.status == 200
    });
    assert!(back.await);
    assert_eq!(up.calls(), 2);
}

#[tokio::test]
async fn a_spent_quota_is_not_asked_again() {
    let spent =
        json!({"error": {"message": "x", "type": "insufficient_quota", "code": "insufficient_quota"}});
    for script in [Script::body(429, "application/json", spent.to_string()), Script::status(402)] {
        let up = Upstream::openai().script(script).start();
        let service = started(alone(&up), &["only"]).await;
        for i in 0..3 {
            let answer = service.client().chat(&ask(&format!("question {i}"))).await;
            assert_eq!((answer.status, answer.error_code().as_str()), (429, "upstream_rate_limited"));
            assert!(wait_of(&answer) > 600, "a quota of the day is renewed later than {answer:?}");
        }
        assert_eq!(up.calls(), 1);
    }
}

#[tokio::test]
async fn a_daily_quota_of_one_gemini_model_leaves_the_other_in_use() {
    let per_day = json!({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "quota", "details": [
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure",
         "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel"}]},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "2s"}]}});
    let up = Upstream::gemini().text("fine").start();
    up.set_model("gemini-2.5-pro", Script::body(429, "application/json", per_day.to_string()));
    let service = started(Service::of(BIN).quick().gemini(&up), &["gemini"]).await;
    let pinned = |model: &str, text: &str| {
        let mut body = ask(text);
        body["model"] = json!(format!("gemini/{model}"));
        body
    };
    for i in 0..3 {
        let answer = service.client().chat(&pinned("gemini-2.5-pro", &format!("question {i}"))).await;
        assert_eq!(answer.status, 429);
        assert!(wait_of(&answer) > 2, "the quota of the day counts, not the delay beside it: {answer:?}");
        assert_eq!(service.client().chat(&pinned("gemini-2.5-flash", &format!("q {i}"))).await.status, 200);
    }
    assert_eq!(up.seen().iter().filter(|s| s.model == "gemini-2.5-pro").count(), 1);
}

#[tokio::test]
async fn a_refused_credential_disables_the_backend_and_is_never_the_clients_401() {
    for code in [401, 403] {
        let up = Upstream::openai().script(Script::status(code)).start();
        let service = started(alone(&up), &["only"]).await;
        for i in 0..3 {
            let answer = service.client().chat(&ask(&format!("question {i}"))).await;
            assert_eq!(
                (answer.status, answer.error_code().as_str()),
                (503, "backends_unavailable"),
                "{code}"
            );
        }
        assert_eq!(up.calls(), 1, "{code}: asked again before five minutes");
        let metrics = service.client().metrics().await;
        assert_eq!(metrics.sum("opossum_breaker_state", &[("service_name", "only")]), Some(4.0), "{code}");
    }
}

#[tokio::test]
async fn a_missing_model_disables_that_model_only() {
    let up = Upstream::ollama().text("fine").models(&["a:1b", "b:1b"]).start();
    up.set_model("a:1b", Script::status(404));
    let service = started(Service::of(BIN).quick().ollama(&up), &["ollama"]).await;
    let pinned = |model: &str, text: &str| {
        let mut body = ask(text);
        body["model"] = json!(format!("ollama/{model}"));
        body
    };
    for i in 0..3 {
        assert_eq!(service.client().chat(&pinned("a:1b", &format!("question {i}"))).await.status, 503);
        assert_eq!(service.client().chat(&pinned("b:1b", &format!("question {i}"))).await.status, 200);
    }
    assert_eq!(up.seen().iter().filter(|s| s.model == "a:1b").count(), 1);
}

#[tokio::test]
async fn a_callers_own_errors_never_touch_the_breaker() {
    let error = |status, code: &str| {
        let body = json!({"error": {"message": "m", "type": "invalid_request_error", "code": code}});
        Script::body(status, "application/json", body.to_string())
    };
    let cases = [
        (error(400, "context_length_exceeded"), "context_length_exceeded"),
        (error(400, "content_policy_violation"), "content_filter"),
        (error(422, "invalid_value"), "invalid_value"),
    ];
    let up = Upstream::openai().start();
    let service = started(alone(&up), &["only"]).await;
    let client = service.client();
    for (script, code) in cases {
        up.set_default(script);
        for i in 0..30 {
            let answer = client.chat(&ask(&format!("{code} {i}"))).await;
            assert_eq!((answer.status, answer.error_code().as_str()), (400, code));
        }
    }
    up.set_default(Script::text("fine"));
    assert_eq!(client.chat(&ask("good")).await.status, 200);
    let metrics = client.metrics().await;
    assert!(metrics.count("opossum_breaker_transitions_total", &[("service_name", "only")]) < 1.0);
    assert_eq!(metrics.sum("opossum_breaker_state", &[("service_name", "only")]), Some(0.0));
}

#[tokio::test]
async fn what_gemini_calls_an_internal_error_on_a_long_input_is_the_callers() {
    let long = json!({"error": {"code": 500, "status": "INTERNAL",
        "message": "An internal error has occurred: your input context is too long."}});
    let up = Upstream::gemini().script(Script::body(500, "application/json", long.to_string())).start();
    let service = started(Service::of(BIN).quick().gemini(&up), &["gemini"]).await;
    for i in 0..8 {
        let answer = service.client().chat(&ask(&format!("question {i}"))).await;
        assert_eq!((answer.status, answer.error_code().as_str()), (400, "context_length_exceeded"));
    }
    assert!(up.calls() >= 8);
    let transitions = service.client().metrics().await.count("opossum_breaker_transitions_total", &[]);
    assert!(transitions < 1.0);
}

#[tokio::test]
async fn exactly_one_of_a_hundred_tries_a_half_open_backend() {
    let up = Upstream::openai().start();
    let service = started(alone(&up).env("ONLY_RESET_TIMEOUT", "0.3"), &["only"]).await;
    open_by_errors(&service, &up).await;
    up.set_default(Script::new().delay(Duration::from_millis(700)).answer("healed"));
    // The first open interval, jitter and all, is over after half as long again.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let client = service.client();
    let asked = (0..100).map(|i| {
        let client = client.clone();
        async move { client.chat(&ask(&format!("caller {i}"))).await.status }
    });
    let statuses = futures::future::join_all(asked).await;
    assert_eq!(statuses.iter().filter(|s| **s == 200).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|s| **s == 503).count(), 99, "{statuses:?}");
    assert_eq!(up.calls(), 6);
}

#[tokio::test]
async fn a_trial_that_hangs_doubles_the_interval() {
    let up = Upstream::openai().start();
    let service = started(alone(&up).env("ONLY_RESET_TIMEOUT", "2"), &["only"]).await;
    open_by_errors(&service, &up).await;
    up.set_default(Script::hang());
    let client = service.client();
    let tried = opossum_testkit::eventually(Duration::from_secs(5), async || {
        client.stream(&ask_stream("trial")).await.status() == 504
    });
    assert!(tried.await, "no trial was made");
    let answer = client.chat(&ask("after")).await;
    assert_eq!(answer.status, 503);
    // The second interval is 4 s and at most half as long again.
    assert!((3..=6).contains(&wait_of(&answer)), "{answer:?}");
    assert_eq!(up.calls(), 6);
}

#[tokio::test]
async fn a_trial_whose_caller_leaves_gives_its_permit_back() {
    let up = Upstream::openai().start();
    let service = started(alone(&up).env("ONLY_RESET_TIMEOUT", "0.3"), &["only"]).await;
    open_by_errors(&service, &up).await;
    up.set_default(Script::new().delay(Duration::from_secs(1)).answer("late"));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let client = service.client();
    let mut conn = client.connect().await;
    let body = ask("leaver").to_string();
    let sent = conn.send(&client.request("POST", "/v1/chat/completions", Some(body.as_bytes()))).await;
    assert!(sent.is_ok());
    assert!(up.wait_calls(6, Duration::from_secs(2)).await);
    conn.leave();
    assert!(up.wait_abort(5, Duration::from_secs(1)).await.is_some());
    up.set_default(Script::text("healed"));
    let started = Instant::now();
    let healed = opossum_testkit::eventually(Duration::from_secs(2), async || {
        client.chat(&ask("next")).await.status == 200
    });
    assert!(healed.await);
    assert!(started.elapsed() < Duration::from_millis(500), "the permit was not given back at once");
}

#[tokio::test]
async fn when_all_are_open_the_client_is_told_the_earliest_and_a_healed_one_is_found() {
    let (one, two) = (Upstream::openai().start(), Upstream::openai().start());
    let builder = Service::of(BIN).quick().named("one", &one).named("two", &two);
    let builder = builder.env("ONE_RESET_TIMEOUT", "1").env("TWO_RESET_TIMEOUT", "60");
    let builder = builder.env("ONE_MAX_RETRIES", 0).env("TWO_MAX_RETRIES", 0);
    let service = started(builder, &["one", "two"]).await;
    one.set_default(Script::status(500));
    two.set_default(Script::status(500));
    let client = service.client();
    for i in 0..5 {
        assert_eq!(client.chat(&ask(&format!("question {i}"))).await.status, 502);
    }
    let answer = client.chat(&ask("refused")).await;
    assert_eq!((answer.status, answer.error_code().as_str()), (503, "backends_unavailable"));
    assert!((1..=2).contains(&wait_of(&answer)), "the earliest of 1 s and 60 s: {answer:?}");
    one.set_default(Script::text("healed"));
    let mut n = 0;
    let healed = opossum_testkit::eventually(Duration::from_secs(3), async || {
        n += 1;
        client.chat(&ask(&format!("again {n}"))).await.status == 200
    });
    assert!(healed.await);
    // One good trial is not enough, the second closes it; from then on traffic ramps up.
    let since = Instant::now();
    let mut good = 0;
    while good < 3 && since.elapsed() < Duration::from_secs(5) {
        n += 1;
        good += usize::from(client.chat(&ask(&format!("more {n}"))).await.status == 200);
    }
    assert_eq!(good, 3, "the healed backend got no traffic");
    assert_eq!(two.calls(), 5);
}

/// A stream whose first token takes 120 ms, where 50 ms counts as slow.
fn crawling() -> Script {
    Script::new().then(Step::RoleOnly).delay(Duration::from_millis(120)).answer("slow but good")
}

#[tokio::test]
async fn a_backend_that_is_slow_throughout_is_opened_while_another_can_answer() {
    let slow = Upstream::openai().script(crawling()).start();
    let good = Upstream::openai().text("fine").start();
    let builder = Service::of(BIN).quick().named("slow", &slow).named("good", &good).first_choice("slow");
    let service = started(builder.set("upstream.slow_first_token", 0.05), &["slow", "good"]).await;
    for i in 0..25 {
        let stream = service.client().stream(&ask_stream(&format!("question {i}"))).await.collect().await;
        assert!(stream.done(), "slow is no error: {stream:?}");
    }
    assert!((8..=16).contains(&slow.calls()), "open at 80 % slow of ten and more: {}", slow.calls());
    assert!(good.calls() >= 9);
}

#[tokio::test]
async fn the_only_backend_is_never_opened_for_being_slow() {
    let slow = Upstream::openai().script(crawling()).start();
    let service = started(alone(&slow).set("upstream.slow_first_token", 0.05), &["only"]).await;
    for i in 0..20 {
        let stream = service.client().stream(&ask_stream(&format!("question {i}"))).await.collect().await;
        assert!(stream.done(), "{stream:?}");
    }
    assert_eq!(slow.calls(), 20);
}

#[tokio::test]
async fn a_busy_ollama_cools_and_is_not_called_broken() {
    let busy = json!({"error": "server busy, please try again. maximum pending requests exceeded"});
    let ollama = Upstream::ollama().script(Script::body(503, "application/json", busy.to_string())).start();
    let good = Upstream::openai().text("fine").start();
    let builder = Service::of(BIN).quick().ollama(&ollama).openai(&good).first_choice("ollama");
    let service = started(builder, &["ollama", "openai"]).await;
    for i in 0..10 {
        assert_eq!(service.client().chat(&ask(&format!("question {i}"))).await.text(), "fine");
    }
    let metrics = service.client().metrics().await;
    let opened =
        metrics.count("opossum_breaker_transitions_total", &[("service_name", "ollama"), ("to", "open")]);
    assert!(opened < 1.0);
}

#[tokio::test]
async fn a_model_that_is_loading_may_take_longer_than_a_first_token() {
    let loading = Script::new().delay(Duration::from_millis(1200)).answer("loaded");
    let ollama = Upstream::ollama().script(loading).start();
    let builder =
        Service::of(BIN).quick().set("upstream.cold_load", 5).set("upstream.total", 10).ollama(&ollama);
    let service = started(builder, &["ollama"]).await;
    let stream = service.client().stream(&ask_stream("x")).await.collect().await;
    assert_eq!((stream.status, stream.text().as_str()), (200, "loaded"), "{stream:?}");
}

#[tokio::test]
async fn a_breaker_that_is_off_never_opens() {
    let up = Upstream::openai().script(Script::status(500)).start();
    let service = started(alone(&up).env("ONLY_CIRCUIT_BREAKER_ENABLED", "false"), &["only"]).await;
    for i in 0..12 {
        assert_eq!(service.client().chat(&ask(&format!("question {i}"))).await.status, 502);
    }
    assert_eq!(up.calls(), 12);
}

/// An HTTP date (RFC 9110 §5.6.7).
fn httpdate(at: SystemTime) -> String {
    ::httpdate::fmt_http_date(at)
}
