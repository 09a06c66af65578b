//! Attention in stock tensor operations: what any device can compute, and what the CPU kernels are held against.
//!
//! A GPU compiles and tries out kernels for every new shape it meets, so shapes are rounded up to a few sizes: rows,
//! sequences and tokens seen all come in buckets. What is added computes, but nobody looks at it, and it writes to a
//! slot of the cache that belongs to no sequence.

use burn::tensor::activation::softmax;
use burn::tensor::{Bool, DType, IndexingUpdateOp, Int, Tensor, TensorData};

use super::rope::Tables;
use super::{Attention, Place, Rope};
use crate::model::{BLOCK_TOKENS, BatchEntry};

/// Where rows that only fill a bucket put their keys and values.
const NOBODYS_SLOT: i32 = 0;
/// Fewest rows of a group that computes more than one token of a sequence.
pub(crate) const LEAST_TOKENS: usize = 16;
/// Fewest tokens that a sequence sees.
pub(crate) const LEAST_SEEN: usize = 64;

/// The size that stands for `count`: the next one of 1, 2, 3, 4, 6, 8, 12, 16, 24, ... that is not below `least`.
pub(crate) fn bucket(count: usize, least: usize) -> usize {
    let above = count.max(least).max(1).next_power_of_two();
    let between = above / 4 * 3;
    if between >= count.max(least) { between.max(1) } else { above }
}

/// What the layers of one forward pass share.
#[derive(Debug)]
pub(super) struct Plan {
    /// Ids of all rows, those that fill buckets included.
    ids: Vec<u32>,
    /// The row of each of the batch's tokens.
    row_of: Vec<u32>,
    /// One for each of the model's ropes.
    tables: Vec<Tables>,
    /// Where in the cache each row's key and value go.
    slots: Tensor<1, Int>,
    groups: Vec<Group>,
}

/// One row: its token, its position, and where its key and value go.
type Row = (u32, usize, i32);

impl Plan {
    pub(super) fn new(
        batch: &[BatchEntry<'_>],
        ropes: &[Rope],
        windows: &[Option<usize>],
        place: &Place,
    ) -> Self {
        let mut rows: Vec<Row> = Vec::new();
        let mut row_of = vec![0; batch.iter().map(|entry| entry.tokens.len()).sum()];
        let groups = members(batch)
            .into_iter()
            .map(|members| {
                let first = rows.len();
                for (member, index) in members.iter().zip(0..) {
                    let wanted = member.first..member.first + member.entry.tokens.len();
                    let start = (first + index * members[0].tokens) as u32;
                    row_of[wanted].iter_mut().zip(start..).for_each(|(of, row)| *of = row);
                    rows.extend(member.rows());
                }
                group(first, &members, windows, place)
            })
            .collect();
        rows.resize(bucket(rows.len(), 1), (0, 0, NOBODYS_SLOT));
        let positions: Vec<usize> = rows.iter().map(|(_, position, _)| *position).collect();
        Self {
            ids: rows.iter().map(|(id, ..)| *id).collect(),
            row_of,
            tables: ropes.iter().map(|rope| rope.tables(&positions, &place.device)).collect(),
            slots: integers(rows.iter().map(|(.., slot)| *slot).collect(), place),
            groups,
        }
    }

    /// Ids of all rows.
    pub(super) fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The rows of these tokens of the batch, and as many of the last one as fill a bucket.
    pub(super) fn rows_of(&self, tokens: &[u32]) -> Vec<u32> {
        let mut rows: Vec<u32> = tokens.iter().map(|&token| self.row_of[token as usize]).collect();
        rows.resize(bucket(rows.len(), 1), rows.last().copied().unwrap_or(0));
        rows
    }
}

/// The keys and values of one layer, `[1 + slots, kv_heads, head_dim]` each: the first slot is nobody's.
#[derive(Debug)]
pub(super) struct Layer {
    keys: Tensor<3>,
    values: Tensor<3>,
}

impl Layer {
    pub(super) fn new(kv_heads: usize, head_dim: usize, blocks: usize, place: &Place) -> Self {
        let shape = [1 + blocks * BLOCK_TOKENS, kv_heads, head_dim];
        let empty = || Tensor::zeros(shape, (&place.device, place.storage));
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
        let rows = plan.ids.len();
        let split = |x: Tensor<2>, heads| x.reshape([rows, heads, self.head_dim]);
        let tables = &plan.tables[self.rope];
        let queries = tables.rotate(split(queries, self.heads));
        let keys = tables.rotate(split(keys, self.kv_heads));
        let values = split(values, self.kv_heads);
        store(&mut layer.keys, plan, keys);
        store(&mut layer.values, plan, values);
        let attend = |group| self.attend(group, &queries, &layer.keys, &layer.values);
        let mut parts: Vec<Tensor<2>> = plan.groups.iter().map(attend).collect();
        let computed: usize = plan.groups.iter().map(Group::rows).sum();
        if computed < rows {
            let width = self.heads * self.head_dim;
            parts.push(Tensor::zeros([rows - computed, width], (&queries.device(), DType::F32)));
        }
        if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, 0) }
    }

    /// The rows of one group, `[rows, heads * head_dim]`. The query heads that share a key head are folded into rows of
    /// one matrix, so keys and values are never repeated.
    fn attend(&self, group: &Group, queries: &Tensor<3>, keys: &Tensor<3>, values: &Tensor<3>) -> Tensor<2> {
        let (sequences, tokens, seen) = (group.sequences, group.tokens, group.seen);
        let (kv_heads, dim) = (self.kv_heads, self.head_dim);
        let shared = self.heads / kv_heads;
        let storage = keys.dtype();
        let queries = queries
            .clone()
            .narrow(0, group.first, group.rows())
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

/// A sequence as a part of a group.
#[derive(Debug, Clone, Copy)]
struct Member<'a> {
    entry: BatchEntry<'a>,
    /// Its first token in the batch.
    first: usize,
    /// Rows it has in the group; those beyond its tokens repeat the last one.
    tokens: usize,
}

impl Member<'_> {
    /// A sequence that only fills a bucket: it has no block.
    const NOBODY: Member<'static> = Member {
        entry: BatchEntry { tokens: &[], past: 0, blocks: &[], rows: crate::model::Rows::None },
        first: 0,
        tokens: 1,
    };

    /// Positions of its rows.
    fn positions(&self) -> impl Iterator<Item = usize> {
        let last = self.entry.seen().saturating_sub(1);
        (self.entry.past..self.entry.past + self.tokens).map(move |at| at.min(last))
    }

    fn rows(&self) -> impl Iterator<Item = Row> {
        let tokens = self.entry.tokens;
        self.positions().enumerate().map(move |(index, at)| match tokens.get(index) {
            Some(&id) => (id, at, self.slot(at)),
            None => (tokens.last().copied().unwrap_or(0), at, NOBODYS_SLOT),
        })
    }

    /// Where in the cache the token at `position` lies. Positions that were never computed are those of the
    /// sequence's own last token, so that no number of another sequence is ever touched.
    fn slot(&self, position: usize) -> i32 {
        let Some(last) = self.entry.seen().checked_sub(1) else { return NOBODYS_SLOT };
        let position = position.min(last);
        let block = self.entry.blocks[position / BLOCK_TOKENS] as usize;
        (1 + block * BLOCK_TOKENS + position % BLOCK_TOKENS) as i32
    }
}

/// Rows whose attention is computed together: those of all sequences that compute one token, or of one sequence that
/// computes several.
#[derive(Debug)]
struct Group {
    /// The first of its rows.
    first: usize,
    /// Sequences.
    sequences: usize,
    /// Rows of each sequence.
    tokens: usize,
    /// Tokens each sequence sees, those it must not see included.
    seen: usize,
    /// Where in the cache each sequence's keys lie, `[sequences * seen]`.
    places: Tensor<1, Int>,
    /// What must not be seen, for each window of the model, `[sequences, 1, 1, tokens, seen]`.
    masks: Vec<(Option<usize>, Tensor<5, Bool>)>,
}

impl Group {
    fn rows(&self) -> usize {
        self.sequences * self.tokens
    }
}

pub(super) fn integers(numbers: Vec<i32>, place: &Place) -> Tensor<1, Int> {
    let count = numbers.len();
    Tensor::from_data(TensorData::new(numbers, [count]), &place.device)
}

/// The groups of a batch, each filled up to a bucket.
fn members<'a>(batch: &[BatchEntry<'a>]) -> Vec<Vec<Member<'a>>> {
    let mut single = Vec::new();
    let mut groups = Vec::new();
    let mut first = 0;
    for &entry in batch {
        match entry.tokens.len() {
            1 => single.push(Member { entry, first, tokens: 1 }),
            count => groups.push(vec![Member { entry, first, tokens: bucket(count, LEAST_TOKENS) }]),
        }
        first += entry.tokens.len();
    }
    if !single.is_empty() {
        single.resize(single.len().next_power_of_two(), Member::NOBODY);
        groups.push(single);
    }
    groups
}

fn group(first: usize, members: &[Member<'_>], windows: &[Option<usize>], place: &Place) -> Group {
    let tokens = members[0].tokens;
    let longest = members.iter().map(|member| member.entry.seen()).max().unwrap_or(0);
    let seen = bucket(longest, LEAST_SEEN);
    let places = members.iter().flat_map(|member| (0..seen).map(|at| member.slot(at)));
    let mask = |window: &Option<usize>| (*window, mask(members, tokens, seen, *window, place));
    Group {
        first,
        sequences: members.len(),
        tokens,
        seen,
        places: integers(places.collect(), place),
        masks: windows.iter().map(mask).collect(),
    }
}

/// A token sees itself and what came before it, at most `window` tokens in all.
fn mask(
    members: &[Member<'_>],
    tokens: usize,
    seen: usize,
    window: Option<usize>,
    place: &Place,
) -> Tensor<5, Bool> {
    let hidden: Vec<bool> = members
        .iter()
        .flat_map(Member::positions)
        .flat_map(|query| {
            (0..seen).map(move |key| key > query || window.is_some_and(|window| key + window <= query))
        })
        .collect();
    Tensor::from_data(TensorData::new(hidden, [members.len(), 1, 1, tokens, seen]), &place.device)
}

#[cfg(test)]
mod tests {
    use super::bucket;

    #[test]
    fn buckets_are_few_and_waste_at_most_a_third() {
        let sizes: Vec<usize> = (1..=20).map(|count| bucket(count, 1)).collect();
        assert_eq!(sizes, [1, 2, 3, 4, 6, 6, 8, 8, 12, 12, 12, 12, 16, 16, 16, 16, 24, 24, 24, 24]);
        assert_eq!((bucket(0, 1), bucket(1, 64), bucket(65, 64), bucket(4096, 64)), (1, 64, 96, 4096));
        assert!((1..5000).all(|count| bucket(count, 1) >= count && 2 * bucket(count, 1) <= 3 * count.max(2)));
    }
}
