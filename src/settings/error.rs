//! What is wrong with the configuration, with the key named.

use std::fmt;

/// A configuration that cannot be used.
///
/// It names the key, the environment variable where there is one, and where the value came from. It never
/// quotes a secret: values are quoted only for keys that hold none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsError {
    /// The key's path, such as `server.port`; empty when a whole file is meant.
    pub key: String,
    /// The environment variable of that key.
    pub env: Option<String>,
    /// The file or variable that gave the value.
    pub origin: Option<String>,
    /// What is wrong, in one line.
    pub problem: String,
}

impl SettingsError {
    /// An error about a key; where it came from is filled in by the loader.
    pub fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { key: key.into(), env: None, origin: None, problem: problem.into() }
    }

    /// The same with where the value came from.
    #[must_use]
    pub fn from(mut self, origin: impl Into<String>) -> Self {
        self.origin = Some(origin.into());
        self
    }
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.key.is_empty(), &self.env) {
            (true, _) => {}
            (false, None) => write!(f, "{}: ", self.key)?,
            (false, Some(env)) => write!(f, "{} ({env}): ", self.key)?,
        }
        f.write_str(&self.problem)?;
        match &self.origin {
            Some(origin) => write!(f, " [from {origin}]"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for SettingsError {}

/// Fails with the key named unless the condition holds.
pub(super) fn ensure(good: bool, key: &str, problem: &str) -> Result<(), SettingsError> {
    if good { Ok(()) } else { Err(SettingsError::new(key, problem)) }
}
