//! What is said to all workers at once.

use std::borrow::Cow;

use lapin::BasicProperties;
use opossum_core::jobs::JobKey;
use opossum_core::jobs::message::{ANONYMOUS, HeaderValue, TENANT, is_good_id};
use serde::{Deserialize, Serialize};

use crate::broker::convert;

/// A control message.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Control<'a> {
    /// The message id of a job to be cancelled.
    #[serde(borrow)]
    cancel: Cow<'a, str>,
}

/// The payload that cancels a job.
pub(crate) fn cancellation(id: &str) -> Vec<u8> {
    // A string into memory cannot fail to serialise.
    serde_json::to_vec(&Control { cancel: id.into() }).unwrap_or_default()
}

/// The longest control message, in bytes.
const LONGEST: usize = 1024;

/// What a control message says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cancelled {
    /// The job that is cancelled.
    pub key: JobKey,
    /// Whether the store knows: the service itself tells it before it tells the workers.
    pub stored: bool,
}

/// The job that a control message cancels. A tenant cancels its own jobs only; whom the service itself speaks
/// for is in a header, as in jobs.
pub(super) fn cancelled(properties: &BasicProperties, payload: &[u8], own_user: &str) -> Option<Cancelled> {
    if payload.len() > LONGEST {
        return None;
    }
    let control: Control<'_> = serde_json::from_slice(payload).ok()?;
    let user = properties.user_id().as_ref().map(|user| user.as_str());
    let header = properties.headers().as_ref().and_then(|headers| convert::value(headers, TENANT));
    if !is_good_id(&control.cancel) {
        return None;
    }
    let (tenant, stored) = match (user, header) {
        (Some(user), Some(HeaderValue::Text(tenant))) if user == own_user => (tenant, true),
        (Some(user), _) => (user.to_owned(), false),
        (None, _) => (ANONYMOUS.to_owned(), false),
    };
    Some(Cancelled { key: JobKey::new(tenant, &*control.cancel), stored })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::convert::{long, with_headers};

    fn from(user: &str) -> BasicProperties {
        let properties = BasicProperties::default().with_user_id(user.into());
        with_headers(&properties, [(TENANT, long("acme"))])
    }

    #[test]
    fn a_tenant_cancels_its_own_jobs_only() {
        let payload = cancellation("m1");
        let job = |tenant: &str, id: &str, stored| Some(Cancelled { key: JobKey::new(tenant, id), stored });
        assert_eq!(cancelled(&from("opossum"), &payload, "opossum"), job("acme", "m1", true));
        assert_eq!(cancelled(&from("mallory"), &payload, "opossum"), job("mallory", "m1", false));
        let quoted = cancellation("a\"b");
        assert_eq!(cancelled(&from("mallory"), &quoted, "opossum"), job("mallory", "a\"b", false));
        let nobody = BasicProperties::default();
        assert_eq!(cancelled(&nobody, &payload, "opossum"), job(ANONYMOUS, "m1", false));
    }

    #[test]
    fn what_is_no_control_message_is_ignored() {
        let long = cancellation(&"x".repeat(201));
        let padded = [&cancellation("m1")[..], &[b' '; LONGEST]].concat();
        for bad in [&b""[..], &long, &padded, b"{}", b"{\"cancel\":1}", b"{\"cancel\":\"a\",\"drain\":true}"]
        {
            assert_eq!(cancelled(&from("opossum"), bad, "opossum"), None);
        }
    }
}
