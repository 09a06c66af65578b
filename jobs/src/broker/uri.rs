//! The broker's address.

use std::fmt;

use lapin::uri::AMQPUri;
use secrecy::{ExposeSecret, SecretString};

/// Seconds between heartbeats, unless the address says otherwise. Two missed ones end a connection.
const HEARTBEAT: u16 = 10;

/// An address that cannot be the broker's. It does not repeat the address, which may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not an amqp:// or amqps:// address")]
pub struct UriError;

/// The broker's address, with its password.
#[derive(Clone)]
pub struct BrokerUri(AMQPUri);

impl BrokerUri {
    /// Reads an `amqp://` or `amqps://` address. One that ends in `/` means the virtual host `/`, as most
    /// clients read it.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(address: &SecretString) -> Result<Self, UriError> {
        let mut uri: AMQPUri = address.expose_secret().parse().map_err(|_| UriError)?;
        if uri.vhost.is_empty() {
            "/".clone_into(&mut uri.vhost);
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT);
        Ok(Self(uri))
    }

    /// The user that the broker vouches for in this service's messages.
    pub fn user(&self) -> &str {
        &self.0.authority.userinfo.username
    }

    pub(crate) fn inner(&self) -> AMQPUri {
        self.0.clone()
    }
}

impl fmt::Debug for BrokerUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} {}", self.0.authority.host, self.0.authority.port, self.0.vhost)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn parse(address: &str) -> Result<BrokerUri, UriError> {
        BrokerUri::parse(&SecretString::from(address))
    }

    #[test]
    fn an_address_without_a_virtual_host_means_the_usual_one() {
        for address in ["amqp://u:p@host:5672", "amqp://u:p@host:5672/", "amqp://u:p@host:5672/%2f"] {
            assert_eq!(parse(address).unwrap().inner().vhost, "/", "{address}");
        }
        assert_eq!(parse("amqp://host/jobs").unwrap().inner().vhost, "jobs");
    }

    #[test]
    fn a_password_is_not_shown() {
        let uri = parse("amqp://u:hunter2@host:5672/v").unwrap();
        assert!(!format!("{uri:?}").contains("hunter2"));
        assert_eq!(uri.user(), "u");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in ["", "redis://host", "host:5672"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
