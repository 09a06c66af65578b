//! Who holds which block of the KV cache, and which blocks are worth keeping.
//!
//! Keys and values are stored in blocks of [`BLOCK_TOKENS`] tokens ("paged attention", Kwon et al., 2023). A full block
//! is known by its tokens and by everything before them, so that a prompt that begins like an earlier one takes the
//! earlier one's blocks instead of computing them. Only full blocks are shared, and nobody writes to a full block.
//! A block that nobody holds any more keeps its content until its place is needed, oldest first.
//!
//! Blocks are looked up by their tokens themselves, not by a digest of them: no caller can make up a prompt that is
//! taken for another one.

use std::collections::{BTreeMap, HashMap};

use crate::model::BLOCK_TOKENS;

/// The allocator of one cache. Counts in blocks.
#[derive(Debug)]
pub(super) struct BlockPool {
    blocks: Vec<Block>,
    /// Blocks without holder and without content.
    empty: Vec<u32>,
    /// Blocks without holder that keep their content, by the time they were let go.
    kept: BTreeMap<u64, u32>,
    /// Full blocks by what they hold.
    known: HashMap<Content, u32>,
    /// Counts events, so that no two contents and no two releases have the same number.
    clock: u64,
}

#[derive(Debug, Clone, Default)]
struct Block {
    holders: u32,
    /// What the block is known to hold.
    content: Option<Content>,
    /// Number of this content, never used twice.
    serial: u64,
    /// When its last holder let go.
    released: u64,
}

/// What a full block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Content {
    /// The serial of the block before it; 0 at the front.
    before: u64,
    tokens: [u32; BLOCK_TOKENS],
}

/// The blocks of one sequence, in order.
#[derive(Debug, Default)]
pub(super) struct Table {
    blocks: Vec<u32>,
    /// Leading blocks that are full and known.
    known: usize,
    /// The serial of the last of those.
    last: u64,
}

impl Table {
    /// Block numbers, in the order of their tokens.
    pub(super) fn blocks(&self) -> &[u32] {
        &self.blocks
    }

    /// Tokens there is room for.
    pub(super) fn room(&self) -> usize {
        self.blocks.len() * BLOCK_TOKENS
    }

    /// Tokens in full blocks that others may share.
    pub(super) fn shared_tokens(&self) -> usize {
        self.known * BLOCK_TOKENS
    }
}

impl BlockPool {
    /// A pool of as many empty blocks.
    pub(super) fn new(blocks: usize) -> Self {
        Self {
            blocks: vec![Block::default(); blocks],
            // The lowest number first: memory that was never touched stays so as long as it can.
            empty: (0..blocks as u32).rev().collect(),
            kept: BTreeMap::new(),
            known: HashMap::new(),
            clock: 0,
        }
    }

    /// Blocks in all.
    pub(super) fn total(&self) -> usize {
        self.blocks.len()
    }

    /// Blocks that can be given out.
    pub(super) fn available(&self) -> usize {
        self.empty.len() + self.kept.len()
    }

    /// Blocks that a sequence holds.
    pub(super) fn in_use(&self) -> usize {
        self.total() - self.available()
    }

    /// The blocks that hold the beginning of `tokens`, as many as are known.
    pub(super) fn reuse(&mut self, tokens: &[u32]) -> Table {
        let mut table = Table::default();
        for tokens in tokens.as_chunks().0 {
            let content = Content { before: table.last, tokens: *tokens };
            let Some(&number) = self.known.get(&content) else { break };
            self.hold(number);
            table.blocks.push(number);
            table.last = self.blocks[number as usize].serial;
        }
        table.known = table.blocks.len();
        table
    }

    /// Adds a block at the end of a table; `false` when there is none.
    pub(super) fn extend(&mut self, table: &mut Table) -> bool {
        let number = match self.empty.pop() {
            Some(number) => number,
            None => match self.kept.pop_first() {
                Some((_, number)) => {
                    self.forget_block(number);
                    number
                }
                None => return false,
            },
        };
        self.blocks[number as usize].holders = 1;
        table.blocks.push(number);
        true
    }

    /// Makes the blocks known that a sequence has filled. `tokens` are the sequence's, as far as they are computed.
    pub(super) fn publish(&mut self, table: &mut Table, tokens: &[u32]) {
        for tokens in &tokens.as_chunks().0[table.known..] {
            let content = Content { before: table.last, tokens: *tokens };
            let own = table.blocks[table.known];
            let number = match self.known.get(&content) {
                // Someone else computed the same at the same time: one copy is enough.
                Some(&theirs) => {
                    self.hold(theirs);
                    self.let_go(own);
                    table.blocks[table.known] = theirs;
                    theirs
                }
                None => {
                    self.clock += 1;
                    let block = &mut self.blocks[own as usize];
                    (block.content, block.serial) = (Some(content), self.clock);
                    self.known.insert(content, own);
                    own
                }
            };
            table.last = self.blocks[number as usize].serial;
            table.known += 1;
        }
    }

    /// Takes a sequence's blocks back. Those that are known keep their content for whoever comes next.
    pub(super) fn release(&mut self, table: &mut Table) {
        // From the end, so that the front, which more prompts share, is the last to go.
        for &number in table.blocks.iter().rev() {
            self.let_go(number);
        }
        *table = Table::default();
    }

    /// Takes a sequence's blocks back and makes sure that nobody reuses what they hold.
    pub(super) fn discard(&mut self, table: &mut Table) {
        for &number in &table.blocks[..table.known] {
            self.forget_block(number);
        }
        self.release(table);
    }

    fn hold(&mut self, number: u32) {
        let block = &mut self.blocks[number as usize];
        if block.holders == 0 {
            self.kept.remove(&block.released);
        }
        block.holders += 1;
    }

    fn let_go(&mut self, number: u32) {
        let block = &mut self.blocks[number as usize];
        block.holders -= 1;
        if block.holders > 0 {
            return;
        }
        if block.content.is_some() {
            self.clock += 1;
            block.released = self.clock;
            self.kept.insert(self.clock, number);
        } else {
            self.empty.push(number);
        }
    }

    fn forget_block(&mut self, number: u32) {
        if let Some(content) = self.blocks[number as usize].content.take() {
            self.known.remove(&content);
        }
    }
}

#[cfg(test)]
#[path = "blocks_tests.rs"]
mod tests;
