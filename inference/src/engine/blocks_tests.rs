use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

/// A sequence as far as the pool is concerned.
#[derive(Debug, Default)]
struct Holder {
    table: Table,
    tokens: Vec<u32>,
}

impl BlockPool {
    /// Every block is in exactly one place, is counted as often as it is held, and only full ones are shared.
    fn check(&self, holders: &[Holder]) {
        let mut held = vec![0_u32; self.total()];
        for holder in holders {
            let distinct: HashSet<&u32> = holder.table.blocks.iter().collect();
            assert_eq!(distinct.len(), holder.table.blocks.len(), "a block twice in one table");
            for (index, &number) in holder.table.blocks.iter().enumerate() {
                held[number as usize] += 1;
                if index >= holder.table.known {
                    let block = &self.blocks[number as usize];
                    assert!(
                        block.holders == 1 && block.content.is_none(),
                        "a block that is written is shared"
                    );
                }
            }
        }
        for (number, block) in self.blocks.iter().enumerate() {
            assert_eq!(block.holders, held[number], "holders of block {number}");
            let number = number as u32;
            let is_empty = self.empty.iter().filter(|&&other| other == number).count();
            let is_kept = self.kept.values().filter(|&&other| other == number).count();
            let expected = match (block.holders, block.content.is_some()) {
                (0, false) => (1, 0),
                (0, true) => (0, 1),
                _ => (0, 0),
            };
            assert_eq!((is_empty, is_kept), expected, "places of block {number}");
            if let Some(content) = &block.content {
                assert_eq!(self.known.get(content), Some(&number), "block {number} cannot be found");
            }
        }
        let full = self.blocks.iter().filter(|block| block.content.is_some()).count();
        assert_eq!(self.known.len(), full, "a content without a block");
        assert_eq!(self.in_use(), held.iter().filter(|&&count| count > 0).count());
    }
}

fn fill(pool: &mut BlockPool, tokens: &[u32]) -> Holder {
    let mut table = pool.reuse(tokens);
    while table.room() < tokens.len() {
        assert!(pool.extend(&mut table), "the pool is too small");
    }
    pool.publish(&mut table, tokens);
    Holder { table, tokens: tokens.to_vec() }
}

fn counting(first: u32, blocks: usize) -> Vec<u32> {
    (first..).take(blocks * BLOCK_TOKENS).collect()
}

#[test]
fn a_prompt_that_begins_like_an_earlier_one_takes_its_blocks() {
    let mut pool = BlockPool::new(8);
    let tokens = counting(0, 3);
    let first = fill(&mut pool, &tokens);
    assert_eq!(pool.in_use(), 3);
    let mut longer = tokens.clone();
    longer.truncate(2 * BLOCK_TOKENS + 5);
    let second = pool.reuse(&longer);
    assert_eq!(second.blocks(), &first.table.blocks()[..2]);
    assert_eq!((second.room(), second.shared_tokens()), (2 * BLOCK_TOKENS, 2 * BLOCK_TOKENS));
    assert_eq!(pool.in_use(), 3);
}

#[test]
fn the_same_tokens_after_others_are_something_else() {
    let mut pool = BlockPool::new(8);
    let (front, back) = (counting(0, 1), counting(1000, 1));
    fill(&mut pool, &[front.clone(), back.clone()].concat());
    assert_eq!(pool.reuse(&back).blocks().len(), 0);
    assert_eq!(pool.reuse(&[back.clone(), back].concat()).blocks().len(), 0);
    assert_eq!(pool.reuse(&front).blocks().len(), 1);
}

#[test]
fn content_survives_its_holder_until_the_place_is_needed_and_the_end_goes_first() {
    let mut pool = BlockPool::new(4);
    let tokens = counting(0, 3);
    let mut first = fill(&mut pool, &tokens);
    pool.release(&mut first.table);
    assert_eq!((pool.in_use(), pool.available()), (0, 4));
    let mut other = Table::default();
    // The empty block first, then the last block of the prompt.
    assert!(pool.extend(&mut other) && pool.extend(&mut other));
    assert_eq!(pool.reuse(&tokens).blocks().len(), 2);
}

#[test]
fn two_who_compute_the_same_end_up_with_one_copy() {
    let mut pool = BlockPool::new(8);
    let tokens = counting(0, 2);
    let mut tables = [Table::default(), Table::default()];
    for table in &mut tables {
        assert!(pool.extend(table) && pool.extend(table));
    }
    assert_eq!(pool.in_use(), 4);
    for table in &mut tables {
        pool.publish(table, &tokens);
    }
    assert_eq!(pool.in_use(), 2);
    assert_eq!(tables[0].blocks(), tables[1].blocks());
}

#[test]
fn what_is_discarded_is_never_reused() {
    let mut pool = BlockPool::new(8);
    let tokens = counting(0, 2);
    let mut bad = fill(&mut pool, &tokens);
    let shared = pool.reuse(&tokens);
    pool.discard(&mut bad.table);
    assert_eq!(pool.reuse(&tokens).blocks().len(), 0);
    pool.check(&[Holder { table: shared, tokens: tokens.clone() }]);
}

#[test]
fn a_pool_gives_no_more_than_it_has() {
    let mut pool = BlockPool::new(2);
    let mut table = Table::default();
    assert!(pool.extend(&mut table) && pool.extend(&mut table));
    assert!(!pool.extend(&mut table));
    assert_eq!(table.blocks(), [0, 1]);
}

/// One thing that can happen to one of the sequences.
#[derive(Debug, Clone)]
enum Event {
    Start { tokens: Vec<u32> },
    Grow { who: usize, token: u32, count: usize },
    End { who: usize },
    Fault { who: usize },
}

/// Tokens of two kinds only, in runs, so that sequences often begin alike.
fn events() -> impl Strategy<Value = Vec<Event>> {
    let runs = prop::collection::vec((0_u32..2, 1_usize..3), 0..4);
    let tokens = runs.prop_map(|runs| {
        runs.into_iter().flat_map(|(token, blocks)| vec![token; blocks * BLOCK_TOKENS]).collect()
    });
    let event = prop_oneof![
        3 => tokens.prop_map(|tokens| Event::Start { tokens }),
        4 => (any::<usize>(), 0_u32..2, 1..2 * BLOCK_TOKENS)
            .prop_map(|(who, token, count)| Event::Grow { who, token, count }),
        2 => any::<usize>().prop_map(|who| Event::End { who }),
        1 => any::<usize>().prop_map(|who| Event::Fault { who }),
    ];
    prop::collection::vec(event, 1..60)
}

fn happen(pool: &mut BlockPool, holders: &mut Vec<Holder>, event: Event) {
    let pick = |who: usize, holders: &[Holder]| (!holders.is_empty()).then(|| who % holders.len());
    match event {
        Event::Start { tokens } => {
            let table = pool.reuse(&tokens);
            let tokens = tokens[..table.room()].to_vec();
            holders.push(Holder { table, tokens });
        }
        Event::Grow { who, token, count } => {
            let Some(who) = pick(who, holders) else { return };
            let Holder { table, tokens } = &mut holders[who];
            for _ in 0..count {
                if tokens.len() == table.room() && !pool.extend(table) {
                    break;
                }
                tokens.push(token);
            }
            pool.publish(table, tokens);
        }
        Event::End { who } => {
            let Some(who) = pick(who, holders) else { return };
            pool.release(&mut holders.swap_remove(who).table);
        }
        Event::Fault { who } => {
            let Some(who) = pick(who, holders) else { return };
            pool.discard(&mut holders.swap_remove(who).table);
        }
    }
}

proptest! {
    #[test]
    fn no_block_is_lost_counted_wrongly_or_written_while_shared(events in events()) {
        let mut pool = BlockPool::new(7);
        let mut holders = Vec::new();
        for event in events {
            happen(&mut pool, &mut holders, event);
            pool.check(&holders);
        }
        for mut holder in holders.drain(..) {
            pool.release(&mut holder.table);
        }
        pool.check(&holders);
        prop_assert_eq!(pool.available(), pool.total());
    }

    #[test]
    fn shared_blocks_hold_what_the_sequence_says(events in events()) {
        let mut pool = BlockPool::new(7);
        let mut holders = Vec::new();
        for event in events {
            happen(&mut pool, &mut holders, event);
            for Holder { table, tokens } in &holders {
                for (index, &number) in table.blocks()[..table.known].iter().enumerate() {
                    let content = pool.blocks[number as usize].content;
                    let own = &tokens[index * BLOCK_TOKENS..][..BLOCK_TOKENS];
                    // Nobody, or who faulted, has let it be forgotten; what is known must be right.
                    prop_assert!(content.is_none_or(|content| content.tokens == own));
                }
            }
        }
    }
}
