//! What one forward pass computes: tokens of several sequences, flattened.

use crate::InferenceError;

/// Tokens in one block of a KV cache.
pub const BLOCK_TOKENS: usize = 32;

/// The part of one sequence that a forward pass computes.
#[derive(Debug, Clone, Copy)]
pub struct BatchEntry<'a> {
    /// The tokens, at least one.
    pub tokens: &'a [u32],
    /// Tokens of the sequence that the cache already holds.
    pub past: usize,
    /// The cache blocks of the sequence, in order: token `i` of it lies in block `i / BLOCK_TOKENS`. They cover `past`
    /// and `tokens`. No other entry may write to a block that this entry writes to.
    pub blocks: &'a [u32],
    /// Whose logits are wanted.
    pub rows: Rows,
}

/// Which tokens' logits a forward pass is to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// None: there is more of the prompt to come.
    None,
    /// Those of the last token: all that generating needs.
    Last,
    /// Those of every token.
    All,
}

impl BatchEntry<'_> {
    /// Tokens of the sequence after this pass.
    pub(crate) fn seen(&self) -> usize {
        self.past + self.tokens.len()
    }

    /// Which of this entry's tokens have their logits answered.
    fn wanted(&self) -> std::ops::Range<usize> {
        let count = self.tokens.len();
        match self.rows {
            Rows::None => count..count,
            Rows::Last => count - 1..count,
            Rows::All => 0..count,
        }
    }
}

/// What entries must keep to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) vocab: usize,
    pub(super) context_length: usize,
    /// Blocks of the cache.
    pub(super) blocks: usize,
}

/// Refuses entries that would read or write where they must not.
///
/// # Errors
/// [`InferenceError::BadParameter`] and [`InferenceError::ContextLengthExceeded`].
pub(super) fn check(batch: &[BatchEntry<'_>], limits: Limits) -> Result<(), InferenceError> {
    let bad = |name, reason: String| Err(InferenceError::BadParameter { name, reason });
    for entry in batch {
        if entry.tokens.is_empty() {
            return bad("tokens", "is empty".to_owned());
        }
        if let Some(id) = entry.tokens.iter().find(|&&id| id as usize >= limits.vocab) {
            return bad("tokens", format!("{id} is no token"));
        }
        let seen = entry.past.saturating_add(entry.tokens.len());
        if seen > limits.context_length {
            return Err(InferenceError::ContextLengthExceeded { prompt: seen, max: limits.context_length });
        }
        if entry.blocks.len() < seen.div_ceil(BLOCK_TOKENS) {
            return bad("blocks", format!("{} blocks do not hold {seen} tokens", entry.blocks.len()));
        }
        if let Some(block) = entry.blocks.iter().find(|&&block| block as usize >= limits.blocks) {
            return bad("blocks", format!("{block} is no block of this cache"));
        }
    }
    Ok(())
}

/// The rows of the flattened batch whose logits are wanted, in order.
pub(super) fn wanted_rows(batch: &[BatchEntry<'_>]) -> Vec<u32> {
    let mut first = 0;
    let mut wanted = Vec::new();
    for entry in batch {
        wanted.extend(entry.wanted().map(|row| (first + row) as u32));
        first += entry.tokens.len();
    }
    wanted
}

/// Logits of the wanted tokens, in the order of the entries.
#[derive(Debug, Clone, PartialEq)]
pub struct Logits {
    values: Vec<f32>,
    vocab: usize,
}

impl Logits {
    pub(super) fn new(values: Vec<f32>, vocab: usize) -> Self {
        Self { values, vocab }
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len() / self.vocab
    }

    /// Whether no row was wanted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The logits of the `index`-th wanted token, one for each entry of the vocabulary. They may be changed: a sampler
    /// works in place.
    ///
    /// # Panics
    /// When there is no such row.
    #[must_use]
    pub fn row(&mut self, index: usize) -> &mut [f32] {
        &mut self.values[index * self.vocab..(index + 1) * self.vocab]
    }

    /// Every row, in order, so that several can be worked on at once.
    pub fn rows(&mut self) -> std::slice::ChunksExactMut<'_, f32> {
        self.values.chunks_exact_mut(self.vocab)
    }

    /// All rows, one behind the other.
    #[must_use]
    pub fn into_vec(self) -> Vec<f32> {
        self.values
    }
}
