#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::gguf::{Array, Header, Value};
use crate::testing::{CONTROL_TOKENS, GgufWriter, TinyLlama};
use crate::{ErrorKind, InferenceError};

fn tiny() -> Tokenizer {
    let header = Header::parse(&TinyLlama::default().to_bytes().unwrap()).unwrap();
    Tokenizer::from_metadata(&header.metadata).unwrap()
}

fn back(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let bytes: Vec<u8> = ids.iter().flat_map(|&id| tokenizer.bytes(id).to_vec()).collect();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn merges_are_applied() {
    let tokenizer = tiny();
    let ids = tokenizer.encode_text("the in").unwrap();
    // "the" is one token, " in" two: a space and "in".
    assert_eq!(ids.len(), 3);
    assert_eq!(tokenizer.bytes(ids[0]), b"the");
    assert_eq!(tokenizer.bytes(ids[2]), b"in");
}

#[test]
fn plain_text_never_holds_a_control_token() {
    let tokenizer = tiny();
    for control in CONTROL_TOKENS {
        let ids = tokenizer.encode_text(control).unwrap();
        assert!(ids.iter().all(|&id| id as usize >= CONTROL_TOKENS.len()), "{control}");
        assert_eq!(back(&tokenizer, &ids), control);
    }
}

#[test]
fn template_text_holds_control_tokens_where_it_says_so() {
    let tokenizer = tiny();
    let guard = Guard::new(tokenizer.control_texts(), 7);
    let ids = tokenizer.encode_template("<|im_start|>user\nx<|im_end|>", &guard).unwrap();
    assert_eq!((ids[0], ids[ids.len() - 1]), (1, 2));
    assert!(tokenizer.is_end_of_generation(2) && tokenizer.is_end_of_generation(0));
    assert!(!tokenizer.is_end_of_generation(1));
    assert_eq!((tokenizer.bos_text(), tokenizer.eos_text()), (Some("<|im_start|>"), Some("<|im_end|>")));
}

#[test]
fn a_text_is_cut_at_the_longest_token() {
    let tokens = [("<a>".to_owned(), 1), ("<a>>".to_owned(), 2), ("b".to_owned(), 3)];
    assert_eq!(
        split("x<a>>bé", &tokens),
        [Piece::Text("x"), Piece::Token(2), Piece::Token(3), Piece::Text("é")]
    );
    assert!(split("", &tokens).is_empty());
}

fn with(change: impl FnOnce(&mut GgufWriter)) -> Result<Tokenizer, InferenceError> {
    let mut writer = GgufWriter::default();
    change(&mut writer);
    Tokenizer::from_metadata(&Header::parse(&writer.finish()).unwrap().metadata)
}

fn texts(texts: &[&str]) -> Value {
    Value::Array(Array::Strings(texts.iter().map(ToString::to_string).collect()))
}

fn base(writer: &mut GgufWriter, tokens: &[&str], merges: &[&str]) {
    writer.set("tokenizer.ggml.model", Value::String("gpt2".into()));
    writer.set("tokenizer.ggml.tokens", texts(tokens));
    writer.set("tokenizer.ggml.merges", texts(merges));
}

#[test]
fn an_inconsistent_vocabulary_is_refused() {
    let refused: [Result<Tokenizer, InferenceError>; 8] = [
        with(|_| {}),
        with(|w| w.set("tokenizer.ggml.model", Value::String("llama".into()))),
        with(|w| base(w, &["a", "a"], &[])),
        with(|w| base(w, &["a", "b"], &["a b"])),
        with(|w| base(w, &["a", "b"], &["ab"])),
        with(|w| {
            base(w, &["a"], &[]);
            w.set("tokenizer.ggml.eos_token_id", Value::Unsigned(1));
        }),
        with(|w| {
            base(w, &["a"], &[]);
            w.set("tokenizer.ggml.token_type", Value::Array(Array::Integers(vec![1, 1])));
        }),
        with(|w| {
            base(w, &["a"], &[]);
            w.set("tokenizer.ggml.pre", Value::String("unheard-of".into()));
        }),
    ];
    for (index, tokenizer) in refused.into_iter().enumerate() {
        assert_eq!(
            tokenizer.map(|_| ()).map_err(|error| error.kind()),
            Err(ErrorKind::ModelInvalid),
            "case {index}"
        );
    }
}

#[test]
fn pre_tokenizers_cut_digits_each_in_its_way() {
    // The merges would join all digits; the pre-tokenizer decides how many may be joined.
    let digits: [(&str, usize); 4] = [("smollm", 4), ("qwen2", 4), ("llama-bpe", 2), ("gpt-2", 1)];
    for (pre, expected) in digits {
        let tokenizer = with(|w| {
            base(w, &["1", "11", "111", "1111"], &["1 1", "11 1", "11 11"]);
            w.set("tokenizer.ggml.pre", Value::String(pre.into()));
        })
        .unwrap();
        assert_eq!(tokenizer.encode_text("1111").unwrap().len(), expected, "{pre}");
    }
}

#[test]
fn a_beginning_is_added_once_when_the_model_wants_one() {
    let tokenizer = with(|w| {
        base(w, &["<s>", "a"], &[]);
        w.set("tokenizer.ggml.token_type", Value::Array(Array::Integers(vec![3, 1])));
        w.set("tokenizer.ggml.bos_token_id", Value::Unsigned(0));
        w.set("tokenizer.ggml.add_bos_token", Value::Bool(true));
    })
    .unwrap();
    let guard = Guard::new(tokenizer.control_texts(), 7);
    assert_eq!(tokenizer.encode_text("a").unwrap(), [0, 1]);
    assert_eq!(tokenizer.encode_template("<s>a", &guard).unwrap(), [0, 1]);
}

#[test]
fn added_tokens_are_text_wherever_they_stand() {
    let tokenizer = with(|w| {
        base(w, &["  ", "a"], &[]);
        w.set("tokenizer.ggml.token_type", Value::Array(Array::Integers(vec![4, 1])));
    })
    .unwrap();
    assert_eq!(tokenizer.encode_text("a  a").unwrap(), [1, 0, 1]);
    assert_eq!(tokenizer.bytes(0), b"  ");
}

#[test]
fn the_byte_alphabet_is_the_published_one() {
    for (byte, character) in [(b'!', '!'), (b' ', 'Ġ'), (b'\n', 'Ċ'), (0, 'Ā'), (0xad, 'Ń'), (0xff, 'ÿ')]
    {
        assert_eq!(byte_to_char(byte), character);
    }
}

proptest! {
    #[test]
    fn any_text_comes_back(text in ".{0,40}") {
        let tokenizer = tiny();
        prop_assert_eq!(back(&tokenizer, &tokenizer.encode_text(&text).unwrap()), text);
    }

    #[test]
    fn protected_text_is_inert_and_comes_back(
        parts in prop::collection::vec(prop_oneof![
            Just("<|im_end|>"), Just("<|im_start|>"), Just("<|"), Just("<"), Just("im_end|>"), Just(" "), Just("é"),
            Just("\u{e000}"), Just("\u{e001}"), Just("00000000000000000007"),
        ], 0..8),
        before in prop_oneof![Just(""), Just("<"), Just("<|im_"), Just("x\n")],
    ) {
        let tokenizer = tiny();
        let guard = Guard::new(tokenizer.control_texts(), 123);
        let text = parts.concat();
        let rendered = format!("{before}{}<|im_end|>", guard.protect(&text));
        let ids = tokenizer.encode_template(&rendered, &guard).unwrap();
        // The only control token is the template's own, at the end.
        prop_assert_eq!(ids.iter().filter(|&&id| (id as usize) < CONTROL_TOKENS.len()).count(), 1);
        prop_assert_eq!(ids.last(), Some(&2));
        prop_assert_eq!(back(&tokenizer, &ids), format!("{before}{text}"));
    }
}
