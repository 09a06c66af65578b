//! What all layers of one forward pass share: which tokens, where they stand, what they may see.

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

use super::rope::Tables;
use super::{Place, Rope};
use crate::model::{BLOCK_TOKENS, BatchEntry};

/// One forward pass over a checked batch.
#[derive(Debug)]
pub(crate) struct Step<'a> {
    batch: &'a [BatchEntry<'a>],
    place: Place,
    rows: usize,
    /// One for each of the model's ropes.
    pub(super) tables: Vec<Tables>,
    /// Where in the cache each row's key and value go.
    pub(super) slots: Tensor<1, Int>,
    pub(super) groups: Vec<Group>,
}

/// Rows whose attention is computed together: those of all sequences that compute one token, or of one sequence that
/// computes several.
#[derive(Debug)]
pub(super) struct Group {
    /// The first of its rows when they follow each other, else all of them.
    pub(super) rows: GroupRows,
    /// Sequences.
    pub(super) sequences: usize,
    /// Rows of each sequence.
    pub(super) tokens: usize,
    /// Tokens the longest sequence sees; the others are padded to it.
    pub(super) seen: usize,
    /// Where in the cache each sequence's keys lie, `[sequences * seen]`.
    pub(super) places: Tensor<1, Int>,
    /// What must not be seen, for each window of the model, `[sequences, 1, 1, tokens, seen]`.
    pub(super) masks: Vec<(Option<usize>, Tensor<5, Bool>)>,
}

/// Which rows of the batch a group has.
#[derive(Debug)]
pub(super) enum GroupRows {
    /// Rows from this one on.
    From(usize),
    /// These rows.
    These(Box<Tensor<1, Int>>),
}

impl<'a> Step<'a> {
    /// Prepares a pass. `windows` are the distinct sliding windows of the model's layers.
    pub(crate) fn new(
        batch: &'a [BatchEntry<'a>],
        ropes: &[Rope],
        windows: &[Option<usize>],
        place: &Place,
    ) -> Self {
        let positions: Vec<usize> = batch.iter().flat_map(|entry| entry.past..entry.seen()).collect();
        let slots = batch.iter().flat_map(|entry| (entry.past..entry.seen()).map(|at| slot(entry, at)));
        Self {
            batch,
            rows: positions.len(),
            tables: ropes.iter().map(|rope| rope.tables(&positions, &place.device)).collect(),
            slots: integers(slots.collect(), place),
            groups: groups(batch, windows, place),
            place: place.clone(),
        }
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
        integers(self.tokens().map(|id| id as i32).collect(), &self.place)
    }

    /// Where tensors live.
    pub(super) fn device(&self) -> &Device {
        &self.place.device
    }

    /// These rows of `x`.
    pub(crate) fn pick(&self, x: Tensor<2>, rows: &[u32]) -> Tensor<2> {
        if rows.len() == self.rows {
            return x;
        }
        x.select(0, integers(rows.iter().map(|&row| row as i32).collect(), &self.place))
    }
}

/// Where in the cache a sequence's token at `position` lies.
fn slot(entry: &BatchEntry<'_>, position: usize) -> i32 {
    let block = entry.blocks[position / BLOCK_TOKENS] as usize;
    (block * BLOCK_TOKENS + position % BLOCK_TOKENS) as i32
}

fn integers(numbers: Vec<i32>, place: &Place) -> Tensor<1, Int> {
    let count = numbers.len();
    Tensor::from_data(TensorData::new(numbers, [count]), &place.device)
}

fn groups(batch: &[BatchEntry<'_>], windows: &[Option<usize>], place: &Place) -> Vec<Group> {
    let mut single = Vec::new();
    let mut groups = Vec::new();
    let mut first = 0;
    for entry in batch {
        if entry.tokens.len() == 1 {
            single.push((first, *entry));
        } else {
            groups.push(group(GroupRows::From(first), &[*entry], windows, place));
        }
        first += entry.tokens.len();
    }
    if !single.is_empty() {
        let rows = match groups.is_empty() {
            true => GroupRows::From(0),
            false => GroupRows::These(Box::new(integers(
                single.iter().map(|(row, _)| *row as i32).collect(),
                place,
            ))),
        };
        let entries: Vec<_> = single.into_iter().map(|(_, entry)| entry).collect();
        groups.push(group(rows, &entries, windows, place));
    }
    groups
}

fn group(rows: GroupRows, entries: &[BatchEntry<'_>], windows: &[Option<usize>], place: &Place) -> Group {
    let tokens = entries[0].tokens.len();
    let seen = entries.iter().map(BatchEntry::seen).max().unwrap_or(0);
    // Padding repeats a sequence's own last token, so that no number of another sequence is ever touched.
    let places = entries.iter().flat_map(|entry| (0..seen).map(|at| slot(entry, at.min(entry.seen() - 1))));
    let mask = |window: &Option<usize>| (*window, mask(entries, tokens, seen, *window, place));
    Group {
        rows,
        sequences: entries.len(),
        tokens,
        seen,
        places: integers(places.collect(), place),
        masks: windows.iter().map(mask).collect(),
    }
}

/// A token sees itself and what came before it, at most `window` tokens in all.
fn mask(
    entries: &[BatchEntry<'_>],
    tokens: usize,
    seen: usize,
    window: Option<usize>,
    place: &Place,
) -> Tensor<5, Bool> {
    let hidden: Vec<bool> = entries
        .iter()
        .flat_map(|entry| entry.past..entry.seen())
        .flat_map(|query| {
            (0..seen).map(move |key| key > query || window.is_some_and(|window| key + window <= query))
        })
        .collect();
    Tensor::from_data(TensorData::new(hidden, [entries.len(), 1, 1, tokens, seen]), &place.device)
}
