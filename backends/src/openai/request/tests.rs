#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use opossum_core::request::{GenerateRequest, Params, Role};
use secrecy::SecretString;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::*;
use crate::ParamDefaults;

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap()
}

fn call(request: GenerateRequest) -> Call {
    Call {
        request: Arc::new(request),
        model: "m".into(),
        defaults: Arc::new(ParamDefaults::default()),
        request_id: "r".into(),
        traceparent: None,
    }
}

fn written(call: &Call, config: &OpenAiConfig) -> Value {
    serde_json::from_slice(&body(call, config).unwrap()).unwrap()
}

fn open() -> OpenAiConfig {
    OpenAiConfig::new("s", "http://h/v1")
}

#[test]
fn a_plain_chat_says_nothing_that_was_not_asked() {
    let request = GenerateRequest::chat(vec![Message::text(Role::User, "h\"i")]);
    assert_eq!(
        written(&call(request), &open()),
        json!({"model": "m", "messages": [{"role": "user", "content": "h\"i"}]})
    );
}

#[test]
fn every_field_of_a_chat_goes_along() {
    let mut request = GenerateRequest::chat(vec![
        Message::text(Role::System, "s"),
        Message {
            content: Content::Parts(vec![
                Part::Text("t".into()),
                Part::Image(Image {
                    source: ImageSource::Inline { mime: "image/png".into(), base64: "AAAA".into() },
                    detail: Some("low".into()),
                }),
                Part::Image(Image { source: ImageSource::Url("https://a.example/i".into()), detail: None }),
            ]),
            name: Some("ann".into()),
            ..Message::text(Role::User, "")
        },
        Message {
            content: Content::Empty,
            tool_calls: vec![ToolCall {
                id: "c1".into(),
                name: "f".into(),
                arguments: "{\"a\":1}".into(),
                signature: Some("sig".into()),
            }],
            ..Message::text(Role::Assistant, "")
        },
        Message { tool_call_id: Some("c1".into()), ..Message::text(Role::Tool, "r") },
    ]);
    request.params = Params {
        temperature: Some(0.7),
        top_p: Some(0.9),
        top_k: Some(40),
        max_tokens: Some(5),
        stop: vec!["x".into()],
        seed: Some(-1),
        n: 2,
        presence_penalty: Some(0.5),
        frequency_penalty: Some(0.0),
        logprobs: Some(3),
        logit_bias: Some(raw(r#"{"1":2}"#)),
        reasoning_effort: Some("low".into()),
        response_format: ResponseFormat::JsonSchema {
            name: "n".into(),
            schema: raw(r#"{"z":1,"a":2}"#),
            strict: Some(true),
        },
    };
    request.tools = vec![Tool {
        name: "f".into(),
        description: None,
        parameters: Some(raw(r#"{"type":"object"}"#)),
        strict: None,
    }];
    request.tool_choice = ToolChoice::Function("f".into());
    request.parallel_tool_calls = false;
    request.stream = true;
    request.user = Some("u".into());
    let call = call(request);
    assert_eq!(
        written(&call, &open()),
        json!({
            "model": "m",
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "user", "name": "ann", "content": [
                    {"type": "text", "text": "t"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
                    {"type": "image_url", "image_url": {"url": "https://a.example/i"}},
                ]},
                {"role": "assistant", "content": null, "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}},
                ]},
                {"role": "tool", "content": "r", "tool_call_id": "c1"},
            ],
            "max_tokens": 5, "logprobs": true, "top_logprobs": 3,
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
            "parallel_tool_calls": false,
            "temperature": 0.7, "top_p": 0.9, "top_k": 40, "stop": ["x"], "seed": -1, "n": 2,
            "presence_penalty": 0.5, "logit_bias": {"1": 2}, "reasoning_effort": "low",
            "response_format": {"type": "json_schema", "json_schema": {
                "name": "n", "schema": {"z": 1, "a": 2}, "strict": true}},
            "user": "u", "stream": true, "stream_options": {"include_usage": true},
        })
    );
    // What is only passed on keeps the caller's order, and short numbers stay short.
    let text = String::from_utf8(body(&call, &open()).unwrap()).unwrap();
    assert!(text.contains(r#"{"z":1,"a":2}"#));
    assert!(text.contains(r#""temperature":0.7,"#));
}

#[test]
fn a_completion_has_its_own_fields() {
    let mut request = GenerateRequest::chat(Vec::new());
    request.prompt = Prompt::Text { prompt: "p".into(), suffix: Some("s".into()), echo: true };
    request.params.logprobs = Some(2);
    request.params.max_tokens = Some(7);
    assert_eq!(
        written(&call(request), &open()),
        json!({"model": "m", "prompt": "p", "suffix": "s", "echo": true, "max_tokens": 7, "logprobs": 2})
    );
}

#[test]
fn openai_itself_gets_only_what_it_knows() {
    let config = OpenAiConfig::new("openai", "https://api.openai.com/v1");
    let mut call = call(GenerateRequest::chat(vec![Message::text(Role::User, "hi")]));
    call.defaults = Arc::new(ParamDefaults {
        top_k: Some(40),
        max_tokens: Some(9),
        temperature: Some(0.5),
        json_object: true,
        ..ParamDefaults::default()
    });
    let body = written(&call, &config);
    assert_eq!(body.get("top_k"), None);
    assert_eq!(body["max_completion_tokens"], 9);
    assert_eq!(body["temperature"], 0.5);
    assert_eq!(body["response_format"], json!({"type": "json_object"}));
    let lacking = OpenAiConfig { can: Needs::CHAT, ..config };
    assert_eq!(written(&call, &lacking).get("response_format"), None);
    assert!(OpenAiConfig::new("x", "https://notopenai.com/v1").can.contains(Needs::TOP_K));
}

#[test]
fn signatures_go_only_where_they_are_wanted() {
    let mut message = Message::text(Role::Assistant, "");
    message.tool_calls = vec![ToolCall {
        id: "c".into(),
        name: "f".into(),
        arguments: "{}".into(),
        signature: Some("sig".into()),
    }];
    let config = OpenAiConfig { signatures: true, ..open() };
    let body = written(&call(GenerateRequest::chat(vec![message])), &config);
    let sent = &body["messages"][0]["tool_calls"][0]["extra_content"]["google"]["thought_signature"];
    assert_eq!(sent, "sig");
}

#[test]
fn the_key_is_in_no_debug_text() {
    let config = OpenAiConfig { api_key: Some(SecretString::from("canary-key")), ..open() };
    assert!(!format!("{config:?}").contains("canary-key"));
}
