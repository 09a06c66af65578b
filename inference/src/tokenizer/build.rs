//! From a model file's metadata to a tokenizer.

use std::collections::HashSet;

use super::byte_level::ByteAlphabet;
use super::pieces::Pieces;
use super::sentencepiece::{Fallback, SPACE, SentencePiece};
use super::special::SpecialTokens;
use super::{Merges, Tokenizer, bpe};
use crate::InferenceError;
use crate::gguf::{Array, Metadata, Value};

/// `LLAMA_TOKEN_TYPE_NORMAL`: what plain text is made of.
const NORMAL: i64 = 1;
/// `LLAMA_TOKEN_TYPE_CONTROL`: steers the model, never part of a text.
const CONTROL: i64 = 3;
/// `LLAMA_TOKEN_TYPE_USER_DEFINED`: plain text that is one token wherever it stands.
const USER_DEFINED: i64 = 4;
/// `LLAMA_TOKEN_TYPE_BYTE`: one byte, written `<0x0A>`.
const BYTE: i64 = 6;
/// `LLAMA_TOKEN_TYPE_UNKNOWN` and `..._UNUSED`: neither read nor written.
const NO_TEXT: [i64; 2] = [2, 5];
/// Control tokens that end an answer even when the file does not name them as such.
const TURN_ENDS: [&str; 6] =
    ["<|im_end|>", "<|eot_id|>", "<|end|>", "<|endoftext|>", "<end_of_turn>", "<|end_of_text|>"];

/// The vocabulary as the file lists it.
struct Vocabulary<'a> {
    tokens: &'a [String],
    /// Empty when the file does not say: all are normal then.
    kinds: &'a [i64],
}

impl<'a> Vocabulary<'a> {
    fn read(metadata: &'a Metadata) -> Result<Self, InferenceError> {
        let tokens = metadata
            .strings("tokenizer.ggml.tokens")
            .ok_or_else(|| InferenceError::invalid("tokenizer.ggml.tokens is missing"))?;
        let kinds = metadata.integers("tokenizer.ggml.token_type").unwrap_or(&[]);
        if !kinds.is_empty() && kinds.len() != tokens.len() {
            return Err(InferenceError::invalid(
                "tokenizer.ggml.token_type has another length than the tokens",
            ));
        }
        Ok(Self { tokens, kinds })
    }

    /// Each token's id, kind and text.
    fn iter(&self) -> impl Iterator<Item = (u32, i64, &'a str)> {
        let kind = |id: usize| self.kinds.get(id).copied().unwrap_or(NORMAL);
        self.tokens.iter().enumerate().map(move |(id, text)| (id as u32, kind(id), text.as_str()))
    }

    fn special(&self, wanted: i64) -> SpecialTokens {
        let of_kind = self.iter().filter(|(_, kind, _)| *kind == wanted);
        SpecialTokens::new(of_kind.map(|(id, _, text)| (Box::from(text), id)))
    }

    /// The bytes each token stands for; `normal` turns the text of an ordinary one into bytes.
    fn pieces(&self, mut normal: impl FnMut(&str, &mut Vec<u8>)) -> Pieces {
        let mut pieces = Pieces::default();
        let mut bytes = Vec::new();
        for (_, kind, text) in self.iter() {
            bytes.clear();
            match kind {
                USER_DEFINED => bytes.extend_from_slice(text.as_bytes()),
                BYTE => bytes.extend(byte_of(text)),
                CONTROL => {}
                other if NO_TEXT.contains(&other) => {}
                _ => normal(text, &mut bytes),
            }
            pieces.push(&bytes);
        }
        pieces.shrink();
        pieces
    }
}

pub(super) fn build(metadata: &Metadata) -> Result<Tokenizer, InferenceError> {
    let vocabulary = Vocabulary::read(metadata)?;
    let vocab = vocabulary.tokens.len();
    let (pieces, merges, adds_bos) = match metadata.string("tokenizer.ggml.model").unwrap_or("none") {
        "gpt2" => byte_level(metadata, &vocabulary)?,
        "llama" => sentencepiece(metadata, &vocabulary)?,
        other => return Err(InferenceError::invalid(format!("tokenizer model {other:?} is not supported"))),
    };
    let control = vocabulary.special(CONTROL);
    let (bos, eos) = (token_id(metadata, "bos", vocab)?, token_id(metadata, "eos", vocab)?);
    Ok(Tokenizer {
        end_of_generation: turn_ends(metadata, &control, eos, vocab)?,
        merges,
        pieces,
        control,
        added: vocabulary.special(USER_DEFINED),
        bos,
        eos,
        add_bos: metadata.bool("tokenizer.ggml.add_bos_token").unwrap_or(adds_bos),
        longest_token_bytes: vocabulary.tokens.iter().map(String::len).max().unwrap_or(0),
    })
}

/// What the kinds of tokenizer differ in: the bytes of the tokens, how a text becomes tokens, and whether it begins
/// with the beginning-of-sequence token when the file does not say.
type Kind = (Pieces, Merges, bool);

fn byte_level(metadata: &Metadata, vocabulary: &Vocabulary<'_>) -> Result<Kind, InferenceError> {
    let alphabet = ByteAlphabet::new();
    let pieces = vocabulary.pieces(|text, bytes| alphabet.decode(text, bytes));
    let bpe = bpe::build(metadata, vocabulary.tokens)?;
    Ok((pieces, Merges::ByRank(Box::new(bpe)), bpe::is_llama_3(metadata)))
}

fn sentencepiece(metadata: &Metadata, vocabulary: &Vocabulary<'_>) -> Result<Kind, InferenceError> {
    let key = "tokenizer.ggml.scores";
    let scores = match metadata.get(key) {
        Some(Value::Array(Array::Floats(scores))) if scores.len() == vocabulary.tokens.len() => scores,
        _ => return Err(InferenceError::invalid(format!("{key} does not have one number a token"))),
    };
    let pieces = vocabulary.pieces(|text, bytes| bytes.extend(text.replace(SPACE, " ").bytes()));
    let normal = vocabulary.iter().filter(|(_, kind, _)| *kind == NORMAL).map(|(id, _, _)| id);
    let space_prefix = metadata.bool("tokenizer.ggml.add_space_prefix").unwrap_or(true);
    let fallback = fallback(metadata, vocabulary)?;
    let model = SentencePiece::new(&pieces, normal, scores.clone(), fallback, space_prefix);
    Ok((pieces, Merges::ByScore(model), true))
}

fn fallback(metadata: &Metadata, vocabulary: &Vocabulary<'_>) -> Result<Fallback, InferenceError> {
    let mut tokens = [None; 256];
    for (id, _, text) in vocabulary.iter().filter(|(_, kind, _)| *kind == BYTE) {
        if let Some(byte) = byte_of(text) {
            tokens[usize::from(byte)] = Some(id);
        }
    }
    if tokens.iter().all(Option::is_some) {
        return Ok(Fallback::Bytes(Box::new(tokens.map(Option::unwrap_or_default))));
    }
    let unknown = token_id(metadata, "unknown", vocabulary.tokens.len())?;
    unknown.map(Fallback::Unknown).ok_or_else(|| {
        InferenceError::invalid("the vocabulary has neither all 256 byte tokens nor an unknown token")
    })
}

/// The byte that a token such as `<0x0A>` names.
fn byte_of(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
}

fn token_id(metadata: &Metadata, name: &str, vocab: usize) -> Result<Option<u32>, InferenceError> {
    match metadata.unsigned(&format!("tokenizer.ggml.{name}_token_id")) {
        None => Ok(None),
        Some(id) if id < vocab as u64 => Ok(Some(id as u32)),
        Some(id) => Err(InferenceError::invalid(format!("the {name} token {id} is outside the vocabulary"))),
    }
}

fn turn_ends(
    metadata: &Metadata,
    control: &SpecialTokens,
    eos: Option<u32>,
    vocab: usize,
) -> Result<HashSet<u32>, InferenceError> {
    let mut ends: HashSet<u32> = control.ids_of(&TURN_ENDS).chain(eos).collect();
    ends.extend(token_id(metadata, "eot", vocab)?);
    Ok(ends)
}
