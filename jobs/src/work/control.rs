//! What is said to all workers at once.

use std::borrow::Cow;

use lapin::BasicProperties;
use opossum_core::jobs::JobKey;
use opossum_core::jobs::message::{ANONYMOUS, HeaderValue, TENANT};
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

/// The job that a control message cancels. A tenant cancels its own jobs only; whom the service itself speaks
/// for is in a header, as in jobs.
pub(super) fn cancelled(properties: &BasicProperties, payload: &[u8], own_user: &str) -> Option<JobKey> {
    let control: Control<'_> = serde_json::from_slice(payload).ok()?;
    let user = properties.user_id().as_ref().map(|user| user.as_str());
    let header = properties.headers().as_ref().and_then(|headers| convert::value(headers, TENANT));
    let tenant = match (user, header) {
        (Some(user), Some(HeaderValue::Text(tenant))) if user == own_user => tenant,
        (Some(user), _) => user.to_owned(),
        (None, _) => ANONYMOUS.to_owned(),
    };
    Some(JobKey::new(tenant, &*control.cancel))
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
        assert_eq!(cancelled(&from("opossum"), &payload, "opossum"), Some(JobKey::new("acme", "m1")));
        assert_eq!(cancelled(&from("mallory"), &payload, "opossum"), Some(JobKey::new("mallory", "m1")));
        let quoted = cancellation("a\"b");
        assert_eq!(cancelled(&from("mallory"), &quoted, "opossum"), Some(JobKey::new("mallory", "a\"b")));
        let nobody = BasicProperties::default();
        assert_eq!(cancelled(&nobody, &payload, "opossum"), Some(JobKey::new(ANONYMOUS, "m1")));
    }

    #[test]
    fn what_is_no_control_message_is_ignored() {
        for bad in [&b""[..], b"{}", b"{\"cancel\":1}", b"{\"cancel\":\"a\",\"drain\":true}"] {
            assert_eq!(cancelled(&from("opossum"), bad, "opossum"), None);
        }
    }
}
