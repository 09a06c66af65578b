//! A short text that makes an answer whole.
//!
//! Dijkstra's algorithm ("A note on two problems in connexion with graphs", 1959) over what may follow, byte by byte;
//! the parser says what may. These rules keep it small:
//! * What may be closed is closed: a string, an array, an object, a number. Required members and least lengths are the
//!   parser's business, which does not let them be closed before.
//! * Bytes that bring the lexer to the same state are one: all letters of a string, for instance.
//! * Texts that reach the same state of the lexer at the same place are nearly always followed by the same, so that
//!   the first one counts. The others are put back, not away: the first may lead into endless recursion.
//! * Where one text has closed a string, others inside it count as longer with every fork.
//!
//! So what is found is short, not always the shortest.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use llguidance::derivre::StateID;
use llguidance::earley::{Parser, ParserRecognizer};
use llguidance::toktrie::{Recognizer, TokTrie};

/// Most bytes that one search tries.
const MOST_TRIES: usize = 400_000;
/// How many bytes longer a text counts as that comes to a place where another one was before.
const DETOUR: usize = 256;
/// How many bytes longer each fork inside a string makes a text where another one has closed the string.
const LATE: usize = 8;
/// Highest byte of UTF-8.
const LAST_BYTE: u8 = 0xf4;
/// What closes something or goes on behind it, outside of strings.
const CLOSERS: &[u8] = b"}],";
/// What is tried where nothing can be closed. Letters come first: vocabularies join them to longer tokens.
const ORDINARY: &[u8] =
    b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789\"-+.:/_@#%~^$&*=|;!?'`(){}[]<>,";

/// The bytes that make the answer whole whose beginning the parser holds, after `prefix`, which must be allowed.
/// `None` when none were found with bounded work. The parser's state is as before.
pub(super) fn shortest(parser: &mut Parser, trie: &TokTrie, prefix: &[u8]) -> Option<Vec<u8>> {
    let mut containers = Containers::default();
    let text = parser.get_bytes().iter().chain(prefix);
    let place = text.fold(Place::default(), |place, byte| containers.after(place, *byte));
    let mut search = Search { containers, ..Search::default() };
    search.add(Way { place, may_be_whole: true, ..Way::default() });
    while let Some(way) = parser.with_recognizer(|recognizer| search.explore(recognizer, prefix)) {
        if is_whole(parser, trie, &[prefix, &way.bytes].concat()) {
            return Some(way.bytes);
        }
        search.add(Way { may_be_whole: false, ..way });
    }
    None
}

/// Whether the answer is whole after these bytes.
fn is_whole(parser: &mut Parser, trie: &TokTrie, bytes: &[u8]) -> bool {
    let mut tokens = trie.greedy_tokenize(bytes);
    tokens.push(trie.eos_token());
    parser.validate_tokens(&tokens) == tokens.len()
}

/// A place in a JSON text.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
struct Place {
    /// The innermost array or object that is open; 0 outside of all.
    container: usize,
    /// Commas in it so far.
    commas: usize,
    /// Whether a string is open, and in it an escape.
    quoted: bool,
    escaped: bool,
}

/// For each array or object, from number 1 on, the place where it stands.
#[derive(Debug, Default)]
struct Containers(Vec<Place>);

impl Containers {
    /// The place after one more byte. Strings hold no line breaks and `<` stands in strings only, so after such a byte
    /// it was other text so far: a tool call follows.
    fn after(&mut self, place: Place, byte: u8) -> Place {
        match byte {
            b'\n' if place.quoted => Place::default(),
            _ if place.escaped => Place { escaped: false, ..place },
            b'"' => Place { quoted: !place.quoted, ..place },
            b'\\' if place.quoted => Place { escaped: true, ..place },
            _ if place.quoted => place,
            b'{' | b'[' => {
                self.0.push(place);
                Place { container: self.0.len(), ..Place::default() }
            }
            b'}' | b']' => place.container.checked_sub(1).map_or(Place::default(), |index| self.0[index]),
            b',' => Place { commas: place.commas + 1, ..place },
            b'<' => Place::default(),
            _ => place,
        }
    }
}

/// A text that may follow.
#[derive(Default)]
struct Way {
    bytes: Vec<u8>,
    place: Place,
    /// The lexer's state after it, if that tells it from other ways to the same place.
    state: Option<StateID>,
    /// By how many bytes it counts as longer.
    extra: usize,
    /// Whether the answer may be whole after it.
    may_be_whole: bool,
}

impl Way {
    fn cost(&self) -> usize {
        self.bytes.len() + self.extra
    }
}

#[derive(Default)]
struct Search {
    containers: Containers,
    ways: Vec<Way>,
    /// Numbers of ways to go on from, those of the lowest cost first.
    open: BinaryHeap<Reverse<(usize, usize)>>,
    /// Strings that some way closed.
    closed: HashSet<Place>,
    /// How many ways came to a state and place.
    reached: HashMap<(StateID, Place), usize>,
    tries: usize,
}

impl Search {
    fn add(&mut self, way: Way) {
        self.open.push(Reverse((way.cost(), self.ways.len())));
        self.ways.push(way);
    }

    /// The next way to go on from. One that comes to where others were is put back.
    fn take(&mut self) -> Option<Way> {
        while let Some(Reverse((_, number))) = self.open.pop().filter(|_| self.tries < MOST_TRIES) {
            let mut way = std::mem::take(&mut self.ways[number]);
            let state = way.state.take_if(|_| !way.may_be_whole);
            let before = state.map(|state| self.reached.entry((state, way.place)).or_default());
            let detour = before.map_or(0, |before| std::mem::replace(before, *before + 1) * DETOUR);
            if detour == 0 {
                return Some(way);
            }
            way.extra += detour;
            self.add(way);
        }
        None
    }

    /// Goes on until a way comes up after which the answer may be whole.
    fn explore(&mut self, recognizer: &mut ParserRecognizer<'_>, prefix: &[u8]) -> Option<Way> {
        recognizer.trie_started("shortest");
        let allowed = prefix.iter().all(|byte| recognizer.try_push_byte(*byte));
        let mut pushed: Vec<u8> = Vec::new();
        let found = loop {
            let Some(way) = self.take().filter(|_| allowed) else { break None };
            if way.may_be_whole {
                break Some(way);
            }
            let common = pushed.iter().zip(&way.bytes).take_while(|(a, b)| a == b).count();
            recognizer.pop_bytes(pushed.len() - common);
            self.tries += way.bytes.len() - common;
            way.bytes[common..].iter().all(|byte| recognizer.try_push_byte(*byte));
            pushed = self.follow(recognizer, way);
        };
        recognizer.trie_finished();
        found
    }

    /// Follows a way, to which the recognizer was brought, up to where it forks, the answer may be whole, or others are
    /// shorter. Answers the bytes that the recognizer then holds.
    fn follow(&mut self, recognizer: &mut ParserRecognizer<'_>, mut way: Way) -> Vec<u8> {
        while self.tries < MOST_TRIES {
            let next = self.next(recognizer, way.place);
            // Which one of several words is the shortest shows where it ends.
            let ends = !way.place.quoted && matches!(next[..], [(_, b'}' | b']' | b',' | b':')]);
            if ends && self.open.peek().is_some_and(|Reverse((cost, _))| *cost < way.cost()) {
                let bytes = way.bytes.clone();
                self.add(way);
                return bytes;
            }
            let forks = next.len() > 1;
            let mut longer: Vec<Way> = next.into_iter().map(|step| self.step(&way, step, forks)).collect();
            match longer.pop() {
                Some(only) if longer.is_empty() && !only.may_be_whole => {
                    recognizer.try_push_byte(only.bytes[way.bytes.len()]);
                    way = only;
                }
                last => {
                    longer.into_iter().chain(last).for_each(|way| self.add(way));
                    break;
                }
            }
        }
        way.bytes
    }

    /// The way that is longer by this byte.
    fn step(&mut self, way: &Way, (state, byte): (StateID, u8), forks: bool) -> Way {
        let place = self.containers.after(way.place, byte);
        let closes = way.place.quoted && !place.quoted;
        if closes {
            self.closed.insert(way.place);
        }
        let late = forks && way.place.quoted && !closes && self.closed.contains(&way.place);
        Way {
            bytes: [way.bytes.as_slice(), &[byte]].concat(),
            place,
            // Behind a string only the next byte shows what the string led to.
            state: Some(state).filter(|_| !closes),
            extra: way.extra + if late { LATE } else { 0 },
            may_be_whole: place.container == 0 && !place.quoted,
        }
    }

    /// What may come next, and the lexer's states after it.
    fn next(&mut self, recognizer: &mut ParserRecognizer<'_>, place: Place) -> Vec<(StateID, u8)> {
        let closers = match place {
            Place { escaped: true, .. } => b"".as_slice(),
            Place { quoted: true, .. } => b"\"",
            _ => CLOSERS,
        };
        if let Some(closer) = closers.iter().find_map(|byte| self.attempt(recognizer, *byte)) {
            return vec![closer];
        }
        let mut found: Vec<(StateID, u8)> = Vec::new();
        for byte in ORDINARY.iter().chain(place.quoted.then_some(&b' ')) {
            let attempt = self.attempt(recognizer, *byte);
            found.extend(attempt.filter(|(state, _)| found.iter().all(|(known, _)| known != state)));
        }
        if found.is_empty() {
            // In the middle of a character, or where nothing but a blank may come.
            found.extend((0..=LAST_BYTE).find_map(|byte| self.attempt(recognizer, byte)));
        }
        found
    }

    fn attempt(&mut self, recognizer: &mut ParserRecognizer<'_>, byte: u8) -> Option<(StateID, u8)> {
        self.tries += 1;
        let allowed = recognizer.try_push_byte(byte);
        allowed.then(|| {
            let state = recognizer.lexer_state();
            recognizer.pop_bytes(1);
            (state, byte)
        })
    }
}
