//! The document against itself, against what is read and against what is written.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod validate;

use std::collections::BTreeSet;

use opossum_core::answer::{Answer, Choice, FinishReason, StreamEvent, Usage};
use opossum_core::embed::Embeddings;
use opossum_core::request::ToolCall;
use serde_json::{Value, json};

use self::validate::validate;
use super::*;
use crate::http::error::{ApiError, Code};
use crate::http::openai::decode::{VectorFormat, decode_chat, decode_completion, decode_embedding, keys};
use crate::http::openai::encode::{
    Head, Kind, StreamEncoder, write_chat, write_completion, write_embeddings,
};

fn parsed() -> Value {
    serde_json::from_str(document()).unwrap()
}

fn schema(name: &str) -> Value {
    parsed()["components"]["schemas"][name].clone()
}

fn conforms(name: &str, value: &Value) {
    if let Err(why) = validate(&parsed(), &json!({"$ref": format!("#/components/schemas/{name}")}), value) {
        panic!("not a {name}: {why}\n{value:#}");
    }
}

/// Every value under this key, anywhere.
fn collect<'v>(value: &'v Value, key: &str, found: &mut Vec<&'v Value>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get(key));
            map.values().for_each(|value| collect(value, key, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, key, found)),
        _ => {}
    }
}

#[test]
fn the_document_is_openapi_3_1_and_every_reference_resolves() {
    let document = parsed();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let mut references = Vec::new();
    collect(&document, "$ref", &mut references);
    assert!(references.len() > 30);
    for reference in references {
        let pointer = reference.as_str().unwrap().strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

#[test]
fn every_route_is_there_with_an_id_of_its_own_and_an_answer() {
    let document = parsed();
    let paths: Vec<_> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "/health",
        "/health/live",
        "/health/ready",
        "/metrics",
        "/openapi.json",
        "/v1/batches",
        "/v1/batches/{id}",
        "/v1/batches/{id}/cancel",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/files",
        "/v1/files/{id}",
        "/v1/files/{id}/content",
        "/v1/jobs",
        "/v1/jobs/{id}",
        "/v1/jobs/{id}/events",
        "/v1/models",
        "/v1/models/{id}",
    ];
    assert_eq!(paths, expected);
    let mut ids = Vec::new();
    for path in document["paths"].as_object().unwrap().values() {
        for operation in path.as_object().unwrap().values() {
            ids.push(operation["operationId"].as_str().unwrap());
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.keys().any(|status| status.starts_with('2')));
            for response in operation["responses"].as_object().unwrap().values() {
                assert!(response["description"].as_str().is_some_and(|text| !text.is_empty()), "{response}");
            }
        }
    }
    let distinct: BTreeSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len(), "an id is used twice");
    assert!(ids.len() >= expected.len());
}

#[test]
fn an_answer_is_documented_with_its_headers_streams_and_errors() {
    let document = parsed();
    for path in ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"] {
        let responses = &document["paths"][path]["post"]["responses"];
        let answered = &responses["200"];
        for (name, ..) in operations::ANSWER_HEADERS {
            assert!(answered["headers"].get(name).is_some(), "{name}");
        }
        let streams = answered["content"].get("text/event-stream").is_some();
        assert_eq!(streams, path != "/v1/embeddings");
        for code in Code::ALL.iter().filter(|code| !matches!(code.status(), 499)) {
            let response = &responses[code.status().to_string()];
            assert!(
                response["description"].as_str().is_some_and(|text| text.contains(code.as_str())),
                "{code:?}"
            );
            let waits = matches!(code.status(), 429 | 503);
            assert_eq!(response["headers"].get("retry-after").is_some(), waits, "{code:?}");
        }
    }
}

#[test]
fn every_code_is_in_the_error_schema() {
    let listed: Vec<_> = schema("ErrorCode")["enum"].as_array().unwrap().clone();
    let codes: Vec<_> = Code::ALL.iter().map(|code| json!(code.as_str())).collect();
    assert_eq!(listed, codes);
    for code in Code::ALL {
        conforms("ErrorBody", &serde_json::from_slice(&ApiError::of(code).body("r")).unwrap());
    }
}

/// The documented fields are those that are read; what is read beyond them is refused by name.
#[test]
fn the_documented_fields_are_the_fields_that_are_read() {
    for (name, read, refused) in keys() {
        let schema = schema(name);
        let documented: BTreeSet<&str> =
            schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        let read: BTreeSet<&str> = read.iter().copied().collect();
        let undocumented: Vec<&str> = read.difference(&documented).copied().collect();
        assert_eq!(undocumented, refused, "{name}");
        assert!(documented.is_subset(&read), "{name}");
    }
    for name in ["ChatRequest", "CompletionRequest", "EmbeddingRequest", "ChatMessage", "ContentPart", "Tool"]
    {
        assert_eq!(schema(name)["additionalProperties"], json!(false), "{name}");
    }
}

type Decode = fn(&[u8]) -> Result<(), ApiError>;

/// Each number's documented bounds are the bounds of the reader.
#[test]
fn the_documented_bounds_are_the_bounds_that_hold() {
    let chat: Decode = |body| decode_chat(body).map(drop);
    let completion: Decode = |body| decode_completion(body).map(drop);
    let embedding: Decode = |body| decode_embedding(body).map(drop);
    let mut bounds = 0;
    for (name, base, decode) in [
        (
            "ChatRequest",
            json!({"model": "a", "messages": [{"role": "user", "content": "a"}], "logprobs": true}),
            chat,
        ),
        ("CompletionRequest", json!({"model": "a", "prompt": "a"}), completion),
        ("EmbeddingRequest", json!({"model": "a", "input": "a"}), embedding),
    ] {
        for (field, property) in schema(name)["properties"].as_object().unwrap() {
            for (bound, outwards, inside) in
                [("minimum", -1.0, 0.0), ("maximum", 1.0, 0.0), ("exclusiveMinimum", 0.0, 0.001)]
            {
                let Some(limit) = property.get(bound).and_then(Value::as_f64) else { continue };
                let with = |value: f64| {
                    let mut body = base.clone();
                    body[field] = json!(value);
                    decode(body.to_string().as_bytes())
                };
                assert!(with(limit + inside).is_ok(), "{name}.{field} {bound}");
                let error = with(limit + outwards).unwrap_err();
                assert_eq!(error.param.as_deref(), Some(field.as_str()), "{name}.{field} {bound}");
                bounds += 1;
            }
        }
    }
    assert!(bounds >= 30, "{bounds}");
}

fn answer() -> Answer {
    let call =
        ToolCall { id: "c".into(), name: "f".into(), arguments: "{}".into(), signature: Some("s".into()) };
    let spoken = Choice {
        reasoning: Some("r".into()),
        logprobs: Some(serde_json::value::to_raw_value(&json!({"content": []})).unwrap()),
        ..Choice::text(0, "hello", FinishReason::Stop)
    };
    let called =
        Choice { text: None, tool_calls: vec![call], ..Choice::text(1, "", FinishReason::ToolCalls) };
    let refused = Choice { refusal: Some("no".into()), ..Choice::text(2, "", FinishReason::ContentFilter) };
    let usage = Usage { prompt: 1, completion: 2, cached: 1, reasoning: 1 };
    Answer { model: "m".into(), choices: vec![spoken, called, refused], usage: Some(usage) }
}

const HEAD: Head<'_> = Head { id: "i", created: 1, model: "m" };

#[test]
fn whole_answers_are_as_documented() {
    let mut quiet = answer();
    quiet.usage = None;
    for answer in [answer(), quiet] {
        let mut out = Vec::new();
        write_chat(&answer, &HEAD, &mut out);
        conforms("ChatCompletion", &serde_json::from_slice(&out).unwrap());
        out.clear();
        write_completion(&answer, &HEAD, &mut out);
        conforms("Completion", &serde_json::from_slice(&out).unwrap());
    }
}

#[test]
fn embedding_requests_and_answers_are_as_documented() {
    for input in [json!("a"), json!(["a", "b"]), json!([1, 2]), json!([[1], [2, 3]])] {
        let body = json!({"model": "a", "input": input, "encoding_format": "base64", "dimensions": 2});
        conforms("EmbeddingRequest", &body);
        decode_embedding(body.to_string().as_bytes()).unwrap();
    }
    let mut found = Embeddings::with_capacity("m", 2, 2);
    found.push([0.5, 1.0]).unwrap();
    found.push([-1.0, 1e-9]).unwrap();
    for usage in [None, Some(Usage { prompt: 3, ..Usage::default() })] {
        found.usage = usage;
        for format in [VectorFormat::Float, VectorFormat::Base64] {
            let mut out = Vec::new();
            write_embeddings(&found, "m", format, &mut out);
            conforms("EmbeddingList", &serde_json::from_slice(&out).unwrap());
        }
    }
}

#[test]
fn frames_are_as_documented() {
    let mut events: Vec<StreamEvent> = opossum_core::collect::replay(answer());
    events.push(StreamEvent::ToolCall {
        index: 1,
        call: 0,
        id: None,
        name: None,
        arguments: "x".into(),
        signature: None,
    });
    for (kind, name) in [(Kind::Chat, "ChatChunk"), (Kind::Completion, "Completion")] {
        for include_usage in [false, true] {
            let mut encoder = StreamEncoder::new(&HEAD, kind, include_usage);
            let mut out = Vec::new();
            encoder.encode(&events, &mut out);
            encoder.finish(&mut out);
            let text = String::from_utf8(out).unwrap();
            let frames: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: {")).collect();
            assert!(frames.len() >= 4);
            for frame in frames {
                conforms(name, &serde_json::from_str(&format!("{{{frame}")).unwrap());
            }
        }
    }
}

/// The validator finds faults at all, so that the tests above can fail.
#[test]
fn the_validator_refuses_what_is_not_as_documented() {
    let mut out = Vec::new();
    write_chat(&answer(), &HEAD, &mut out);
    let good: Value = serde_json::from_slice(&out).unwrap();
    let spoil: [(&str, Value); 6] = [
        ("/created", json!("1")),
        ("/object", json!("chat")),
        ("/choices", json!([])),
        ("/choices/0/finish_reason", json!("end")),
        ("/choices/1/message/tool_calls/0/function", json!({"name": "f"})),
        ("/usage/prompt_tokens_details", json!(null)),
    ];
    for (pointer, value) in spoil {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = value;
        let schema = json!({"$ref": "#/components/schemas/ChatCompletion"});
        assert!(validate(&parsed(), &schema, &bad).is_err(), "{pointer}");
    }
    let request = json!({"model": "a", "messages": [{"role": "user", "content": "a"}], "api_base": "x"});
    let schema = json!({"$ref": "#/components/schemas/ChatRequest"});
    assert!(validate(&parsed(), &schema, &request).is_err());
}
