//! `POST /api/embed`: vectors of texts.

use std::borrow::Cow;

use opossum_core::answer::Usage;
use opossum_core::class::FailureClass;
use opossum_core::embed::{EmbedInputs, Embeddings};
use serde::{Deserialize, Serialize};

use super::OllamaConfig;
use crate::vectors::{self, Vector};
use crate::{BackendError, EmbedCall, json};

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    input: &'a [String],
    /// Left to itself, the server cuts a text that is too long and says nothing.
    truncate: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_alive: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    options: Option<Options>,
}

#[derive(Serialize)]
struct Options {
    num_ctx: u32,
}

/// The body of a call.
///
/// # Errors
/// `CallerError` for token ids, which the protocol cannot carry.
pub(super) fn body(call: &EmbedCall, config: &OllamaConfig) -> Result<Vec<u8>, BackendError> {
    let EmbedInputs::Texts(texts) = &call.request.inputs else {
        let error = BackendError::new(FailureClass::CallerError, "ollama embeds texts, not token ids");
        return Err(error.about("input"));
    };
    json::write(&Body {
        model: call.model.as_str(),
        input: texts,
        truncate: false,
        dimensions: call.request.dimensions,
        keep_alive: config.keep_alive.as_deref(),
        options: config.num_ctx.map(|num_ctx| Options { num_ctx }),
    })
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow, default)]
    model: Cow<'a, str>,
    embeddings: Vec<Vector>,
    prompt_eval_count: Option<u64>,
}

/// Reads an answer.
///
/// # Errors
/// `BadResponse` for what is no answer to the request.
pub(super) fn read(body: &[u8], call: &EmbedCall) -> Result<Embeddings, BackendError> {
    let answer: Answer<'_> = json::read(body)?;
    let vectors = answer.embeddings.into_iter().map(|vector| vector.0);
    let mut found = vectors::gather(call, Some(answer.model.into_owned()), vectors)?;
    found.usage = answer.prompt_eval_count.map(|prompt| Usage { prompt, ..Usage::default() });
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use serde_json::{Value, json};

    use super::*;
    use crate::vectors::tests::call;

    #[test]
    fn a_text_that_is_too_long_must_not_be_cut_in_silence() {
        let config = OllamaConfig { keep_alive: Some("5m".into()), ..OllamaConfig::new("o", "http://h") };
        let written = body(&call(EmbedInputs::Texts(vec!["a".into()]), Some(4)), &config).unwrap();
        let expected =
            json!({"model": "m", "input": ["a"], "truncate": false, "dimensions": 4, "keep_alive": "5m"});
        assert_eq!(serde_json::from_slice::<Value>(&written).unwrap(), expected);
        let tokens = body(&call(EmbedInputs::Tokens(vec![vec![1]]), None), &config).unwrap_err();
        assert_eq!((tokens.class, tokens.param), (FailureClass::CallerError, Some("input")));
    }

    #[test]
    fn an_answer_is_read() {
        let asked = call(EmbedInputs::Texts(vec!["a".into(), "b".into()]), None);
        let body =
            r#"{"model":"all-minilm","embeddings":[[1,2],[3,4]],"total_duration":9,"prompt_eval_count":8}"#;
        let found = read(body.as_bytes(), &asked).unwrap();
        assert_eq!(found.vectors().collect::<Vec<_>>(), [[1.0, 2.0], [3.0, 4.0]]);
        assert_eq!((found.model.as_str(), found.usage.unwrap().prompt), ("all-minilm", 8));
        assert_eq!(read(b"{}", &asked).unwrap_err().class, FailureClass::BadResponse);
    }
}
