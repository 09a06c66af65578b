//! What a value may look like, and how each accepted spelling becomes the one that the structs know.

use std::net::IpAddr;

use config::{Value, ValueKind};
use serde_json::{Number, Value as Json, json};

use super::alias::AnswerFormat;
use super::backends::{DeviceSetting, Feature};
use super::codec::{parse_bool, parse_bytes, parse_seconds};

/// The kind of a key's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// True or false in any usual spelling.
    Bool,
    /// A TCP port.
    Port,
    /// A whole number from 0 to 2^32 - 1.
    Count,
    /// Any finite number.
    Number,
    /// A time span: seconds, or a number with a unit.
    Seconds,
    /// A size: bytes, or a number with a unit.
    Bytes,
    /// Any text.
    Text,
    /// An IP address, or `localhost`.
    Address,
    /// The importance of a logged event.
    Level,
    /// One of a few words.
    OneOf(&'static [&'static str]),
    /// `auto`, `cpu` or `cuda:N`.
    Device,
    /// A list of texts; in a variable, separated by commas.
    List,
    /// A list of abilities of a backend.
    Features,
    /// The shape of an answer: a name, or a table with `type`.
    Format,
    /// A text that is never shown.
    Secret,
    /// A URL of which user, password and query are never shown.
    SecretUrl,
    /// Anything at all.
    Any,
}

impl Kind {
    /// Whether a wrong value may be quoted in a message.
    pub(super) fn may_be_quoted(self) -> bool {
        !matches!(self, Kind::Secret | Kind::SecretUrl | Kind::Any)
    }

    /// Whether a table or a list under such a key is its value rather than further keys.
    pub(super) fn takes_all(self) -> bool {
        matches!(self, Kind::List | Kind::Features | Kind::Format | Kind::Any)
    }

    /// What is expected, for messages and documentation.
    pub fn expected(self) -> String {
        match self {
            Kind::Bool => "true or false".to_owned(),
            Kind::Port => "a port from 0 to 65535".to_owned(),
            Kind::Count => "a whole number from 0 to 4294967295".to_owned(),
            Kind::Number => "a number".to_owned(),
            Kind::Seconds => "a number of seconds, or a time span such as 250ms, 30s or 5m".to_owned(),
            Kind::Bytes => "a number of bytes, or a size such as 64MiB".to_owned(),
            Kind::Text | Kind::Secret => "a text".to_owned(),
            Kind::SecretUrl => "a URL".to_owned(),
            Kind::Address => "an IP address".to_owned(),
            Kind::Level => "one of trace, debug, info, warn, error".to_owned(),
            Kind::OneOf(words) => format!("one of {}", words.join(", ")),
            Kind::Device => "auto, cpu or cuda:N".to_owned(),
            Kind::List => "a list of texts".to_owned(),
            Kind::Features => format!("a list of {}", Feature::names()),
            Kind::Format => "text or json_object".to_owned(),
            Kind::Any => "a value".to_owned(),
        }
    }

    /// Turns a value as given into the form that the structs read; `None` if it does not fit.
    pub(super) fn read(self, value: &Value) -> Option<Json> {
        match self {
            Kind::Bool => match value.kind {
                ValueKind::Boolean(flag) => Some(json!(flag)),
                ValueKind::I64(_) | ValueKind::String(_) => Some(json!(parse_bool(&text(value)?)?)),
                _ => None,
            },
            Kind::Port => Some(json!(port(&text(value)?)?)),
            Kind::Count => Some(json!(text(value)?.trim().parse::<u32>().ok()?)),
            Kind::Number => number(text(value)?.trim().parse().ok()?),
            Kind::Seconds => number(parse_seconds(&text(value)?)?),
            Kind::Bytes => Some(json!(parse_bytes(&text(value)?)?)),
            Kind::Text | Kind::Secret | Kind::SecretUrl => Some(json!(text(value)?)),
            Kind::Address => Some(json!(address(&text(value)?)?)),
            Kind::Level => Some(json!(level(&text(value)?)?)),
            Kind::OneOf(words) => {
                let word = text(value)?.trim().to_ascii_lowercase();
                words.contains(&word.as_str()).then(|| json!(word))
            }
            Kind::Device => Some(json!(DeviceSetting::parse(&text(value)?)?)),
            Kind::List => Some(json!(list(value)?)),
            Kind::Features => {
                let features: Option<Vec<Feature>> = list(value)?.iter().map(|f| Feature::parse(f)).collect();
                Some(json!(features?))
            }
            Kind::Format => {
                let format: AnswerFormat = serde_json::from_value(any(value)).ok()?;
                Some(json!(format))
            }
            Kind::Any => Some(any(value)),
        }
    }
}

/// A single value as text; `None` for a table, a list or nothing.
pub(super) fn text(value: &Value) -> Option<String> {
    match &value.kind {
        ValueKind::String(text) => Some(text.clone()),
        ValueKind::Boolean(flag) => Some(flag.to_string()),
        ValueKind::I64(n) => Some(n.to_string()),
        ValueKind::U64(n) => Some(n.to_string()),
        ValueKind::I128(n) => Some(n.to_string()),
        ValueKind::U128(n) => Some(n.to_string()),
        ValueKind::Float(n) => Some(n.to_string()),
        ValueKind::Nil | ValueKind::Table(_) | ValueKind::Array(_) => None,
    }
}

/// A list of texts, or one text with commas.
fn list(value: &Value) -> Option<Vec<String>> {
    match &value.kind {
        ValueKind::Array(items) => items.iter().map(text).collect(),
        ValueKind::String(text) => {
            Some(text.split(',').map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned).collect())
        }
        _ => None,
    }
}

/// Any value as JSON.
pub(super) fn any(value: &Value) -> Json {
    match &value.kind {
        ValueKind::Nil => Json::Null,
        ValueKind::Boolean(flag) => json!(flag),
        ValueKind::I64(n) => json!(n),
        ValueKind::U64(n) => json!(n),
        ValueKind::Float(n) => number(*n).unwrap_or(Json::Null),
        ValueKind::I128(n) => json!(n.to_string()),
        ValueKind::U128(n) => json!(n.to_string()),
        ValueKind::String(text) => json!(text),
        ValueKind::Array(items) => items.iter().map(any).collect(),
        ValueKind::Table(table) => table.iter().map(|(key, item)| (key.clone(), any(item))).collect(),
    }
}

fn number(n: f64) -> Option<Json> {
    Number::from_f64(n).map(Json::Number)
}

/// A port. Kubernetes gives a pod `REDIS_PORT=tcp://10.0.0.1:6379` when a service named `redis` is near: the
/// port at its end is what we want, so that spelling is taken too.
fn port(text: &str) -> Option<u16> {
    let text = text.trim();
    match text.strip_prefix("tcp://") {
        Some(rest) => rest.rsplit_once(':')?.1.parse().ok(),
        None => text.parse().ok(),
    }
}

fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("localhost") {
        return Some(IpAddr::from([127, 0, 0, 1]));
    }
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok()
}

/// A level by its own name or by the one that Python's logging gives it.
fn level(text: &str) -> Option<&'static str> {
    Some(match text.trim().to_ascii_lowercase().as_str() {
        "trace" => "trace",
        "debug" => "debug",
        "info" => "info",
        "warn" | "warning" => "warn",
        "error" | "critical" => "error",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: Kind, text: &str) -> Option<Json> {
        kind.read(&Value::new(None, text))
    }

    #[test]
    fn texts_of_the_environment_become_typed_values() {
        assert_eq!(read(Kind::Bool, "True"), Some(json!(true)));
        assert_eq!(read(Kind::Seconds, "5m"), Some(json!(300.0)));
        assert_eq!(read(Kind::Port, "tcp://10.0.0.1:6379"), Some(json!(6379)));
        assert_eq!(read(Kind::Address, "localhost"), Some(json!("127.0.0.1")));
        assert_eq!(read(Kind::Address, "[::]"), Some(json!("::")));
        assert_eq!(read(Kind::Level, "WARNING"), Some(json!("warn")));
        assert_eq!(read(Kind::List, "a, b,"), Some(json!(["a", "b"])));
        assert_eq!(read(Kind::Features, "tools,image_urls"), Some(json!(["tools", "image_urls"])));
        assert_eq!(read(Kind::Format, "json_object"), Some(json!("json_object")));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(read(Kind::Port, "65536"), None);
        assert_eq!(read(Kind::Count, "-1"), None);
        assert_eq!(read(Kind::Count, "4294967296"), None);
        assert_eq!(read(Kind::Number, "inf"), None);
        assert_eq!(read(Kind::Features, "telepathy"), None);
        assert_eq!(read(Kind::OneOf(&["a", "b"]), "c"), None);
        assert_eq!(Kind::Text.read(&Value::new(None, Vec::<Value>::new())), None);
    }
}
