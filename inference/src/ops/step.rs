//! What all layers of one forward pass share: which tokens, where they stand, what they may see.

use burn::tensor::{Int, Tensor};
use opossum_kernels::attention::Span;
use opossum_kernels::rope::Angles;

use super::{Place, Rope, dense};
use crate::model::BatchEntry;

/// One forward pass over a checked batch.
#[derive(Debug)]
pub(crate) struct Step<'a> {
    batch: &'a [BatchEntry<'a>],
    place: Place,
    rows: usize,
    pub(super) plan: Plan<'a>,
}

/// How attention finds its way.
#[derive(Debug)]
pub(super) enum Plan<'a> {
    /// For stock tensor operations.
    Dense(Box<dense::Plan>),
    /// For the CPU kernels.
    Kernels {
        spans: Vec<Span<'a>>,
        /// One for each of the model's ropes.
        angles: Vec<Angles>,
    },
}

impl<'a> Step<'a> {
    /// Prepares a pass. `windows` are the distinct sliding windows of the model's layers.
    pub(crate) fn new(
        batch: &'a [BatchEntry<'a>],
        ropes: &[Rope],
        windows: &[Option<usize>],
        place: &Place,
    ) -> Self {
        let rows = batch.iter().map(|entry| entry.tokens.len()).sum();
        let plan = match place.kernels {
            None => Plan::Dense(Box::new(dense::Plan::new(batch, ropes, windows, place))),
            Some(_) => Plan::Kernels {
                spans: batch.iter().map(span).collect(),
                angles: ropes.iter().map(|rope| rope.angles(batch)).collect(),
            },
        };
        Self { batch, place: place.clone(), rows, plan }
    }

    /// Tokens of the whole batch.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Their ids.
    pub(super) fn tokens(&self) -> impl Iterator<Item = u32> {
        self.batch.iter().flat_map(|entry| entry.tokens.iter().copied())
    }

    /// Their ids as a tensor.
    pub(super) fn ids(&self) -> Tensor<1, Int> {
        dense::integers(self.tokens().map(|id| id as i32).collect(), &self.place)
    }

    /// Where and how it computes.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// These rows of `x`.
    pub(crate) fn pick(&self, x: Tensor<2>, rows: &[u32]) -> Tensor<2> {
        if rows.len() == self.rows {
            return x;
        }
        x.select(0, dense::integers(rows.iter().map(|&row| row as i32).collect(), &self.place))
    }
}

fn span<'a>(entry: &BatchEntry<'a>) -> Span<'a> {
    Span { tokens: entry.tokens.len(), past: entry.past, blocks: entry.blocks }
}
