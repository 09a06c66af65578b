//! Vectors of the OpenAI dialect, written straight into bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use opossum_core::embed::Embeddings;

use super::{number, string};
use crate::http::openai::decode::VectorFormat;

/// Bytes that a component takes as a number, near enough.
const BYTES_A_NUMBER: usize = 13;
/// Components encoded at a time: their bytes are a multiple of three, so that base64 needs no padding between.
const BLOCK: usize = 192;

/// Appends an answer as one JSON object; `model` is named when the backend named none.
pub fn write_embeddings(found: &Embeddings, model: &str, format: VectorFormat, out: &mut Vec<u8>) {
    let each = match format {
        VectorFormat::Float => found.dimensions() * BYTES_A_NUMBER,
        VectorFormat::Base64 => base64_len(found.dimensions()),
    };
    out.reserve(256 + found.len() * (each + 64));
    out.extend_from_slice(b"{\"object\":\"list\",\"data\":[");
    for (index, vector) in found.vectors().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"object\":\"embedding\",\"index\":");
        number(index as u64, out);
        out.extend_from_slice(b",\"embedding\":");
        match format {
            // Finite numbers into memory cannot fail to serialise.
            VectorFormat::Float => {
                serde_json::to_writer(&mut *out, vector).ok();
            }
            VectorFormat::Base64 => {
                out.push(b'"');
                write_base64(vector, out);
                out.push(b'"');
            }
        }
        out.push(b'}');
    }
    out.extend_from_slice(b"],\"model\":");
    string(if found.model.is_empty() { model } else { &found.model }, out);
    if let Some(usage) = &found.usage {
        out.extend_from_slice(b",\"usage\":{\"prompt_tokens\":");
        number(usage.prompt, out);
        out.extend_from_slice(b",\"total_tokens\":");
        number(usage.total(), out);
        out.push(b'}');
    }
    out.push(b'}');
}

fn base64_len(components: usize) -> usize {
    (components * size_of::<f32>()).div_ceil(3) * 4
}

/// Little-endian `f32`, whatever the machine's own order.
fn write_base64(vector: &[f32], out: &mut Vec<u8>) {
    let mut bytes = [0; BLOCK * size_of::<f32>()];
    for block in vector.chunks(BLOCK) {
        let used = &mut bytes[..size_of_val(block)];
        for (to, component) in used.as_chunks_mut().0.iter_mut().zip(block) {
            *to = component.to_le_bytes();
        }
        let begin = out.len();
        out.resize(begin + base64_len(block.len()), 0);
        // The room is just what the encoding takes.
        STANDARD.encode_slice(used, &mut out[begin..]).ok();
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use opossum_core::answer::Usage;
    use serde_json::{Value, json};

    use super::*;

    fn written(found: &Embeddings, format: VectorFormat) -> Value {
        let mut out = Vec::new();
        write_embeddings(found, "asked", format, &mut out);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn vectors_are_written_as_numbers() {
        let mut found = Embeddings::with_capacity("", 2, 2);
        found.push([0.1, -2.5]).unwrap();
        found.push([1e-8, 3.0]).unwrap();
        found.usage = Some(Usage { prompt: 5, ..Usage::default() });
        let expected = json!({
            "object": "list",
            "data": [
                {"object": "embedding", "index": 0, "embedding": [0.1, -2.5]},
                {"object": "embedding", "index": 1, "embedding": [1e-8, 3.0]},
            ],
            "model": "asked",
            "usage": {"prompt_tokens": 5, "total_tokens": 5},
        });
        assert_eq!(written(&found, VectorFormat::Float), expected);
    }

    #[test]
    fn base64_holds_the_same_numbers_at_every_length() {
        for length in [1, 2, 3, 191, 192, 193, 384, 1536, 1537] {
            let vector: Vec<f32> = (0..length).map(|i| (i as f32).sin()).collect();
            let mut found = Embeddings::with_capacity("m", 1, length);
            found.push(vector.iter().copied()).unwrap();
            let text = written(&found, VectorFormat::Base64)["data"][0]["embedding"].clone();
            let bytes = STANDARD.decode(text.as_str().unwrap()).unwrap();
            let read: Vec<f32> = bytes.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect();
            assert_eq!(read, vector, "{length}");
        }
    }
}
