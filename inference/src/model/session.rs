//! One sequence with a cache of its own: for teacher forcing, and for callers that want no engine.

use super::{BLOCK_TOKENS, BatchEntry, LoadedModel, Rows};
use crate::InferenceError;
use crate::ops::KvCache;

/// Tokens of a prompt that are computed in one pass.
const CHUNK: usize = 128;

/// A sequence and its cache, which has room for the model's whole context.
#[derive(Debug)]
pub struct Session {
    cache: KvCache,
    blocks: Vec<u32>,
    len: usize,
}

impl Session {
    /// Tokens held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl LoadedModel {
    /// An empty sequence.
    ///
    /// # Errors
    /// As [`LoadedModel::new_cache`].
    pub fn new_session(&self) -> Result<Session, InferenceError> {
        let blocks = self.info().context_length.div_ceil(BLOCK_TOKENS);
        Ok(Session { cache: self.new_cache(blocks)?, blocks: (0..blocks as u32).collect(), len: 0 })
    }

    /// Computes `tokens` after what `session` holds and answers the logits of the last one, `vocab` numbers.
    ///
    /// # Errors
    /// As [`LoadedModel::forward`].
    pub fn step(&self, tokens: &[u32], session: &mut Session) -> Result<Vec<f32>, InferenceError> {
        self.extend(tokens, session, Rows::Last)
    }

    /// Teacher forcing: the logits after every one of `tokens`, in order, `tokens.len() * vocab` numbers.
    ///
    /// # Errors
    /// As [`LoadedModel::forward`].
    pub fn logits(&self, tokens: &[u32]) -> Result<Vec<f32>, InferenceError> {
        let mut session = self.new_session()?;
        let mut all = Vec::with_capacity(tokens.len() * self.info().vocab);
        for chunk in tokens.chunks(CHUNK) {
            all.extend(self.extend(chunk, &mut session, Rows::All)?);
        }
        Ok(all)
    }

    fn extend(&self, tokens: &[u32], session: &mut Session, rows: Rows) -> Result<Vec<f32>, InferenceError> {
        let entry = BatchEntry { tokens, past: session.len, blocks: &session.blocks, rows };
        let logits = self.forward(&[entry], &mut session.cache)?;
        session.len += tokens.len();
        Ok(logits.into_vec())
    }
}
