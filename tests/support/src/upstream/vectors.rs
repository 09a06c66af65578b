//! Embeddings on the wire of the three dialects.

use serde_json::{Value, json};

use super::dialect::{Dialect, PROMPT_TOKENS};

/// The length of vectors where the request asks for none.
const DIMENSIONS: usize = 4;

/// The vector that every upstream gives for a text, whatever its dialect: it starts with the text's length.
///
/// All components are whole numbers, so that they survive every way of writing them.
pub fn vector_of(text: &str, dimensions: usize) -> Vec<f64> {
    let sum: u32 = text.bytes().map(u32::from).sum();
    (0..dimensions as u32)
        .map(|place| f64::from(if place == 0 { text.len() as u32 } else { sum + place }))
        .collect()
}

/// The vectors of all inputs of a request.
pub(super) fn of_request(dialect: Dialect, body: &Value) -> Vec<Vec<f64>> {
    let asked = match dialect {
        Dialect::OpenAi | Dialect::Ollama => &body["dimensions"],
        Dialect::Gemini => {
            let first = body["requests"].get(0).unwrap_or(body);
            &first["outputDimensionality"]
        }
    };
    let dimensions = asked.as_u64().map_or(DIMENSIONS, |asked| asked as usize);
    inputs(dialect, body).iter().map(|text| vector_of(text, dimensions)).collect()
}

/// The inputs as texts; token ids as their JSON.
fn inputs(dialect: Dialect, body: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let part = |request: &Value| text(&request["content"]["parts"][0]["text"]);
    match (dialect, body["requests"].as_array(), body["input"].as_array()) {
        (Dialect::Gemini, Some(requests), _) => requests.iter().map(part).collect(),
        (Dialect::Gemini, None, _) => vec![part(body)],
        (_, _, Some(inputs)) => inputs.iter().map(text).collect(),
        (_, _, None) => vec![text(&body["input"])],
    }
}

/// The answer with these vectors. Numbers even where base64 was asked for: not every server knows it.
pub(super) fn answer(dialect: Dialect, path: &str, model: &str, vectors: &[Vec<f64>]) -> Vec<u8> {
    let values = || vectors.iter().map(|vector| json!({ "values": vector })).collect::<Vec<_>>();
    let body = match dialect {
        Dialect::OpenAi => {
            let data = vectors.iter().enumerate();
            let data = data.map(|(i, v)| json!({"object": "embedding", "index": i, "embedding": v}));
            json!({
                "object": "list", "data": data.collect::<Vec<_>>(), "model": model,
                "usage": {"prompt_tokens": PROMPT_TOKENS, "total_tokens": PROMPT_TOKENS},
            })
        }
        Dialect::Gemini if path.contains(":batchEmbedContents") => json!({ "embeddings": values() }),
        Dialect::Gemini => json!({ "embedding": values().pop() }),
        Dialect::Ollama => json!({
            "model": model, "embeddings": vectors, "total_duration": 1, "load_duration": 1,
            "prompt_eval_count": PROMPT_TOKENS,
        }),
    };
    body.to_string().into_bytes()
}

/// Whether a model of this name embeds and does nothing else.
pub(super) fn is_for_embedding(model: &str) -> bool {
    model.contains("embed") || model.contains("minilm")
}
