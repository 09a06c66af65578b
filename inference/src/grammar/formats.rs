//! String formats as patterns.
//!
//! The parser knows most formats. These are narrower than its own, so that every text they produce passes a validator
//! that looks closely: days that exist, labels and addresses that are short enough, times without leap seconds.

use std::borrow::Cow;

/// Hours, minutes, seconds, a fraction, an offset.
const TIME: &str =
    "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])";
/// Years 0001 to 9999.
const YEAR: &str = "([0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)";
/// Those divisible by 4, but not by 100 unless by 400 (Gregorian calendar).
const LEAP_YEAR: &str = "([0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)";
/// Months of 31 and 30 days, and February but for its 29th.
const DAY: &str = "((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)\
                   |02-(0[1-9]|1[0-9]|2[0-8]))";
/// A name of a host: at most five labels, 253 bytes are never reached (RFC 1123).
const HOST: &str = "[a-z0-9]{1,20}(-[a-z0-9]{1,20})?(\\.[a-z0-9]{1,20}(-[a-z0-9]{1,20})?){0,3}";
/// The last label of a public name.
const TOP_LEVEL: &str = "\\.[a-z]{2,12}";
/// A mailbox; its first part has at most 60 bytes (RFC 5321 allows 64).
const MAILBOX: &str = "[A-Za-z0-9_%+-]{1,20}(\\.[A-Za-z0-9_%+-]{1,19}){0,2}";

/// What the parser enforces by itself.
const KNOWN: [&str; 5] = ["duration", "ipv4", "ipv6", "uuid", "uri"];

/// How a format is enforced.
pub(super) enum Format {
    /// By this pattern.
    Pattern(Cow<'static, str>),
    /// By the parser.
    Known,
    /// Not at all.
    Unknown,
}

pub(super) fn format(name: &str) -> Format {
    let date = || format!("({YEAR}-{DAY}|{LEAP_YEAR}-02-29)");
    let pattern = match name {
        "date" => date(),
        "time" => TIME.to_owned(),
        "date-time" => format!("{}T{TIME}", date()),
        "hostname" => HOST.to_owned(),
        "email" => format!("{MAILBOX}@{HOST}{TOP_LEVEL}"),
        known if KNOWN.contains(&known) => return Format::Known,
        _ => return Format::Unknown,
    };
    Format::Pattern(format!("^({pattern})$").into())
}
