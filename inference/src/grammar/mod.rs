//! Answers of a given form: JSON, JSON of a schema, tool calls.
//!
//! A [`Grammar`] says what an answer may look like. [`Grammars`] compiles it against a model's vocabulary, and the
//! [`Constraint`] that comes out of it rules out, before each token is chosen, every token after which no whole answer
//! of that form would be possible. The model may end its answer only where the answer is whole. So whatever the model
//! is, a generation that ends by itself has the form that was asked for. Where `max_tokens` comes close, the answer is led
//! to its end in time; it is cut only where there is no end so short.
//!
//! The parsing is that of `llguidance`; what is ours is to keep it honest and bounded: see [`Grammar::json_schema`].
//! The prompt is left alone: a caller who wants the model to know the schema says so in the messages.

mod compile;
mod constraint;
mod ending;
mod formats;
mod numbers;
mod schema;
mod shortest;
#[cfg(test)]
mod tests;
mod tools;
#[cfg(test)]
mod tools_tests;

use std::fmt;
use std::sync::{Arc, Mutex};

use llguidance::api::TopLevelGrammar;
use serde_json::{Value, json};

pub use compile::Grammars;
pub use constraint::Constraint;
pub use schema::{MAX_SCHEMA_BYTES, MAX_SCHEMA_DEPTH, MAX_SCHEMA_NODES};
pub use tools::{ToolRules, ToolSpec, ToolSyntax};

use crate::InferenceError;
use compile::Compiled;

/// Space between the parts of a JSON text: one blank, or a line break and some. Bounded, because a small model may
/// prefer blanks to an answer.
const WHITESPACE: &str = r"\x20|\x0A\x20{0,16}";
/// Escapes inside strings. Without `\u`, so that every text has one form only and a name cannot be written twice.
const ESCAPES: &str = "nrbtf\\\"";

/// What an answer must look like. Clones share it.
#[derive(Clone, PartialEq, Eq)]
pub struct Grammar(Arc<Source>);

struct Source {
    /// The request's field that asks for it, named in errors.
    field: &'static str,
    /// The grammar as the compiler reads it, and the key of the cache.
    text: String,
    /// What the last model made of it: a job that waits keeps its own, however many others are compiled meanwhile.
    compiled: Mutex<Option<Compiled>>,
}

impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        (self.field, &self.text) == (other.field, &other.text)
    }
}

impl Eq for Source {}

impl fmt::Debug for Grammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A schema is a caller's private text: logs must not carry it.
        f.debug_tuple("Grammar").field(&self.0.field).finish()
    }
}

impl Grammar {
    /// Any JSON object.
    ///
    /// # Errors
    /// None in practice: as [`Grammar::json_schema`].
    pub fn json_object() -> Result<Self, InferenceError> {
        Self::json_schema(&json!({"type": "object"}))
    }

    /// JSON that follows a schema (draft 2020-12 and the older drafts' ways to say the same).
    ///
    /// Every keyword is either enforced or refused; only annotations are ignored. Where a schema leaves something
    /// open that a generator should not use, the narrower reading is taken, which follows the schema as well:
    /// * properties that an object schema does not list are not invented, unless it says `additionalProperties`;
    /// * numbers without bounds stay within ±(2^53 - 1), have at most eight decimals and no exponent;
    /// * `date`, `time`, `email` and `hostname` are ordinary ones: 29 February in leap years only, short labels.
    ///
    /// # Errors
    /// [`InferenceError::BadParameter`] for `response_format`, naming the keyword and its place, for what cannot be
    /// enforced, for a schema that nothing follows, and for one beyond [`MAX_SCHEMA_BYTES`], [`MAX_SCHEMA_NODES`] or
    /// [`MAX_SCHEMA_DEPTH`].
    pub fn json_schema(schema: &Value) -> Result<Self, InferenceError> {
        let field = "response_format";
        let narrowed = schema::narrow(schema).map_err(|refusal| refused(field, refusal))?;
        Self::new(field, &TopLevelGrammar::from_json_schema(with_options(narrowed)))
    }

    fn new(field: &'static str, grammar: &TopLevelGrammar) -> Result<Self, InferenceError> {
        let text = serde_json::to_string(grammar).map_err(|error| refused(field, error))?;
        Ok(Self(Arc::new(Source { field, text, compiled: Mutex::default() })))
    }
}

/// The schema with our form of JSON text.
fn with_options(mut schema: Value) -> Value {
    if let Value::Object(keywords) = &mut schema {
        let options = json!({"whitespace_pattern": WHITESPACE, "json_allowed_escapes": ESCAPES});
        keywords.insert("x-guidance".to_owned(), options);
    }
    schema
}

fn refused(field: &'static str, reason: impl fmt::Display) -> InferenceError {
    InferenceError::BadParameter { name: field, reason: reason.to_string() }
}
