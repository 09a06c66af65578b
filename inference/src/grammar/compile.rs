//! From a grammar to a constraint on one model's tokens.

use std::collections::VecDeque;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::panic_utils::catch_unwind;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory, TokenParser};

use super::ending::end_after;
use super::{Constraint, Grammar, refused};
use crate::InferenceError;
use crate::tokenizer::Tokenizer;

/// Compiled grammars kept for the next request, beside those that requests hold.
const KEPT: usize = 16;
/// How long a caller waits for a grammar to be compiled.
const PATIENCE: Duration = Duration::from_secs(2);
/// Compilations at a time, those that were given up included.
const MOST_COMPILING: usize = 4;
/// Stack of a compilation: references may be nested as deep as a schema has nodes. Only what is used is backed.
const STACK_BYTES: usize = 256 << 20;
/// Longest token, in bytes, that takes part in constrained answers.
const LONGEST_TOKEN: usize = 255;
/// Bytes that stand for special tokens in the parser's vocabulary; no UTF-8 text contains one.
const MARKER: u8 = TokTrie::SPECIAL_TOKEN_MARKER;

/// The grammars of one model: its vocabulary as the parser needs it, and what was compiled lately.
pub struct Grammars {
    tokenizer: Arc<Tokenizer>,
    /// Built when the first grammar comes: a model that never sees one pays nothing.
    factory: OnceLock<Result<Arc<ParserFactory>, InferenceError>>,
    /// Most recently used last.
    kept: Mutex<VecDeque<(Grammar, Compiled)>>,
    compiling: Arc<AtomicUsize>,
}

/// A grammar that was compiled for one model.
#[derive(Clone)]
pub(super) struct Compiled {
    factory: Arc<ParserFactory>,
    /// At the grammar's start.
    parser: Arc<Mutex<TokenParser>>,
    shortest: Option<usize>,
}

impl Compiled {
    /// A parser at the grammar's start. Each answer has its own: what one answer makes the lexer remember is gone with
    /// it.
    pub(super) fn parser(&self) -> TokenParser {
        self.parser.lock().unwrap_or_else(PoisonError::into_inner).deep_clone()
    }

    /// Tokens of the shortest answer that was found, or one more; `None` when none was found.
    pub(super) fn shortest(&self) -> Option<usize> {
        self.shortest
    }
}

impl fmt::Debug for Grammars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammars").field("compiling", &self.compiling).finish_non_exhaustive()
    }
}

impl Grammars {
    /// No grammars yet, for models with this tokenizer.
    #[must_use]
    pub fn new(tokenizer: Arc<Tokenizer>) -> Self {
        Self { tokenizer, factory: OnceLock::new(), kept: Mutex::default(), compiling: Arc::default() }
    }

    /// A constraint at the grammar's start. Compiles the grammar if it was not used lately, which takes milliseconds,
    /// for the first one of a model some hundred: done beforehand on another thread, it costs the engine nothing.
    ///
    /// # Errors
    /// [`InferenceError::BadParameter`] naming the request's field when the grammar cannot be enforced, nothing follows
    /// it, or it takes too long to compile; [`InferenceError::GrammarFailed`] when too many are being compiled now, or
    /// the model has no token that ends an answer.
    pub fn constraint(&self, grammar: &Grammar) -> Result<Constraint, InferenceError> {
        self.compiled(grammar).map(Constraint::new)
    }

    /// What [`Grammars::constraint`] makes a constraint of.
    pub(super) fn compiled(&self, grammar: &Grammar) -> Result<Compiled, InferenceError> {
        let factory = self.factory.get_or_init(|| factory(&self.tokenizer).map(Arc::new)).clone()?;
        let own = grammar.0.compiled.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(own) = own.filter(|own| Arc::ptr_eq(&own.factory, &factory)) {
            return Ok(own);
        }
        let compiled = match self.find(grammar) {
            Some(compiled) => compiled,
            None => {
                let compiled = self.compile(factory, grammar)?;
                self.keep(grammar.clone(), compiled.clone());
                compiled
            }
        };
        *grammar.0.compiled.lock().unwrap_or_else(PoisonError::into_inner) = Some(compiled.clone());
        Ok(compiled)
    }

    #[cfg(test)]
    pub(super) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    #[cfg(test)]
    pub(super) fn holds(&self, grammar: &Grammar) -> bool {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|(known, _)| known == grammar)
    }

    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// A grammar that was compiled lately.
    fn find(&self, grammar: &Grammar) -> Option<Compiled> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let place = kept.iter().position(|(known, _)| known == grammar)?;
        let found = kept.remove(place)?;
        let compiled = found.1.clone();
        kept.push_back(found);
        Some(compiled)
    }

    fn keep(&self, grammar: Grammar, compiled: Compiled) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back((grammar, compiled));
    }

    /// Compiles on a thread of its own: one with a deep stack, and one that can be left alone when it takes too long.
    fn compile(&self, factory: Arc<ParserFactory>, grammar: &Grammar) -> Result<Compiled, InferenceError> {
        let slot = Slot::take(&self.compiling)?;
        let (done, result) = sync_channel(1);
        let (text, field) = (grammar.clone(), grammar.0.field);
        let work = move || {
            let slot = slot;
            let compiled = compiled(factory, &text);
            drop(slot);
            // Nobody waits any more: the work was in vain.
            let _ = done.send(compiled);
        };
        let thread = std::thread::Builder::new().name("grammar".to_owned()).stack_size(STACK_BYTES);
        let failed = |reason: String| InferenceError::GrammarFailed { reason };
        thread.spawn(work).map_err(|error| failed(format!("cannot start a thread: {error}")))?;
        match result.recv_timeout(PATIENCE) {
            Ok(compiled) => compiled,
            Err(RecvTimeoutError::Timeout) => Err(refused(field, "takes too long to compile")),
            Err(RecvTimeoutError::Disconnected) => Err(refused(field, "cannot be compiled")),
        }
    }
}

fn compiled(factory: Arc<ParserFactory>, grammar: &Grammar) -> Result<Compiled, InferenceError> {
    let refuse = |error: &dyn fmt::Display| refused(grammar.0.field, one_line(error));
    let parsed: TopLevelGrammar = serde_json::from_str(&grammar.0.text).map_err(|error| refuse(&error))?;
    let mut parser = factory.create_parser(parsed).map_err(|error| refuse(&error))?;
    parser.start_without_prompt();
    // The first mask tells whether anything follows the grammar at all.
    Matcher::new(Ok(parser.deep_clone())).compute_mask().map_err(|error| refuse(&error))?;
    let mut scout = parser.deep_clone();
    let end = catch_unwind(AssertUnwindSafe(|| Ok(end_after(&mut scout, None))));
    let shortest = end.ok().flatten().map(|end| end.len());
    Ok(Compiled { factory, parser: Arc::new(Mutex::new(parser)), shortest })
}

/// The parser's words in one line of bounded length.
fn one_line(error: &(impl fmt::Display + ?Sized)) -> String {
    let text = error.to_string();
    let words: Vec<&str> = text.split_whitespace().filter(|word| *word != "<non-verbose/>").collect();
    words.join(" ").chars().take(300).collect()
}

/// A place among the compilations; given back when dropped.
struct Slot(Arc<AtomicUsize>);

impl Slot {
    fn take(compiling: &Arc<AtomicUsize>) -> Result<Self, InferenceError> {
        let one_more = |count| (count < MOST_COMPILING).then_some(count + 1);
        match compiling.try_update(Ordering::AcqRel, Ordering::Acquire, one_more) {
            Ok(_) => Ok(Self(Arc::clone(compiling))),
            Err(_) => Err(InferenceError::GrammarFailed {
                reason: "too many grammars are being compiled".to_owned(),
            }),
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The parser's view of a vocabulary.
fn factory(tokenizer: &Tokenizer) -> Result<ParserFactory, InferenceError> {
    let failed = |reason: String| InferenceError::GrammarFailed { reason };
    let vocab = tokenizer.vocab() as u32;
    let ends: Vec<u32> = (0..vocab).filter(|id| tokenizer.is_end_of_generation(*id)).collect();
    let end = *ends.first().ok_or_else(|| failed("the model has no token that ends an answer".to_owned()))?;
    let words: Vec<Vec<u8>> = (0..vocab).map(|id| word(tokenizer, id)).collect();
    let trie = TokTrie::from(&TokRxInfo::new(vocab, end), &words).with_eos_tokens(&ends);
    let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
    let mut factory = ParserFactory::new_simple(&environment).map_err(|error| failed(one_line(&error)))?;
    *factory.limits_mut() = LIMITS;
    factory.quiet();
    Ok(factory)
}

/// The bytes of a token that may be part of a text; control tokens have none.
fn word(tokenizer: &Tokenizer, id: u32) -> Vec<u8> {
    let bytes = tokenizer.bytes(id);
    let usable =
        bytes.len() <= LONGEST_TOKEN && !bytes.contains(&MARKER) && !tokenizer.is_end_of_generation(id);
    if usable { bytes.to_vec() } else { Vec::new() }
}

/// How much work and memory a grammar may cost. The comments are measured figures of the parser's authors.
const LIMITS: ParserLimits = ParserLimits {
    max_items_in_row: 2000,
    // 20 ms at 50,000 a millisecond.
    initial_lexer_fuel: 1_000_000,
    // 7 ms for one token at 14,000 a millisecond.
    step_lexer_fuel: 100_000,
    // 2.5 ms for one token at 20,000 a millisecond.
    step_max_items: 50_000,
    // At most 2 kB each, for one answer.
    max_lexer_states: 20_000,
    max_grammar_size: 100_000,
    precompute_large_lexemes: true,
    // Errors must not quote the text so far.
    verbose_errors: false,
};
