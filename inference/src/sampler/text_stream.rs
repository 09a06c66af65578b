//! Tokens in, text for the caller out, with each token's log-probability beside its text.

use std::collections::VecDeque;

use super::{StopMatcher, TokenLogprob};
use crate::tokenizer::Detokenizer;

/// The text of one sequence as it comes about.
#[derive(Debug)]
pub struct TextStream {
    detokenizer: Detokenizer,
    stops: StopMatcher,
    /// Tokens whose text has not been let through yet, oldest first.
    waiting: VecDeque<Waiting>,
    /// Bytes of text that came out of the detokenizer.
    decoded: usize,
    /// Bytes of text that were let through.
    passed: usize,
}

#[derive(Debug)]
struct Waiting {
    /// Where the token's text begins, in bytes of the decoded text.
    start: usize,
    logprob: Option<TokenLogprob>,
}

/// What may be shown to the caller after a token.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Piece {
    /// New text, possibly empty.
    pub text: String,
    /// Tokens whose text begins in it.
    pub tokens: usize,
    /// Their log-probabilities, when asked for.
    pub logprobs: Vec<TokenLogprob>,
    /// Whether a stop string was met: the sequence is over.
    pub stopped: bool,
}

impl TextStream {
    /// A stream that ends at any of these non-empty strings.
    #[must_use]
    pub fn new(stops: Vec<String>) -> Self {
        Self {
            detokenizer: Detokenizer::default(),
            stops: StopMatcher::new(stops),
            waiting: VecDeque::new(),
            decoded: 0,
            passed: 0,
        }
    }

    /// Adds a token's bytes.
    pub fn push(&mut self, bytes: &[u8], logprob: Option<TokenLogprob>) -> Piece {
        self.waiting.push_back(Waiting { start: self.decoded, logprob });
        let text = self.detokenizer.push(bytes);
        self.decoded += text.len();
        let (text, stopped) = self.stops.push(&text);
        self.passed += text.len();
        let begun = self.waiting.iter().take_while(|token| token.start < self.passed).count();
        self.release(begun, text, stopped)
    }

    /// Ends the stream: everything held back comes out, unless it completes a stop string.
    pub fn finish(&mut self) -> Piece {
        let tail = self.detokenizer.finish();
        let (mut text, stopped) = self.stops.push(&tail);
        if !stopped {
            text.push_str(&self.stops.finish());
        }
        self.release(self.waiting.len(), text, stopped)
    }

    fn release(&mut self, count: usize, text: String, stopped: bool) -> Piece {
        let logprobs = self.waiting.drain(..count).filter_map(|token| token.logprob).collect();
        Piece { text, tokens: count, logprobs, stopped }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sampler::TopLogprob;

    fn logprob(id: u32) -> Option<TokenLogprob> {
        let chosen = TopLogprob { id, bytes: Vec::new(), logprob: -1.0 };
        Some(TokenLogprob { chosen, top: Vec::new() })
    }

    fn ids(piece: &Piece) -> Vec<u32> {
        piece.logprobs.iter().map(|logprob| logprob.chosen.id).collect()
    }

    #[test]
    fn a_token_counts_when_its_text_begins_to_show() {
        let mut stream = TextStream::new(vec!["STOP".to_owned()]);
        let first = stream.push(b"a", logprob(0));
        assert_eq!((first.text.as_str(), first.tokens, ids(&first)), ("a", 1, vec![0]));
        let held = stream.push(b"ST", logprob(1));
        assert_eq!((held.text.as_str(), held.tokens), ("", 0));
        let freed = stream.push(b"AY", logprob(2));
        assert_eq!((freed.text.as_str(), freed.tokens, ids(&freed)), ("STAY", 2, vec![1, 2]));
    }

    #[test]
    fn tokens_of_the_stop_string_are_not_counted() {
        let mut stream = TextStream::new(vec!["STOP".to_owned()]);
        assert_eq!(stream.push(b"xS", logprob(0)).text, "x");
        let last = stream.push(b"TOPS", logprob(1));
        assert_eq!((last.text.as_str(), last.tokens, last.stopped), ("", 0, true));
    }

    #[test]
    fn a_character_cut_in_two_appears_once_and_whole() {
        let mut stream = TextStream::new(Vec::new());
        let bytes = "é".as_bytes();
        assert_eq!(stream.push(&bytes[..1], logprob(0)).text, "");
        let whole = stream.push(&bytes[1..], logprob(1));
        assert_eq!((whole.text.as_str(), ids(&whole)), ("é", vec![0, 1]));
        assert_eq!(stream.push(&bytes[..1], None).text, "");
        assert_eq!(stream.finish().text, "\u{fffd}");
    }

    proptest! {
        #[test]
        fn any_cutting_of_any_bytes_gives_the_same_text(
            bytes in prop::collection::vec(any::<u8>(), 0..40),
            cuts in prop::collection::vec(1_usize..5, 0..40),
        ) {
            let mut stream = TextStream::new(Vec::new());
            let mut text = String::new();
            let mut rest = bytes.as_slice();
            for cut in cuts {
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                text.push_str(&stream.push(head, None).text);
                rest = tail;
            }
            text.push_str(&stream.push(rest, None).text);
            text.push_str(&stream.finish().text);
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes).into_owned());
        }
    }
}
