#![expect(clippy::unwrap_used, reason = "tests")]

use half::f16;
use proptest::prelude::*;

use super::*;
use crate::kv::{BLOCK_TOKENS, KvShape, KvStore};
use crate::rope::{Angles, rope};
use crate::testing::{assert_close, numbers, pools};
use crate::{Isa, Pool};

/// Tile registers work on two bf16 for each number, which have 16 bits together; all else on 24.
fn tolerance(pool: &Pool) -> f64 {
    if pool.isa() == Isa::Amx { 1e-4 } else { 1e-5 }
}

/// One sequence of a test: its tokens before and now, and all its keys and values.
struct Sequence {
    past: usize,
    tokens: usize,
    blocks: Vec<u32>,
    keys: Vec<f32>,
    values: Vec<f32>,
}

struct Case {
    heads: usize,
    kv_heads: usize,
    dim: usize,
    sequences: Vec<Sequence>,
    q: Vec<f32>,
}

impl Case {
    /// Sequences of `(past, tokens)` with their blocks dealt out in turn, so that no table is in order.
    fn new(group: usize, kv_heads: usize, dim: usize, lengths: &[(usize, usize)], seed: u64) -> Self {
        let width = kv_heads * dim;
        let mut next = 0;
        let mut sequences: Vec<Sequence> = lengths
            .iter()
            .map(|&(past, tokens)| Sequence {
                past,
                tokens,
                blocks: Vec::new(),
                keys: numbers((past + tokens) * width, seed ^ 11),
                values: numbers((past + tokens) * width, seed ^ 12),
            })
            .collect();
        let needed = |s: &Sequence| (s.past + s.tokens).div_ceil(BLOCK_TOKENS);
        while let Some(s) =
            sequences.iter_mut().filter(|s| s.blocks.len() < needed(s)).min_by_key(|s| s.blocks.len())
        {
            s.blocks.push(next);
            next += 1;
        }
        let tokens: usize = lengths.iter().map(|(_, tokens)| tokens).sum();
        let heads = group * kv_heads;
        Self { heads, kv_heads, dim, sequences, q: numbers(tokens * heads * dim, seed ^ 13) }
    }

    fn blocks(&self) -> usize {
        self.sequences.iter().map(|s| s.blocks.len()).sum()
    }

    /// A store of two layers, the second of which has so many tokens of each sequence; all else is not a number.
    fn store(&self, pool: &Pool, tokens: impl Fn(&Sequence) -> usize) -> KvStore {
        let shape =
            KvShape { layers: 2, kv_heads: self.kv_heads, dim: self.dim, blocks: self.blocks().max(1) };
        let mut store = KvStore::new(shape).unwrap();
        let spoiled = vec![f32::NAN; BLOCK_TOKENS * self.kv_heads * self.dim];
        for layer in 0..2 {
            for block in 0..self.blocks() as u32 {
                store.append(pool, layer, &[block], 0, &spoiled, &spoiled);
            }
        }
        for s in &self.sequences {
            let some = ..tokens(s) * self.kv_heads * self.dim;
            store.append(pool, 1, &s.blocks, 0, &s.keys[some], &s.values[some]);
        }
        store
    }

    fn spans(&self) -> Vec<Span<'_>> {
        let span = |s| {
            let Sequence { past, tokens, blocks, .. }: &Sequence = s;
            Span { tokens: *tokens, past: *past, blocks }
        };
        self.sequences.iter().map(span).collect()
    }

    /// What the sequences bring, `[tokens, kv_heads, dim]`.
    fn new_of(&self, of: impl Fn(&Sequence) -> &[f32]) -> Vec<f32> {
        let width = self.kv_heads * self.dim;
        self.sequences.iter().flat_map(|s| of(s)[s.past * width..].iter().copied()).collect()
    }

    /// The output, and the store, of attention that rotates and stores what is new, in one operation or in several.
    fn run_all(&self, pool: &Pool, how: &Causal, at_once: bool) -> (Vec<f32>, KvStore) {
        let mut store = self.store(pool, |s| s.past);
        let spans = self.spans();
        let frequencies: Vec<f64> = (0..self.dim / 2).map(|i| 1.0 / (1.0 + i as f64)).collect();
        let angles = Angles::new(&frequencies, self.sequences.iter().flat_map(|s| s.past..s.past + s.tokens));
        let (mut q, mut keys) = (self.q.clone(), self.new_of(|s| &s.keys));
        let values = self.new_of(|s| &s.values);
        let mut out = vec![f32::NAN; q.len()];
        if at_once {
            let new = New { keys: &keys, values: &values, angles: &angles };
            append_and_attend(pool, &mut store, 1, &spans, how, &new, &q, &mut out);
            return (out, store);
        }
        rope(pool, &angles, self.heads, self.dim, &mut q);
        rope(pool, &angles, self.kv_heads, self.dim, &mut keys);
        let mut first = 0;
        for span in &spans {
            let rows = first..first + span.tokens * self.kv_heads * self.dim;
            first = rows.end;
            store.append(pool, 1, span.blocks, span.past, &keys[rows.clone()], &values[rows]);
        }
        causal(pool, &store, 1, &spans, how, &q, &mut out);
        (out, store)
    }

    fn run(&self, pool: &Pool, how: &Causal) -> Vec<f32> {
        let store = self.store(pool, |s| s.past + s.tokens);
        let spans = self.spans();
        let mut out = vec![f32::NAN; self.q.len()];
        causal(pool, &store, 1, &spans, how, &self.q, &mut out);
        out
    }

    fn reference(&self, how: &Causal) -> Vec<f64> {
        let mut out = Vec::new();
        let mut queries = self.q.chunks(self.dim);
        for s in &self.sequences {
            for position in s.past..s.past + s.tokens {
                let first = how.window.map_or(0, |window| (position + 1).saturating_sub(window));
                for head in 0..self.heads {
                    let kv_head = head / (self.heads / self.kv_heads);
                    let row = |of: &[f32], token: usize| -> Vec<f64> {
                        let at = (token * self.kv_heads + kv_head) * self.dim;
                        of[at..][..self.dim].iter().map(|x| f16::from_f32(*x).to_f64()).collect()
                    };
                    let keys = (first..=position).map(|token| row(&s.keys, token));
                    let values = (first..=position).map(|token| row(&s.values, token));
                    out.extend(attend(queries.next().unwrap(), keys, values, how.scale, how.softcap));
                }
            }
        }
        out
    }
}

/// softmax(cap(scale q k)) v, in double precision.
fn attend(
    query: &[f32],
    keys: impl Iterator<Item = Vec<f64>>,
    values: impl Iterator<Item = Vec<f64>>,
    scale: f32,
    softcap: Option<f32>,
) -> Vec<f64> {
    let scores: Vec<f64> = keys
        .map(|key| query.iter().zip(&key).map(|(q, k)| f64::from(*q) * k).sum::<f64>() * f64::from(scale))
        .map(|score| softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh()))
        .collect();
    let greatest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = scores.iter().map(|score| (score - greatest).exp()).sum();
    let mut out = vec![0.0; query.len()];
    for (score, value) in scores.iter().zip(values) {
        for (out, v) in out.iter_mut().zip(value) {
            *out += (score - greatest).exp() / total * v;
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]

    #[test]
    fn causal_attention_follows_its_definition(
        group in 1usize..5,
        kv_heads in 1usize..4,
        dim in 1usize..70,
        lengths in prop::collection::vec(
            (prop_oneof![Just(0usize), 0usize..300], prop_oneof![Just(1usize), 0usize..80]), 0..4),
        window in prop::option::of(1usize..120),
        softcap in prop::option::of(1.0f32..30.0),
        seed: u64,
    ) {
        let case = Case::new(group, kv_heads, dim, &lengths, seed);
        let how = Causal { heads: case.heads, scale: 0.3, window, softcap };
        let want = case.reference(&how);
        for pool in pools() {
            assert_close(&case.run(&pool, &how), &want, tolerance(&pool));
        }
    }

    #[test]
    fn what_is_stored_on_the_way_is_as_if_it_had_been_there(
        group in 1usize..4,
        kv_heads in 1usize..4,
        half in 1usize..35,
        lengths in prop::collection::vec(
            (prop_oneof![Just(0usize), 0usize..300], prop_oneof![Just(1usize), 0usize..80]), 0..5),
        window in prop::option::of(1usize..120),
        seed: u64,
    ) {
        let case = Case::new(group, kv_heads, 2 * half, &lengths, seed);
        let how = Causal { heads: case.heads, scale: 0.3, window, softcap: None };
        for pool in pools() {
            let ((got, stored), (want, reference)) =
                (case.run_all(&pool, &how, true), case.run_all(&pool, &how, false));
            let wide: Vec<f64> = want.iter().map(|x| f64::from(*x)).collect();
            assert_close(&got, &wide, 1e-6);
            for (s, head) in case.sequences.iter().flat_map(|s| (0..kv_heads).map(move |head| (s, head))) {
                for block in &s.blocks {
                    let bits = |store: &KvStore| {
                        let (keys, values) = store.head(1, *block, head);
                        keys.iter().chain(values).map(|x| x.to_bits()).collect::<Vec<u16>>()
                    };
                    prop_assert_eq!(bits(&stored), bits(&reference));
                }
            }
        }
    }

    #[test]
    fn full_attention_follows_its_definition(
        heads in 1usize..4,
        dim in 1usize..40,
        lengths in prop::collection::vec(0usize..150, 0..4),
        seed: u64,
    ) {
        let numbers = |salt| numbers(lengths.iter().sum::<usize>() * heads * dim, seed ^ salt);
        let (q, k, v) = (numbers(1), numbers(2), numbers(3));
        let row = |of: &[f32], token: usize, head: usize| -> Vec<f64> {
            of[(token * heads + head) * dim..][..dim].iter().map(|x| f64::from(*x)).collect()
        };
        let mut want = Vec::new();
        let mut first = 0;
        for length in &lengths {
            for token in first..first + length {
                for head in 0..heads {
                    let keys = (first..first + length).map(|other| row(&k, other, head));
                    let values = (first..first + length).map(|other| row(&v, other, head));
                    let query = &q[(token * heads + head) * dim..][..dim];
                    want.extend(attend(query, keys, values, 0.4, None));
                }
            }
            first += length;
        }
        for pool in pools() {
            let mut out = vec![f32::NAN; q.len()];
            full(&pool, &lengths, &Full { heads, dim, scale: 0.4 }, &q, &k, &v, &mut out);
            assert_close(&out, &want, tolerance(&pool));
        }
    }
}

#[test]
fn a_long_past_that_is_cut_for_several_threads_gives_the_same() {
    for (group, kv_heads, dim, window) in [(3, 1, 64, None), (4, 1, 256, Some(512)), (1, 2, 33, Some(300))] {
        let case = Case::new(group, kv_heads, dim, &[(1200, 1)], 5);
        let how = Causal { heads: case.heads, scale: 0.1, window, softcap: None };
        let want = case.reference(&how);
        for isa in Isa::available() {
            for threads in [1, 2, 5] {
                let pool = Pool::with_isa(threads, isa);
                assert_close(&case.run(&pool, &how), &want, tolerance(&pool));
            }
        }
    }
}

#[test]
fn a_token_after_a_long_past_is_stored_by_the_thread_that_has_the_end_of_it() {
    let case = Case::new(2, 2, 64, &[(1200, 1), (31, 1), (32, 1)], 7);
    let how = Causal { heads: case.heads, scale: 0.1, window: None, softcap: None };
    for pool in pools() {
        for _ in 0..20 {
            assert_eq!(case.run_all(&pool, &how, true).0, case.run_all(&pool, &how, false).0);
        }
    }
}

#[test]
fn spans_that_share_a_block_are_stored_one_after_the_other() {
    let mut case = Case::new(1, 1, 8, &[(10, 1), (11, 1)], 3);
    case.sequences[1].blocks = case.sequences[0].blocks.clone();
    let how = Causal { heads: 1, scale: 0.1, window: None, softcap: None };
    for pool in pools() {
        assert_eq!(case.run_all(&pool, &how, true).0, case.run_all(&pool, &how, false).0);
    }
}

#[test]
fn a_prompt_of_many_tiles_after_a_past_gives_the_same() {
    for (group, dim, window) in [(3, 64, None), (4, 80, Some(150))] {
        let case = Case::new(group, 2, dim, &[(170, 205), (0, 33), (64, 1)], 8);
        let how = Causal { heads: case.heads, scale: 0.125, window, softcap: None };
        let want = case.reference(&how);
        for pool in pools() {
            assert_close(&case.run(&pool, &how), &want, tolerance(&pool));
        }
    }
}

#[test]
fn scores_far_apart_leave_the_greatest_alone() {
    let mut case = Case::new(1, 1, 4, &[(199, 1)], 6);
    let s = &mut case.sequences[0];
    s.keys.fill(-100.0);
    s.keys[150 * 4..151 * 4].fill(100.0);
    case.q.fill(100.0);
    let want: Vec<f64> = s.values[150 * 4..151 * 4].iter().map(|v| f16::from_f32(*v).to_f64()).collect();
    let how = Causal { heads: 1, scale: 1.0, window: None, softcap: None };
    for pool in pools() {
        assert_close(&case.run(&pool, &how), &want, 1e-6);
    }
}

#[test]
fn a_sequence_that_is_not_finite_spoils_itself_alone() {
    let mut case = Case::new(2, 1, 16, &[(40, 2), (35, 9)], 9);
    let how = Causal { heads: 2, scale: 0.2, window: None, softcap: None };
    let want = case.reference(&how);
    case.sequences[0].keys.fill(f32::NAN);
    for pool in pools() {
        let out = case.run(&pool, &how);
        let (spoiled, whole) = out.split_at(2 * 2 * 16);
        assert!(spoiled.iter().all(|x| x.is_nan()));
        assert_close(whole, &want[spoiled.len()..], tolerance(&pool));
    }
}

#[test]
#[should_panic(expected = "a table for all tokens")]
fn a_table_that_ends_too_early_is_refused() {
    let pool = Pool::new(1);
    let store = KvStore::new(KvShape { layers: 1, kv_heads: 1, dim: 4, blocks: 2 }).unwrap();
    let how = Causal { heads: 1, scale: 1.0, window: None, softcap: None };
    let span = Span { tokens: 1, past: BLOCK_TOKENS, blocks: &[0] };
    causal(&pool, &store, 0, &[span], &how, &[0.0; 4], &mut [0.0; 4]);
}
