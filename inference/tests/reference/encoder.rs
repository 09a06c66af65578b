//! Holds the encoder against sentence-transformers.

use std::sync::mpsc;

use opossum_inference::{EncodeInput, EncodeJob, Encoded, Encoder, EncoderConfig};
use serde::Deserialize;

use crate::support;

/// SHA-256 of the weights the fixture was made with.
const SHA256: &str = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db";
/// Tokens at which sentence-transformers cuts an input of this model.
const CUT: usize = 256;

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
    vector: Vec<f64>,
}

fn encode(encoder: &Encoder, inputs: Vec<EncodeInput>) -> Encoded {
    let (send, receive) = mpsc::channel();
    let reply = Box::new(move |result| send.send(result).unwrap());
    let job = EncodeJob { inputs, truncate: false, reply, cancelled: Box::new(|| false) };
    encoder.submit(job).unwrap();
    receive.recv().unwrap().unwrap()
}

fn cosine(left: &[f32], right: &[f64]) -> f64 {
    let dot: f64 = left.iter().zip(right).map(|(&left, right)| f64::from(left) * right).sum();
    let length = right.iter().map(|number| number * number).sum::<f64>().sqrt();
    dot / length
}

#[test]
fn vectors_are_those_of_sentence_transformers() {
    let Some(path) = support::encoder_path() else { return };
    let config = EncoderConfig { model_sha256: Some(SHA256.to_owned()), ..EncoderConfig::new(path) };
    let encoder = Encoder::start(config).unwrap();
    assert_eq!((encoder.info().dimensions, encoder.info().architecture.as_str()), (384, "bert"));
    let lines = include_str!("../fixtures/sentence_vectors.jsonl").lines().skip(1);
    let cases: Vec<Case> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(cases.len() >= 20);
    // All inputs at once, so that they share batches; as ids, which leaves the tokenizer out.
    let ids = |case: &Case| EncodeInput::Tokens(case.ids[1..case.ids.len() - 1].to_vec());
    let encoded = encode(&encoder, cases.iter().map(ids).collect());
    assert_eq!(encoded.prompt_tokens, cases.iter().map(|case| case.ids.len()).sum::<usize>());
    for (case, vector) in cases.iter().zip(&encoded.vectors) {
        let cosine = cosine(vector, &case.vector);
        assert!(cosine >= 0.99999, "{:?}: {cosine}", case.text);
    }
    // As texts: the same tokens give the same numbers.
    for case in cases.iter().filter(|case| case.ids.len() < CUT) {
        let encoded = encode(&encoder, vec![EncodeInput::Text(case.text.clone())]);
        assert_eq!(encoded.prompt_tokens, case.ids.len(), "{:?}", case.text);
        let cosine = cosine(&encoded.vectors[0], &case.vector);
        assert!(cosine >= 0.99999, "{:?}: {cosine}", case.text);
    }
}
