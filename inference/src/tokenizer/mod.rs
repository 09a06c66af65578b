//! Text to tokens and back, from what the model file says about its vocabulary.
//!
//! # Control tokens cannot be injected
//! A vocabulary has tokens that steer the model (`<|im_end|>` ends a turn). They are recognised only by
//! [`Tokenizer::encode_template`], which is meant for the output of a chat template whose caller-supplied parts were
//! made inert by [`Guard`]; [`Tokenizer::encode_text`] never produces one, whatever the text spells.

mod build;
mod byte_level;
mod detokenizer;
mod guard;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use tokenizers::Tokenizer as Bpe;

pub use byte_level::byte_to_char;
pub use detokenizer::Detokenizer;
pub use guard::Guard;

use crate::InferenceError;
use crate::gguf::Metadata;

/// A model's vocabulary and its rules.
#[derive(Debug)]
pub struct Tokenizer {
    bpe: Bpe,
    /// Bytes of each token, empty for control tokens: those are never part of an answer.
    bytes: Vec<Box<[u8]>>,
    /// Control tokens by text, recognised in template text only.
    control: Vec<(String, u32)>,
    /// Tokens the model's author added for plain text (runs of spaces and the like), recognised everywhere.
    added: Vec<(String, u32)>,
    end_of_generation: HashSet<u32>,
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: bool,
    longest_token_bytes: usize,
}

impl Tokenizer {
    /// Builds the tokenizer from `tokenizer.ggml.*`.
    ///
    /// # Errors
    /// [`InferenceError::ModelInvalid`] when the vocabulary is absent, inconsistent, or of a kind not supported
    /// (supported: byte-level BPE with the pre-tokenizers `smollm`, `gpt-2`, `llama-bpe` and `qwen2`).
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, InferenceError> {
        build::build(metadata)
    }

    /// Number of tokens.
    #[must_use]
    pub fn vocab(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes a token stands for; empty for control tokens and unknown ids.
    #[must_use]
    pub fn bytes(&self, id: u32) -> &[u8] {
        self.bytes.get(id as usize).map_or(&[], |bytes| bytes)
    }

    /// Whether the model ends its answer with this token.
    #[must_use]
    pub fn is_end_of_generation(&self, id: u32) -> bool {
        self.end_of_generation.contains(&id)
    }

    /// The text of the beginning-of-sequence token.
    #[must_use]
    pub fn bos_text(&self) -> Option<&str> {
        self.control_text(self.bos?)
    }

    /// The text of the end-of-sequence token.
    #[must_use]
    pub fn eos_text(&self) -> Option<&str> {
        self.control_text(self.eos?)
    }

    /// The texts of all control tokens.
    pub fn control_texts(&self) -> impl Iterator<Item = &str> {
        self.control.iter().map(|(text, _)| text.as_str())
    }

    /// A length in bytes that no text of at most `tokens` tokens exceeds.
    #[must_use]
    pub fn longest_text(&self, tokens: usize) -> usize {
        tokens.saturating_mul(self.longest_token_bytes.max(1))
    }

    /// Tokens of plain text. Never contains a control token.
    ///
    /// # Errors
    /// [`InferenceError::BadParameter`] when the text cannot be tokenized.
    pub fn encode_text(&self, text: &str) -> Result<Vec<u32>, InferenceError> {
        let mut ids = Vec::new();
        self.encode_into(text, &mut ids)?;
        Ok(self.with_bos(ids))
    }

    /// Tokens of a rendered chat template: control tokens are recognised, except where `guard` broke them up.
    ///
    /// # Errors
    /// [`InferenceError::BadParameter`] when the text cannot be tokenized.
    pub fn encode_template(&self, rendered: &str, guard: &Guard) -> Result<Vec<u32>, InferenceError> {
        let mut ids = Vec::new();
        for piece in split(rendered, &self.control) {
            match piece {
                Piece::Token(id) => ids.push(id),
                Piece::Text(text) => self.encode_into(&guard.remove(text), &mut ids)?,
            }
        }
        Ok(self.with_bos(ids))
    }

    fn encode_into(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), InferenceError> {
        for piece in split(text, &self.added) {
            match piece {
                Piece::Token(id) => ids.push(id),
                Piece::Text(text) => {
                    let encoding = self.bpe.encode_fast(text, false).map_err(|error| {
                        InferenceError::BadParameter { name: "prompt", reason: error.to_string() }
                    })?;
                    ids.extend(encoding.get_ids());
                }
            }
        }
        Ok(())
    }

    fn with_bos(&self, mut ids: Vec<u32>) -> Vec<u32> {
        if let Some(bos) = self.bos.filter(|_| self.add_bos)
            && ids.first() != Some(&bos)
        {
            ids.insert(0, bos);
        }
        ids
    }

    fn control_text(&self, wanted: u32) -> Option<&str> {
        self.control.iter().find(|(_, id)| *id == wanted).map(|(text, _)| text.as_str())
    }
}

/// A part of a text: a listed token, or what lies between two.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    Text(&'a str),
    Token(u32),
}

/// Cuts a text at the listed tokens: leftmost first, the longest where several start.
fn split<'a>(text: &'a str, tokens: &[(String, u32)]) -> Vec<Piece<'a>> {
    let mut pieces = Vec::new();
    let mut plain_from = 0;
    let mut at = 0;
    // Most positions cannot start a token: one look at the byte there says so.
    let mut may_start = [false; 256];
    for byte in tokens.iter().filter_map(|(token, _)| token.bytes().next()) {
        may_start[usize::from(byte)] = true;
    }
    while at < text.len() {
        let rest = &text[at..];
        let starts = |(token, _): &&(String, u32)| rest.starts_with(token.as_str());
        let found = if may_start[usize::from(rest.as_bytes()[0])] {
            tokens.iter().filter(starts).max_by_key(|(token, _)| token.len())
        } else {
            None
        };
        if let Some((token, id)) = found {
            if plain_from < at {
                pieces.push(Piece::Text(&text[plain_from..at]));
            }
            pieces.push(Piece::Token(*id));
            at += token.len();
            plain_from = at;
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    if plain_from < text.len() {
        pieces.push(Piece::Text(&text[plain_from..]));
    }
    pieces
}
