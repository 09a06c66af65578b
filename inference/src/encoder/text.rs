//! Texts to the tokens of an encoder.

use tokenizers::Tokenizer;

use super::EncodeInput;
use crate::InferenceError;

/// The tokenizer of a model, with the marks that its sequences begin and end with.
#[derive(Debug)]
pub(super) struct TextTokens {
    tokenizer: Tokenizer,
    begin: u32,
    end: u32,
    vocab: usize,
    /// Most tokens of a sequence, marks included.
    limit: usize,
}

impl TextTokens {
    /// From a `tokenizer.json`, for a model with so many words and positions.
    pub(super) fn new(json: &[u8], vocab: usize, limit: usize) -> Result<Self, InferenceError> {
        let wrong = |error: tokenizers::Error| InferenceError::invalid(format!("tokenizer.json: {error}"));
        let mut tokenizer = Tokenizer::from_bytes(json).map_err(wrong)?;
        // Files often carry the settings of whoever saved them last.
        tokenizer.with_truncation(None).map_err(wrong)?;
        tokenizer.with_padding(None);
        if tokenizer.get_vocab(true).values().any(|&id| id as usize >= vocab) {
            return Err(InferenceError::invalid("tokenizer.json has more tokens than the model"));
        }
        let marks = tokenizer.encode_fast("", true).map_err(wrong)?;
        let &[begin, end] = marks.get_ids() else {
            return Err(InferenceError::invalid("tokenizer.json does not put a sequence between two marks"));
        };
        if limit < 3 {
            return Err(InferenceError::invalid("the model has no room for an input"));
        }
        Ok(Self { tokenizer, begin, end, vocab, limit })
    }

    /// The tokens of an input, marks included.
    ///
    /// # Errors
    /// [`InferenceError::BadParameter`] naming `input` when it is empty or has an unknown token,
    /// [`InferenceError::ContextLengthExceeded`] when it is too long and not to be cut.
    pub(super) fn encode(&self, input: &EncodeInput, truncate: bool) -> Result<Vec<u32>, InferenceError> {
        let mut ids = match input {
            EncodeInput::Text(text) if text.is_empty() => return Err(bad("must not be empty")),
            EncodeInput::Tokens(ids) if ids.is_empty() => return Err(bad("must not be empty")),
            EncodeInput::Text(text) => {
                let encoding = self
                    .tokenizer
                    .encode_fast(text.as_str(), true)
                    .map_err(|error| bad(&error.to_string()))?;
                encoding.get_ids().to_vec()
            }
            EncodeInput::Tokens(ids) => {
                if let Some(id) = ids.iter().find(|&&id| id as usize >= self.vocab) {
                    return Err(bad(&format!("token {id} is outside the vocabulary")));
                }
                [&[self.begin], ids.as_slice(), &[self.end]].concat()
            }
        };
        if ids.len() > self.limit {
            if !truncate {
                return Err(InferenceError::ContextLengthExceeded { prompt: ids.len(), max: self.limit });
            }
            ids.truncate(self.limit - 1);
            ids.push(self.end);
        }
        Ok(ids)
    }
}

fn bad(reason: &str) -> InferenceError {
    InferenceError::BadParameter { name: "input", reason: reason.to_owned() }
}
