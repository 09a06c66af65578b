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
        let plan = match place.kernels {
            None => Plan::Dense(Box::new(dense::Plan::new(batch, ropes, windows, place))),
            Some(_) => Plan::Kernels {
                spans: batch.iter().map(span).collect(),
                angles: ropes.iter().map(|rope| rope.angles(batch)).collect(),
            },
        };
        Self { batch, place: place.clone(), plan }
    }

    /// The token of each row.
    pub(super) fn tokens(&self) -> Vec<u32> {
        match &self.plan {
            Plan::Dense(plan) => plan.ids().to_vec(),
            Plan::Kernels { .. } => {
                self.batch.iter().flat_map(|entry| entry.tokens.iter().copied()).collect()
            }
        }
    }

    /// The same as a tensor.
    pub(super) fn ids(&self) -> Tensor<1, Int> {
        dense::integers(self.tokens().into_iter().map(|id| id as i32).collect(), &self.place)
    }

    /// Where and how it computes.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// The rows of these tokens of the batch, in their order; where shapes come in buckets, more rows may follow.
    pub(crate) fn pick(&self, x: Tensor<2>, tokens: &[u32]) -> Tensor<2> {
        let rows = match &self.plan {
            Plan::Dense(plan) => plan.rows_of(tokens),
            Plan::Kernels { .. } => tokens.to_vec(),
        };
        if rows.len() == x.dims()[0] && rows.iter().copied().eq(0..rows.len() as u32) {
            return x;
        }
        x.select(0, dense::integers(rows.into_iter().map(|row| row as i32).collect(), &self.place))
    }
}

fn span<'a>(entry: &BatchEntry<'a>) -> Span<'a> {
    Span { tokens: entry.tokens.len(), past: entry.past, blocks: entry.blocks }
}
