//! Whatever comes in, the decoder answers and never panics.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

use super::*;

const VALID: &str = r#"{"model":"auto","messages":[{"role":"system","content":"s"},
{"role":"user","content":[{"type":"text","text":"t\n\u00e9"},{"type":"image_url","image_url":{"url":"https://example.org/a","detail":"low"}}]},
{"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},
{"role":"tool","tool_call_id":"c","content":"r"}],"temperature":0.5,"n":2,"stop":["a"],"seed":1,"logit_bias":{"1":2},
"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}],"tool_choice":"auto",
"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{}}},"stream":true,"stream_options":{"include_usage":true}}"#;

/// Any JSON, a few levels deep.
fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|b| json!(b)),
        any::<i64>().prop_map(|i| json!(i)),
        any::<f64>().prop_map(|f| json!(f)),
        "\\PC{0,8}".prop_map(|s| json!(s)),
        prop_oneof![Just("user"), Just("text"), Just("function"), Just("image_url")].prop_map(|s| json!(s)),
    ];
    let key = prop_oneof![
        Just("role"),
        Just("content"),
        Just("type"),
        Just("text"),
        Just("function"),
        Just("name"),
        Just("url"),
        Just("image_url"),
        Just("tool_calls"),
        Just("id"),
        Just("arguments"),
        Just("x"),
    ];
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(|items| json!(items)),
            vec((key.clone(), inner), 0..5).prop_map(|pairs| {
                serde_json::Value::Object(pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
            }),
        ]
    })
}

/// An error is a 400 whose body is JSON in the error shape.
fn well_formed(error: &ApiError) -> Result<(), TestCaseError> {
    prop_assert_eq!(error.status(), 400);
    let body: serde_json::Value = serde_json::from_slice(&error.body("r")).unwrap();
    prop_assert_eq!(&body["error"]["type"], "invalid_request_error");
    prop_assert!(body["error"]["message"].as_str().is_some_and(|message| message.len() < 1000));
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes_are_answered(bytes in vec(any::<u8>(), 0..400)) {
        if let Err(error) = decode_chat(&bytes) {
            well_formed(&error)?;
        }
        if let Err(error) = decode_completion(&bytes) {
            well_formed(&error)?;
        }
    }

    #[test]
    fn a_damaged_body_is_answered(cuts in vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 1..6)) {
        let mut bytes = VALID.as_bytes().to_vec();
        for (index, byte, how) in cuts {
            let at = index.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, byte),
            }
        }
        match decode_chat(&bytes) {
            Ok(decoded) => prop_assert!(!decoded.model.is_empty()),
            Err(error) => well_formed(&error)?,
        }
    }

    #[test]
    fn any_json_in_any_field_is_answered(field in 0..ChatBody::KEYS.len(), value in any_json()) {
        let mut body: serde_json::Value = serde_json::from_str(VALID).unwrap();
        body[ChatBody::KEYS[field]] = value;
        if let Err(error) = decode_chat(body.to_string().as_bytes()) {
            well_formed(&error)?;
            prop_assert_ne!(error.code(), Code::InvalidJson, "{}", error);
            prop_assert!(error.param.is_some());
        }
    }

    #[test]
    fn any_text_comes_through(text in any::<String>()) {
        let body = json!({"model": "auto", "messages": [{"role": "user", "content": text}]}).to_string();
        let Prompt::Chat(messages) = good(&body).request.prompt else { panic!("not a chat") };
        prop_assert_eq!(messages[0].content.joined_text(), text.as_str());
    }
}

#[test]
fn the_valid_body_is_valid() {
    good(VALID);
}
