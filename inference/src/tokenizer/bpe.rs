//! Byte-level BPE: merges by rank over a text that was cut into words first.

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{SplitDelimiterBehavior, Tokenizer as Bpe};

use crate::InferenceError;
use crate::gguf::Metadata;

/// The names under which files say that they cut words as Llama 3 does.
const LLAMA_3: [&str; 3] = ["llama-bpe", "llama3", "llama-v3"];

/// Builds the merging part from `tokenizer.ggml.merges` and `.pre`.
pub(super) fn build(metadata: &Metadata, tokens: &[String]) -> Result<Bpe, InferenceError> {
    let mut bpe = Bpe::new(merges(metadata, tokens)?);
    bpe.with_pre_tokenizer(Some(pre_tokenizer(metadata)?));
    Ok(bpe)
}

/// Whether words are cut as in Llama 3: then a word that is a token is that token, whatever the merges say, and a
/// text begins with the beginning-of-sequence token unless the file says otherwise.
pub(super) fn is_llama_3(metadata: &Metadata) -> bool {
    metadata.string("tokenizer.ggml.pre").is_some_and(|name| LLAMA_3.contains(&name))
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
        .ignore_merges(is_llama_3(metadata))
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
        name if LLAMA_3.contains(&name) => words_with_digits("\\p{N}{1,3}")?,
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
