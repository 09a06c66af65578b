//! Attention: causal over the cache of a batch of sequences, and full within each sequence of a batch.
//!
//! The work is cut into tiles: some query tokens of one sequence and all query heads that share one head of keys and
//! values, so that these are read once for the group. A tile walks along its keys and keeps a running softmax; where
//! there are fewer tiles than threads, the keys of a tile are cut too and the parts brought together afterwards (Dao
//! et al. 2023, "Flash-Decoding").

mod causal;
mod full;
mod product;
mod tile;
#[cfg(target_arch = "x86_64")]
mod tiles;

pub use causal::{Causal, New, Span, append_and_attend, causal};
pub use full::{Full, full};

#[cfg(test)]
mod tests;
