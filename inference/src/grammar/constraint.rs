//! One answer's way through a grammar.

use std::fmt;

use llguidance::Matcher;

use super::compile::Compiled;
use super::ending::Ending;
use crate::InferenceError;

/// A grammar and how much of it was generated.
pub struct Constraint {
    matcher: Matcher,
    ending: Ending,
}

impl fmt::Debug for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The state holds the text so far, which is private.
        f.write_str("Constraint")
    }
}

impl Constraint {
    pub(super) fn new(grammar: Compiled) -> Self {
        Self { matcher: Matcher::new(Ok(grammar.parser())), ending: Ending::new(grammar) }
    }

    /// Sets the logits of all tokens that may not come next to minus infinity. When the answer is whole, the tokens
    /// that end it may come; when nothing can follow, only they.
    ///
    /// # Errors
    /// [`InferenceError::GrammarFailed`] when the grammar became too complex.
    pub fn mask(&mut self, logits: &mut [f32]) -> Result<(), InferenceError> {
        let allowed = self.matcher.compute_mask_or_eos().map_err(|error| failed(&error))?;
        let (words, rest) = (allowed.as_slice(), logits.len().div_ceil(32));
        for (block, word) in logits.chunks_mut(32).zip(words) {
            match *word {
                u32::MAX => {}
                0 => block.fill(f32::NEG_INFINITY),
                word => {
                    for (bit, logit) in block.iter_mut().enumerate() {
                        *logit = if word >> bit & 1 == 1 { *logit } else { f32::NEG_INFINITY };
                    }
                }
            }
        }
        if words.len() < rest {
            logits[words.len() * 32..].fill(f32::NEG_INFINITY);
        }
        Ok(())
    }

    /// The token to go on with, when this one was chosen and `left` tokens are left, it included: the chosen one, or one
    /// that leads to the answer's end where the chosen one would leave too few tokens to make it whole.
    pub fn wind_down(&mut self, chosen: u32, left: usize) -> u32 {
        if self.matcher.is_stopped() { chosen } else { self.ending.choose(chosen, left) }
    }

    /// Goes on by a token that [`Constraint::mask`] allowed.
    ///
    /// # Errors
    /// [`InferenceError::GrammarFailed`] for another token.
    pub fn accept(&mut self, id: u32) -> Result<(), InferenceError> {
        // Behind a whole answer there is nothing to match: only a token that ends it may come.
        if self.matcher.is_stopped() {
            let ends = self.matcher.compute_mask_or_eos().map_err(|error| failed(&error))?;
            return match ends.is_allowed(id) {
                true => Ok(()),
                false => Err(InferenceError::GrammarFailed { reason: "the answer was whole".to_owned() }),
            };
        }
        self.ending.accept(id);
        self.matcher.consume_token(id).map_err(|error| failed(&error))
    }

    /// Whether the answer is whole and nothing can follow it.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.matcher.is_stopped()
    }
}

fn failed(error: &impl fmt::Display) -> InferenceError {
    // The first line says what; the rest is the parser's state.
    let text = error.to_string();
    InferenceError::GrammarFailed { reason: text.lines().next().unwrap_or_default().to_owned() }
}
