#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::time::Duration;

use futures::StreamExt as _;
use opossum_core::answer::{Answer, FinishReason, StreamEvent};
use opossum_core::class::FailureClass;
use opossum_core::embed::{EmbedInputs, EmbedRequest};
use opossum_core::request::{GenerateRequest, Message, Role, Tool, ToolChoice};
use serde_json::json;

use super::*;
use crate::{EmbedCall, ParamDefaults};

fn chat(text: &str) -> GenerateRequest {
    GenerateRequest::chat(vec![Message::text(Role::User, text)])
}

fn call(request: GenerateRequest) -> Call {
    Call {
        request: Arc::new(request),
        model: "fake".into(),
        defaults: Arc::new(ParamDefaults::default()),
        request_id: "r".into(),
        traceparent: None,
    }
}

fn backend(script: serde_json::Value) -> FakeBackend {
    FakeBackend::new("fake", serde_json::from_value(script).unwrap())
}

async fn whole(backend: &FakeBackend, request: GenerateRequest) -> Result<Answer, BackendError> {
    match backend.generate(call(request)).await? {
        Reply::Whole(answer) => Ok(*answer),
        Reply::Stream(_) => panic!("a stream was not asked for"),
    }
}

async fn class(backend: &FakeBackend) -> Option<FailureClass> {
    whole(backend, chat("x")).await.err().map(|error| error.class)
}

async fn stream(backend: &FakeBackend) -> crate::EventStream {
    let request = GenerateRequest { stream: true, ..chat("a b") };
    match backend.generate(call(request)).await.unwrap() {
        Reply::Stream(stream) => stream,
        Reply::Whole(_) => panic!("a stream was asked for"),
    }
}

#[tokio::test]
async fn it_answers_what_it_is_told() {
    let backend = backend(json!({"answer": "you said {prompt}"}));
    let answer = whole(&backend, chat("a b")).await.unwrap();
    assert_eq!(answer.choices[0].text.as_deref(), Some("you said a b"));
    assert_eq!(answer.usage.unwrap().total(), 6);
    let mut limited = chat("a b");
    limited.params.max_tokens = Some(2);
    limited.params.n = 2;
    let answer = whole(&backend, limited).await.unwrap();
    assert_eq!(answer.choices[1].text.as_deref(), Some("you said "));
    assert_eq!(answer.choices[1].finish, FinishReason::Length);
    let mut stopped = chat("a b");
    stopped.params.stop = vec!["said".into()];
    assert_eq!(whole(&backend, stopped).await.unwrap().choices[0].text.as_deref(), Some("you "));
    assert_eq!((backend.calls(), backend.aborts()), (3, 0));
}

#[tokio::test]
async fn a_forced_tool_is_called() {
    let mut request = chat("x");
    request.tools = vec![Tool { name: "f".into(), description: None, parameters: None, strict: None }];
    request.tool_choice = ToolChoice::Required;
    let choice = whole(&backend(json!({})), request).await.unwrap().choices.remove(0);
    assert_eq!((choice.text, choice.tool_calls[0].name.as_str()), (None, "f"));
    assert_eq!(choice.finish, FinishReason::ToolCalls);
}

#[tokio::test]
async fn steps_are_taken_in_order_and_then_as_told() {
    let steps = json!([{"fail": "server_error"}, {"retry_after_s": 3}, {"answer": "ok"}]);
    let server_error = Some(FailureClass::ServerError);
    let limited = Some(FailureClass::RateLimited);
    for (then, expected) in [
        ("answer", [server_error, limited, None, None, None]),
        ("cycle", [server_error, limited, None, server_error, limited]),
        ("repeat_last", [server_error, limited, None, None, None]),
    ] {
        let backend = backend(json!({"steps": steps, "then": then}));
        let mut seen = Vec::new();
        for _ in 0..5 {
            seen.push(class(&backend).await);
        }
        assert_eq!(seen, expected, "{then}");
    }
    let repeating = backend(json!({"steps": [{}, {"fail": "bad_credential"}], "then": "repeat_last"}));
    assert_eq!(class(&repeating).await, None);
    assert_eq!(class(&repeating).await, Some(FailureClass::BadCredential));
    assert_eq!(class(&repeating).await, Some(FailureClass::BadCredential));
    assert_eq!(repeating.probe().await.unwrap_err().class, FailureClass::BadCredential);
    assert_eq!(repeating.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_stream_comes_in_pieces_and_at_its_pace() {
    let backend = backend(json!({"answer": "one two", "first_delay_ms": 1000, "piece_delay_ms": 10}));
    let began = tokio::time::Instant::now();
    let events: Vec<_> = stream(&backend).await.map(Result::unwrap).concat().await;
    assert_eq!(began.elapsed(), Duration::from_millis(1030));
    assert!(matches!(&events[0], StreamEvent::Text { text, .. } if text == "one "));
    assert!(matches!(&events[1], StreamEvent::Text { text, .. } if text == "two"));
    assert!(matches!(events[2], StreamEvent::Finish { reason: FinishReason::Stop, .. }));
    assert!(matches!(events[3], StreamEvent::Usage(_)));
    assert_eq!(backend.aborts(), 0);
}

#[tokio::test(start_paused = true)]
async fn it_stalls_and_cuts_where_told_and_counts_who_left() {
    let backend = backend(json!({"answer": "one two", "steps": [{"cut_after": 1}, {"stall_after": 1}]}));
    let events: Vec<_> = stream(&backend).await.collect().await;
    assert_eq!(events.len(), 2);
    assert_eq!(events[1].as_ref().unwrap_err().class, FailureClass::Truncated);
    assert_eq!(backend.aborts(), 0);
    let mut stalled = stream(&backend).await;
    assert!(stalled.next().await.unwrap().is_ok());
    let silent = tokio::time::timeout(Duration::from_secs(3600), stalled.next()).await;
    assert!(silent.is_err());
    drop(stalled);
    assert_eq!(backend.aborts(), 1);
}

#[test]
fn a_wrong_script_is_refused() {
    for script in [
        json!({"steps": [{"fail": "whatever"}]}),
        json!({"steps": [{"explode": true}]}),
        json!({"anser": "x"}),
        json!({"then": "stop"}),
    ] {
        assert!(serde_json::from_value::<FakeScript>(script.clone()).is_err(), "{script}");
    }
}

#[tokio::test]
async fn vectors_depend_on_the_input_alone_and_fail_as_told() {
    let ask = |inputs, dimensions| EmbedCall {
        request: Arc::new(EmbedRequest { inputs, dimensions, user: None }),
        model: "fake".into(),
        defaults: Arc::default(),
        request_id: "r".into(),
        traceparent: None,
    };
    let backend = backend(json!({"steps": [{"fail": "server_error"}]}));
    let texts = || EmbedInputs::Texts(vec!["a b".into(), "c".into(), "a b".into()]);
    let failed = backend.embed(ask(texts(), None)).await.unwrap_err();
    assert_eq!(failed.class, FailureClass::ServerError);
    let found = backend.embed(ask(texts(), Some(3))).await.unwrap();
    let vectors: Vec<&[f32]> = found.vectors().collect();
    assert_eq!((found.dimensions(), vectors[0]), (3, vectors[2]));
    assert_ne!(vectors[0], vectors[1]);
    assert!((vectors[1].iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5);
    assert_eq!(found.usage.unwrap().prompt, 5);
    let tokens = backend.embed(ask(EmbedInputs::Tokens(vec![vec![7, 8]]), None)).await.unwrap();
    assert_eq!((tokens.dimensions(), tokens.usage.unwrap().prompt), (8, 2));
}
