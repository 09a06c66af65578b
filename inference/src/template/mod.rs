//! Chat templates: the Jinja program in the model file that lays out a conversation.
//!
//! The program is untrusted like the rest of the file, and its input comes from callers: it runs with a step budget
//! and an output limit, sees nothing but the messages, the tools and two token texts, and cannot load other templates.

#[cfg(test)]
mod tests;
mod tools;

use std::fmt;
use std::io::{self, Write};

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value};

use crate::tokenizer::{Guard, Tokenizer};
use crate::{PromptMessage, PromptTool, TemplateError};

/// Instructions a template may execute; data it creates counts as well.
pub const TEMPLATE_FUEL: u64 = 100_000;
/// Bytes a template may write.
pub const TEMPLATE_OUTPUT_BYTES: usize = 4 << 20;

/// A model's chat template, ready to run.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
}

impl ChatTemplate {
    /// Parses a template.
    ///
    /// # Errors
    /// [`TemplateError::Syntax`].
    pub fn new(source: &str) -> Result<Self, TemplateError> {
        let environment = environment()?;
        environment.template_from_str(source).map_err(|error| TemplateError::Syntax(describe(&error)))?;
        Ok(Self { environment, source: source.to_owned() })
    }

    /// Lays out a conversation and the tools it may use. What callers wrote is protected by `guard`, which the caller removes after it has
    /// recognised control tokens.
    ///
    /// # Errors
    /// Every other [`TemplateError`].
    pub fn render(
        &self,
        messages: &[PromptMessage],
        tools: &[PromptTool],
        add_generation_prompt: bool,
        tokenizer: &Tokenizer,
        guard: &Guard,
    ) -> Result<String, TemplateError> {
        self.run(tools::variables(messages, tools, add_generation_prompt, tokenizer, guard))
    }

    fn run(&self, variables: Value) -> Result<String, TemplateError> {
        let template = self
            .environment
            .template_from_str(&self.source)
            .map_err(|error| TemplateError::Syntax(describe(&error)))?;
        let mut output = Limited { bytes: Vec::new(), limit: TEMPLATE_OUTPUT_BYTES, overrun: false };
        match template.render_captured_to(variables, &mut output) {
            Ok(_) => {
                String::from_utf8(output.bytes).map_err(|error| TemplateError::Render(error.to_string()))
            }
            Err(_) if output.overrun => Err(TemplateError::TooLong { limit: TEMPLATE_OUTPUT_BYTES }),
            Err(error) => Err(classify(&error)),
        }
    }
}

/// Roles are compared by templates, so a plain word stays as it is; anything else is treated like content.
fn role(role: &str, guard: &Guard) -> String {
    let is_word = role.chars().all(|character| character.is_ascii_alphanumeric() || character == '_');
    if is_word { role.to_owned() } else { guard.protect(role) }
}

fn environment() -> Result<Environment<'static>, TemplateError> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(TEMPLATE_FUEL));
    // Chat templates are written for a Jinja set up like this.
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.map_err(|error| TemplateError::Syntax(describe(&error)))?);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_filter("tojson", tools::tojson);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Raised(message)))
    });
    Ok(environment)
}

/// What a template passed to `raise_exception`.
#[derive(Debug)]
struct Raised(String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

fn classify(error: &Error) -> TemplateError {
    if error.kind() == ErrorKind::OutOfFuel {
        return TemplateError::OutOfFuel { fuel: TEMPLATE_FUEL };
    }
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(Raised(message)) = inner.downcast_ref() {
            return TemplateError::Rejected(message.clone());
        }
        if inner.downcast_ref::<Error>().is_some_and(|inner| inner.kind() == ErrorKind::OutOfFuel) {
            return TemplateError::OutOfFuel { fuel: TEMPLATE_FUEL };
        }
        cause = inner.source();
    }
    TemplateError::Render(describe(error))
}

/// The error in one line. It must not quote the rendered values: they are a caller's private text.
fn describe(error: &Error) -> String {
    let line = error.line().map_or_else(String::new, |line| format!(" (line {line})"));
    match error.detail() {
        Some(detail) if error.kind() == ErrorKind::SyntaxError => format!("{detail}{line}"),
        _ => format!("{}{line}", error.kind()),
    }
}

/// Takes bytes up to a limit, then fails.
struct Limited {
    bytes: Vec<u8>,
    limit: usize,
    overrun: bool,
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.limit - self.bytes.len() {
            self.overrun = true;
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
