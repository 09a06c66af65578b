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
        with(|w| w.set("tokenizer.ggml.model", Value::String("t5".into()))),
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

/// A SentencePiece vocabulary: three control tokens, the bytes, then these with their scores.
fn scored(tokens: &[(&str, f32)], change: impl FnOnce(&mut GgufWriter)) -> Result<Tokenizer, InferenceError> {
    let bytes: Vec<String> = (0..=255).map(|byte| format!("<0x{byte:02X}>")).collect();
    let special = ["<unk>", "<s>", "</s>"].into_iter().chain(bytes.iter().map(String::as_str));
    let all: Vec<&str> = special.chain(tokens.iter().map(|(text, _)| *text)).collect();
    let kind = |id: usize| match id {
        0..3 => 3,
        3..259 => 6,
        _ => 1,
    };
    let scores = (0..259).map(|_| -1e6).chain(tokens.iter().map(|(_, score)| *score));
    with(|w| {
        w.set("tokenizer.ggml.model", Value::String("llama".into()));
        w.set("tokenizer.ggml.token_type", Value::Array(Array::Integers((0..all.len()).map(kind).collect())));
        w.set("tokenizer.ggml.scores", Value::Array(Array::Floats(scores.collect())));
        w.set("tokenizer.ggml.tokens", texts(&all));
        w.set("tokenizer.ggml.add_bos_token", Value::Bool(false));
        change(w);
    })
}

#[test]
fn the_best_scored_neighbours_join_first_and_the_leftmost_of_equals() {
    let tokens = [("a", 0.0), ("b", 0.0), ("ab", -2.0), ("ba", -1.0), ("aba", -3.0), ("aa", -1.0)];
    let tokenizer =
        scored(&tokens, |w| w.set("tokenizer.ggml.add_space_prefix", Value::Bool(false))).unwrap();
    let tokens = |text| tokenizer.encode_text(text).unwrap();
    assert_eq!(tokens("aba"), [263]);
    assert_eq!(tokens("abab"), [263, 260]);
    assert_eq!(tokens("aaa"), [264, 259]);
}

#[test]
fn what_is_no_token_is_written_in_bytes() {
    let tokenizer = scored(&[("a", 0.0)], |_| {}).unwrap();
    let ids = tokenizer.encode_text("aé").unwrap();
    assert_eq!(ids, [3 + 0x20, 259, 3 + 0xc3, 3 + 0xa9]);
    assert_eq!(back(&tokenizer, &ids), " aé");
}

#[test]
fn a_space_is_put_before_text_at_the_front_and_behind_control_tokens() {
    let tokenizer = scored(&[("\u{2581}", 0.0), ("a", 0.0), ("\u{2581}a", 1.0)], |_| {}).unwrap();
    let guard = Guard::new(tokenizer.control_texts(), 7);
    assert_eq!(tokenizer.encode_template("<s>a a</s>a", &guard).unwrap(), [1, 261, 261, 2, 261]);
    assert_eq!(tokenizer.bytes(261), b" a");
    assert_eq!(tokenizer.encode_text("</s>").unwrap().iter().filter(|&&id| id < 3).count(), 0);
}

#[test]
fn an_unknown_character_is_the_unknown_token_when_bytes_are_no_tokens() {
    let tokenizer = |unknown: Option<u64>| {
        with(|w| {
            w.set("tokenizer.ggml.model", Value::String("llama".into()));
            w.set("tokenizer.ggml.tokens", texts(&["<unk>", "a"]));
            w.set("tokenizer.ggml.scores", Value::Array(Array::Floats(vec![0.0; 2])));
            w.set("tokenizer.ggml.token_type", Value::Array(Array::Integers(vec![2, 1])));
            w.set("tokenizer.ggml.add_space_prefix", Value::Bool(false));
            if let Some(id) = unknown {
                w.set("tokenizer.ggml.unknown_token_id", Value::Unsigned(id));
            }
        })
    };
    assert_eq!(tokenizer(Some(0)).unwrap().encode_text("aéa").unwrap(), [1, 0, 1]);
    assert_eq!(tokenizer(None).unwrap_err().kind(), ErrorKind::ModelInvalid);
}

#[test]
fn a_vocabulary_without_a_score_for_each_token_is_refused() {
    let short = scored(&[("a", 0.0)], |w| {
        w.set("tokenizer.ggml.unknown_token_id", Value::Unsigned(1 << 20));
    });
    assert!(short.is_ok(), "the unknown token is not needed where there are bytes");
    let none = with(|w| {
        base(w, &["a"], &[]);
        w.set("tokenizer.ggml.scores", Value::Array(Array::Floats(vec![0.0; 2])));
    });
    assert!(none.is_ok(), "byte-level vocabularies have no scores");
    let refused = with(|w| {
        w.set("tokenizer.ggml.model", Value::String("llama".into()));
        w.set("tokenizer.ggml.tokens", texts(&["a"]));
        w.set("tokenizer.ggml.scores", Value::Array(Array::Floats(vec![0.0; 2])));
    });
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::ModelInvalid);
}

#[test]
fn a_word_of_llama_3_that_is_a_token_needs_no_merges() {
    let words = |pre: &str| {
        let tokenizer = with(|w| {
            base(w, &["a", "b", "ab", "abb"], &["a b"]);
            w.set("tokenizer.ggml.pre", Value::String(pre.into()));
        });
        tokenizer.unwrap().encode_text("abb").unwrap()
    };
    assert_eq!(words("llama-bpe"), [3]);
    assert_eq!(words("qwen2"), [2, 1]);
}

proptest! {
    #[test]
    fn any_text_comes_back(text in ".{0,40}") {
        let tokenizer = tiny();
        prop_assert_eq!(back(&tokenizer, &tokenizer.encode_text(&text).unwrap()), text);
    }

    #[test]
    fn any_text_comes_back_from_scored_tokens_too(text in "[a-c \u{2581}\u{2580}é]{0,40}") {
        let tokens = [("a", 0.0), ("b", 0.0), ("ab", -2.0), ("ba", -1.0), ("\u{2581}a", -3.0), ("\u{2581}", 0.0)];
        let no_prefix = |w: &mut GgufWriter| w.set("tokenizer.ggml.add_space_prefix", Value::Bool(false));
        let tokenizer = scored(&tokens, no_prefix).unwrap();
        let ids = tokenizer.encode_text(&text).unwrap();
        prop_assert_eq!(back(&tokenizer, &ids), text.replace('\u{2581}', " "));
        prop_assert!(text.len() <= tokenizer.longest_text(ids.len()));
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
