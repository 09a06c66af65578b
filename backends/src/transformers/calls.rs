//! Tool calls out of the text of an answer, as it comes.

use opossum_inference::ToolSyntax;

/// A part of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Words to the caller.
    Text(String),
    /// A call of this function begins.
    Call(String),
    /// More of its arguments' JSON text; never empty.
    Arguments(String),
}

/// Tells words and calls apart. The engine's grammar sees to it that a call is written as its syntax says, so a text that
/// begins like a call is one.
#[derive(Debug)]
pub(super) struct CallReader {
    syntax: ToolSyntax,
    place: Place,
    /// Text that belongs to nothing yet.
    held: String,
    /// Whether words were said.
    spoke: bool,
    calls: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Words,
    Name,
    Arguments(Json),
    /// Behind a call's arguments.
    Behind,
}

/// How far a JSON object has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Json {
    depth: u32,
    in_string: bool,
    escaped: bool,
}

impl Json {
    /// Takes one more byte; whether the object ends with it.
    fn ends_with(&mut self, byte: u8) -> bool {
        match (self.in_string, byte) {
            (true, _) if self.escaped => self.escaped = false,
            (true, b'\\') => self.escaped = true,
            (_, b'"') => self.in_string = !self.in_string,
            (false, b'{' | b'[') => self.depth += 1,
            (false, b'}' | b']') => self.depth = self.depth.saturating_sub(1),
            _ => return false,
        }
        !self.in_string && self.depth == 0
    }
}

impl CallReader {
    pub(super) fn new(syntax: ToolSyntax) -> Self {
        Self { syntax, place: Place::Words, held: String::new(), spoke: false, calls: 0 }
    }

    /// Calls that began so far.
    pub(super) fn calls(&self) -> usize {
        self.calls
    }

    /// Reads on.
    pub(super) fn push(&mut self, text: &str, said: &mut Vec<Said>) {
        self.held.push_str(text);
        while self.step(said) {}
    }

    /// Ends the answer: what looked like the beginning of a call was none. A call that was cut stays as it is.
    pub(super) fn finish(&mut self, said: &mut Vec<Said>) {
        let rest = std::mem::take(&mut self.held);
        if self.place == Place::Words && !rest.is_empty() {
            said.push(Said::Text(rest));
        }
    }

    /// Reads one part of what is held; whether there may be another.
    fn step(&mut self, said: &mut Vec<Said>) -> bool {
        match self.place {
            Place::Words => self.words(said),
            Place::Name => self.name(said),
            Place::Arguments(json) => self.arguments(json, said),
            Place::Behind => self.next_call(),
        }
    }

    fn words(&mut self, said: &mut Vec<Said>) -> bool {
        let begins = |at: &usize| self.may_begin_later() || (*at == 0 && !self.spoke);
        let found = self.held.find(self.syntax.opening()).filter(begins);
        if let Some(at) = found {
            let words = self.held[..at].to_owned();
            self.held.drain(..at + self.syntax.opening().len());
            // Blanks in front of a call are no words.
            if self.spoke || !words.trim().is_empty() {
                said.push(Said::Text(words));
            }
            self.place = Place::Name;
            return true;
        }
        let sure = self.held.len() - self.undecided();
        if sure > 0 && (self.spoke || !self.held[..sure].trim().is_empty()) {
            self.spoke = true;
            said.push(Said::Text(self.held.drain(..sure).collect()));
        }
        false
    }

    /// A call without a tag of its own is one only where the answer begins.
    fn may_begin_later(&self) -> bool {
        self.syntax == ToolSyntax::Tagged
    }

    /// Bytes at the end of what is held that may be the beginning of a call.
    fn undecided(&self) -> usize {
        let opening = self.syntax.opening();
        if !self.may_begin_later() {
            let begins = !self.spoke && opening.starts_with(self.held.as_str());
            return if begins { self.held.len() } else { 0 };
        }
        let longest = self.held.len().min(opening.len() - 1);
        (1..=longest).rev().find(|len| self.held.ends_with(&opening[..*len])).unwrap_or(0)
    }

    fn name(&mut self, said: &mut Vec<Said>) -> bool {
        let middle = self.syntax.middle();
        let Some(at) = self.held.find(middle) else { return false };
        said.push(Said::Call(self.held[..at].to_owned()));
        self.held.drain(..at + middle.len());
        self.calls += 1;
        self.place = Place::Arguments(Json::default());
        true
    }

    fn arguments(&mut self, mut json: Json, said: &mut Vec<Said>) -> bool {
        let end = self.held.bytes().position(|byte| json.ends_with(byte)).map(|last| last + 1);
        let arguments: String = self.held.drain(..end.unwrap_or(self.held.len())).collect();
        if !arguments.is_empty() {
            said.push(Said::Arguments(arguments));
        }
        self.place = if end.is_some() { Place::Behind } else { Place::Arguments(json) };
        end.is_some()
    }

    fn next_call(&mut self) -> bool {
        let Some(at) = self.held.find(self.syntax.opening()) else { return false };
        self.held.drain(..at + self.syntax.opening().len());
        self.place = Place::Name;
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What was said, neighbours of a kind joined.
    fn read(syntax: ToolSyntax, pieces: &[&str]) -> Vec<Said> {
        let (mut reader, mut said) = (CallReader::new(syntax), Vec::new());
        for piece in pieces {
            reader.push(piece, &mut said);
        }
        reader.finish(&mut said);
        let mut joined: Vec<Said> = Vec::new();
        for part in said {
            match (joined.last_mut(), part) {
                (Some(Said::Text(text)), Said::Text(more))
                | (Some(Said::Arguments(text)), Said::Arguments(more)) => text.push_str(&more),
                (_, part) => joined.push(part),
            }
        }
        joined
    }

    fn call(name: &str, arguments: &str) -> [Said; 2] {
        [Said::Call(name.to_owned()), Said::Arguments(arguments.to_owned())]
    }

    fn words(text: &str) -> Said {
        Said::Text(text.to_owned())
    }

    const TWO: &str = "Well.\n<tool_call>\n{\"name\": \"a\", \"arguments\": {\"x\": \"}{\\\"\", \"y\": [{}]}}\n</tool_call>\n\
                       <tool_call>\n{\"name\": \"b\", \"arguments\": {} }\n</tool_call>";

    fn two() -> Vec<Said> {
        let mut said = vec![words("Well.\n")];
        said.extend(call("a", "{\"x\": \"}{\\\"\", \"y\": [{}]}"));
        said.extend(call("b", "{}"));
        said
    }

    #[test]
    fn words_and_calls_are_told_apart() {
        assert_eq!(read(ToolSyntax::Tagged, &[TWO]), two());
        assert_eq!(
            read(ToolSyntax::Tagged, &["1 <", " 2, <tool", "> and <tool_call"]),
            [words("1 < 2, <tool> and <tool_call")]
        );
        let blank = "\n<tool_call>\n{\"name\": \"b\", \"arguments\": {}}\n</tool_call>";
        assert_eq!(read(ToolSyntax::Tagged, &[blank]), call("b", "{}"));
        assert_eq!(read(ToolSyntax::Tagged, &[" ", "\n"]), [words(" \n")]);
    }

    #[test]
    fn a_call_without_a_tag_is_one_only_at_the_beginning() {
        let text = "{\"name\": \"a\", \"parameters\": {\"x\": 1}}";
        assert_eq!(read(ToolSyntax::Bare, &[text]), call("a", "{\"x\": 1}"));
        assert_eq!(read(ToolSyntax::Bare, &["See: ", text]), [words(&format!("See: {text}"))]);
        assert_eq!(read(ToolSyntax::Bare, &["{\"na", "ture\": 1}"]), [words("{\"nature\": 1}")]);
    }

    #[test]
    fn a_call_that_is_cut_stays_cut() {
        let cut = "<tool_call>\n{\"name\": \"a\", \"arguments\": {\"x\": 1";
        assert_eq!(read(ToolSyntax::Tagged, &[cut]), call("a", "{\"x\": 1"));
        assert_eq!(read(ToolSyntax::Tagged, &["<tool_call>\n{\"name\": \"a"]), []);
    }

    proptest! {
        #[test]
        fn any_chunking_says_the_same(cuts in prop::collection::vec(1_usize..9, 0..60)) {
            let (mut pieces, mut rest) = (Vec::new(), TWO);
            for cut in cuts {
                let (piece, more) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = more;
            }
            pieces.push(rest);
            prop_assert_eq!(read(ToolSyntax::Tagged, &pieces), two());
        }
    }
}
