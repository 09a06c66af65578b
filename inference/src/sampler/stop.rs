//! Stop strings, found across token boundaries.

/// Watches a stream of text for stop strings.
///
/// The stop string that is complete first ends the text, the longest one when several are; nothing of it is let
/// through. Text that may be the beginning of a stop string is held back until it is known, so what is let through is
/// the same however the stream was cut.
#[derive(Debug, Clone)]
pub struct StopMatcher {
    stops: Vec<String>,
    held: String,
}

impl StopMatcher {
    /// A watcher for these non-empty strings.
    #[must_use]
    pub fn new(stops: Vec<String>) -> Self {
        Self { stops, held: String::new() }
    }

    /// Adds text; answers what may be let through, and whether a stop string was met. After that nothing more may be
    /// added.
    pub fn push(&mut self, text: &str) -> (String, bool) {
        self.held.push_str(text);
        if let Some(start) = self.first_match() {
            self.held.truncate(start);
            return (std::mem::take(&mut self.held), true);
        }
        let rest = self.held.split_off(self.held.len() - self.undecided());
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// Ends the stream: what was held back was no stop string after all.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Where the stop string begins that is complete first; the longest among those that end together.
    fn first_match(&self) -> Option<usize> {
        let found = self.stops.iter().filter_map(|stop| Some((self.held.find(stop.as_str())?, stop.len())));
        found.min_by_key(|(start, len)| (start + len, *start)).map(|(start, _)| start)
    }

    /// Bytes at the end of the held text that could be the beginning of a stop string.
    fn undecided(&self) -> usize {
        self.stops.iter().map(|stop| self.overlap(stop)).max().unwrap_or(0)
    }

    /// Length of the longest end of the held text that is a beginning of `stop`, but not all of it.
    fn overlap(&self, stop: &str) -> usize {
        let longest = self.held.len().min(stop.len().saturating_sub(1));
        let fits = |len: &usize| self.held.as_bytes().ends_with(&stop.as_bytes()[..*len]);
        (1..=longest).rev().filter(|len| stop.is_char_boundary(*len)).find(fits).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(stops: &[&str], chunks: &[&str]) -> (String, bool) {
        let mut matcher = StopMatcher::new(stops.iter().map(ToString::to_string).collect());
        let mut seen = String::new();
        for chunk in chunks {
            let (text, stopped) = matcher.push(chunk);
            seen.push_str(&text);
            if stopped {
                return (seen, true);
            }
        }
        seen.push_str(&matcher.finish());
        (seen, false)
    }

    #[test]
    fn a_stop_string_is_found_across_chunks_and_not_let_through() {
        assert_eq!(run(&["END"], &["abcE", "N", "Dxyz"]), ("abc".to_owned(), true));
        assert_eq!(run(&["END"], &["abcE", "N"]), ("abcEN".to_owned(), false));
        assert_eq!(run(&["aab"], &["aa", "a", "b"]), ("a".to_owned(), true));
        assert_eq!(run(&["é!"], &["caf", "é", "?"]), ("café?".to_owned(), false));
        assert_eq!(run(&[], &["x"]), ("x".to_owned(), false));
    }

    #[test]
    fn text_is_held_back_only_while_it_may_be_a_stop_string() {
        let mut matcher = StopMatcher::new(vec!["\n\n".to_owned()]);
        assert_eq!(matcher.push("a\n"), ("a".to_owned(), false));
        assert_eq!(matcher.push("b"), ("\nb".to_owned(), false));
    }

    #[test]
    fn the_stop_string_that_is_complete_first_wins() {
        assert_eq!(run(&["abc", "b"], &["xabc"]), ("xa".to_owned(), true));
        assert_eq!(run(&["abc", "b"], &["x", "a", "b", "c"]), ("xa".to_owned(), true));
        assert_eq!(run(&["c", "abc"], &["xabc"]), ("x".to_owned(), true));
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_text(
            text in "[abé]{0,24}",
            stops in prop::collection::vec("[abé]{1,4}", 0..3),
            cuts in prop::collection::vec(0_usize..8, 0..24),
        ) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let mut chunks = Vec::new();
            let mut rest = text.as_str();
            for cut in cuts {
                let at = rest.char_indices().nth(cut).map_or(rest.len(), |(at, _)| at);
                chunks.push(&rest[..at]);
                rest = &rest[at..];
            }
            chunks.push(rest);
            prop_assert_eq!(run(&stops, &chunks), run(&stops, &[text.as_str()]));
        }
    }
}
