//! Embedding requests: every form of input, and each bad body with its field.

use opossum_core::embed::EmbedInputs;

use super::*;

fn asking(input: &str, fields: &str) -> String {
    format!(r#"{{"model":"auto","input":{input}{fields}}}"#)
}

#[track_caller]
fn inputs(input: &str) -> EmbedInputs {
    let body = asking(input, "");
    decode_embedding(body.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{body:.300}")).request.inputs
}

fn texts(texts: &[&str]) -> EmbedInputs {
    EmbedInputs::Texts(texts.iter().map(|text| (*text).to_owned()).collect())
}

#[test]
fn every_form_of_input_is_read() {
    assert_eq!(inputs(r#""a\n""#), texts(&["a\n"]));
    assert_eq!(inputs(r#"["a", "b"]"#), texts(&["a", "b"]));
    assert_eq!(inputs("[1, 2]"), EmbedInputs::Tokens(vec![vec![1, 2]]));
    assert_eq!(inputs("[[1, 2], [3]]"), EmbedInputs::Tokens(vec![vec![1, 2], vec![3]]));
    let most = serde_json::to_string(&vec!["a"; 2048]).unwrap();
    assert_eq!(inputs(&most).len(), 2048);
    let long = serde_json::to_string(&vec![1; 10_000]).unwrap();
    assert_eq!(inputs(&long).longest_chars(), 40_000);
}

#[test]
fn the_other_fields_are_read() {
    let decoded = |fields: &str| decode_embedding(asking(r#""a""#, fields).as_bytes()).unwrap();
    let plain = decoded("");
    assert_eq!((plain.model.as_str(), plain.format), ("auto", VectorFormat::Float));
    assert_eq!((plain.request.dimensions, plain.request.user), (None, None));
    assert_eq!(decoded(r#","encoding_format":null,"dimensions":null"#).format, VectorFormat::Float);
    let full = decoded(r#","encoding_format":"base64","dimensions":256,"user":"u""#);
    assert_eq!(full.format, VectorFormat::Base64);
    assert_eq!((full.request.dimensions, full.request.user.as_deref()), (Some(256), Some("u")));
}

#[test]
fn each_bad_body_names_its_field() {
    let refused = |body: &str, code, param| {
        check(&decode_embedding(body.as_bytes()).unwrap_err(), code, param);
    };
    let too_many = serde_json::to_string(&vec!["a"; 2049]).unwrap();
    for (input, param) in [
        (r#""""#, "input"),
        ("[]", "input"),
        ("7", "input"),
        ("{}", "input"),
        ("true", "input"),
        (r#"["a", ""]"#, "input[1]"),
        (r#"["a", 7]"#, "input[1]"),
        (r#"["a", null]"#, "input[1]"),
        (r#"[1, "a"]"#, "input[1]"),
        ("[1, -1]", "input[1]"),
        ("[1.5]", "input[0]"),
        ("[4294967296]", "input[0]"),
        ("[[1], []]", "input[1]"),
        ("[[1], [2, true]]", "input[1][1]"),
        ("[[1], 2]", "input[1]"),
        (too_many.as_str(), "input"),
    ] {
        refused(&asking(input, ""), Code::InvalidValue, param);
    }
    refused(r#"{"model":"auto"}"#, Code::MissingParameter, "input");
    refused(r#"{"model":"auto","input":null}"#, Code::MissingParameter, "input");
    refused(r#"{"input":"a"}"#, Code::MissingParameter, "model");
    refused(r#"{"model":"auto","input":["\ud800"]}"#, Code::InvalidJson, "input");
    for (field, param) in [
        (r#""encoding_format":"int8""#, "encoding_format"),
        (r#""encoding_format":1"#, "encoding_format"),
        (r#""dimensions":0"#, "dimensions"),
        (r#""dimensions":65537"#, "dimensions"),
        (r#""dimensions":"256""#, "dimensions"),
        (r#""user":7"#, "user"),
    ] {
        refused(&asking(r#""a""#, &format!(",{field}")), Code::InvalidValue, param);
    }
    refused(&asking(r#""a""#, r#","truncate":"END""#), Code::UnsupportedParameter, "truncate");
    refused(&asking(r#""a""#, r#","input":"b""#), Code::InvalidJson, "input");
}
