//! Servers beside the service: Redis, the broker, the database, the telemetry collector. All are optional.

use std::path::Path;

use opossum_ledger::{Address, AddressError};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::codec::secret_opt;
use super::error::{SettingsError, ensure};

/// `[redis]`: shared state. Configured once a host, a URL or sentinels are given.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisSettings {
    /// Host name or address.
    pub host: Option<String>,
    /// TCP port.
    pub port: u16,
    /// Password.
    #[serde(with = "secret_opt")]
    pub password: Option<SecretString>,
    /// `redis://` or `rediss://`, in place of host, port and password.
    #[serde(with = "secret_opt")]
    pub url: Option<SecretString>,
    /// Sentinels as `host:port`.
    pub sentinels: Vec<String>,
    /// The name of the group that the sentinels watch.
    pub sentinel_master: String,
}

impl Default for RedisSettings {
    fn default() -> Self {
        Self {
            host: None,
            port: 6379,
            password: None,
            url: None,
            sentinels: Vec::new(),
            sentinel_master: "mymaster".to_owned(),
        }
    }
}

impl RedisSettings {
    /// Whether a Redis is configured.
    pub fn configured(&self) -> bool {
        self.host.is_some() || self.url.is_some() || !self.sentinels.is_empty()
    }

    pub(super) fn validate(&self) -> Result<(), SettingsError> {
        check_scheme("redis.url", self.url.as_ref(), &["redis", "rediss"])?;
        ensure(self.port != 0, "redis.port", "must be from 1 to 65535")?;
        let good = self.sentinels.iter().all(|s| {
            s.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        });
        ensure(good, "redis.sentinels", "must be a list of host:port")?;
        ensure(!self.sentinel_master.is_empty(), "redis.sentinel_master", "must not be empty")
    }
}

/// `[amqp]`: the job queue. Unset: no queue.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AmqpSettings {
    /// `amqp://` or `amqps://`.
    #[serde(with = "secret_opt")]
    pub url: Option<SecretString>,
}

impl AmqpSettings {
    pub(super) fn validate(&self) -> Result<(), SettingsError> {
        check_scheme("amqp.url", self.url.as_ref(), &["amqp", "amqps"])
    }
}

/// `[database]`: the usage and job ledger. Unset: an embedded database in the state folder.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatabaseSettings {
    /// `postgres://` or `sqlite://`.
    #[serde(with = "secret_opt")]
    pub url: Option<SecretString>,
}

impl DatabaseSettings {
    /// Where the ledger is.
    ///
    /// # Errors
    /// An address that no ledger can be at.
    pub fn address(&self, state_dir: &Path) -> Result<Address, AddressError> {
        let url = self.url.as_ref().map(ExposeSecret::expose_secret);
        url.map_or_else(|| Ok(Address::in_folder(state_dir)), Address::parse)
    }

    pub(super) fn validate(&self) -> Result<(), SettingsError> {
        let parsed = self.address(Path::new(""));
        parsed.map(|_| ()).map_err(|error| SettingsError::new("database.url", error.to_string()))
    }
}

/// `[telemetry]`: traces by OpenTelemetry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetrySettings {
    /// Whether traces are sent.
    pub enabled: bool,
    /// The name under which they are sent.
    pub service_name: String,
    /// The collector: a bare origin for gRPC, a full `/v1/traces` URL for HTTP.
    pub endpoint: Option<String>,
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        Self { enabled: false, service_name: "opossum-search".to_owned(), endpoint: None }
    }
}

impl TelemetrySettings {
    pub(super) fn validate(&self) -> Result<(), SettingsError> {
        ensure(!self.service_name.is_empty(), "telemetry.service_name", "must not be empty")?;
        self.endpoint.as_deref().map_or(Ok(()), |url| super::backends::check_url("telemetry.endpoint", url))
    }
}

/// Checks the scheme of an address that may hold a password; the address itself is never quoted.
fn check_scheme(key: &str, url: Option<&SecretString>, schemes: &[&str]) -> Result<(), SettingsError> {
    let Some(url) = url else { return Ok(()) };
    let scheme = url.expose_secret().split_once("://").map(|(scheme, _)| scheme);
    let good = scheme.is_some_and(|scheme| schemes.contains(&scheme));
    let problem = format!(
        "must begin with {}",
        schemes.iter().map(|s| format!("{s}://")).collect::<Vec<_>>().join(" or ")
    );
    ensure(good, key, &problem)
}
