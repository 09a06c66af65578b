//! What bodies become, and what is wrong with bad ones.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod bad;
mod embedding;
mod good;
mod images;
mod properties;

use super::*;

/// A chat body with one message and these further fields (each with a leading comma).
fn chat_with(fields: &str) -> String {
    format!(r#"{{"model":"auto","messages":[{{"role":"user","content":"hi"}}]{fields}}}"#)
}

/// A chat body of these messages, given as JSON.
fn chat_of(messages: &str) -> String {
    format!(r#"{{"model":"auto","messages":{messages}}}"#)
}

/// A completion body with these further fields (each with a leading comma).
fn completion_with(fields: &str) -> String {
    format!(r#"{{"model":"auto","prompt":"once"{fields}}}"#)
}

/// A user message whose content is one image at this address.
fn image_at(url: &str) -> String {
    chat_of(&format!(
        r#"[{{"role":"user","content":[{{"type":"image_url","image_url":{{"url":{}}}}}]}}]"#,
        serde_json::to_string(url).unwrap()
    ))
}

#[track_caller]
fn good(body: &str) -> Decoded {
    decode_chat(body.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{body:.300}"))
}

#[track_caller]
fn good_completion(body: &str) -> Decoded {
    decode_completion(body.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{body:.300}"))
}

#[track_caller]
fn bad(body: impl AsRef<[u8]>) -> ApiError {
    match decode_chat(body.as_ref()) {
        Err(error) => error,
        Ok(_) => panic!("accepted: {:.300}", String::from_utf8_lossy(body.as_ref())),
    }
}

/// The body is refused with this code at this field (empty: none), and the message names the field.
#[track_caller]
fn refused(body: impl AsRef<[u8]>, code: Code, param: &str) {
    check(&bad(body), code, param);
}

#[track_caller]
fn refused_completion(body: &str, code: Code, param: &str) {
    check(&decode_completion(body.as_bytes()).unwrap_err(), code, param);
}

#[track_caller]
fn check(error: &ApiError, code: Code, param: &str) {
    assert_eq!((error.code(), error.param.as_deref().unwrap_or_default()), (code, param), "{error}");
    assert_eq!(error.status(), 400);
    assert!(error.message.contains(param), "{error}");
}
