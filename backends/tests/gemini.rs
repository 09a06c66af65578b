//! The Gemini protocol against a server that misbehaves as told.
#![expect(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{ABORT_LIMIT, PATIENCE, call, chat, classes, client, hear, hear_out, reply, stream, whole};
use futures::StreamExt as _;
use opossum_backends::gemini::{GeminiBackend, GeminiConfig};
use opossum_backends::{Backend, Call, EmbedCall, Reply};
use opossum_core::answer::{Answer, FinishReason, StreamEvent, Usage};
use opossum_core::class::FailureClass as Class;
use opossum_core::embed::EmbedRequest;
use opossum_core::needs::Needs;
use opossum_core::request::{GenerateRequest, Message, Role, Tool, ToolCall};
use opossum_testkit::upstream::vector_of;
use opossum_testkit::{RefusedAddr, Script, Seen, Step, Upstream};
use secrecy::SecretString;
use serde_json::{Value, json};

const KEY: &str = "canary-key";

fn at(base_url: &str) -> GeminiBackend {
    let config = GeminiConfig {
        service: "gemini".into(),
        base_url: base_url.to_owned(),
        api_key: SecretString::from(KEY),
    };
    GeminiBackend::new(config, client()).unwrap()
}

fn upstream(script: Script) -> (Upstream, GeminiBackend) {
    let upstream = Upstream::gemini().script(script).start();
    let backend = at(&upstream.base_url());
    (upstream, backend)
}

fn events(chunks: &[Value]) -> Script {
    chunks
        .iter()
        .fold(Script::new().then(Step::Head), |script, chunk| script.then(Step::Event(chunk.clone())))
}

/// The error body that Google sends with a 429 of this quota and a `RetryInfo` beside it.
fn over_quota(quota_id: &str) -> Script {
    let body = json!({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "You exceeded your current quota",
    "details": [
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{
            "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
            "quotaId": quota_id, "quotaDimensions": {"model": "m", "location": "global"}, "quotaValue": "20"}]},
        {"@type": "type.googleapis.com/google.rpc.Help", "links": []},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3.5s"},
    ]}});
    Script::body(429, "application/json; charset=UTF-8", body.to_string())
}

#[tokio::test]
async fn a_whole_answer_comes_with_its_usage() {
    let (upstream, backend) = upstream(Script::text("hello \"there\"\n\u{1F43E}"));
    let answer = whole(&backend).await.unwrap();
    assert_eq!(answer.choices[0].text.as_deref(), Some("hello \"there\"\n\u{1F43E}"));
    assert_eq!(answer.choices[0].finish, FinishReason::Stop);
    assert_eq!(answer.usage.unwrap().prompt, opossum_testkit::upstream::PROMPT_TOKENS as u64);
    let seen = upstream.seen().remove(0);
    assert_eq!(seen.path, "/v1beta/models/m:generateContent", "no key in the address");
    assert_eq!(seen.header("x-goog-api-key"), Some(KEY));
    assert_eq!(seen.header("authorization"), None);
    assert_eq!(seen.header("x-request-id"), Some("req-1"));
    assert!(seen.header("traceparent").is_some());
    assert_eq!(seen.body["contents"], json!([{"role": "user", "parts": [{"text": "hi"}]}]));
}

#[tokio::test]
async fn a_stream_is_asked_for_as_events() {
    let (upstream, backend) = upstream(Script::text("one two three"));
    let heard = hear(&backend).await;
    assert_eq!(
        (heard.text.as_str(), heard.finish, heard.class()),
        ("one two three", Some(FinishReason::Stop), None)
    );
    assert_eq!(heard.tokens, Some(3));
    assert_eq!(upstream.seen()[0].path, "/v1beta/models/m:streamGenerateContent?alt=sse");
}

#[tokio::test]
async fn running_totals_of_usage_are_not_added_up() {
    let chunk = |text: &str, answer: u64, thoughts: u64| {
        json!({"candidates": [{"content": {"role": "model", "parts": [{"text": text}]}}],
            "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": answer, "thoughtsTokenCount": thoughts,
                "cachedContentTokenCount": 4, "totalTokenCount": 10 + answer + thoughts}})
    };
    let mut last = chunk("c", 9, 30);
    last["candidates"][0]["finishReason"] = json!("STOP");
    let (_upstream, backend) = upstream(events(&[chunk("a", 2, 30), chunk("b", 5, 30), last]));
    let mut stream = stream(&backend).await.unwrap();
    let mut usage = None;
    while let Some(batch) = stream.next().await {
        for event in batch.unwrap() {
            if let StreamEvent::Usage(total) = event {
                usage = Some(total);
            }
        }
    }
    assert_eq!(usage, Some(Usage { prompt: 10, completion: 39, cached: 4, reasoning: 30 }));
}

/// A model's turn that calls two functions at once, of which the first carries the signature.
fn calling() -> Value {
    json!({"candidates": [{"content": {"role": "model", "parts": [
        {"text": "Let me look.", "thought": true},
        {"functionCall": {"name": "weather", "args": {"city": "Paris"}}, "thoughtSignature": "U0lHTkVE"},
        {"functionCall": {"name": "weather", "args": {"city": "Rom"}}},
    ]}, "finishReason": "STOP"}], "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 5}})
}

fn with_tool(messages: Vec<Message>, stream: bool) -> Call {
    let tools = vec![Tool { name: "weather".into(), description: None, parameters: None, strict: None }];
    Call {
        model: "gemini-3-flash-preview".into(),
        ..call(GenerateRequest { tools, stream, ..GenerateRequest::chat(messages) })
    }
}

/// The calls of an answer, whole or streamed.
async fn calls(backend: &GeminiBackend, call: Call) -> Vec<ToolCall> {
    let mut calls = Vec::new();
    match backend.generate(call).await.unwrap() {
        Reply::Whole(answer) => {
            let Answer { mut choices, .. } = *answer;
            assert_eq!(choices[0].finish, FinishReason::ToolCalls);
            calls.append(&mut choices[0].tool_calls);
        }
        Reply::Stream(mut stream) => {
            while let Some(batch) = stream.next().await {
                for event in batch.unwrap() {
                    match event {
                        StreamEvent::ToolCall { call, id, name, arguments, signature, .. } => {
                            assert_eq!(call as usize, calls.len());
                            calls.push(ToolCall {
                                id: id.unwrap(),
                                name: name.unwrap(),
                                arguments,
                                signature,
                            });
                        }
                        StreamEvent::Finish { reason, .. } => assert_eq!(reason, FinishReason::ToolCalls),
                        _ => {}
                    }
                }
            }
        }
    }
    calls
}

#[tokio::test]
async fn a_thought_signature_survives_the_tool_loop() {
    for streamed in [false, true] {
        for client_keeps_it in [false, true] {
            let upstream = Upstream::gemini().text("sunny").start();
            let script = if streamed { events(&[calling()]) } else { Script::json(&calling()) };
            upstream.push([script]);
            let backend = at(&upstream.base_url());
            let question = || Message::text(Role::User, "weather?");
            let mut made = calls(&backend, with_tool(vec![question()], streamed)).await;
            assert_eq!(
                made.iter().map(|c| c.arguments.as_str()).collect::<Vec<_>>(),
                [r#"{"city":"Paris"}"#, r#"{"city":"Rom"}"#]
            );
            assert_eq!(made[0].signature.as_deref(), Some("U0lHTkVE"));
            assert_ne!(made[0].id, made[1].id);
            if !client_keeps_it {
                made[0].signature = None;
            }
            let results = made.iter().map(|call| Message {
                tool_call_id: Some(call.id.clone()),
                ..Message::text(Role::Tool, "21 degrees")
            });
            let mut turns = vec![question()];
            turns.extend(results);
            turns.insert(1, Message { tool_calls: made.clone(), ..Message::text(Role::Assistant, "") });
            drop(backend.generate(with_tool(turns, false)).await.unwrap());
            let body = upstream.seen().pop().unwrap().body;
            let model_turn = &body["contents"][1]["parts"];
            assert_eq!(model_turn[0]["thoughtSignature"], "U0lHTkVE", "{body}");
            assert_eq!(model_turn[1]["thoughtSignature"], Value::Null, "{body}");
            let answered = &body["contents"][2]["parts"];
            assert_eq!(answered[1]["functionResponse"]["id"], made[1].id.as_str());
            assert_eq!(answered.as_array().unwrap().len(), 2);
        }
    }
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
    let nothing =
        Script::new().then(Step::Head).then(Step::Comments { every: Duration::ZERO, count: Some(3) });
    let (_upstream, backend) = upstream(nothing.then(Step::End));
    assert_eq!(hear(&backend).await.class(), Some(Class::BadResponse));
}

#[tokio::test]
async fn fault_u1_no_answer_at_all_is_transport() {
    let refused = RefusedAddr::new();
    assert_eq!(classes(&at(&refused.base_url())).await, (Some(Class::Transport), Some(Class::Transport)));
    let (_upstream, backend) = upstream(Script::reset());
    assert_eq!(classes(&backend).await, (Some(Class::Transport), Some(Class::Transport)));
}

#[tokio::test]
async fn fault_u3_a_cut_is_never_a_clean_end() {
    for script in [Script::cut_after(2), Script::eof_without_finish(2)] {
        let (_upstream, backend) = upstream(script.clone());
        let heard = hear(&backend).await;
        assert_eq!(heard.text, "word0 word1 ", "{script:?}");
        assert_eq!((heard.finish, heard.class()), (None, Some(Class::Truncated)), "{script:?}");
    }
    let last = json!({"candidates": [{"content": {"parts": [{"text": "a"}]}, "finishReason": "STOP"}]});
    let (_upstream, backend) = upstream(events(&[last]).then(Step::Close));
    let heard = hear(&backend).await;
    assert_eq!(
        (heard.finish, heard.class()),
        (None, Some(Class::Truncated)),
        "a broken transfer is not an end"
    );
    let (_upstream, backend) = upstream(Script::cut_after(2));
    assert_eq!(whole(&backend).await.unwrap_err().class, Class::Truncated);
}

#[tokio::test]
async fn an_error_in_the_stream_has_its_own_class() {
    let error = r#"{"error":{"code":503,"message":"overloaded","status":"UNAVAILABLE"}}"#;
    let pretty = "[{\r\n  \"error\": {\r\n    \"code\": 429,\r\n    \"status\": \"RESOURCE_EXHAUSTED\"\r\n  }\r\n}\r\n]";
    let start = || Script::new().then(Step::Head).chunks(&["a"]);
    for (script, class) in [
        (start().then(Step::ErrorEvent { code: "503".into(), message: "m".into() }), Class::ServerError),
        (
            start()
                .then(Step::ErrorEvent { code: "400".into(), message: "input token count exceeds".into() }),
            Class::ContextLength,
        ),
        (start().then(Step::Body(error.into())), Class::ServerError),
        (start().then(Step::SplitEvery(3)).then(Step::Body(pretty.into())), Class::RateLimited),
    ] {
        let (_upstream, backend) = upstream(script.clone().then(Step::Stall));
        let heard = hear(&backend).await;
        assert_eq!((heard.text.as_str(), heard.class()), ("a", Some(class)), "{script:?}");
    }
    let (_upstream, backend) = upstream(Script::body(200, "application/json", format!("[{error}]")));
    assert_eq!(hear(&backend).await.class(), Some(Class::ServerError));
}

#[tokio::test]
async fn fault_u7_a_spent_day_is_told_from_a_full_minute() {
    let (_upstream, backend) = upstream(over_quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier"));
    let error = whole(&backend).await.unwrap_err();
    assert_eq!((error.class, error.retry_after, error.status), (Class::QuotaExhausted, None, Some(429)));
    assert_eq!(hear(&backend).await.class(), Some(Class::QuotaExhausted));
    let (_upstream, backend) = upstream(over_quota("GenerateRequestsPerMinutePerProjectPerModel-FreeTier"));
    let error = whole(&backend).await.unwrap_err();
    assert_eq!((error.class, error.retry_after), (Class::RateLimited, Some(Duration::from_millis(3500))));
    let (_upstream, backend) = upstream(Script::status_with(429, &[("retry-after", "8")]));
    let error = whole(&backend).await.unwrap_err();
    assert_eq!((error.class, error.retry_after), (Class::RateLimited, Some(Duration::from_secs(8))));
}

#[tokio::test]
async fn every_status_has_its_class() {
    for (status, class) in [
        (302, Class::BadResponse),
        (400, Class::CallerError),
        (401, Class::BadCredential),
        (403, Class::BadCredential),
        (404, Class::ModelMissing),
        (500, Class::ServerError),
        (503, Class::ServerError),
        (504, Class::ServerError),
    ] {
        let (_upstream, backend) = upstream(Script::status(status));
        assert_eq!(classes(&backend).await, (Some(class), Some(class)), "{status}");
    }
}

#[tokio::test]
async fn fault_u9_long_input_and_refusals_are_not_the_upstreams_failure() {
    let body =
        json!({"error": {"code": 500, "message": "Your input context is too long.", "status": "INTERNAL"}});
    let (_upstream, backend) = upstream(Script::body(500, "application/json", body.to_string()));
    assert_eq!(classes(&backend).await, (Some(Class::ContextLength), Some(Class::ContextLength)));
    let blocked =
        json!({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 3}});
    let (_upstream, backend) = upstream(Script::json(&blocked));
    assert_eq!(whole(&backend).await.unwrap_err().class, Class::Refused);
    let (_upstream, backend) = upstream(events(&[blocked]));
    assert_eq!(hear(&backend).await.class(), Some(Class::Refused));
    let (_upstream, backend) =
        upstream(Script::new().then(Step::Head).chunks(&["a"]).finish("content_filter"));
    let heard = hear(&backend).await;
    assert_eq!((heard.finish, heard.class()), (Some(FinishReason::ContentFilter), None));
}

#[tokio::test]
async fn fault_s5_the_key_is_in_no_error() {
    let message = format!("Consumer 'api_key:{KEY}' has been suspended.");
    let error = json!({"error": {"code": 403, "message": message, "status": "PERMISSION_DENIED"}});
    let (upstream, backend) = upstream(Script::body(403, "application/json", error.to_string()));
    upstream.set_probe(Some(Script::body(403, "application/json", error.to_string())));
    for error in [
        whole(&backend).await.unwrap_err(),
        hear(&backend).await.error.unwrap(),
        backend.probe().await.unwrap_err(),
        backend.models().await.unwrap_err(),
    ] {
        assert_eq!(error.class, Class::BadCredential);
        assert!(!format!("{error} {error:?}").contains(KEY), "{error}");
    }
    upstream.set_default(Script::new().then(Step::Head).then(Step::Event(error)));
    let error = hear(&backend).await.error.unwrap();
    assert!(!format!("{error} {error:?}").contains(KEY), "{error}");
}

#[tokio::test]
async fn fault_h7_leaving_stops_the_upstream() {
    for streamed in [false, true] {
        let (upstream, backend) = upstream(Script::hang());
        let calling = tokio::spawn(async move { backend.generate(call(chat(streamed))).await.map(drop) });
        assert!(upstream.wait_calls(1, PATIENCE).await);
        let left = Instant::now();
        calling.abort();
        assert!(upstream.wait_abort(0, PATIENCE).await.is_some());
        assert!(left.elapsed() < ABORT_LIMIT, "{:?}", left.elapsed());
    }
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
async fn models_and_probe_ask_for_the_list() {
    let upstream = Upstream::gemini().start();
    let backend = at(&upstream.base_url());
    upstream.set_probe(Some(Script::json(&json!({"models": [
        {"name": "models/gemini-2.5-flash", "inputTokenLimit": 1_048_576, "thinking": true,
            "supportedGenerationMethods": ["generateContent", "countTokens"]},
        {"name": "models/gemini-2.5-flash-image", "supportedGenerationMethods": ["generateContent"], "thinking": false},
        {"name": "models/text-embedding-004", "supportedGenerationMethods": ["embedContent"]},
        {"name": "models/aqa", "supportedGenerationMethods": ["generateAnswer"]},
        {"name": "tunedModels/mine"},
    ]}))));
    let models = backend.models().await.unwrap();
    let told: Vec<_> = models
        .iter()
        .map(|m| (m.name.as_str(), m.context_tokens, m.can.contains(Needs::REASONING)))
        .collect();
    assert_eq!(
        told,
        [
            ("gemini-2.5-flash", Some(1_048_576), true),
            ("gemini-2.5-flash-image", None, false),
            ("text-embedding-004", None, false),
            ("tunedModels/mine", None, true),
        ]
    );
    backend.probe().await.unwrap();
    let probe = upstream.probes().pop().unwrap();
    assert_eq!(
        (probe.path.as_str(), probe.header("x-goog-api-key")),
        ("/v1beta/models?pageSize=1", Some(KEY))
    );
    upstream.set_probe(Some(Script::status(401)));
    assert_eq!(backend.probe().await.unwrap_err().class, Class::BadCredential);
    upstream.set_probe(Some(Script::html()));
    assert_eq!(backend.probe().await.unwrap_err().class, Class::BadResponse);
}

#[tokio::test]
async fn what_has_arrived_together_comes_together() {
    let chunk = json!({"candidates": [{"content": {"parts": [{"text": "x "}]}}]});
    let many = format!("data: {chunk}\r\n\r\n").repeat(500);
    let script = Script::new().then(Step::Head).then(Step::Body(many.into_bytes())).finish("stop");
    let (_upstream, backend) = upstream(script);
    let mut events = stream(&backend).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (mut batches, mut count, mut text) = (0, 0, 0);
    while let Some(batch) = events.next().await {
        batches += 1;
        for event in batch.unwrap() {
            count += 1;
            if let StreamEvent::Text { text: more, .. } = event {
                text += more.len();
            }
        }
    }
    assert_eq!(text, 1000);
    assert!(batches <= 6 && count <= 10, "{count} events in {batches} batches");
}

#[tokio::test]
async fn what_the_protocol_cannot_carry_is_not_sent() {
    let (upstream, backend) = upstream(Script::text("x"));
    let prompt = opossum_core::request::Prompt::Text { prompt: "once".into(), suffix: None, echo: false };
    let error = reply(&backend, GenerateRequest { prompt, ..chat(false) }).await.unwrap_err();
    assert_eq!(error.class, Class::CallerError);
    assert_eq!(upstream.calls(), 0);
}

#[tokio::test]
async fn two_calls_at_once_keep_apart() {
    let (upstream, backend) = upstream(Script::text("x"));
    upstream.set_model("a", Script::slow(3, Duration::from_millis(5)));
    let backend = Arc::new(backend);
    let ask = |model: &str| {
        let (backend, call) = (Arc::clone(&backend), Call { model: model.into(), ..call(chat(true)) });
        async move {
            match backend.generate(call).await.unwrap() {
                Reply::Stream(stream) => hear_out(stream).await.text,
                Reply::Whole(_) => panic!("a stream was asked for"),
            }
        }
    };
    let (a, b) = tokio::join!(ask("a"), ask("b"));
    assert_eq!((a.as_str(), b.as_str()), ("word0 word1 word2 ", "x"));
}

#[tokio::test]
async fn many_texts_are_embedded_in_batches_and_stay_in_order() {
    let upstream = Upstream::gemini().start();
    let backend = at(&upstream.base_url());
    let texts: Vec<String> = (0..250).map(|n| "x".repeat(n + 1)).collect();
    let call = EmbedCall {
        request: Arc::new(EmbedRequest { dimensions: Some(2), ..EmbedRequest::texts(texts.clone()) }),
        model: "gemini-embedding-001".into(),
        defaults: Arc::default(),
        request_id: "req-1".into(),
        traceparent: None,
    };
    let found = backend.embed(call).await.unwrap();
    let sizes = |seen: &Seen| seen.body["requests"].as_array().map(Vec::len);
    let mut asked: Vec<_> = upstream.seen().iter().map(sizes).collect();
    asked.sort_unstable();
    assert_eq!(asked, [Some(50), Some(100), Some(100)]);
    let one = &upstream.seen()[0].body["requests"][0];
    assert_eq!(one["model"], "models/gemini-embedding-001");
    assert_eq!(one["outputDimensionality"], 2);
    for (text, vector) in texts.iter().zip(found.vectors()) {
        let sent = vector_of(text, 2);
        let length = sent.iter().map(|x| x * x).sum::<f64>().sqrt();
        let expected: Vec<f32> = sent.iter().map(|x| (x / length) as f32).collect();
        assert_eq!(vector, expected, "{}", text.len());
    }
    assert_eq!(found.usage, None, "this answer counts no tokens");
}
