//! Logs: one line per event on standard error, as text or JSON.
//!
//! Prompts and answers are never logged. What an upstream said is logged as one cleaned line
//! (`BackendError::detail`), so that it cannot forge a line of its own.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::util::SubscriberInitExt;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// Starts logging for the whole process. A second call changes nothing.
///
/// `level` is a level (`info`) or a filter such as `info,opossum=debug`; one that cannot be read counts as
/// `info`.
pub fn start(level: &str, format: Format) {
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // An error here means that logging is on already, as in tests that start two services.
    let _ = match format {
        Format::Text => {
            builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).finish().try_init()
        }
        Format::Json => builder.json().flatten_event(true).finish().try_init(),
    };
}
