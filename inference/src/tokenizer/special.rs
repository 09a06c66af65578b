//! Tokens that are found by their text before anything else looks at it.

/// Tokens by text: control tokens, or those an author added for plain text.
#[derive(Debug, Default)]
pub(super) struct SpecialTokens {
    /// Sorted by text, without empty texts or repetitions.
    tokens: Vec<(Box<str>, u32)>,
    /// The bytes a token may start with: most positions of a text are passed over with one look.
    starts: Box<[bool]>,
}

/// A part of a text: a listed token, or what lies between two.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Text(&'a str),
    Token(u32),
}

impl SpecialTokens {
    pub(super) fn new(tokens: impl Iterator<Item = (Box<str>, u32)>) -> Self {
        let mut tokens: Vec<_> = tokens.filter(|(text, _)| !text.is_empty()).collect();
        tokens.sort_unstable();
        tokens.dedup_by(|later, first| later.0 == first.0);
        let mut starts: Box<[bool]> = Box::new([false; 256]);
        for (text, _) in &tokens {
            starts[usize::from(text.as_bytes()[0])] = true;
        }
        Self { tokens, starts }
    }

    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.tokens.iter().map(|(text, _)| &**text)
    }

    /// The ids of those with one of these texts.
    pub(super) fn ids_of(&self, texts: &[&str]) -> impl Iterator<Item = u32> {
        self.tokens.iter().filter(|(text, _)| texts.contains(&&**text)).map(|(_, id)| *id)
    }

    pub(super) fn text(&self, wanted: u32) -> Option<&str> {
        self.tokens.iter().find(|(_, id)| *id == wanted).map(|(text, _)| &**text)
    }

    /// Cuts a text at the tokens: leftmost first, the longest where several start.
    pub(super) fn split<'a>(&self, text: &'a str) -> Vec<Piece<'a>> {
        let mut pieces = Vec::new();
        let (mut plain_from, mut at) = (0, 0);
        while at < text.len() {
            let Some((token, id)) = self.longest_at(&text.as_bytes()[at..]) else {
                at += 1;
                continue;
            };
            if plain_from < at {
                pieces.push(Piece::Text(&text[plain_from..at]));
            }
            pieces.push(Piece::Token(id));
            at += token.len();
            plain_from = at;
        }
        if plain_from < text.len() {
            pieces.push(Piece::Text(&text[plain_from..]));
        }
        pieces
    }

    /// The longest token that `rest` starts with.
    ///
    /// A token that is a prefix of `rest` is also a prefix of all that is sorted between the two. So the last token up
    /// to `rest` is the answer, or shares more with `rest` than the answer is long: the search goes on in that part.
    fn longest_at(&self, rest: &[u8]) -> Option<(&str, u32)> {
        if !self.starts[usize::from(*rest.first()?)] {
            return None;
        }
        let mut shared = rest;
        loop {
            let up_to = self.tokens.partition_point(|(text, _)| text.as_bytes() <= shared);
            let (text, id) = &self.tokens[up_to.checked_sub(1)?];
            let common = text.bytes().zip(shared).take_while(|(left, right)| left == *right).count();
            if common == text.len() {
                return Some((text, *id));
            }
            shared = &shared[..common];
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokens(texts: &[&str]) -> SpecialTokens {
        SpecialTokens::new(texts.iter().enumerate().map(|(id, text)| (Box::from(*text), id as u32)))
    }

    #[test]
    fn a_text_is_cut_at_the_longest_token() {
        let tokens = tokens(&["<a>", "<a>>", "b", "<a>>x>"]);
        assert_eq!(
            tokens.split("x<a>>bé"),
            [Piece::Text("x"), Piece::Token(1), Piece::Token(2), Piece::Text("é")]
        );
        assert_eq!(tokens.split("<a>>x"), [Piece::Token(1), Piece::Text("x")]);
        assert!(tokens.split("").is_empty());
    }

    #[test]
    fn an_empty_or_repeated_token_counts_once_or_not_at_all() {
        let tokens = tokens(&["", "a", "a"]);
        assert_eq!(tokens.split("a"), [Piece::Token(1)]);
        assert_eq!((tokens.texts().count(), tokens.text(1), tokens.text(0)), (1, Some("a"), None));
    }

    proptest! {
        #[test]
        fn the_longest_token_is_found_as_by_trying_all(
            texts in prop::collection::vec("[ab<é]{0,4}", 0..12),
            text in "[ab<é]{0,16}",
        ) {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let tokens = tokens(&texts);
            for at in 0..text.len() {
                let rest = &text.as_bytes()[at..];
                let found = tokens.longest_at(rest).map(|(token, _)| token.len());
                let fits = |token: &&&str| !token.is_empty() && rest.starts_with(token.as_bytes());
                prop_assert_eq!(found, texts.iter().filter(fits).map(|token| token.len()).max());
            }
        }
    }
}
