//! Attention in stock tensor operations: what any device can compute, and what the CPU kernels are held against.

use burn::tensor::activation::softmax;
use burn::tensor::{Bool, DType, IndexingUpdateOp, Int, Tensor, TensorData};

use super::rope::Tables;
use super::{Attention, Place, Rope};
use crate::model::{BLOCK_TOKENS, BatchEntry};

/// What the layers of one forward pass share.
#[derive(Debug)]
pub(super) struct Plan {
    rows: usize,
    /// One for each of the model's ropes.
    tables: Vec<Tables>,
    /// Where in the cache each row's key and value go.
    slots: Tensor<1, Int>,
    groups: Vec<Group>,
}

impl Plan {
    pub(super) fn new(
        batch: &[BatchEntry<'_>],
        ropes: &[Rope],
        windows: &[Option<usize>],
        place: &Place,
    ) -> Self {
        let positions: Vec<usize> = batch.iter().flat_map(|entry| entry.past..entry.seen()).collect();
        let slots = batch.iter().flat_map(|entry| (entry.past..entry.seen()).map(|at| slot(entry, at)));
        Self {
            rows: positions.len(),
            tables: ropes.iter().map(|rope| rope.tables(&positions, &place.device)).collect(),
            slots: integers(slots.collect(), place),
            groups: groups(batch, windows, place),
        }
    }
}

/// The keys and values of one layer, `[slots, kv_heads, head_dim]` each.
#[derive(Debug)]
pub(super) struct Layer {
    keys: Tensor<3>,
    values: Tensor<3>,
}

impl Layer {
    pub(super) fn new(kv_heads: usize, head_dim: usize, blocks: usize, place: &Place) -> Self {
        let empty =
            || Tensor::zeros([blocks * BLOCK_TOKENS, kv_heads, head_dim], (&place.device, place.storage));
        Self { keys: empty(), values: empty() }
    }
}

impl Attention {
    /// As [`Attention::forward`].
    pub(super) fn dense(
        &self,
        plan: &Plan,
        layer: &mut Layer,
        queries: Tensor<2>,
        keys: Tensor<2>,
        values: Tensor<2>,
    ) -> Tensor<2> {
        let split = |x: Tensor<2>, heads| x.reshape([plan.rows, heads, self.head_dim]);
        let tables = &plan.tables[self.rope];
        let queries = tables.rotate(split(queries, self.heads));
        let keys = tables.rotate(split(keys, self.kv_heads));
        let values = split(values, self.kv_heads);
        store(&mut layer.keys, plan, keys);
        store(&mut layer.values, plan, values);
        let attend = |group| self.attend(group, &queries, &layer.keys, &layer.values);
        gather(plan, plan.groups.iter().map(attend).collect())
    }

    /// The rows of one group, `[rows, heads * head_dim]`. The query heads that share a key head are folded into rows of
    /// one matrix, so keys and values are never repeated.
    fn attend(&self, group: &Group, queries: &Tensor<3>, keys: &Tensor<3>, values: &Tensor<3>) -> Tensor<2> {
        let (sequences, tokens, seen) = (group.sequences, group.tokens, group.seen);
        let (kv_heads, dim) = (self.kv_heads, self.head_dim);
        let shared = self.heads / kv_heads;
        let storage = keys.dtype();
        let queries = match &group.rows {
            GroupRows::From(first) => queries.clone().narrow(0, *first, sequences * tokens),
            GroupRows::These(rows) => queries.clone().select(0, rows.as_ref().clone()),
        };
        let queries = queries
            .mul_scalar(self.scale)
            .reshape([sequences, tokens, kv_heads, shared, dim])
            .permute([0, 2, 3, 1, 4])
            .reshape([sequences * kv_heads, shared * tokens, dim])
            .cast(storage);
        let held = |x: &Tensor<3>| {
            x.clone()
                .select(0, group.places.clone())
                .reshape([sequences, seen, kv_heads, dim])
                .swap_dims(1, 2)
                .reshape([sequences * kv_heads, seen, dim])
        };
        let mut scores = queries.matmul(held(keys).swap_dims(1, 2)).cast(DType::F32);
        if let Some(cap) = self.softcap {
            scores = scores.div_scalar(cap).tanh().mul_scalar(cap);
        }
        let scores: Tensor<5> = scores.reshape([sequences, kv_heads, shared, tokens, seen]);
        let mask = group.masks.iter().find(|(window, _)| *window == self.window);
        let scores = match mask {
            Some((_, mask)) => {
                let mask = mask.clone().expand([sequences, kv_heads, shared, tokens, seen]);
                scores.mask_fill(mask, f32::NEG_INFINITY)
            }
            None => scores,
        };
        let weights = softmax(scores, 4).reshape([sequences * kv_heads, shared * tokens, seen]);
        weights
            .cast(storage)
            .matmul(held(values))
            .cast(DType::F32)
            .reshape([sequences, kv_heads, shared, tokens, dim])
            .permute([0, 3, 1, 2, 4])
            .reshape([sequences * tokens, self.heads * dim])
    }
}

/// Writes the step's rows into the cache. The cache must be the buffer's only owner: otherwise the tensor library
/// copies the whole buffer.
fn store(held: &mut Tensor<3>, plan: &Plan, rows: Tensor<3>) {
    let rows = rows.cast(held.dtype());
    held.inplace(|held| held.select_assign(0, plan.slots.clone(), rows, IndexingUpdateOp::Assign));
}

/// Puts the groups' rows into the order of the batch.
fn gather(plan: &Plan, mut parts: Vec<Tensor<2>>) -> Tensor<2> {
    if parts.len() == 1 {
        return parts.remove(0);
    }
    let width = parts[0].dims()[1];
    let device = parts[0].device();
    let mut all: Tensor<2> = Tensor::zeros([plan.rows, width], (&device, DType::F32));
    for (group, part) in plan.groups.iter().zip(parts) {
        all = match &group.rows {
            GroupRows::From(first) => {
                let rows = *first..*first + group.tokens;
                all.slice_assign([rows, 0..width], part)
            }
            GroupRows::These(rows) => {
                all.select_assign(0, rows.as_ref().clone(), part, IndexingUpdateOp::Assign)
            }
        };
    }
    all
}

/// Rows whose attention is computed together: those of all sequences that compute one token, or of one sequence that
/// computes several.
#[derive(Debug)]
struct Group {
    /// The first of its rows when they follow each other, else all of them.
    rows: GroupRows,
    /// Sequences.
    sequences: usize,
    /// Rows of each sequence.
    tokens: usize,
    /// Tokens the longest sequence sees; the others are padded to it.
    seen: usize,
    /// Where in the cache each sequence's keys lie, `[sequences * seen]`.
    places: Tensor<1, Int>,
    /// What must not be seen, for each window of the model, `[sequences, 1, 1, tokens, seen]`.
    masks: Vec<(Option<usize>, Tensor<5, Bool>)>,
}

/// Which rows of the batch a group has.
#[derive(Debug)]
enum GroupRows {
    /// Rows from this one on.
    From(usize),
    /// These rows.
    These(Box<Tensor<1, Int>>),
}

/// Where in the cache a sequence's token at `position` lies.
fn slot(entry: &BatchEntry<'_>, position: usize) -> i32 {
    let block = entry.blocks[position / BLOCK_TOKENS] as usize;
    (block * BLOCK_TOKENS + position % BLOCK_TOKENS) as i32
}

pub(super) fn integers(numbers: Vec<i32>, place: &Place) -> Tensor<1, Int> {
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
