//! Usage: one row a request.

mod sql;
mod writer;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use opossum_core::answer::Usage;
use opossum_core::ids::{ArmId, ModelName, ServiceName};

pub(crate) use sql::{prune, recent};
pub(crate) use writer::Recorder;

/// One request, once it is over.
#[derive(Clone, Debug, PartialEq)]
pub struct UsageRecord {
    /// When it was over, in Unix milliseconds.
    pub at_ms: i64,
    /// Its identity in logs and headers; a caller may choose it, so it need not be unique.
    pub request_id: Arc<str>,
    /// Whose it was.
    pub tenant: Arc<str>,
    /// The path it asked.
    pub endpoint: Cow<'static, str>,
    /// The model it asked for, by the name it used.
    pub asked_model: Arc<str>,
    /// Who answered; `None` when nobody did.
    pub arm: Option<ArmId>,
    /// Calls to backends made for it.
    pub attempts: u32,
    /// What the cache did: `miss`, `hit`, `bypass`.
    pub cache: Cow<'static, str>,
    /// Tokens used, where the backend says. Of an answer that was cut off at least so many were.
    pub tokens: Option<Usage>,
    /// What it cost in billionths of a US dollar, where a price is known.
    pub cost_nano_usd: Option<i64>,
    /// From its arrival to the end of the answer.
    pub latency: Duration,
    /// From its arrival to the first content of a stream.
    pub first_token: Option<Duration>,
    /// `ok`, or the code of its error.
    pub outcome: Cow<'static, str>,
}

/// The longest text kept of a name that a caller may choose, in characters.
const LONGEST_TEXT: usize = 256;

/// A text as both databases store it: PostgreSQL knows no NUL.
fn storable(text: &str) -> String {
    if text.len() <= LONGEST_TEXT && !text.as_bytes().contains(&0) {
        return text.to_owned();
    }
    text.chars().take(LONGEST_TEXT).map(|c| if c == '\0' { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

fn arm(service: Option<String>, model: Option<String>) -> Option<ArmId> {
    Some(ArmId::new(ServiceName::new(service?), ModelName::new(model?)))
}
