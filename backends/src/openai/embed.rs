//! Embeddings in the dialect: which models make them, the request and its answer.

use opossum_core::embed::{EmbedInputs, Embeddings};
use opossum_core::needs::Needs;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::wire::{Text, UsageBody};
use crate::http::classify::{ErrorBody, Quirks, classify_in_band};
use crate::vectors::{self, Vector};
use crate::{BackendError, EmbedCall, json};

/// Parts of names that families of embedding models bear.
const FAMILIES: &[&str] = &["embed", "minilm", "mpnet", "bge-", "gte-", "e5-", "sentence-"];

/// What a model of a server can do that can do all of `server`: the protocol does not tell, so its name
/// must. A server that is said to do nothing but embed needs no telling names.
pub(super) fn abilities(model: &str, server: Needs) -> Needs {
    let (embeds, generates) = (server & Needs::EMBEDDING, server.difference(Needs::EMBEDDING));
    if generates.is_empty() || is_for_embedding(model) { embeds } else { generates }
}

fn is_for_embedding(model: &str) -> bool {
    let name = model.to_ascii_lowercase();
    FAMILIES.iter().any(|family| name.contains(family)) && !name.contains("rerank")
}

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    input: Input<'a>,
    /// A third of the bytes of numbers, and nothing to parse. A server that does not know it sends numbers.
    encoding_format: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Input<'a> {
    Texts(&'a [String]),
    Tokens(&'a [Vec<u32>]),
}

/// The body of a call.
///
/// # Errors
/// `Local`, if it cannot be written as JSON, which only a fault of ours can cause.
pub(super) fn body(call: &EmbedCall) -> Result<Vec<u8>, BackendError> {
    let request = &*call.request;
    json::write(&Body {
        model: call.model.as_str(),
        input: match &request.inputs {
            EmbedInputs::Texts(texts) => Input::Texts(texts),
            EmbedInputs::Tokens(tokens) => Input::Tokens(tokens),
        },
        encoding_format: "base64",
        dimensions: request.dimensions,
        user: request.user.as_deref(),
    })
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    model: Option<Text<'a>>,
    data: Option<Vec<Item>>,
    usage: Option<UsageBody>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Item {
    index: Option<usize>,
    embedding: Vector,
}

/// Reads an answer; vectors that bear an index are put in its order.
///
/// # Errors
/// `BadResponse` for what is no answer to the request, or the class of the error that the server reported
/// with status 200.
pub(super) fn read(body: &[u8], call: &EmbedCall) -> Result<Embeddings, BackendError> {
    let answer: Answer<'_> = json::read(body)?;
    if answer.error.is_some() {
        return Err(classify_in_band(&ErrorBody::parse(body), Quirks::default()));
    }
    let mut items = answer.data.unwrap_or_default();
    if items.iter().all(|item| item.index.is_some()) {
        items.sort_by_key(|item| item.index);
    }
    let vectors = items.into_iter().map(|item| item.embedding.0);
    let mut found = vectors::gather(call, answer.model.map(Text::into_owned), vectors)?;
    found.usage = answer.usage.map(Into::into);
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use opossum_core::class::FailureClass;
    use serde_json::json;

    use super::*;
    use crate::vectors::tests::call;

    fn texts(texts: &[&str]) -> EmbedInputs {
        EmbedInputs::Texts(texts.iter().map(|text| (*text).to_owned()).collect())
    }

    #[test]
    fn a_models_name_tells_what_it_is_for() {
        let all = Needs::all();
        for name in
            ["text-embedding-3-small", "BAAI/bge-m3", "all-MiniLM-L6-v2", "intfloat/e5-base", "GTE-large"]
        {
            assert_eq!(abilities(name, all), Needs::EMBEDDING, "{name}");
        }
        for name in ["gpt-4o", "bge-reranker-v2-m3", "llama-3.1"] {
            assert_eq!(abilities(name, all), all.difference(Needs::EMBEDDING), "{name}");
        }
        assert_eq!(abilities("mine", Needs::EMBED), Needs::EMBED);
        assert_eq!(abilities("text-embedding-3-small", Needs::CHAT), Needs::empty());
    }

    #[test]
    fn a_request_carries_what_was_asked_and_no_more() {
        let written = |call: &EmbedCall| serde_json::from_slice::<serde_json::Value>(&body(call).unwrap());
        let plain = written(&call(texts(&["a"]), None)).unwrap();
        assert_eq!(plain, json!({"model": "m", "input": ["a"], "encoding_format": "base64"}));
        let tokens = call(EmbedInputs::Tokens(vec![vec![1, 2]]), Some(8));
        let expected = json!({"model": "m", "input": [[1, 2]], "encoding_format": "base64", "dimensions": 8});
        assert_eq!(written(&tokens).unwrap(), expected);
    }

    #[test]
    fn vectors_come_in_the_order_of_their_index() {
        let body = json!({
            "object": "list", "model": "m-1", "usage": {"prompt_tokens": 3, "total_tokens": 3},
            "data": [
                {"object": "embedding", "index": 1, "embedding": [3.0, 4.0]},
                {"object": "embedding", "index": 0, "embedding": "AACAPwAAAEA="},
            ],
        });
        let found = read(body.to_string().as_bytes(), &call(texts(&["a", "b"]), None)).unwrap();
        assert_eq!(found.vectors().collect::<Vec<_>>(), [[1.0, 2.0], [3.0, 4.0]]);
        assert_eq!((found.model.as_str(), found.usage.unwrap().prompt), ("m-1", 3));
    }

    #[test]
    fn what_is_no_answer_is_told_apart() {
        let class = |body: &str| read(body.as_bytes(), &call(texts(&["a"]), None)).unwrap_err().class;
        assert_eq!(class(r#"{"data":[]}"#), FailureClass::BadResponse);
        assert_eq!(class(r#"{"data":null}"#), FailureClass::BadResponse);
        assert_eq!(class(r#"{"data":[{"embedding":[null]}]}"#), FailureClass::BadResponse);
        assert_eq!(class(r#"{"error":{"message":"m","code":429}}"#), FailureClass::RateLimited);
    }
}
