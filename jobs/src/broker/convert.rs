//! Between the library's types and ours.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use opossum_core::jobs::message::{DEADLINE, HeaderValue, REPLY, TENANT};
use opossum_core::jobs::{Attempts, Properties, UnixMillis};

/// Longest short string of AMQP, in bytes.
const SHORT: usize = 255;

/// A short string. What would be too long for one is cut at a character: everything that came over AMQP fits,
/// and what this service makes up is short.
pub(crate) fn short(text: &str) -> ShortString {
    let mut end = text.len().min(SHORT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    ShortString::try_new(&text[..end]).unwrap_or_default()
}

/// A header of text.
pub(crate) fn long(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

/// What a message says about itself.
pub(crate) fn properties(message: &BasicProperties) -> Properties {
    let text = |value: &Option<ShortString>| value.as_ref().map(|text| text.as_str().to_owned());
    let header = |name: &str| message.headers().as_ref().and_then(|headers| value(headers, name));
    Properties {
        message_id: text(message.message_id()),
        correlation_id: text(message.correlation_id()),
        reply_to: text(message.reply_to()),
        user_id: text(message.user_id()),
        content_type: text(message.content_type()),
        content_encoding: text(message.content_encoding()),
        kind: text(message.kind()),
        deadline: header(DEADLINE),
        attempt: header(Attempts::HEADER),
        reply: header(REPLY),
        tenant: header(TENANT),
        traceparent: header("traceparent"),
    }
}

/// A header's value. Clients send integers in whatever width they like.
pub(crate) fn value(headers: &FieldTable, name: &str) -> Option<HeaderValue> {
    Some(match headers.inner().get(name)? {
        AMQPValue::Void => return None,
        AMQPValue::ShortShortInt(n) => HeaderValue::Int((*n).into()),
        AMQPValue::ShortShortUInt(n) => HeaderValue::Int((*n).into()),
        AMQPValue::ShortInt(n) => HeaderValue::Int((*n).into()),
        AMQPValue::ShortUInt(n) => HeaderValue::Int((*n).into()),
        AMQPValue::LongInt(n) => HeaderValue::Int((*n).into()),
        AMQPValue::LongUInt(n) => HeaderValue::Int((*n).into()),
        AMQPValue::LongLongInt(n) => HeaderValue::Int(*n),
        AMQPValue::Float(n) => HeaderValue::Float((*n).into()),
        AMQPValue::Double(n) => HeaderValue::Float(*n),
        AMQPValue::Timestamp(seconds) => HeaderValue::Seconds(*seconds),
        AMQPValue::ShortString(text) => HeaderValue::Text(text.as_str().to_owned()),
        AMQPValue::LongString(text) => match std::str::from_utf8(text.as_bytes()) {
            Ok(text) => HeaderValue::Text(text.to_owned()),
            Err(_) => HeaderValue::Other,
        },
        AMQPValue::Boolean(_)
        | AMQPValue::DecimalValue(_)
        | AMQPValue::FieldArray(_)
        | AMQPValue::FieldTable(_)
        | AMQPValue::ByteArray(_) => HeaderValue::Other,
    })
}

/// A message's headers with these in addition, or in place of their namesakes.
pub(crate) fn with_headers<const N: usize>(
    message: &BasicProperties,
    more: [(&str, AMQPValue); N],
) -> BasicProperties {
    let mut headers = message.headers().clone().unwrap_or_default();
    for (name, value) in more {
        headers.insert(short(name), value);
    }
    message.clone().with_headers(headers)
}

/// When a message was published, where it says so; AMQP has it in seconds.
pub(crate) fn published(properties: &BasicProperties) -> Option<UnixMillis> {
    UnixMillis::try_from((*properties.timestamp())?).ok()?.checked_mul(1000)
}

/// Why the broker took a message out of a queue.
pub(crate) struct Death {
    /// In the broker's word.
    pub reason: String,
    /// The queue; empty where the broker did not say.
    pub queue: String,
}

/// The broker's last reason for giving up a message.
pub(crate) fn death(message: &BasicProperties) -> Death {
    let said = |name: &str| {
        let headers = message.headers().as_ref()?;
        let AMQPValue::FieldArray(deaths) = headers.inner().get("x-death")? else { return None };
        let AMQPValue::FieldTable(last) = deaths.as_slice().first()? else { return None };
        match value(last, name)? {
            HeaderValue::Text(text) => Some(text),
            _ => None,
        }
    };
    let reason = said("reason").unwrap_or_else(|| "rejected".to_owned());
    Death { reason, queue: said("queue").unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(value: AMQPValue) -> Option<HeaderValue> {
        let headers = FieldTable::from(std::collections::BTreeMap::from([("x".into(), value)]));
        super::value(&headers, "x")
    }

    #[test]
    fn an_integer_of_any_width_is_an_integer() {
        for value in [
            AMQPValue::ShortShortInt(7),
            AMQPValue::ShortShortUInt(7),
            AMQPValue::ShortInt(7),
            AMQPValue::ShortUInt(7),
            AMQPValue::LongInt(7),
            AMQPValue::LongUInt(7),
            AMQPValue::LongLongInt(7),
        ] {
            assert_eq!(header(value), Some(HeaderValue::Int(7)));
        }
        assert_eq!(header(AMQPValue::Timestamp(7)), Some(HeaderValue::Seconds(7)));
        assert_eq!(header(AMQPValue::Void), None);
        assert_eq!(header(AMQPValue::Boolean(true)), Some(HeaderValue::Other));
        assert_eq!(header(AMQPValue::LongString(vec![0xff].into())), Some(HeaderValue::Other));
    }

    #[test]
    fn what_is_too_long_for_a_short_string_is_cut_between_characters() {
        let text = "é".repeat(200);
        assert_eq!(short(&text).as_str().len(), 254);
        assert_eq!(short("plain").as_str(), "plain");
    }

    #[test]
    fn a_header_replaces_its_namesake_and_leaves_the_others() {
        let first = with_headers(&BasicProperties::default(), [("a", long("1")), ("b", long("2"))]);
        let second = with_headers(&first, [("a", long("3"))]);
        let headers = second.headers().clone().unwrap_or_default();
        assert_eq!(value(&headers, "a"), Some(HeaderValue::Text("3".into())));
        assert_eq!(value(&headers, "b"), Some(HeaderValue::Text("2".into())));
    }
}
