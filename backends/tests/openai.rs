//! The OpenAI dialect against a server that misbehaves as told.
#![expect(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::{Duration, Instant, SystemTime};

use common::{ABORT_LIMIT, PATIENCE, chat, classes, client, hear, hear_out, reply, stream, whole};
use futures::StreamExt as _;
use opossum_backends::Backend;
use opossum_backends::openai::{OpenAiBackend, OpenAiConfig};
use opossum_core::answer::FinishReason;
use opossum_core::class::FailureClass as Class;
use opossum_core::request::Prompt;
use opossum_testkit::{BlackHole, RefusedAddr, Script, Step, Upstream};
use secrecy::SecretString;

fn at(base_url: &str) -> OpenAiBackend {
    let mut config = OpenAiConfig::new("openai", base_url);
    config.api_key = Some(SecretString::from("canary-key"));
    OpenAiBackend::new(config, client()).unwrap()
}

fn backend(upstream: &Upstream) -> OpenAiBackend {
    at(&upstream.openai_base_url())
}

fn upstream(script: Script) -> (Upstream, OpenAiBackend) {
    let upstream = Upstream::openai().script(script).start();
    let backend = backend(&upstream);
    (upstream, backend)
}

#[tokio::test]
async fn a_whole_answer_comes_with_its_usage() {
    let (upstream, backend) = upstream(Script::text("hello \"there\"\n\u{1F43E}"));
    let answer = whole(&backend).await.unwrap();
    assert_eq!(answer.choices[0].text.as_deref(), Some("hello \"there\"\n\u{1F43E}"));
    assert_eq!(answer.choices[0].finish, FinishReason::Stop);
    assert_eq!(answer.usage.unwrap().prompt, opossum_testkit::upstream::PROMPT_TOKENS as u64);
    let seen = upstream.seen().remove(0);
    assert_eq!((seen.path.as_str(), seen.key.as_deref()), ("/v1/chat/completions", Some("canary-key")));
    assert_eq!(seen.header("x-request-id"), Some("req-1"));
    assert!(seen.header("traceparent").is_some_and(|value| value.starts_with("00-0af7651916cd43dd")));
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert_eq!(seen.header("accept-encoding"), None, "compression is not asked for");
    assert_eq!(seen.body.get("stream"), None);
}

#[tokio::test]
async fn a_stream_asks_for_usage_and_gets_it() {
    let (upstream, backend) = upstream(Script::text("one two three"));
    let heard = hear(&backend).await;
    assert_eq!(
        (heard.text.as_str(), heard.finish, heard.class()),
        ("one two three", Some(FinishReason::Stop), None)
    );
    assert_eq!(heard.tokens, Some(3));
    assert_eq!(upstream.seen()[0].body["stream_options"]["include_usage"], true);
}

#[tokio::test]
async fn raw_prompts_go_to_their_own_route() {
    let (upstream, backend) = upstream(Script::text("world"));
    for stream in [false, true] {
        let mut request = chat(stream);
        request.prompt = Prompt::Text { prompt: "hello".into(), suffix: None, echo: false };
        match reply(&backend, request).await.unwrap() {
            opossum_backends::Reply::Whole(answer) => {
                assert_eq!(answer.choices[0].text.as_deref(), Some("world"));
            }
            opossum_backends::Reply::Stream(stream) => assert_eq!(hear_out(stream).await.text, "world"),
        }
    }
    assert!(upstream.seen().iter().all(|seen| seen.path == "/v1/completions"));
}

#[tokio::test]
async fn fault_u4_bytes_cut_anywhere_give_the_same_text() {
    let text = "zwölf Boxkämpfer \u{1F94A} jagen \"Viktor\"";
    for size in [1, 2, 3, 5, 7, 16, 61] {
        let (_upstream, backend) = upstream(Script::new().then(Step::SplitEvery(size)).answer(text));
        let heard = hear(&backend).await;
        assert_eq!((heard.text.as_str(), heard.class()), (text, None), "{size}");
        let answer = whole(&backend).await.unwrap();
        assert_eq!(answer.choices[0].text.as_deref(), Some(text), "{size}");
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
    let (_upstream, backend) = upstream(Script::huge_line(1024 * 1024));
    assert_eq!(hear(&backend).await.class(), Some(Class::BadResponse));
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2000000000\r\n\r\n{";
    let (_upstream, backend) = upstream(Script::new().then(Step::Raw(head.into())).then(Step::Stall));
    assert_eq!(whole(&backend).await.unwrap_err().class, Class::BadResponse, "more than 16 MiB");
    let endless =
        Script::new().then(Step::Head).then(Step::Body(vec![b' '; 17 * 1024 * 1024])).then(Step::Stall);
    let (_upstream, backend) = upstream(endless);
    assert_eq!(whole(&backend).await.unwrap_err().class, Class::BadResponse, "17 MiB without a length");
}

#[tokio::test]
async fn fault_u4_an_endless_head_is_a_bad_response() {
    let head = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(160 * 1024));
    let (_upstream, backend) = upstream(Script::new().then(Step::Raw(head.into())).then(Step::Stall));
    assert_eq!(whole(&backend).await.unwrap_err().class, Class::BadResponse);
}

#[tokio::test]
async fn fault_u4_no_http_at_all_is_a_bad_response() {
    let (_upstream, backend) = upstream(Script::new().then(Step::Raw("SSH-2.0-x\r\n\r\n".into())));
    assert_eq!(whole(&backend).await.unwrap_err().class, Class::BadResponse);
}

#[tokio::test]
async fn compression_that_was_not_asked_for_is_refused() {
    let headers = vec![("content-encoding".to_owned(), "gzip".to_owned())];
    let body = Some(vec![0x1f, 0x8b]);
    let (_upstream, backend) = upstream(Script::new().then(Step::Status { code: 200, headers, body }));
    assert_eq!(whole(&backend).await.unwrap_err().class, Class::BadResponse);
}

#[tokio::test]
async fn fault_u1_no_answer_at_all_is_transport() {
    let refused = RefusedAddr::new();
    let began = Instant::now();
    let backend = at(&format!("{}/v1", refused.base_url()));
    assert_eq!(classes(&backend).await, (Some(Class::Transport), Some(Class::Transport)));
    assert!(began.elapsed() < Duration::from_millis(500));
    let (_upstream, backend) = upstream(Script::reset());
    assert_eq!(classes(&backend).await, (Some(Class::Transport), Some(Class::Transport)));
    let (_upstream, backend) = upstream(Script::new());
    assert_eq!(classes(&backend).await, (Some(Class::Transport), Some(Class::Transport)));
    let backend = at("http://no-such-host.invalid/v1");
    assert_eq!(whole(&backend).await.unwrap_err().class, Class::Transport);
}

#[tokio::test]
async fn fault_u1_a_black_hole_costs_two_seconds() {
    let hole = BlackHole::syn();
    let began = Instant::now();
    let error = whole(&at(&format!("{}/v1", hole.base_url()))).await.unwrap_err();
    assert_eq!(error.class, Class::Transport);
    assert!((1900..2900).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
}

#[tokio::test]
async fn fault_s10_plain_text_behind_https_is_transport() {
    let (upstream, _) = upstream(Script::text("hi"));
    let error = whole(&at(&format!("https://{}/v1", upstream.addr()))).await.unwrap_err();
    assert_eq!(error.class, Class::Transport);
    assert_eq!(upstream.calls(), 0);
    // A server that never answers the handshake is within the same limit as one that never accepts.
    let silent = BlackHole::silent();
    let began = Instant::now();
    let error = whole(&at(&format!("https://{}/v1", silent.addr()))).await.unwrap_err();
    assert_eq!(error.class, Class::Transport);
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn fault_u3_a_cut_is_never_a_clean_end() {
    for script in [Script::cut_after(2), Script::eof_without_finish(2)] {
        let (_upstream, backend) = upstream(script.clone());
        let heard = hear(&backend).await;
        assert_eq!(heard.text, "word0 word1 ", "{script:?}");
        assert_eq!((heard.finish, heard.class()), (None, Some(Class::Truncated)), "{script:?}");
    }
    let marked =
        Script::new().then(Step::Head).chunks(&["a "]).then(Step::Body(b"data: [DONE]\n\n".to_vec()));
    let (_upstream, backend) = upstream(marked);
    assert_eq!(hear(&backend).await.class(), Some(Class::Truncated), "an end mark alone does not finish");
    let (_upstream, backend) = upstream(Script::cut_after(2));
    assert_eq!(whole(&backend).await.unwrap_err().class, Class::Truncated);
}

#[tokio::test]
async fn a_finish_without_the_end_mark_is_a_good_end() {
    let script = Script::new()
        .then(Step::Head)
        .chunks(&["a"])
        .then(Step::Finish { reason: "length".into(), end_mark: false });
    let (_upstream, backend) = upstream(script);
    let heard = hear(&backend).await;
    assert_eq!((heard.finish, heard.class()), (Some(FinishReason::Length), None));
}

#[tokio::test]
async fn an_upstream_that_stays_after_its_end_mark_is_not_waited_for() {
    let script = Script::new().then(Step::Head).chunks(&["a"]).finish("stop").then(Step::Stall);
    let (_upstream, backend) = upstream(script);
    let began = Instant::now();
    let heard = hear(&backend).await;
    assert_eq!((heard.text.as_str(), heard.class()), ("a", None));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_error_in_the_stream_has_its_own_class() {
    for (code, class) in [
        ("server_error", Class::ServerError),
        ("rate_limit_exceeded", Class::RateLimited),
        ("insufficient_quota", Class::QuotaExhausted),
        ("context_length_exceeded", Class::ContextLength),
        ("503", Class::ServerError),
    ] {
        let error = Step::ErrorEvent { code: code.into(), message: "m".into() };
        let (_upstream, backend) =
            upstream(Script::new().then(Step::Head).chunks(&["a"]).then(error).then(Step::Stall));
        let heard = hear(&backend).await;
        assert_eq!((heard.text.as_str(), heard.class()), ("a", Some(class)), "{code}");
    }
}

#[tokio::test]
async fn fault_u6_a_wait_is_read_in_every_form() {
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(60));
    let past = httpdate::fmt_http_date(SystemTime::now() - Duration::from_secs(60));
    let seconds = |s| Some(Duration::from_secs(s));
    for (headers, low, high) in [
        (vec![("retry-after", "3")], seconds(3), seconds(3)),
        (vec![("retry-after", date.as_str())], seconds(55), seconds(60)),
        (vec![("retry-after", past.as_str())], seconds(0), seconds(0)),
        (vec![("retry-after", "86400")], seconds(86_400), seconds(86_400)),
        (
            vec![("retry-after-ms", "1500"), ("retry-after", "9")],
            Some(Duration::from_millis(1500)),
            Some(Duration::from_millis(1500)),
        ),
        (vec![("retry-after", "soon")], None, None),
        (vec![], None, None),
    ] {
        let (_upstream, backend) = upstream(Script::status_with(429, &headers));
        let error = whole(&backend).await.unwrap_err();
        assert_eq!((error.class, error.status), (Class::RateLimited, Some(429)), "{headers:?}");
        assert!(
            low <= error.retry_after && error.retry_after <= high,
            "{headers:?}: {:?}",
            error.retry_after
        );
    }
}

#[tokio::test]
async fn every_status_has_its_class() {
    for (status, class) in [
        (400, Class::CallerError),
        (401, Class::BadCredential),
        (402, Class::QuotaExhausted),
        (403, Class::BadCredential),
        (404, Class::ModelMissing),
        (408, Class::ServerError),
        (422, Class::CallerError),
        (500, Class::ServerError),
        (502, Class::ServerError),
        (503, Class::ServerError),
        (529, Class::ServerError),
    ] {
        let (_upstream, backend) = upstream(Script::body(status, "text/plain", "x"));
        assert_eq!(classes(&backend).await, (Some(class), Some(class)), "{status}");
    }
}

#[tokio::test]
async fn fault_s10_a_redirect_is_not_followed() {
    let target = Upstream::openai().text("secret").start();
    let location = format!("{}/v1/chat/completions", target.base_url());
    let (_upstream, backend) = upstream(Script::status_with(302, &[("location", location.as_str())]));
    assert_eq!(classes(&backend).await, (Some(Class::BadResponse), Some(Class::BadResponse)));
    assert_eq!(target.calls() + target.probes().len(), 0);
}

#[tokio::test]
async fn an_error_whose_body_hangs_still_tells_its_status() {
    let head = "HTTP/1.1 429 Too Many\r\nretry-after: 7\r\ncontent-length: 100\r\n\r\n{";
    let (_upstream, backend) = upstream(Script::new().then(Step::Raw(head.into())).then(Step::Stall));
    let error = whole(&backend).await.unwrap_err();
    assert_eq!((error.class, error.retry_after), (Class::RateLimited, Some(Duration::from_secs(7))));
}

#[tokio::test]
async fn fault_s5_the_key_is_in_no_error() {
    let body = r#"{"error":{"message":"Incorrect API key provided: canary-key.","code":"invalid_api_key"}}"#;
    let (_upstream, backend) = upstream(Script::body(401, "application/json", body));
    let error = whole(&backend).await.unwrap_err();
    assert_eq!(error.class, Class::BadCredential);
    assert!(!format!("{error} {error:?}").contains("canary-key"));
    let in_band = Step::ErrorEvent { code: "401".into(), message: "bad key canary-key".into() };
    let (_upstream, backend) = upstream(Script::new().then(Step::Head).then(in_band));
    let error = hear(&backend).await.error.unwrap();
    assert!(!format!("{error} {error:?}").contains("canary-key"));
}

#[tokio::test]
async fn fault_h7_leaving_stops_the_upstream() {
    // Before the head, whole and streamed.
    for streamed in [false, true] {
        let (upstream, backend) = upstream(Script::hang());
        let calling =
            tokio::spawn(async move { backend.generate(common::call(chat(streamed))).await.map(drop) });
        assert!(upstream.wait_calls(1, PATIENCE).await);
        let left = Instant::now();
        calling.abort();
        assert!(upstream.wait_abort(0, PATIENCE).await.is_some());
        assert!(left.elapsed() < ABORT_LIMIT, "{:?}", left.elapsed());
    }
    // In the middle of a stream that flows, and of one that stalls.
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
async fn connections_are_used_again_by_whole_answers_and_streams() {
    let (upstream, backend) = upstream(Script::text("hello there"));
    for _ in 0..4 {
        whole(&backend).await.unwrap();
        assert_eq!(hear(&backend).await.class(), None);
        backend.probe().await.unwrap();
    }
    let connections: Vec<usize> = upstream.seen().iter().map(|seen| seen.connection).collect();
    assert!(connections.iter().all(|connection| *connection == 0), "{connections:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_calls_at_once_do_not_mix() {
    let upstream = Upstream::openai().start();
    for name in 0..10 {
        upstream.set_model(&format!("m{name}"), Script::text(&format!("answer of {name} in some words")));
    }
    let backend = backend(&upstream);
    let ask = |number: usize| {
        let backend = backend.clone();
        async move {
            let mut call = common::call(chat(number.is_multiple_of(2)));
            call.model = format!("m{}", number % 10).as_str().into();
            let text = match backend.generate(call).await.unwrap() {
                opossum_backends::Reply::Whole(answer) => answer.choices[0].text.clone().unwrap(),
                opossum_backends::Reply::Stream(stream) => hear_out(stream).await.text,
            };
            assert_eq!(text, format!("answer of {} in some words", number % 10));
        }
    };
    for _ in 0..5 {
        let calls: Vec<_> = (0..100).map(|number| tokio::spawn(ask(number))).collect();
        for call in calls {
            call.await.unwrap();
        }
    }
    let opened = || upstream.seen().iter().map(|seen| seen.connection).max().unwrap();
    // How many calls at once open depends on the machine; those one after another find what others have left.
    let before = opened();
    for number in 0..100 {
        tokio::spawn(ask(number)).await.unwrap();
    }
    let connections = opened() - before;
    assert!(connections <= 20, "{connections} connections for 100 calls");
}

#[tokio::test]
async fn a_connection_that_the_upstream_closed_is_replaced() {
    let (mut upstream, backend) = upstream(Script::text("hello"));
    whole(&backend).await.unwrap();
    upstream.restart();
    // Blocks the event loop, so that nobody can have seen the connection close.
    std::thread::sleep(Duration::from_millis(20));
    whole(&backend).await.unwrap();
    assert_eq!(upstream.calls(), 2);
}

#[tokio::test]
async fn what_has_arrived_together_comes_together() {
    let chunk = r#"data: {"choices":[{"index":0,"delta":{"content":"x "}}]}"#;
    let many = format!("{chunk}\n\n").repeat(500);
    let script = Script::new().then(Step::Head).then(Step::Body(many.into_bytes())).finish("stop");
    let (_upstream, backend) = upstream(script);
    let mut events = stream(&backend).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut batches = 0;
    let mut count = 0;
    while let Some(batch) = events.next().await {
        batches += 1;
        count += batch.unwrap().len();
    }
    assert!(batches <= 6 && count <= 10, "{count} events in {batches} batches");
}

#[tokio::test]
async fn a_server_that_does_not_stream_is_understood() {
    let body = r#"{"choices":[{"index":0,"message":{"content":"all at once"},"finish_reason":"stop"}],"usage":{"completion_tokens":3}}"#;
    let (_upstream, backend) = upstream(Script::body(200, "application/json; charset=utf-8", body));
    let heard = hear(&backend).await;
    assert_eq!(
        (heard.text.as_str(), heard.finish, heard.tokens),
        ("all at once", Some(FinishReason::Stop), Some(3))
    );
}

#[tokio::test]
async fn models_and_probe_ask_for_the_list() {
    let upstream = Upstream::openai().models(&["a", "b"]).start();
    let backend = backend(&upstream);
    let names: Vec<String> =
        backend.models().await.unwrap().iter().map(|model| model.name.to_string()).collect();
    assert_eq!(names, ["a", "b"]);
    backend.probe().await.unwrap();
    assert_eq!(upstream.probes()[0].key.as_deref(), Some("canary-key"));
    upstream.set_probe(Some(Script::status(401)));
    assert_eq!(backend.probe().await.unwrap_err().class, Class::BadCredential);
    upstream.set_probe(Some(Script::html()));
    assert_eq!(backend.probe().await.unwrap_err().class, Class::BadResponse);
    upstream.set_probe(Some(Script::json(&serde_json::json!({"object": "list", "data": [
        {"id": "v", "max_model_len": 4096}, {"id": "l", "meta": {"n_ctx_train": 8192}}, {"id": "o"}]}))));
    let context: Vec<_> = backend.models().await.unwrap().iter().map(|model| model.context_tokens).collect();
    assert_eq!(context, [Some(4096), Some(8192), None]);
}

#[test]
fn a_base_url_that_cannot_work_is_refused() {
    for base in [
        "",
        "localhost:8000/v1",
        "ftp://h/v1",
        "http:///v1",
        "http://u:p@h/v1",
        "http://h/v1?x=1",
        "http://h/#a",
    ] {
        let error = OpenAiBackend::new(OpenAiConfig::new("openai", base), client()).err();
        let error = error.unwrap_or_else(|| panic!("{base} was accepted"));
        assert!(!error.to_string().contains("u:p"));
    }
    assert!(OpenAiBackend::new(OpenAiConfig::new("openai", "http://h:1/v1/"), client()).is_ok());
}
