//! The broker: addresses, names, connections that come back, messages in and out.

pub(crate) mod consumer;
pub(crate) mod convert;
mod dial;
mod link;
pub(crate) mod names;
pub(crate) mod publisher;
pub(crate) mod topology;
mod uri;

use std::future::Future;
use std::time::Duration;

pub(crate) use dial::Dialer;
pub use link::LinkState;
pub(crate) use link::{Lost, keep};
pub use publisher::PublishError;
pub use uri::{BrokerUri, UriError};

/// The longest any one exchange with the broker may take. Its library waits without an end: a call made while
/// the broker is frozen or gone would come back only with it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Waits for the broker, but not for ever.
pub(crate) async fn soon<T>(
    what: &'static str,
    call: impl Future<Output = lapin::Result<T>>,
) -> Result<T, Lost> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Lost::of(what, &error)),
        Err(_) => Err(Lost::Gone(format!("{what}: no answer within {} s", PATIENCE.as_secs()))),
    }
}
