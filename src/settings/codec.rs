//! How values are written in settings: seconds, bytes and secrets.
//!
//! The loader turns every accepted spelling (`30s`, `4 MiB`) into a plain number before a struct sees it, so
//! the serde helpers here deal in numbers only.

use std::time::Duration;

/// What stands in the place of a secret wherever settings are shown.
pub const REDACTED: &str = "[redacted]";

/// Reads a time span: a number of seconds (`30`, `0.5`) or a number with a unit (`250ms`, `30s`, `5m`, `2h`,
/// `1d`). `None` for anything else, below zero or beyond ten years.
///
/// ```
/// use opossum::settings::codec::parse_seconds;
/// assert_eq!(parse_seconds("5m"), Some(300.0));
/// assert_eq!(parse_seconds("0.5"), Some(0.5));
/// assert_eq!(parse_seconds("soon"), None);
/// ```
pub fn parse_seconds(text: &str) -> Option<f64> {
    const TEN_YEARS: f64 = 10.0 * 366.0 * 86_400.0;
    let (number, unit) = split_unit(text)?;
    let factor = match unit {
        "" | "s" | "sec" | "secs" => 1.0,
        "ms" => 0.001,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return None,
    };
    let seconds = number * factor;
    (0.0..=TEN_YEARS).contains(&seconds).then_some(seconds)
}

/// Reads a size: a number of bytes (`1048576`) or a number with a unit (`64MiB`, `4 MB`, `1GiB`). `None` for
/// anything else, below zero or beyond 2^53.
///
/// ```
/// use opossum::settings::codec::parse_bytes;
/// assert_eq!(parse_bytes("4 MiB"), Some(4_194_304));
/// assert_eq!(parse_bytes("4MB"), Some(4_000_000));
/// assert_eq!(parse_bytes("-1"), None);
/// ```
pub fn parse_bytes(text: &str) -> Option<u64> {
    const EXACT_IN_F64: f64 = 9_007_199_254_740_992.0;
    let (number, unit) = split_unit(text)?;
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kib" => 1024.0,
        "mib" => 1_048_576.0,
        "gib" => 1_073_741_824.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        _ => return None,
    };
    let bytes = (number * factor).round();
    // In range and whole after rounding, so the cast is exact.
    (0.0..=EXACT_IN_F64).contains(&bytes).then_some(bytes as u64)
}

/// Splits `12.5 ms` into its number and its unit.
fn split_unit(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let number: f64 = text[..end].trim().parse().ok()?;
    number.is_finite().then(|| (number, text[end..].trim()))
}

/// Reads a truth value in any of the usual spellings, whatever their case.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// Serde helper: a [`Duration`] as a number of seconds.
pub(super) mod seconds {
    use super::Duration;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(in crate::settings) fn serialize<S: Serializer>(value: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_f64(value.as_secs_f64())
    }

    pub(in crate::settings) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(d)?).map_err(de::Error::custom)
    }
}

/// Serde helper: an optional [`Duration`] as a number of seconds.
pub(super) mod seconds_opt {
    use super::Duration;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(in crate::settings) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => s.serialize_some(&value.as_secs_f64()),
            None => s.serialize_none(),
        }
    }

    pub(in crate::settings) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Option<Duration>, D::Error> {
        let Some(seconds) = Option::<f64>::deserialize(d)? else { return Ok(None) };
        Duration::try_from_secs_f64(seconds).map(Some).map_err(de::Error::custom)
    }
}

/// Serde helper: an optional secret, written as [`REDACTED`].
pub(super) mod secret_opt {
    use super::REDACTED;
    use secrecy::SecretString;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::settings) fn serialize<S: Serializer>(
        value: &Option<SecretString>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(_) => s.serialize_some(REDACTED),
            None => s.serialize_none(),
        }
    }

    pub(in crate::settings) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Option<SecretString>, D::Error> {
        Ok(Option::<String>::deserialize(d)?.map(SecretString::from))
    }
}

/// Serde helper: a secret that must be there, written as [`REDACTED`].
pub(super) mod secret {
    use super::REDACTED;
    use secrecy::SecretString;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::settings) fn serialize<S: Serializer>(
        _value: &SecretString,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        s.serialize_str(REDACTED)
    }

    pub(in crate::settings) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<SecretString, D::Error> {
        Ok(SecretString::from(String::deserialize(d)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_spans_are_read_in_every_accepted_spelling() {
        for (text, seconds) in
            [("30", 30.0), ("30s", 30.0), ("1.5", 1.5), (" 250 ms ", 0.25), ("5m", 300.0), ("1h", 3600.0)]
        {
            assert_eq!(parse_seconds(text), Some(seconds), "{text}");
        }
        for text in ["", "s", "-1", "1e999", "NaN", "inf", "5 fortnights", "1e30"] {
            assert_eq!(parse_seconds(text), None, "{text}");
        }
    }

    #[test]
    fn truth_is_read_in_every_accepted_spelling() {
        for text in ["true", "True", "1", "yes", "ON"] {
            assert_eq!(parse_bool(text), Some(true), "{text}");
        }
        for text in ["false", "False", "0", "no", "off"] {
            assert_eq!(parse_bool(text), Some(false), "{text}");
        }
        assert_eq!(parse_bool("maybe"), None);
    }
}
