//! From a message's properties and payload to a job, or why not.
//!
//! The payload is `{"endpoint": "/v1/chat/completions", "body": {…}}`, plain or as the `data` of a structured
//! CloudEvent. The body stays the text it came as: it goes on as it is, to the same decoder as over HTTP.
//! Anyone who may publish reaches this code, so every property is checked and nothing is assumed of it; an
//! absent `type` or `content_type` means the usual one.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::attempts::Attempts;
use super::deadline::Deadline;
use super::reply_to;
use super::words::{BodyHash, Endpoint, JobKey};
use super::{UnixMillis, words};

/// The `type` of a job's message; the number rises with a change that older workers could not read.
pub const KIND: &str = "opossum.job.v1";

/// Most bytes of a message.
pub const MAX_BYTES: usize = 1 << 20;

/// Longest message id, in bytes: a reply's is a little longer, and a short string of AMQP ends at 255.
pub const MAX_ID: usize = 200;

/// The tenant of messages without a user.
pub const ANONYMOUS: &str = "anonymous";

/// The header of a job's deadline, in milliseconds since the Unix epoch.
pub const DEADLINE: &str = "x-opossum-deadline";

/// The header of a job whose reply is kept to be fetched, and sent to nobody: `store`.
pub const REPLY: &str = "x-opossum-reply";

/// The header that names whose job it is, where the service itself published it.
pub const TENANT: &str = "x-opossum-tenant";

/// The value of a header, as far as anything here reads it.
#[derive(Clone, Debug, PartialEq)]
pub enum HeaderValue {
    /// An integer of any width.
    Int(i64),
    /// A number in floating point.
    Float(f64),
    /// A timestamp, in seconds since the Unix epoch.
    Seconds(u64),
    /// Text.
    Text(String),
    /// Anything else.
    Other,
}

impl HeaderValue {
    /// A time in milliseconds since the Unix epoch.
    pub fn as_millis(&self) -> Option<UnixMillis> {
        /// Up to here every whole number has its own floating point value.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        match self {
            HeaderValue::Int(millis) => Some(*millis),
            HeaderValue::Float(millis) if millis.fract() == 0.0 && millis.abs() <= EXACT => {
                Some(*millis as UnixMillis)
            }
            HeaderValue::Seconds(seconds) => UnixMillis::try_from(seconds.checked_mul(1000)?).ok(),
            HeaderValue::Text(digits) => digits.parse().ok(),
            HeaderValue::Float(_) | HeaderValue::Other => None,
        }
    }
}

/// What a message says about itself, in no broker library's types.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Properties {
    /// The job's identity.
    pub message_id: Option<String>,
    /// What the requester knows its question by; goes back as it came.
    pub correlation_id: Option<String>,
    /// The queue that waits for the reply.
    pub reply_to: Option<String>,
    /// The user, checked by the broker against the connection.
    pub user_id: Option<String>,
    /// The media type of the payload.
    pub content_type: Option<String>,
    /// How the payload is packed.
    pub content_encoding: Option<String>,
    /// What kind of message it is.
    pub kind: Option<String>,
    /// The header [`DEADLINE`].
    pub deadline: Option<HeaderValue>,
    /// The header [`Attempts::HEADER`].
    pub attempt: Option<HeaderValue>,
    /// The header [`REPLY`].
    pub reply: Option<HeaderValue>,
    /// The header [`TENANT`].
    pub tenant: Option<HeaderValue>,
    /// W3C trace context.
    pub traceparent: Option<HeaderValue>,
}

/// A job, ready to be claimed and run.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Whose job, and which.
    pub key: JobKey,
    /// What is asked.
    pub endpoint: Endpoint,
    /// The request's JSON, as it came.
    pub body: Arc<str>,
    /// The body's hash.
    pub hash: BodyHash,
    /// Where the reply goes; `None` when it is only kept.
    pub reply_to: Option<String>,
    /// Goes back with the reply; empty when there was none.
    pub correlation_id: String,
    /// Until when it may run.
    pub deadline: Deadline,
    /// Attempts that failed before.
    pub attempts: Attempts,
    /// W3C trace context.
    pub traceparent: Option<String>,
}

/// What is wrong with a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody would hear the answer, so nothing is computed.
    #[error("the message has no reply_to")]
    MissingReplyTo,
    /// The reply may not go where it should.
    #[error("reply_to must be a queue of the message's own user")]
    ReplyToForbidden,
    /// Too many bytes.
    #[error("the message is larger than {MAX_BYTES} bytes")]
    TooLarge,
    /// Neither JSON nor a CloudEvent in JSON, or packed.
    #[error("the message must be sent as application/json, unpacked")]
    UnsupportedMediaType,
    /// A property or header of the wrong type or value.
    #[error("{name} {rule}")]
    BadProperty {
        /// Which one.
        name: &'static str,
        /// What it must be.
        rule: &'static str,
    },
    /// The payload is not the JSON it should be.
    #[error("the message is not a job in JSON: {detail}")]
    InvalidJson {
        /// Where and why.
        detail: String,
    },
    /// The endpoint is none that takes jobs.
    #[error("endpoint must be one of /v1/chat/completions, /v1/completions and /v1/embeddings")]
    UnknownEndpoint,
}

impl Refusal {
    /// The HTTP status of the answer.
    pub fn status(&self) -> u16 {
        match self {
            Refusal::TooLarge => 413,
            Refusal::UnsupportedMediaType => 415,
            Refusal::MissingReplyTo
            | Refusal::ReplyToForbidden
            | Refusal::BadProperty { .. }
            | Refusal::InvalidJson { .. }
            | Refusal::UnknownEndpoint => 400,
        }
    }

    /// The name under which a message that nobody can be answered is put among the dead.
    pub fn dead_letter(&self) -> &'static str {
        match self {
            Refusal::MissingReplyTo => "missing_reply_to",
            Refusal::ReplyToForbidden => "reply_to_forbidden",
            Refusal::TooLarge
            | Refusal::UnsupportedMediaType
            | Refusal::BadProperty { .. }
            | Refusal::InvalidJson { .. }
            | Refusal::UnknownEndpoint => "invalid_message",
        }
    }
}

/// A message that is no job: what is wrong, and who is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// What is wrong.
    pub refusal: Refusal,
    /// Who is told; `None` puts the message among the dead instead.
    pub reply_to: Option<String>,
    /// The message's identity, for the reply's.
    pub message_id: Option<String>,
    /// Goes back with the reply.
    pub correlation_id: String,
}

/// Whom this service's own messages come from.
#[derive(Clone, Copy, Debug)]
pub struct Own<'a> {
    /// The user of the service's connection.
    pub user: &'a str,
    /// An identity for a message that has none.
    pub fresh_id: &'a str,
}

impl Job {
    /// Reads a message.
    ///
    /// # Errors
    /// The first thing that is wrong, and whether its sender can be told.
    pub fn read(properties: Properties, payload: &[u8], own: Own<'_>) -> Result<Self, Rejection> {
        let tenant = tenant(&properties, own);
        let kept = properties.reply == Some(HeaderValue::Text("store".to_owned()));
        let reply_to = properties.reply_to.as_deref().filter(|queue| !queue.is_empty());
        let allowed = reply_to.is_none_or(|queue| reply_to::is_allowed(queue, &tenant));
        let refused = |refusal, to: Option<&str>| Rejection {
            refusal,
            reply_to: to.map(str::to_owned),
            message_id: properties.message_id.clone().filter(|id| is_good_id(id)),
            correlation_id: properties.correlation_id.clone().unwrap_or_default(),
        };
        if !allowed {
            return Err(refused(Refusal::ReplyToForbidden, None));
        }
        let read = read(&properties, payload).map_err(|refusal| refused(refusal, reply_to))?;
        if reply_to.is_none() && !kept {
            return Err(refused(Refusal::MissingReplyTo, None));
        }
        let id = properties.message_id.as_deref().or(read.event_id.as_deref()).unwrap_or(own.fresh_id);
        Ok(Self {
            key: JobKey::new(&*tenant, id),
            endpoint: read.endpoint,
            hash: BodyHash::of(read.endpoint, &read.body),
            body: read.body,
            reply_to: reply_to.map(str::to_owned),
            correlation_id: properties.correlation_id.clone().unwrap_or_default(),
            deadline: read.deadline,
            attempts: read.attempts,
            traceparent: match properties.traceparent {
                Some(HeaderValue::Text(text)) => Some(text),
                _ => None,
            },
        })
    }
}

/// The broker vouches for the user. Whoever the service itself publishes for is named in a header, which
/// counts only in messages of the service's own user.
fn tenant(properties: &Properties, own: Own<'_>) -> String {
    match (&properties.user_id, &properties.tenant) {
        (Some(user), Some(HeaderValue::Text(tenant))) if user == own.user && !tenant.is_empty() => {
            tenant.clone()
        }
        (Some(user), _) if !user.is_empty() => user.clone(),
        _ => ANONYMOUS.to_owned(),
    }
}

struct Read {
    endpoint: Endpoint,
    body: Arc<str>,
    event_id: Option<String>,
    deadline: Deadline,
    attempts: Attempts,
}

fn read(properties: &Properties, payload: &[u8]) -> Result<Read, Refusal> {
    if payload.len() > MAX_BYTES {
        return Err(Refusal::TooLarge);
    }
    let is_event = media(properties)?;
    check_properties(properties)?;
    let rule = "must be an integer: milliseconds since the Unix epoch";
    let deadline = Deadline::from_header(properties.deadline.as_ref())
        .ok_or(Refusal::BadProperty { name: DEADLINE, rule })?;
    let attempts = match &properties.attempt {
        None => Attempts::default(),
        Some(HeaderValue::Int(failed)) => Attempts::from_header(*failed),
        Some(_) => return Err(Refusal::BadProperty { name: Attempts::HEADER, rule: "must be an integer" }),
    };
    let (envelope, event_id) = if is_event { event(payload)? } else { (parse::<Envelope>(payload)?, None) };
    let endpoint = words::Endpoint::of(&envelope.endpoint).ok_or(Refusal::UnknownEndpoint)?;
    Ok(Read { endpoint, body: Arc::from(envelope.body.get()), event_id, deadline, attempts })
}

/// Whether the payload is a CloudEvent.
fn media(properties: &Properties) -> Result<bool, Refusal> {
    let packed = properties.content_encoding.as_deref().unwrap_or("");
    // Some clients name the character encoding here.
    if !["", "identity", "utf-8", "utf8"].iter().any(|plain| packed.eq_ignore_ascii_case(plain)) {
        return Err(Refusal::UnsupportedMediaType);
    }
    let given = properties.content_type.as_deref().unwrap_or("application/json");
    match given.split(';').next().unwrap_or("").trim() {
        json if json.eq_ignore_ascii_case("application/json") => Ok(false),
        event if event.eq_ignore_ascii_case("application/cloudevents+json") => Ok(true),
        _ => Err(Refusal::UnsupportedMediaType),
    }
}

fn check_properties(properties: &Properties) -> Result<(), Refusal> {
    if properties.kind.as_deref().is_some_and(|kind| kind != KIND) {
        return Err(Refusal::BadProperty { name: "type", rule: "must be opossum.job.v1" });
    }
    if properties.message_id.as_deref().is_some_and(|id| !is_good_id(id)) {
        let rule = "must be 1 to 200 bytes without control characters";
        return Err(Refusal::BadProperty { name: "message_id", rule });
    }
    Ok(())
}

/// Whether a message id can be a job's identity, which also stands in addresses and in replies.
pub fn is_good_id(id: &str) -> bool {
    (1..=MAX_ID).contains(&id.len()) && !id.chars().any(char::is_control)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    endpoint: String,
    body: Box<RawValue>,
}

/// A CloudEvent 1.0 in its structured form; attributes that are not named here are for others.
#[derive(Deserialize)]
struct Event {
    specversion: String,
    id: String,
    r#type: String,
    data: Envelope,
}

fn event(payload: &[u8]) -> Result<(Envelope, Option<String>), Refusal> {
    let event: Event = parse(payload)?;
    let wrong = |name, rule| Err(Refusal::BadProperty { name, rule });
    if event.specversion != "1.0" {
        return wrong("specversion", "must be 1.0");
    }
    if event.r#type != KIND {
        return wrong("type", "must be opossum.job.v1");
    }
    if !is_good_id(&event.id) {
        return wrong("id", "must be 1 to 200 bytes without control characters");
    }
    Ok((event.data, Some(event.id)))
}

fn parse<'de, T: Deserialize<'de>>(payload: &'de [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(payload).map_err(|error| Refusal::InvalidJson { detail: error.to_string() })
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
