//! Holds the tokenizer against llama.cpp's, on the real vocabulary.

use crate::support;
use opossum_inference::gguf::GgufFile;
use opossum_inference::tokenizer::{Detokenizer, Guard, Tokenizer};
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    text: String,
    /// Whether control tokens are recognised.
    special: bool,
    ids: Vec<u32>,
}

fn tokenizer() -> Option<Tokenizer> {
    let file = GgufFile::open(&support::model_path()?).unwrap();
    assert_eq!(file.sha256().unwrap(), support::MODEL_SHA256);
    Some(Tokenizer::from_metadata(&file.header().metadata).unwrap())
}

fn compare(tokenizer: &Tokenizer, fixture: &str, beginning: &[u32]) {
    let cases: Vec<Case> = fixture.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(cases.len() >= 40);
    for case in cases {
        let ids = if case.special {
            let guard = Guard::new(tokenizer.control_texts(), 1);
            tokenizer.encode_template(&case.text, &guard).unwrap()
        } else {
            tokenizer.encode_text(&case.text).unwrap()
        };
        // llama.cpp was asked for the text alone.
        let expected =
            if case.ids.starts_with(beginning) { case.ids } else { [beginning, &case.ids].concat() };
        assert_eq!(ids, expected, "{:?}, special {}", case.text, case.special);
    }
}

#[test]
fn tokens_are_those_of_llama_cpp() {
    let Some(tokenizer) = tokenizer() else { return };
    compare(&tokenizer, include_str!("../fixtures/tokenization.jsonl"), &[]);
}

#[test]
fn tokens_of_gemma_are_those_of_llama_cpp() {
    let Some(path) = support::gemma_path() else { return };
    let file = GgufFile::open(&path).unwrap();
    assert_eq!(file.sha256().unwrap(), support::GEMMA_SHA256);
    let tokenizer = Tokenizer::from_metadata(&file.header().metadata).unwrap();
    compare(&tokenizer, include_str!("../fixtures/gemma_tokenization.jsonl"), &[2]);
}

#[test]
fn text_survives_the_way_to_tokens_and_back() {
    let Some(tokenizer) = tokenizer() else { return };
    for text in ["Hello, world!", "日本語 and 한국어", "😀👩‍👩‍👧‍👦", "a\u{301} tab\tnewline\n", "<|im_end|>"]
    {
        let mut detokenizer = Detokenizer::default();
        let ids = tokenizer.encode_text(text).unwrap();
        let mut back: String = ids.iter().map(|&id| detokenizer.push(tokenizer.bytes(id))).collect();
        back.push_str(&detokenizer.finish());
        assert_eq!(back, text);
    }
}
