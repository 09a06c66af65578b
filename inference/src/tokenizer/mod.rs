//! Text to tokens and back, from what the model file says about its vocabulary.
//!
//! # Control tokens cannot be injected
//! A vocabulary has tokens that steer the model (`<|im_end|>` ends a turn). They are recognised only by
//! [`Tokenizer::encode_template`], which is meant for the output of a chat template whose caller-supplied parts were
//! made inert by [`Guard`]; [`Tokenizer::encode_text`] never produces one, whatever the text spells.

mod bpe;
mod build;
mod byte_level;
mod detokenizer;
mod guard;
mod pieces;
mod sentencepiece;
mod special;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use tokenizers::Tokenizer as Bpe;

pub use byte_level::byte_to_char;
pub use detokenizer::Detokenizer;
pub use guard::Guard;
use pieces::Pieces;
use sentencepiece::SentencePiece;
use special::{Piece, SpecialTokens};

use crate::InferenceError;
use crate::gguf::Metadata;

/// A model's vocabulary and its rules.
#[derive(Debug)]
pub struct Tokenizer {
    merges: Merges,
    /// Bytes of each token, empty for control tokens: those are never part of an answer.
    pieces: Pieces,
    /// Control tokens, recognised in template text only.
    control: SpecialTokens,
    /// Tokens the model's author added for plain text (runs of spaces and the like), recognised everywhere.
    added: SpecialTokens,
    end_of_generation: HashSet<u32>,
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: bool,
    longest_token_bytes: usize,
}

/// How plain text becomes tokens.
#[derive(Debug)]
enum Merges {
    /// Byte-level BPE.
    ByRank(Box<Bpe>),
    /// SentencePiece.
    ByScore(SentencePiece),
}

impl Tokenizer {
    /// Builds the tokenizer from `tokenizer.ggml.*`.
    ///
    /// # Errors
    /// [`InferenceError::ModelInvalid`] when the vocabulary is absent, inconsistent, or of a kind not supported
    /// (supported: byte-level BPE with the pre-tokenizers `smollm`, `gpt-2`, `llama-bpe` and `qwen2`, and
    /// SentencePiece's BPE).
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, InferenceError> {
        build::build(metadata)
    }

    /// Number of tokens.
    #[must_use]
    pub fn vocab(&self) -> usize {
        self.pieces.len()
    }

    /// The bytes a token stands for; empty for control tokens and unknown ids.
    #[must_use]
    pub fn bytes(&self, id: u32) -> &[u8] {
        self.pieces.get(id)
    }

    /// Whether the model ends its answer with this token.
    #[must_use]
    pub fn is_end_of_generation(&self, id: u32) -> bool {
        self.end_of_generation.contains(&id)
    }

    /// The text of the beginning-of-sequence token.
    #[must_use]
    pub fn bos_text(&self) -> Option<&str> {
        self.control.text(self.bos?)
    }

    /// The text of the end-of-sequence token.
    #[must_use]
    pub fn eos_text(&self) -> Option<&str> {
        self.control.text(self.eos?)
    }

    /// The texts of all control tokens.
    pub fn control_texts(&self) -> impl Iterator<Item = &str> {
        self.control.texts()
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
        let mut tokens = Tokens::default();
        self.encode_into(text, &mut tokens)?;
        Ok(self.with_bos(tokens.ids))
    }

    /// Tokens of a rendered chat template: control tokens are recognised, except where `guard` broke them up.
    ///
    /// # Errors
    /// [`InferenceError::BadParameter`] when the text cannot be tokenized.
    pub fn encode_template(&self, rendered: &str, guard: &Guard) -> Result<Vec<u32>, InferenceError> {
        let mut tokens = Tokens::default();
        for piece in self.control.split(rendered) {
            match piece {
                Piece::Token(id) => tokens.special(id),
                Piece::Text(text) => self.encode_into(&guard.remove(text), &mut tokens)?,
            }
        }
        Ok(self.with_bos(tokens.ids))
    }

    fn encode_into(&self, text: &str, tokens: &mut Tokens) -> Result<(), InferenceError> {
        for piece in self.added.split(text) {
            match piece {
                Piece::Token(id) => tokens.special(id),
                Piece::Text(text) => self.encode_plain(text, tokens)?,
            }
        }
        Ok(())
    }

    fn encode_plain(&self, text: &str, tokens: &mut Tokens) -> Result<(), InferenceError> {
        let after_special = !std::mem::replace(&mut tokens.after_text, true);
        match &self.merges {
            Merges::ByRank(bpe) => {
                let encoding = bpe.encode_fast(text, false).map_err(|error| {
                    InferenceError::BadParameter { name: "prompt", reason: error.to_string() }
                })?;
                tokens.ids.extend(encoding.get_ids());
            }
            Merges::ByScore(model) => model.encode(&self.pieces, text, after_special, &mut tokens.ids),
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
}

/// The tokens of a text while it is taken apart.
#[derive(Default)]
struct Tokens {
    ids: Vec<u32>,
    /// Whether plain text came last, not a special token or nothing.
    after_text: bool,
}

impl Tokens {
    fn special(&mut self, id: u32) {
        self.ids.push(id);
        self.after_text = false;
    }
}
