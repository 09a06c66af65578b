//! Byte-pair merging by score, as SentencePiece does it for Llama 2, Mistral and Gemma.
//!
//! Source: Kudo and Richardson, "SentencePiece" (2018), its BPE model with byte fallback. A text starts as characters;
//! of all neighbours whose joined text is a token, the pair with the highest score is joined, the leftmost of equals,
//! until no pair is left. A character that is no token is written as byte tokens.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::pieces::Pieces;

/// How a vocabulary writes a space (U+2581).
pub(super) const SPACE: char = '\u{2581}';
/// No neighbour on that side.
const END: u32 = u32::MAX;

/// Finds tokens by text and joins them by score.
#[derive(Debug)]
pub(super) struct SentencePiece {
    by_text: HashTable<u32>,
    /// Keyed at random: a vocabulary cannot be made up to collide.
    hasher: RandomState,
    scores: Vec<f32>,
    fallback: Fallback,
    /// Whether a space is put before a text that follows a special token, or none.
    pub(super) space_prefix: bool,
}

/// What stands for a character that is no token.
#[derive(Debug)]
pub(super) enum Fallback {
    /// A token for each byte.
    Bytes(Box<[u32; 256]>),
    /// One token for whatever is unknown.
    Unknown(u32),
}

/// A run of bytes of the text that may still be joined with its neighbours.
struct Symbol {
    start: u32,
    /// Bytes; 0 once it was joined to the one before it.
    len: u32,
    previous: u32,
    next: u32,
}

/// Two neighbours that form a token.
#[derive(PartialEq)]
struct Pair {
    score: f32,
    left: u32,
    right: u32,
    /// Bytes of both: a pair that was found before one of them grew is out of date.
    len: u32,
}

impl Eq for Pair {}

impl Ord for Pair {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl SentencePiece {
    /// `ids` are the tokens that plain text may consist of; `scores` has one entry a token.
    pub(super) fn new(
        pieces: &Pieces,
        ids: impl Iterator<Item = u32>,
        scores: Vec<f32>,
        fallback: Fallback,
        space_prefix: bool,
    ) -> Self {
        let hasher = RandomState::new();
        let mut by_text = HashTable::with_capacity(pieces.len());
        for id in ids.filter(|&id| !pieces.get(id).is_empty()) {
            let text = pieces.get(id);
            // Of two tokens with one text, the first stands.
            by_text
                .entry(
                    hasher.hash_one(text),
                    |&other| pieces.get(other) == text,
                    |&other| hasher.hash_one(pieces.get(other)),
                )
                .or_insert(id);
        }
        Self { by_text, hasher, scores, fallback, space_prefix }
    }

    fn find(&self, pieces: &Pieces, text: &[u8]) -> Option<u32> {
        self.by_text.find(self.hasher.hash_one(text), |&id| pieces.get(id) == text).copied()
    }

    /// Appends the tokens of `text`. Takes time in n log n of its length.
    pub(super) fn encode(&self, pieces: &Pieces, text: &str, after_special: bool, ids: &mut Vec<u32>) {
        let text = self.normalised(text, after_special);
        let bytes = text.as_bytes();
        let mut merging =
            Merging { model: self, pieces, bytes, symbols: symbols(&text), pairs: BinaryHeap::new() };
        merging.run();
        for symbol in merging.symbols.iter().filter(|symbol| symbol.len > 0) {
            let piece = &bytes[symbol.start as usize..][..symbol.len as usize];
            match (self.find(pieces, piece), &self.fallback) {
                (Some(id), _) => ids.push(id),
                (None, Fallback::Bytes(tokens)) => {
                    ids.extend(piece.iter().map(|&byte| tokens[usize::from(byte)]));
                }
                (None, Fallback::Unknown(id)) => ids.push(*id),
            }
        }
    }

    /// The text with plain spaces for [`SPACE`], as in `pieces`, and one in front where the model wants it.
    fn normalised<'a>(&self, text: &'a str, after_special: bool) -> Cow<'a, str> {
        let prefix = if self.space_prefix && after_special { " " } else { "" };
        if prefix.is_empty() && !text.contains(SPACE) {
            return Cow::Borrowed(text);
        }
        Cow::Owned([prefix, &text.replace(SPACE, " ")].concat())
    }
}

/// The characters of a text, each linked to its neighbours.
fn symbols(text: &str) -> Vec<Symbol> {
    let mut symbols: Vec<Symbol> = text
        .char_indices()
        .enumerate()
        .map(|(index, (start, character))| Symbol {
            start: start as u32,
            len: character.len_utf8() as u32,
            previous: (index as u32).wrapping_sub(1),
            next: index as u32 + 1,
        })
        .collect();
    if let Some(last) = symbols.last_mut() {
        last.next = END;
    }
    symbols
}

/// One text while its symbols are joined.
struct Merging<'a> {
    model: &'a SentencePiece,
    pieces: &'a Pieces,
    bytes: &'a [u8],
    symbols: Vec<Symbol>,
    pairs: BinaryHeap<Pair>,
}

impl Merging<'_> {
    fn run(&mut self) {
        for right in 1..self.symbols.len() {
            self.consider(right as u32 - 1, right as u32);
        }
        while let Some(pair) = self.pairs.pop() {
            let (left, right) = (&self.symbols[pair.left as usize], &self.symbols[pair.right as usize]);
            if left.len == 0 || right.len == 0 || left.len + right.len != pair.len {
                continue;
            }
            self.join(&pair);
        }
    }

    fn join(&mut self, pair: &Pair) {
        let right = &mut self.symbols[pair.right as usize];
        right.len = 0;
        let next = right.next;
        let left = &mut self.symbols[pair.left as usize];
        left.len = pair.len;
        left.next = next;
        let previous = left.previous;
        if next != END {
            self.symbols[next as usize].previous = pair.left;
            self.consider(pair.left, next);
        }
        if previous != END {
            self.consider(previous, pair.left);
        }
    }

    /// Remembers two neighbours if they form a token.
    fn consider(&mut self, left: u32, right: u32) {
        let start = self.symbols[left as usize].start;
        let len = self.symbols[left as usize].len + self.symbols[right as usize].len;
        let text = &self.bytes[start as usize..][..len as usize];
        if let Some(id) = self.model.find(self.pieces, text) {
            self.pairs.push(Pair { score: self.model.scores[id as usize], left, right, len });
        }
    }
}
