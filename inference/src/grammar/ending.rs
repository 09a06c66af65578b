//! Bringing an answer to its end before its tokens run out.
//!
//! As long as far more tokens are left than the shortest end needs, nothing is done. When they get short, a chosen
//! token is taken only if the answer can still be ended in what is left after it, and otherwise the first token of the
//! end that is known to fit. An answer that is ended this way has the form that was asked for, least lengths and
//! required members included; what it says there is another matter.
//!
//! All this goes on in a second parser, the scout, which follows the first one when it is needed: whatever becomes of
//! it, the answer's form is safe.

use std::collections::VecDeque;
use std::iter::once;
use std::panic::AssertUnwindSafe;

use llguidance::TokenParser;
use llguidance::panic_utils::catch_unwind;

use super::compile::Compiled;
use super::shortest::shortest;

/// Tokens to spare, beside half of the grammar's shortest answer, below which every token is looked at.
const MARGIN: usize = 64;
/// This part of what is to spare beyond the margin passes before the next look: the shortest end may get longer with
/// every token, but on the way seldom by more than two for each.
const PART: usize = 3;

/// The tokens that make an answer whole and end it.
type End = VecDeque<u32>;

/// How one answer comes to its end.
pub(super) struct Ending {
    grammar: Compiled,
    /// With how many tokens left to look next; `None` before the first token.
    look_at: Option<usize>,
    scout: Option<TokenParser>,
    /// Whether the scout failed.
    lost: bool,
    /// Tokens of the answer that the scout has not followed.
    behind: Vec<u32>,
    /// An end that fits, from where the answer is.
    end: Option<End>,
}

impl Ending {
    pub(super) fn new(grammar: Compiled) -> Self {
        Self { grammar, look_at: None, scout: None, lost: false, behind: Vec::new(), end: None }
    }

    /// The token to go on with: the chosen one, or another one if the answer could not be ended after it. `left` is how
    /// many tokens are left, this one included.
    pub(super) fn choose(&mut self, chosen: u32, left: usize) -> u32 {
        let first = || left - self.grammar.shortest().map_or(0, |end| self.pause(left.saturating_sub(end)));
        let look_at = self.look_at.unwrap_or_else(first);
        self.look_at = Some(look_at);
        if left > look_at {
            return chosen;
        }
        if !self.lost {
            let looked = catch_unwind(AssertUnwindSafe(|| Ok(self.look(chosen, left))));
            if let Ok(Some(id)) = looked {
                return id;
            }
            self.lost = true;
            self.scout = None;
        }
        self.end.as_mut().and_then(End::pop_front).unwrap_or(chosen)
    }

    /// Takes note of a token that the answer went on with.
    pub(super) fn accept(&mut self, id: u32) {
        if !self.lost {
            self.behind.push(id);
        }
    }

    /// As [`Ending::choose`]; `None` when the scout failed.
    fn look(&mut self, chosen: u32, left: usize) -> Option<u32> {
        let scout = self.scout.get_or_insert_with(|| self.grammar.parser());
        for id in self.behind.drain(..) {
            scout.consume_token(id).ok()?;
        }
        if scout.token_env.tok_trie().eos_tokens().contains(&chosen) {
            return Some(chosen);
        }
        let after = left.saturating_sub(1);
        let fits = |end: &End| end.len() <= after;
        let end = match self.end.take() {
            Some(mut end) if end.front() == Some(&chosen) => end.pop_front().and(Some(end)),
            Some(end) if fits(&end) && is_end(scout, chosen, &end) => Some(end),
            known => match end_after(scout, Some(chosen)).filter(fits) {
                Some(end) => Some(end),
                None => {
                    let end = known.or_else(|| end_after(scout, None).filter(|end| end.len() <= left));
                    return Some(self.turn(end, chosen, left));
                }
            },
        };
        let pause = end.as_ref().map_or(0, |end| self.pause(after.saturating_sub(end.len())));
        self.look_at = Some(after - pause);
        self.end = end.filter(|_| pause == 0);
        Some(chosen)
    }

    /// Goes on with the end; where there is none that fits, with the chosen token, and looks again later: the next
    /// tokens may close what is open.
    fn turn(&mut self, end: Option<End>, chosen: u32, left: usize) -> u32 {
        self.end = end;
        self.end.as_mut().and_then(End::pop_front).unwrap_or_else(|| {
            self.look_at = Some(left / 2);
            chosen
        })
    }

    /// How many tokens to let pass with so many to spare.
    fn pause(&self, spare: usize) -> usize {
        spare.saturating_sub(MARGIN + self.grammar.shortest().unwrap_or(0) / 2) / PART
    }
}

/// Whether these tokens end the answer behind `chosen` as well.
fn is_end(scout: &mut TokenParser, chosen: u32, end: &End) -> bool {
    let eos = scout.token_env.tok_trie().eos_token();
    let mut tokens: Vec<u32> = once(chosen).chain(end.iter().copied()).collect();
    if end.back() != Some(&eos) {
        tokens.push(eos);
    }
    scout.validate_tokens_raw(&tokens).is_ok_and(|valid| valid == tokens.len())
}

/// A short end of the answer behind `chosen`, proven on a copy of the scout; `None` when none was found.
pub(super) fn end_after(scout: &mut TokenParser, chosen: Option<u32>) -> Option<End> {
    let environment = scout.token_env.clone();
    let trie = environment.tok_trie();
    let prefix = chosen.map_or(&[][..], |id| trie.token(id));
    let bytes = shortest(&mut scout.parser, trie, prefix)?;
    let mut end: End = trie.greedy_tokenize(&bytes).into();
    let mut copy = scout.clone();
    for id in chosen.iter().chain(&end) {
        copy.consume_token(*id).ok()?;
    }
    if !copy.is_accepting() {
        return None;
    }
    // Where more could follow, a token has to say that nothing does.
    if !copy.check_stop().ok()? {
        end.push_back(trie.eos_token());
    }
    Some(end)
}

#[cfg(test)]
#[path = "ending_tests.rs"]
mod tests;
