//! Where each value came from, and how it is shown.

use std::fmt::Write as _;

use serde::Serialize;

use super::codec::REDACTED;
use super::error::SettingsError;
use super::kind::Kind;
use super::table::{KEYS, SECTIONS, Section};

/// One value that some source gave.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// The key's path, such as `server.port` or `models.gemma.targets[0].service`.
    pub key: String,
    /// Its environment variable, where it has one.
    pub env: Option<String>,
    /// The value as it was given, in TOML; a secret is redacted.
    pub value: String,
    /// The value as it would stand in the variable; a secret is redacted.
    #[serde(skip)]
    pub plain: String,
    /// The file or the variable that gave it, or `default`.
    pub origin: String,
}

/// Where every value came from, and what the operator should know about them.
#[derive(Clone, Debug, Default)]
pub struct Provenance {
    /// Values that a source gave, by path.
    pub(super) entries: Vec<Entry>,
    /// What the operator should know, one sentence each.
    pub notes: Vec<String>,
}

impl Provenance {
    /// The entry of a key, where a source gave one.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// All values: those that a source gave and, for keys without a name in them, the defaults and the unset
    /// (with an empty value).
    pub fn all(&self) -> Vec<Entry> {
        let mut all = Vec::new();
        for section in sections_general_first() {
            let keys = KEYS.iter().filter(|key| key.section().prefix == section.prefix);
            let defaults = keys.filter(|key| !key.is_named() && key.path != "services");
            all.extend(defaults.map(|key| {
                self.get(key.path).cloned().unwrap_or_else(|| Entry {
                    key: key.path.to_owned(),
                    env: key.env.map(str::to_owned),
                    value: key.default.to_owned(),
                    plain: key.default.trim_matches('"').to_owned(),
                    origin: if key.default.is_empty() { "unset" } else { "default" }.to_owned(),
                })
            }));
            let prefix = section.prefix;
            let named = |entry: &&Entry| {
                !prefix.is_empty()
                    && entry.key.starts_with(prefix)
                    && !KEYS.iter().any(|k| k.path == entry.key)
            };
            all.extend(self.entries.iter().filter(named).cloned());
        }
        all
    }

    /// The merged configuration as TOML that could be used again, apart from the secrets: each value as it was
    /// given, with its variable and its origin beside it.
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        let mut table = String::new();
        for entry in self.all() {
            let (parent, field) = entry.key.rsplit_once('.').unwrap_or(("", &entry.key));
            if parent != table {
                parent.clone_into(&mut table);
                let _ = write!(out, "\n{}\n", header(parent));
            }
            let line = match entry.value.as_str() {
                "" => format!("# {field} ="),
                value => format!("{field} = {value}"),
            };
            let env = entry.env.as_ref().map_or_else(String::new, |env| match entry.value.as_str() {
                "" => format!("{env}, "),
                _ => format!("{env}={}, ", entry.plain),
            });
            let _ = writeln!(out, "{line:<44} # {env}{}", entry.origin);
        }
        out
    }

    /// Adds a key's variable and origin to an error about it.
    pub(super) fn explain(&self, mut error: SettingsError) -> SettingsError {
        if let Some(entry) = self.get(&error.key) {
            error.env = error.env.or_else(|| entry.env.clone());
            error.origin = error.origin.or_else(|| Some(entry.origin.clone()));
        } else if let Some(key) = KEYS.iter().find(|key| key.path == error.key) {
            error.env = error.env.or_else(|| key.env.map(str::to_owned));
        }
        error
    }
}

/// General keys stand before the first table header in TOML.
pub(super) fn sections_general_first() -> impl Iterator<Item = &'static Section> {
    SECTIONS.iter().rev().take(1).chain(&SECTIONS[..SECTIONS.len() - 1])
}

/// `[a.b]`, or `[[a.b]]` for a place in a list, with names quoted where TOML needs it.
fn header(path: &str) -> String {
    let (path, in_list) = match path.rsplit_once('[') {
        Some((list, _place)) => (list, true),
        None => (path, false),
    };
    // Only the names in the middle can hold dots: `routing.arms.openai/gpt-4.1` has one name of that kind.
    let parts: Vec<&str> = match path.strip_prefix("routing.arms.") {
        Some(name) => vec!["routing", "arms", name],
        None => alias_parts(path),
    };
    let quoted: Vec<String> = parts.into_iter().map(toml_key).collect();
    let inner = quoted.join(".");
    if in_list { format!("[[{inner}]]") } else { format!("[{inner}]") }
}

/// An alias may hold dots too: `models.gpt-4.1.targets`.
fn alias_parts(path: &str) -> Vec<&str> {
    let Some(rest) = path.strip_prefix("models.") else { return path.split('.').collect() };
    match rest.strip_suffix(".targets") {
        Some(alias) => vec!["models", alias, "targets"],
        None => vec!["models", rest],
    }
}

fn toml_key(name: &str) -> String {
    let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if bare { name.to_owned() } else { toml_text(name) }
}

fn toml_text(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// A value as given, in TOML and plain, with secrets redacted.
pub(super) fn shown(kind: Kind, value: &config::Value) -> (String, String) {
    if kind == Kind::Secret {
        return (toml_text(REDACTED), REDACTED.to_owned());
    }
    let json = super::kind::any(value);
    let text = match json {
        serde_json::Value::String(text) => text,
        other => return (toml_inline(&other), other.to_string()),
    };
    if kind == Kind::SecretUrl {
        let safe = redact_url(&text);
        return (toml_text(&safe), safe);
    }
    let is_number = matches!(kind, Kind::Port | Kind::Count | Kind::Number | Kind::Seconds | Kind::Bytes)
        && text.parse::<toml::Value>().is_ok_and(|v| v.is_integer() || v.is_float());
    let toml = if is_number || matches!(text.as_str(), "true" | "false") && kind == Kind::Bool {
        text.clone()
    } else {
        toml_text(&text)
    };
    (toml, text.replace(['\n', '\r'], " "))
}

/// JSON as an inline TOML value; what TOML cannot say (nothing at all) is left out.
fn toml_inline(json: &serde_json::Value) -> String {
    toml::Value::try_from(json).map_or_else(|_| toml_text(&json.to_string()), |value| value.to_string())
}

/// A URL without its user, its password and its query.
///
/// Everything before the last `@` goes, so that a password with a slash in it does not survive either.
fn redact_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return REDACTED.to_owned() };
    let (user, host) = match rest.rsplit_once('@') {
        Some((_, host)) => (format!("{REDACTED}@"), host),
        None => (String::new(), rest),
    };
    match host.split_once('?') {
        Some((host, _)) => format!("{scheme}://{user}{host}?{REDACTED}"),
        None => format!("{scheme}://{user}{host}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lose_all_that_could_be_secret() {
        for (url, safe) in [
            ("redis://:canary@host:6379/0", "redis://[redacted]@host:6379/0"),
            ("amqp://user:can/ary@host/vhost", "amqp://[redacted]@host/vhost"),
            ("postgres://host/db?password=canary", "postgres://host/db?[redacted]"),
            ("sqlite:///var/lib/ledger.db", "sqlite:///var/lib/ledger.db"),
            ("canary", "[redacted]"),
        ] {
            assert_eq!(redact_url(url), safe);
        }
    }

    #[test]
    fn headers_quote_names_that_toml_would_split() {
        assert_eq!(header("server"), "[server]");
        assert_eq!(header("routing.arms.openai/gpt-4.1"), "[routing.arms.\"openai/gpt-4.1\"]");
        assert_eq!(header("models.gpt-4.1.targets[0]"), "[[models.\"gpt-4.1\".targets]]");
    }
}
