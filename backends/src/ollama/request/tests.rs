#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use opossum_core::request::{GenerateRequest, Params, Role};
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

fn written(request: GenerateRequest) -> Value {
    let config = OllamaConfig::new("ollama", "http://h");
    serde_json::from_slice(&body(&call(request), &config).unwrap()).unwrap()
}

#[test]
fn a_plain_chat_says_that_it_is_whole_and_uncut() {
    let request = GenerateRequest::chat(vec![Message::text(Role::User, "hi")]);
    assert_eq!(
        written(request),
        json!({"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": false,
               "truncate": false, "shift": false, "options": {}})
    );
}

#[test]
fn every_field_of_a_chat_goes_along() {
    let image = |source| Part::Image(Image { source, detail: None });
    let mut request = GenerateRequest::chat(vec![
        Message {
            content: Content::Parts(vec![
                Part::Text("a".into()),
                image(ImageSource::Inline { mime: "image/png".into(), base64: "AAAA".into() }),
                Part::Text("b".into()),
            ]),
            ..Message::text(Role::User, "")
        },
        Message {
            content: Content::Empty,
            tool_calls: vec![ToolCall {
                id: "c1".into(),
                name: "f".into(),
                arguments: "{\"z\":1,\"a\":2}".into(),
                signature: None,
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
        seed: Some(7),
        presence_penalty: Some(0.5),
        frequency_penalty: Some(-0.5),
        reasoning_effort: Some("none".into()),
        response_format: ResponseFormat::JsonSchema {
            name: "n".into(),
            schema: raw(r#"{"type":"object"}"#),
            strict: None,
        },
        ..Params::default()
    };
    request.tools = vec![Tool {
        name: "f".into(),
        description: Some("d".into()),
        parameters: Some(raw(r#"{"type":"object"}"#)),
        strict: Some(true),
    }];
    request.stream = true;
    assert_eq!(
        written(request),
        json!({
            "model": "m",
            "messages": [
                {"role": "user", "content": "a\nb", "images": ["AAAA"]},
                {"role": "assistant", "content": "", "tool_calls": [
                    {"id": "c1", "function": {"name": "f", "arguments": {"z": 1, "a": 2}}}]},
                {"role": "tool", "content": "r", "tool_name": "f", "tool_call_id": "c1"},
            ],
            "tools": [{"type": "function", "function": {
                "name": "f", "description": "d", "parameters": {"type": "object"}}}],
            "format": {"type": "object"}, "think": false, "stream": true, "truncate": false, "shift": false,
            "options": {"temperature": 0.7, "top_p": 0.9, "top_k": 40, "num_predict": 5, "stop": ["x"],
                        "seed": 7, "presence_penalty": 0.5, "frequency_penalty": -0.5},
        })
    );
}

#[test]
fn a_raw_prompt_bypasses_the_template_unless_it_has_a_suffix() {
    let prompt = |suffix: Option<&str>| {
        let mut request = GenerateRequest::chat(Vec::new());
        let suffix = suffix.map(Into::into);
        request.prompt = Prompt::Text { prompt: "p".into(), suffix, echo: false };
        written(request)
    };
    assert_eq!(prompt(None)["raw"], true);
    let with = prompt(Some("s"));
    assert_eq!((&with["suffix"], with.get("raw")), (&json!("s"), None));
}

#[test]
fn what_the_protocol_cannot_carry_is_refused_by_name() {
    let config = OllamaConfig::new("ollama", "http://h");
    let refused = |change: &dyn Fn(&mut GenerateRequest)| {
        let mut request = GenerateRequest::chat(vec![Message::text(Role::User, "hi")]);
        change(&mut request);
        let error = body(&call(request), &config).unwrap_err();
        assert_eq!(error.class, FailureClass::CallerError);
        error.detail
    };
    assert!(refused(&|request| request.params.n = 2).contains("`n`"));
    assert!(refused(&|request| request.params.logprobs = Some(0)).contains("`logprobs`"));
    assert!(refused(&|request| request.params.logit_bias = Some(raw("{}"))).contains("`logit_bias`"));
    assert!(refused(&|request| request.tool_choice = ToolChoice::Required).contains("`tool_choice`"));
    let by_url = Part::Image(Image { source: ImageSource::Url("https://a.example".into()), detail: None });
    let message = Message { content: Content::Parts(vec![by_url]), ..Message::text(Role::User, "") };
    let with_url = GenerateRequest::chat(vec![message]);
    assert_eq!(body(&call(with_url), &config).unwrap_err().class, FailureClass::CallerError);
}

#[test]
fn forbidden_tools_are_not_shown() {
    let mut request = GenerateRequest::chat(vec![Message::text(Role::User, "hi")]);
    request.tools = vec![Tool { name: "f".into(), description: None, parameters: None, strict: None }];
    request.tool_choice = ToolChoice::None;
    assert_eq!(written(request).get("tools"), None);
}

#[test]
fn broken_arguments_of_an_earlier_turn_are_kept_as_text() {
    let arguments = |text: &str| serde_json::to_value(Arguments(text)).unwrap();
    assert_eq!(arguments(" {\"a\": 1} "), json!({"a": 1}));
    assert_eq!(arguments(""), json!({}));
    assert_eq!(arguments("{\"a\":"), json!({"arguments": "{\"a\":"}));
    assert_eq!(arguments("[1]"), json!({"arguments": "[1]"}));
}

#[test]
fn the_services_own_settings_go_along() {
    let mut config = OllamaConfig::new("ollama", "http://h");
    config.num_ctx = Some(8192);
    config.keep_alive = Some("10m".into());
    let mut call = call(GenerateRequest::chat(vec![Message::text(Role::User, "hi")]));
    call.defaults =
        Arc::new(ParamDefaults { temperature: Some(0.2), json_object: true, ..ParamDefaults::default() });
    let body: Value = serde_json::from_slice(&body(&call, &config).unwrap()).unwrap();
    assert_eq!(body["options"], json!({"temperature": 0.2, "num_ctx": 8192}));
    assert_eq!((&body["keep_alive"], &body["format"]), (&json!("10m"), &json!("json")));
}
