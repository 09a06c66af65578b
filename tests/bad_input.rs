//! Whatever a caller sends, it costs nobody but the caller: a precise 4xx, no call upstream, never a 500.

use std::time::Duration;

use opossum_testkit::{Answer, Client, Service, Upstream, ask};
use serde_json::{Value, json};

const BIN: &str = env!("CARGO_BIN_EXE_opossum");
const CHAT: &str = "/v1/chat/completions";

async fn serve() -> (Upstream, Service) {
    let up = Upstream::openai().text("fine").start();
    let service = Service::of(BIN).openai(&up).start().await;
    service.settled(&["openai"]).await;
    (up, service)
}

fn message(content: &str) -> String {
    format!(r#"{{"model":"auto","messages":[{{"role":"user","content":{content}}}]}}"#)
}

/// An error in the shape that clients rely on.
fn is_error(answer: &Answer, status: u16, code: &str, what: &str) {
    assert_eq!(answer.status, status, "{what}: {}", answer.body_text());
    let error = &answer.json()["error"];
    assert_eq!(error["code"], code, "{what}: {error}");
    for key in ["message", "type", "param", "code", "request_id"] {
        assert!(error.get(key).is_some(), "{what}: no `{key}` in {error}");
    }
    assert_eq!(answer.header("content-type"), Some("application/json"), "{what}");
    assert_eq!(answer.header("x-request-id"), error["request_id"].as_str(), "{what}");
}

#[tokio::test]
async fn what_is_no_json_is_a_400_at_once_and_the_connection_goes_on() {
    let (up, service) = serve().await;
    let client = service.client();
    let deep = message(&format!("{}1{}", "[".repeat(200), "]".repeat(200)));
    let mut bad_utf8 = message("\"\u{fffd}\"").into_bytes();
    let at = bad_utf8.windows(3).position(|w| w == "\u{fffd}".as_bytes()).unwrap_or(0);
    bad_utf8.splice(at..at + 3, [0xff]);
    let bodies: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("half", b"{\"model\":".to_vec()),
        ("two values", b"{} {}".to_vec()),
        ("not UTF-8", bad_utf8),
        ("a lone surrogate", message(r#""\ud800""#).into_bytes()),
        ("a number past all numbers", message("1e400").into_bytes()),
        ("too deep", deep.into_bytes()),
        ("a trailing comma", b"{\"model\":\"auto\",}".to_vec()),
        ("single quotes", b"{'model':'auto'}".to_vec()),
        ("NaN", br#"{"model":"auto","temperature":NaN,"messages":[]}"#.to_vec()),
    ];
    let mut conn = client.connect().await;
    for (what, body) in bodies {
        let sent = conn.send(&client.request("POST", CHAT, Some(&body))).await;
        assert!(sent.is_ok(), "{what}: the connection is gone");
        match conn.answer().await {
            Ok(answer) => {
                is_error(&answer, 400, "invalid_json", what);
                assert!(answer.elapsed < Duration::from_millis(100), "{what}: {:?}", answer.elapsed);
            }
            Err(err) => assert_eq!(err.to_string(), "", "{what}: no answer"),
        }
    }
    let good = ask("still there").to_string();
    assert!(conn.send(&client.request("POST", CHAT, Some(good.as_bytes()))).await.is_ok());
    assert_eq!(conn.answer().await.map(|a| a.status).unwrap_or(0), 200);
    assert_eq!(up.calls(), 1);
    assert!(!service.logs().contains("ud800"), "a body is in the log");
}

/// A chat with one field set.
fn with(field: &str, value: &Value) -> Value {
    let mut body = ask("x");
    body[field] = value.clone();
    body
}

#[tokio::test]
async fn a_wrong_value_is_a_400_that_names_its_parameter() {
    let (up, service) = serve().await;
    let user = |content: Value| json!([{"role": "user", "content": content}]);
    let long = "x".repeat(300);
    let cases: Vec<(&str, Value, &str)> = vec![
        ("messages", json!([]), "messages"),
        ("messages", Value::Null, "messages"),
        ("messages", json!("hello"), "messages"),
        ("messages", json!([{"role": "emperor", "content": "x"}]), "messages[0].role"),
        ("messages", json!([{"content": "x"}]), "messages[0].role"),
        ("messages", user(json!(7)), "messages[0].content"),
        ("messages", user(json!([{"type": "hologram"}])), "messages[0].content[0].type"),
        ("n", json!(0), "n"),
        ("n", json!(1_000_000_000), "n"),
        ("n", json!(-1), "n"),
        ("max_tokens", json!(-1), "max_tokens"),
        ("max_tokens", json!(0), "max_tokens"),
        ("max_tokens", json!("many"), "max_tokens"),
        ("max_completion_tokens", json!(1.5), "max_completion_tokens"),
        ("temperature", json!(3), "temperature"),
        ("temperature", json!(-0.1), "temperature"),
        ("temperature", json!("hot"), "temperature"),
        ("top_p", json!(0), "top_p"),
        ("top_p", json!(1.01), "top_p"),
        ("top_k", json!(0), "top_k"),
        ("stop", json!(vec!["a"; 100_000]), "stop"),
        ("stop", json!([long]), "stop"),
        ("seed", json!("lucky"), "seed"),
        ("presence_penalty", json!(9), "presence_penalty"),
        ("frequency_penalty", json!(-9), "frequency_penalty"),
        ("logit_bias", json!({"1": 1000}), "logit_bias"),
        ("tools", json!([{"type": "function", "function": {"name": "no spaces allowed"}}]), "tools"),
        ("tool_choice", json!("sometimes"), "tool_choice"),
        ("response_format", json!({"type": "yaml"}), "response_format"),
        ("stream", json!("yes"), "stream"),
        ("stream_options", json!({"include_usage": true}), "stream_options"),
        ("model", json!(7), "model"),
        ("user", json!("u".repeat(300)), "user"),
    ];
    for (field, value, param) in cases {
        let shown = value.to_string().chars().take(60).collect::<String>();
        let answer = service.client().chat(&with(field, &value)).await;
        assert_eq!(answer.status, 400, "{field}={shown}: {}", answer.body_text());
        let got = answer.error_param();
        assert!(got.starts_with(param), "{field}={shown}: names `{got}`, not `{param}`");
        let code = answer.error_code();
        assert!(["invalid_value", "missing_parameter"].contains(&code.as_str()), "{field}={shown}: {code}");
    }
    assert_eq!(up.calls(), 0);
}

#[tokio::test]
async fn missing_fields_are_named() {
    let (up, service) = serve().await;
    let cases =
        [(json!({"model": "auto"}), "messages"), (json!({"messages": []}), "model"), (json!({}), "m")];
    for (body, param) in cases {
        let answer = service.client().chat(&body).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.body_text());
        assert!(answer.error_param().starts_with(param), "{body}: {}", answer.error_param());
    }
    assert_eq!(up.calls(), 0);
}

#[tokio::test]
async fn a_field_that_nobody_can_honour_is_refused_by_name_and_never_dropped() {
    let (up, service) = serve().await;
    for field in
        ["api_base", "api_key", "base_url", "functions", "audio", "web_search_options", "no_such_field"]
    {
        let answer = service.client().chat(&with(field, &json!({"x": 1}))).await;
        is_error(&answer, 400, "unsupported_parameter", field);
        assert_eq!(answer.error_param(), field);
    }
    assert_eq!(up.calls(), 0);
}

#[tokio::test]
async fn odd_but_legal_input_is_answered() {
    let (up, service) = serve().await;
    let nul = json!([{"role": "user", "content": "a\u{0}b"}]);
    let recursive = json!({"type": "json_schema", "json_schema": {"name": "tree", "schema": {
        "type": "object", "properties": {"child": {"$ref": "#"}}}}});
    let breaker = json!([{"role": "user", "content": "x\n\ndata: [DONE]\n\n"}]);
    for (field, value) in [
        ("messages", nul),
        ("response_format", recursive),
        ("messages", breaker),
        ("temperature", json!(0)),
        ("stop", json!("END")),
        ("user", json!("somebody")),
    ] {
        let answer = service.client().chat(&with(field, &value)).await;
        assert_eq!(answer.status, 200, "{field}: {}", answer.body_text());
    }
    assert_eq!(up.seen()[0].body["messages"][0]["content"], "a\u{0}b");
}

#[tokio::test]
async fn an_unknown_model_is_a_404_whatever_is_in_its_name() {
    let (up, service) = serve().await;
    for model in ["gpt-17", "openai/", "/", "a\r\nx-evil: 1", "\u{1b}[31mred"] {
        let answer = service.client().chat(&with("model", &json!(model))).await;
        is_error(&answer, 404, "model_not_found", model);
        assert!(answer.header("x-evil").is_none());
    }
    assert_eq!(up.calls(), 0);
    assert!(
        service.logs().lines().all(|line| !line.contains('\u{1b}')),
        "a caller writes into the log at will"
    );
}

#[tokio::test]
async fn content_types_and_encodings_that_are_not_ours_are_a_415() {
    let (up, service) = serve().await;
    let body = ask("x").to_string();
    for (name, value) in [
        ("content-type", "text/plain"),
        ("content-type", "application/xml"),
        ("content-encoding", "compress"),
    ] {
        let client = service.client().with(name, value);
        let answer = client.call("POST", CHAT, Some(body.as_bytes())).await;
        is_error(&answer, 415, "unsupported_media_type", value);
    }
    let charset = service.client().with("content-type", "application/json; charset=utf-8");
    assert_eq!(charset.call("POST", CHAT, Some(body.as_bytes())).await.status, 200);
    assert_eq!(up.calls(), 1);
}

#[tokio::test]
async fn a_body_past_the_limit_is_a_413_and_costs_no_memory() {
    let (up, service) = serve().await;
    let client = service.client();
    let before = service.peak_rss_kib();
    // By its announced length: refused before the body comes.
    let mut conn = client.connect().await;
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 104857600\r\n\r\n"
    );
    assert!(conn.send(head.as_bytes()).await.is_ok());
    let announced = conn.answer().await;
    assert!(announced.is_ok(), "{announced:?}");
    if let Ok(answer) = announced {
        is_error(&answer, 413, "request_too_large", "announced");
    }
    // In chunks, without an announcement: refused when the limit is passed.
    let mut conn = client.connect().await;
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    assert!(conn.send(head.as_bytes()).await.is_ok());
    let chunk = [b"100000\r\n".to_vec(), vec![b' '; 1 << 20], b"\r\n".to_vec()].concat();
    for _ in 0..64 {
        if conn.send(&chunk).await.is_err() {
            break;
        }
    }
    // The server may close while we still send, so that its answer is lost to a reset; that is no acceptance.
    if let Ok(answer) = conn.answer().await {
        is_error(&answer, 413, "request_too_large", "in chunks");
    }
    let grown = service.peak_rss_kib() - before;
    assert!(grown < 3 * 20 * 1024, "{grown} KiB for bodies that were refused");
    assert_eq!(up.calls(), 0);
    assert_eq!(client.chat(&ask("x")).await.status, 200);
}

#[tokio::test]
async fn a_gzip_bomb_is_a_413_by_what_it_unpacks_to() {
    let (up, service) = serve().await;
    let before = service.peak_rss_kib();
    let bomb = gzip_of_zeros(200 << 20);
    assert!(bomb.len() < 1 << 20, "the bomb is {} bytes", bomb.len());
    let answer = service.client().with("content-encoding", "gzip").call("POST", CHAT, Some(&bomb)).await;
    is_error(&answer, 413, "request_too_large", "bomb");
    let grown = service.peak_rss_kib() - before;
    assert!(grown < 3 * 20 * 1024, "{grown} KiB for a bomb");
    assert_eq!(up.calls(), 0);
}

fn gzip_of_zeros(size: usize) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let zeros = vec![b' '; 1 << 20];
    for _ in 0..size >> 20 {
        if encoder.write_all(&zeros).is_err() {
            break;
        }
    }
    encoder.finish().unwrap_or_default()
}

/// Sends raw bytes on a fresh connection; the status, or `None` when the server just closed.
async fn raw(client: &Client, bytes: &[u8]) -> Option<u16> {
    let mut conn = client.connect().await;
    if conn.send(bytes).await.is_err() {
        return None;
    }
    conn.answer().await.ok().map(|answer| answer.status)
}

#[tokio::test]
async fn heads_that_are_too_big_or_ambiguous_are_refused_and_smuggle_nothing() {
    let (up, service) = serve().await;
    let client = service.client().limit(Duration::from_secs(5));
    let body = ask("smuggled").to_string();
    let n = body.len();
    let many: String = (0..120).map(|i| format!("x-{i}: y\r\n")).collect();
    let big = format!("x-big: {}\r\n", "y".repeat(140 * 1024));
    let good = "host: x\r\ncontent-type: application/json\r\n";
    let smuggled = format!("POST {CHAT} HTTP/1.1\r\n{good}content-length: {n}\r\n\r\n{body}");
    let cases = [
        ("many headers", format!("GET /health/live HTTP/1.1\r\nhost: x\r\n{many}\r\n")),
        ("a big head", format!("GET /health/live HTTP/1.1\r\nhost: x\r\n{big}\r\n")),
        (
            "length and chunks",
            format!(
                "POST {CHAT} HTTP/1.1\r\n{good}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
            ),
        ),
        (
            "two lengths",
            format!(
                "POST {CHAT} HTTP/1.1\r\n{good}content-length: 0\r\ncontent-length: {n}\r\n\r\n{smuggled}"
            ),
        ),
        ("a negative length", format!("POST {CHAT} HTTP/1.1\r\n{good}content-length: -1\r\n\r\n{smuggled}")),
        (
            "a space before the colon",
            format!("POST {CHAT} HTTP/1.1\r\n{good}content-length : 0\r\n\r\n{smuggled}"),
        ),
        ("no method", "\u{0}\u{1}\u{2} / HTTP/1.1\r\n\r\n".to_owned()),
        ("HTTP/3.9", "GET /health/live HTTP/3.9\r\nhost: x\r\n\r\n".to_owned()),
    ];
    for (what, bytes) in cases {
        let status = raw(&client, bytes.as_bytes()).await;
        let refused = status.is_none_or(|s| s == 400 || s == 431 || s == 505);
        assert!(refused, "{what}: {status:?}");
    }
    assert_eq!(up.calls(), 0, "a request was smuggled in: {:?}", up.seen());
    assert_eq!(client.chat(&ask("x")).await.status, 200);
}

#[tokio::test]
async fn a_prompt_past_the_context_is_the_callers_error() {
    let up = Upstream::openai().start();
    let body = json!({"error": {"message": "This model's maximum context length is 8192 tokens.",
        "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded"}});
    up.set_default(opossum_testkit::Script::body(400, "application/json", body.to_string()));
    let service = Service::of(BIN).openai(&up).start().await;
    service.settled(&["openai"]).await;
    let long = "word ".repeat(50_000);
    for _ in 0..7 {
        let answer = service.client().chat(&ask(&long)).await;
        is_error(&answer, 400, "context_length_exceeded", "long prompt");
    }
    assert_eq!(up.calls(), 7, "seven refusals of a long prompt opened a breaker or were retried");
}

#[tokio::test]
async fn routes_and_methods_that_do_not_exist_say_so_in_the_same_shape() {
    let (_up, service) = serve().await;
    let client = service.client();
    is_error(&client.get("/v1/nothing").await, 404, "not_found", "GET /v1/nothing");
    let wrong = client.get(CHAT).await;
    is_error(&wrong, 405, "method_not_allowed", "GET chat");
    assert_eq!(wrong.header("allow"), Some("POST"));
}

#[tokio::test]
async fn a_head_that_trickles_in_is_a_408_and_a_body_too() {
    let (up, service) = {
        let up = Upstream::openai().start();
        let builder =
            Service::of(BIN).openai(&up).set("server.head_timeout", 0.5).set("server.body_timeout", 0.5);
        (up, builder.start().await)
    };
    let client = service.client();
    let mut head = client.connect().await;
    assert!(head.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost:").await.is_ok());
    let mut body = client.connect().await;
    let begun = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{{"
    );
    assert!(body.send(begun.as_bytes()).await.is_ok());
    let (head, body) = tokio::join!(head.answer(), body.answer());
    assert_eq!(head.map(|a| a.status).ok(), Some(408));
    let body = body.ok();
    assert_eq!(body.as_ref().map(|a| a.status), Some(408));
    if let Some(answer) = body {
        is_error(&answer, 408, "request_timeout", "body");
    }
    assert_eq!(up.calls(), 0);
}
