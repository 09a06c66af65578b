//! The only place that writes to standard output and standard error for people.

use std::io::{self, BufRead, IsTerminal, Read, Write};

use super::{Failure, Outcome};

/// Writes to standard output at once.
///
/// # Errors
/// [`Failure::NobodyReads`] when the reader is gone, as `| head` does.
pub(super) fn print(text: &str) -> Outcome {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::NobodyReads,
        _ => Failure::of("standard output", error),
    })
}

/// Writes a line to standard output.
///
/// # Errors
/// As [`print`].
pub(super) fn line(text: &str) -> Outcome {
    print(&format!("{text}\n"))
}

/// Writes a line to standard error. That nobody reads it changes nothing.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Writes what is not part of the result, such as a model's reasoning, dimmed and without a line end; only on
/// a terminal.
pub(super) fn aside(text: &str) {
    if io::stderr().is_terminal() {
        let mut out = io::stderr().lock();
        let _ = write!(out, "\x1b[2m{text}\x1b[0m").and_then(|()| out.flush());
    }
}

/// Whether a person types and reads.
pub(super) fn is_conversation() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Asks for a line; `None` at the end of input.
///
/// # Errors
/// Standard input cannot be read.
pub(super) fn ask(prompt: &str) -> Result<Option<String>, Failure> {
    print(prompt)?;
    let mut text = String::new();
    let read = io::stdin().lock().read_line(&mut text).map_err(|e| Failure::of("standard input", e))?;
    Ok((read > 0).then(|| text.trim().to_owned()))
}

/// All of standard input.
///
/// # Errors
/// It cannot be read, or is not text.
pub(super) fn read_all() -> Result<String, Failure> {
    let mut text = String::new();
    io::stdin().lock().read_to_string(&mut text).map_err(|e| Failure::of("standard input", e))?;
    Ok(text)
}
