//! From a model file's metadata to a tokenizer.

use std::collections::HashSet;

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{SplitDelimiterBehavior, Tokenizer as Bpe};

use super::Tokenizer;
use super::byte_level::ByteAlphabet;
use crate::InferenceError;
use crate::gguf::Metadata;

/// `LLAMA_TOKEN_TYPE_CONTROL`: steers the model, never part of a text.
const CONTROL: i64 = 3;
/// `LLAMA_TOKEN_TYPE_USER_DEFINED`: plain text that is one token wherever it stands.
const USER_DEFINED: i64 = 4;
/// `LLAMA_TOKEN_TYPE_UNKNOWN` and `..._UNUSED`: neither read nor written.
const NO_TEXT: [i64; 2] = [2, 5];
/// Control tokens that end an answer even when the file does not name them as such.
const TURN_ENDS: [&str; 6] =
    ["<|im_end|>", "<|eot_id|>", "<|end|>", "<|endoftext|>", "<end_of_turn>", "<|end_of_text|>"];
/// Most control or added tokens: recognising them takes time in proportion.
const MAX_SPECIAL: usize = 4096;

pub(super) fn build(metadata: &Metadata) -> Result<Tokenizer, InferenceError> {
    let model = metadata.string("tokenizer.ggml.model").unwrap_or("none");
    if model != "gpt2" {
        return Err(InferenceError::invalid(format!("tokenizer model {model:?} is not supported")));
    }
    let tokens = metadata
        .strings("tokenizer.ggml.tokens")
        .ok_or_else(|| InferenceError::invalid("tokenizer.ggml.tokens is missing"))?;
    let kinds = metadata.integers("tokenizer.ggml.token_type").unwrap_or(&[]);
    if !kinds.is_empty() && kinds.len() != tokens.len() {
        return Err(InferenceError::invalid("tokenizer.ggml.token_type has another length than the tokens"));
    }
    let kind = |id: usize| kinds.get(id).copied().unwrap_or(1);
    let of_kind = |wanted: i64| special(tokens, |id| kind(id) == wanted);
    let (control, added) = (of_kind(CONTROL)?, of_kind(USER_DEFINED)?);
    let mut bpe = Bpe::new(merges(metadata, tokens)?);
    bpe.with_pre_tokenizer(Some(pre_tokenizer(metadata)?));

    let alphabet = ByteAlphabet::new();
    let bytes = tokens.iter().enumerate().map(|(id, token)| match kind(id) {
        CONTROL => Box::default(),
        USER_DEFINED => token.as_bytes().into(),
        other if NO_TEXT.contains(&other) => Box::default(),
        _ => alphabet.decode(token),
    });
    let bytes: Vec<Box<[u8]>> = bytes.collect();
    let longest_token_bytes = tokens.iter().map(String::len).max().unwrap_or(0);
    let (bos, eos) = (token_id(metadata, "bos", tokens.len())?, token_id(metadata, "eos", tokens.len())?);
    Ok(Tokenizer {
        end_of_generation: turn_ends(metadata, &control, eos, tokens.len())?,
        bpe,
        bytes,
        control,
        added,
        bos,
        eos,
        add_bos: metadata.bool("tokenizer.ggml.add_bos_token").unwrap_or(false),
        longest_token_bytes,
    })
}

/// The tokens `is_wanted` picks, by text.
fn special(
    tokens: &[String],
    is_wanted: impl Fn(usize) -> bool,
) -> Result<Vec<(String, u32)>, InferenceError> {
    let chosen: Vec<_> = tokens
        .iter()
        .enumerate()
        .filter(|(id, token)| is_wanted(*id) && !token.is_empty())
        .map(|(id, token)| (token.clone(), id as u32))
        .collect();
    if chosen.len() > MAX_SPECIAL {
        return Err(InferenceError::invalid("the vocabulary has too many special tokens"));
    }
    Ok(chosen)
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
    control: &[(String, u32)],
    eos: Option<u32>,
    vocab: usize,
) -> Result<HashSet<u32>, InferenceError> {
    let by_name = control.iter().filter(|(text, _)| TURN_ENDS.contains(&text.as_str())).map(|(_, id)| *id);
    let mut ends: HashSet<u32> = by_name.chain(eos).collect();
    ends.extend(token_id(metadata, "eot", vocab)?);
    Ok(ends)
}

fn merges(metadata: &Metadata, tokens: &[String]) -> Result<BPE, InferenceError> {
    let vocab: Vocab = tokens.iter().enumerate().map(|(id, token)| (token.clone(), id as u32)).collect();
    if vocab.len() != tokens.len() {
        return Err(InferenceError::invalid("the vocabulary has a token twice"));
    }
    let lines = metadata
        .strings("tokenizer.ggml.merges")
        .ok_or_else(|| InferenceError::invalid("tokenizer.ggml.merges is missing"))?;
    let merges =
        lines.iter().map(|line| merge(line, &vocab)).collect::<Option<Vec<_>>>().ok_or_else(|| {
            InferenceError::invalid("a tokenizer merge does not join two tokens into a third")
        })?;
    BPE::builder()
        .vocab_and_merges(vocab, merges)
        .build()
        .map_err(|error| InferenceError::invalid(format!("the tokenizer does not fit together: {error}")))
}

/// The two tokens of a merge. All three must exist: the library panics on a result longer than every token.
fn merge(line: &str, vocab: &Vocab) -> Option<(String, String)> {
    let (left, right) = line.split_once(' ')?;
    let exist = [left, right, &format!("{left}{right}")].into_iter().all(|token| vocab.contains_key(token));
    exist.then(|| (left.to_owned(), right.to_owned()))
}

/// How text is cut before merging. The patterns are those the models were trained with.
fn pre_tokenizer(metadata: &Metadata) -> Result<Sequence, InferenceError> {
    let name = metadata.string("tokenizer.ggml.pre").unwrap_or("gpt-2");
    let gpt2 = || PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, false, true));
    let steps = match name {
        "gpt-2" | "default" => vec![gpt2()],
        "smollm" => vec![PreTokenizerWrapper::Digits(Digits::new(true)), gpt2()],
        "llama-bpe" | "llama3" | "llama-v3" => words_with_digits("\\p{N}{1,3}")?,
        "qwen2" => words_with_digits("\\p{N}")?,
        other => return Err(InferenceError::invalid(format!("pre-tokenizer {other:?} is not supported"))),
    };
    Ok(Sequence::new(steps))
}

/// The pattern Llama 3 and Qwen 2 share but for how they cut digits.
fn words_with_digits(digits: &str) -> Result<Vec<PreTokenizerWrapper>, InferenceError> {
    let pattern = format!(
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{{L}}\\p{{N}}]?\\p{{L}}+|{digits}| ?[^\\s\\p{{L}}\\p{{N}}]+[\\r\\n]*\
         |\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
    );
    let split = Split::new(SplitPattern::Regex(pattern), SplitDelimiterBehavior::Isolated, false)
        .map_err(|error| InferenceError::invalid(format!("pre-tokenizer: {error}")))?;
    Ok(vec![
        PreTokenizerWrapper::Split(split),
        PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, false, false)),
    ])
}
