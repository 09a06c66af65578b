//! Requests of the domain, and the JSON that must go to Gemini.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use opossum_core::ids::ModelName;
use opossum_core::request::{Content, Image, ImageSource, Message, Part, Role, ToolCall};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::ParamDefaults;
use crate::gemini::turns::NO_SIGNATURE;

const MODEL: &str = "gemini-3-flash-preview";

fn call(request: GenerateRequest, model: &str) -> Call {
    Call {
        request: Arc::new(request),
        model: ModelName::from(model),
        defaults: Arc::new(ParamDefaults::default()),
        request_id: "r".into(),
        traceparent: None,
    }
}

fn written(call: &Call, store: &SignatureStore) -> Value {
    serde_json::from_slice(&body(call, store, Instant::now()).unwrap()).unwrap()
}

fn translate(request: GenerateRequest) -> Value {
    written(&call(request, MODEL), &SignatureStore::default())
}

fn chat(messages: Vec<Message>) -> Value {
    translate(GenerateRequest::chat(messages))
}

fn user(text: &str) -> Message {
    Message::text(Role::User, text)
}

fn calls(calls: &[(&str, &str, &str, Option<&str>)]) -> Message {
    Message {
        content: Content::Empty,
        tool_calls: calls
            .iter()
            .map(|(id, name, arguments, signature)| ToolCall {
                id: (*id).into(),
                name: (*name).into(),
                arguments: (*arguments).into(),
                signature: signature.map(Into::into),
            })
            .collect(),
        ..Message::text(Role::Assistant, "")
    }
}

fn result(id: &str, text: &str) -> Message {
    Message { tool_call_id: Some(id.into()), ..Message::text(Role::Tool, text) }
}

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.into()).unwrap()
}

#[test]
fn the_smallest_request() {
    assert_eq!(
        chat(vec![user("hi")]),
        json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}], "generationConfig": {}})
    );
}

#[test]
fn instructions_go_apart_and_neighbours_of_one_role_join() {
    let body = chat(vec![
        Message::text(Role::System, "be brief"),
        user("a"),
        user("b"),
        Message::text(Role::Assistant, "c"),
        Message::text(Role::System, "be kind"),
        Message::text(Role::Assistant, "d"),
        user("e"),
    ]);
    assert_eq!(body["systemInstruction"], json!({"parts": [{"text": "be brief"}, {"text": "be kind"}]}));
    assert_eq!(
        body["contents"],
        json!([
            {"role": "user", "parts": [{"text": "a"}, {"text": "b"}]},
            {"role": "model", "parts": [{"text": "c"}, {"text": "d"}]},
            {"role": "user", "parts": [{"text": "e"}]},
        ])
    );
}

#[test]
fn instructions_alone_become_the_question() {
    let body = chat(vec![Message::text(Role::System, "say hello")]);
    assert_eq!(body["contents"], json!([{"role": "user", "parts": [{"text": "say hello"}]}]));
    assert_eq!(body["systemInstruction"], Value::Null);
}

#[test]
fn an_early_gemma_gets_its_instructions_from_the_user() {
    let request = GenerateRequest::chat(vec![user("hi"), Message::text(Role::System, "be brief")]);
    let body = written(&call(request, "gemma-3-27b-it"), &SignatureStore::default());
    assert_eq!(body["contents"], json!([{"role": "user", "parts": [{"text": "be brief"}, {"text": "hi"}]}]));
    assert_eq!(body["systemInstruction"], Value::Null);
}

#[test]
fn images_travel_inline_and_empty_texts_not_at_all() {
    let image = |source| Part::Image(Image { source, detail: Some("high".into()) });
    let inline = ImageSource::Inline { mime: "image/png".into(), base64: "iVBORw0=".into() };
    let message = |part| Message {
        content: Content::Parts(vec![Part::Text("what?".into()), part, Part::Text(String::new())]),
        ..user("")
    };
    assert_eq!(
        chat(vec![message(image(inline))])["contents"][0]["parts"],
        json!([{"text": "what?"}, {"inlineData": {"mimeType": "image/png", "data": "iVBORw0="}}])
    );
    let by_url = GenerateRequest::chat(vec![message(image(ImageSource::Url("https://a.example/i".into())))]);
    let refused = body(&call(by_url, MODEL), &SignatureStore::default(), Instant::now());
    assert_eq!(refused.unwrap_err().class, FailureClass::CallerError);
}

#[test]
fn a_raw_prompt_is_not_a_chat() {
    let prompt = Prompt::Text { prompt: "once".into(), suffix: None, echo: false };
    let request = GenerateRequest { prompt, ..GenerateRequest::chat(vec![]) };
    let refused = body(&call(request, MODEL), &SignatureStore::default(), Instant::now());
    assert_eq!(refused.unwrap_err().class, FailureClass::CallerError);
}

#[test]
fn tools_and_their_choice() {
    let schema = r#"{"type":"object","properties":{"b":{},"a":{}},"additionalProperties":false}"#;
    let with = |tool_choice| {
        let tool = |name: &str, parameters| Tool {
            name: name.into(),
            description: None,
            parameters,
            strict: Some(true),
        };
        let tools = vec![tool("f", Some(raw(schema))), tool("g", None)];
        translate(GenerateRequest { tools, tool_choice, ..GenerateRequest::chat(vec![user("hi")]) })
    };
    let body = with(ToolChoice::Auto);
    assert_eq!(
        body["tools"],
        json!([{"functionDeclarations": [
            {"name": "f", "description": "", "parametersJsonSchema": serde_json::from_str::<Value>(schema).unwrap()},
            {"name": "g", "description": ""},
        ]}])
    );
    assert_eq!(body["toolConfig"], Value::Null);
    let mode = |choice| with(choice)["toolConfig"]["functionCallingConfig"].clone();
    assert_eq!(mode(ToolChoice::None), json!({"mode": "NONE"}));
    assert_eq!(mode(ToolChoice::Required), json!({"mode": "ANY"}));
    assert_eq!(mode(ToolChoice::Function("g".into())), json!({"mode": "ANY", "allowedFunctionNames": ["g"]}));
}

#[test]
fn a_schema_is_passed_on_byte_for_byte() {
    let schema = r#"{ "z": 1.0, "a" : 10000000000000000000000 }"#;
    let mut request = GenerateRequest::chat(vec![user("hi")]);
    request.params.response_format =
        ResponseFormat::JsonSchema { name: "n".into(), schema: raw(schema), strict: Some(true) };
    let bytes = body(&call(request, MODEL), &SignatureStore::default(), Instant::now()).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    assert!(
        text.contains(&format!(r#""responseMimeType":"application/json","responseJsonSchema":{schema}"#))
    );
}

#[test]
fn a_tool_loop_with_results_of_every_shape() {
    let body = chat(vec![
        user("weather?"),
        calls(&[
            ("c1", "f", r#"{"city":"Paris"}"#, Some("SIG")),
            ("c2", "g", " ", None),
            ("c3", "g", "[1]", None),
        ]),
        result("c1", r#"{"t": 21}"#),
        result("c2", "sunny"),
        result("c3", "[1,2]"),
        user("thanks"),
    ]);
    assert_eq!(
        body["contents"][1],
        json!({"role": "model", "parts": [
            {"functionCall": {"id": "c1", "name": "f", "args": {"city": "Paris"}}, "thoughtSignature": "SIG"},
            {"functionCall": {"id": "c2", "name": "g", "args": {}}},
            {"functionCall": {"id": "c3", "name": "g", "args": {"input": "[1]"}}},
        ]})
    );
    assert_eq!(
        body["contents"][2],
        json!({"role": "user", "parts": [
            {"functionResponse": {"id": "c1", "name": "f", "response": {"t": 21}}},
            {"functionResponse": {"id": "c2", "name": "g", "response": {"output": "sunny"}}},
            {"functionResponse": {"id": "c3", "name": "g", "response": {"output": "[1,2]"}}},
        ]})
    );
    assert_eq!(body["contents"][3], json!({"role": "user", "parts": [{"text": "thanks"}]}));
}

#[test]
fn a_result_without_its_call_is_the_callers_fault() {
    let request = GenerateRequest::chat(vec![user("hi"), result("nobody", "x")]);
    let refused = body(&call(request, MODEL), &SignatureStore::default(), Instant::now());
    assert_eq!(refused.unwrap_err().class, FailureClass::CallerError);
}

#[test]
fn signatures_are_remembered_for_clients_that_drop_them() {
    let store = SignatureStore::default();
    store.put("c1", "f", "KEPT", Instant::now());
    let history = |signature| {
        GenerateRequest::chat(vec![
            user("q"),
            calls(&[("c1", "f", "{}", signature), ("c2", "f", "{}", None)]),
            result("c1", "1"),
            result("c2", "2"),
        ])
    };
    let signed = |request, at: usize| {
        written(&call(request, MODEL), &store)["contents"][1]["parts"][at]["thoughtSignature"].clone()
    };
    assert_eq!(signed(history(None), 0), json!("KEPT"));
    assert_eq!(signed(history(None), 1), Value::Null);
    assert_eq!(signed(history(Some("OWN")), 0), json!("OWN"), "what the client sends counts more");
    assert_eq!(signed(history(Some("")), 0), json!("KEPT"));
}

#[test]
fn a_history_made_elsewhere_says_so_only_where_the_model_insists() {
    let history = || {
        GenerateRequest::chat(vec![
            user("q"),
            calls(&[("x1", "f", "{}", None), ("x2", "f", "{}", None)]),
            result("x1", "1"),
            result("x2", "2"),
            calls(&[("x3", "f", "{}", None)]),
            result("x3", "3"),
        ])
    };
    let store = SignatureStore::default();
    let body = written(&call(history(), MODEL), &store);
    assert_eq!(body["contents"][1]["parts"][0]["thoughtSignature"], json!(NO_SIGNATURE));
    assert_eq!(body["contents"][1]["parts"][1]["thoughtSignature"], Value::Null);
    assert_eq!(body["contents"][3]["parts"][0]["thoughtSignature"], json!(NO_SIGNATURE));
    let older = written(&call(history(), "gemini-2.5-flash"), &store);
    assert_eq!(older["contents"][1]["parts"][0]["thoughtSignature"], Value::Null);
}

#[test]
fn every_parameter_has_its_place() {
    let mut request = GenerateRequest::chat(vec![user("hi")]);
    request.params.temperature = Some(0.5);
    request.params.top_p = Some(0.25);
    request.params.top_k = Some(40);
    request.params.max_tokens = Some(100);
    request.params.stop = vec!["END".into()];
    request.params.seed = Some(7);
    request.params.n = 2;
    request.params.presence_penalty = Some(0.0);
    request.params.frequency_penalty = Some(-1.5);
    request.params.reasoning_effort = Some("low".into());
    request.params.response_format = ResponseFormat::JsonObject;
    assert_eq!(
        translate(request)["generationConfig"],
        json!({
            "temperature": 0.5, "topP": 0.25, "topK": 40, "maxOutputTokens": 100,
            "stopSequences": ["END"], "seed": 7, "candidateCount": 2, "frequencyPenalty": -1.5,
            "responseMimeType": "application/json",
            "thinkingConfig": {"includeThoughts": true, "thinkingLevel": "low"},
        })
    );
}

#[test]
fn defaults_fill_what_the_request_leaves_open() {
    let mut request = GenerateRequest::chat(vec![user("hi")]);
    request.params.temperature = Some(1.0);
    let mut call = call(request, MODEL);
    call.defaults = Arc::new(ParamDefaults {
        temperature: Some(0.0),
        max_tokens: Some(9),
        json_object: true,
        ..ParamDefaults::default()
    });
    assert_eq!(
        written(&call, &SignatureStore::default())["generationConfig"],
        json!({"temperature": 1.0, "maxOutputTokens": 9, "responseMimeType": "application/json"})
    );
}

#[test]
fn long_seeds_are_folded_and_short_ones_kept() {
    assert_eq!(seed(-5), -5);
    assert_eq!(seed(i64::from(i32::MAX)), i32::MAX);
    assert_eq!(seed(0x1_0000_0002), 3);
    assert_ne!(seed(1 << 40), seed(1 << 41));
}

#[test]
fn a_remembered_signature_ages() {
    let store = SignatureStore::default();
    let then = Instant::now();
    store.put("c1", "f", "KEPT", then);
    let request =
        GenerateRequest::chat(vec![user("q"), calls(&[("c1", "f", "{}", None)]), result("c1", "1")]);
    let later = then + Duration::from_secs(7200);
    let bytes = body(&call(request, MODEL), &store, later).unwrap();
    let body: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(body["contents"][1]["parts"][0]["thoughtSignature"], json!(NO_SIGNATURE));
}

/// A conversation in which every tool turn answers the call right before it.
fn conversation() -> impl Strategy<Value = Vec<Message>> {
    let turn = (0..4_u8, "[a-z\"\\\\ü\n]{0,6}", 0..3_usize);
    prop::collection::vec(turn, 1..12).prop_map(|turns| {
        let mut messages = Vec::new();
        for (at, (kind, text, count)) in turns.into_iter().enumerate() {
            match kind {
                0 => messages.push(Message::text(Role::System, text)),
                1 => messages.push(user(&text)),
                2 => messages.push(Message::text(Role::Assistant, text)),
                _ => {
                    let ids: Vec<String> = (0..=count).map(|call| format!("c{at}_{call}")).collect();
                    let made: Vec<_> = ids.iter().map(|id| (id.as_str(), "f", "{}", None)).collect();
                    messages.push(calls(&made));
                    messages.extend(ids.iter().map(|id| result(id, &text)));
                }
            }
        }
        messages
    })
}

/// All texts of one kind of turn, in order.
fn texts(body: &Value, role: &str) -> String {
    let turns = body["contents"].as_array().unwrap().iter().filter(|turn| turn["role"] == role);
    let parts = turns.flat_map(|turn| turn["parts"].as_array().unwrap());
    parts.filter_map(|part| part["text"].as_str()).collect()
}

proptest! {
    #[test]
    fn any_conversation_keeps_its_words_and_alternates(messages in conversation()) {
        let said = |role| -> String {
            messages.iter().filter(|m| m.role == role).map(|m| m.content.joined_text()).collect()
        };
        let (asked, answered, told) = (said(Role::User), said(Role::Assistant), said(Role::System));
        let answers = messages.iter().filter(|m| m.role == Role::Tool).count();
        let body = chat(messages);
        let contents = body["contents"].as_array().unwrap();
        let is_results = |turn: &Value| turn["parts"][0]["functionResponse"].is_object();
        for pair in contents.windows(2) {
            prop_assert!(pair[0]["role"] != pair[1]["role"] || is_results(&pair[0]) != is_results(&pair[1]));
        }
        let mut results = 0;
        for (at, turn) in contents.iter().enumerate() {
            let parts = turn["parts"].as_array().unwrap();
            prop_assert!(!parts.is_empty());
            if is_results(turn) {
                // As many results as calls, right after them.
                let made = contents[at - 1]["parts"].as_array().unwrap();
                let made = made.iter().filter(|part| part["functionCall"].is_object()).count();
                prop_assert_eq!(parts.len(), made);
                results += parts.len();
            }
        }
        prop_assert_eq!(results, answers);
        prop_assert_eq!(texts(&body, "model"), answered);
        let instructions = body["systemInstruction"]["parts"].as_array();
        let instructed: String =
            instructions.into_iter().flatten().filter_map(|part| part["text"].as_str()).collect();
        // Instructions alone become the question.
        prop_assert_eq!(texts(&body, "user") + &instructed, asked + &told);
    }
}
