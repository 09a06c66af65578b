//! The HTTP server, logging and who may ask.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::codec::seconds;
use super::error::{SettingsError, ensure};

/// Where the service runs, which selects the configuration file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// A developer's machine.
    #[default]
    Development,
    /// A rehearsal of production.
    Staging,
    /// The real thing: a signing key and a decision about authentication are required.
    Production,
}

impl Environment {
    /// The name, which is also the name of its configuration file without `.toml`.
    pub fn as_str(self) -> &'static str {
        match self {
            Environment::Development => "development",
            Environment::Staging => "staging",
            Environment::Production => "production",
        }
    }

    /// Reads a name, whatever its case.
    pub fn parse(text: &str) -> Option<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "development" => Some(Environment::Development),
            "staging" => Some(Environment::Staging),
            "production" => Some(Environment::Production),
            _ => None,
        }
    }
}

/// `[log]`: what is logged and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// The least important events that are logged.
    pub level: LogLevel,
    /// The shape of a line.
    pub format: LogFormat,
}

/// How important a logged event is at least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Everything.
    Trace,
    /// What helps to find a fault.
    Debug,
    /// What an operator wants to know.
    #[default]
    Info,
    /// What an operator should look at.
    Warn,
    /// What needs an operator.
    Error,
}

impl LogLevel {
    /// The level's name, as filters spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            LogLevel::Trace => "trace",
            LogLevel::Debug => "debug",
            LogLevel::Info => "info",
            LogLevel::Warn => "warn",
            LogLevel::Error => "error",
        }
    }
}

/// The shape of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// Whether a caller must show a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// Nobody is asked for a key, on any address: an explicit decision.
    Off,
    /// Every caller must show a key of the keys file.
    Keys,
}

/// `[server]`: the HTTP server, its limits and its manner of stopping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerSettings {
    /// The address to listen on. Without keys and without an explicit `auth = "off"` the loader replaces an
    /// address that others can reach by 127.0.0.1.
    pub host: IpAddr,
    /// The TCP port; 0 takes a free one.
    pub port: u16,
    /// Whether callers must show a key. Unset: keys when a keys file is configured, else nobody is asked and
    /// only loopback is served.
    pub auth: Option<Auth>,
    /// The file that holds the hashed keys of callers.
    pub api_keys_file: Option<PathBuf>,
    /// The longest a request may take over queue, retries and stream, when it names no deadline itself.
    #[serde(with = "seconds")]
    pub request_timeout: Duration,
    /// Requests worked on at the same time.
    pub max_in_flight: usize,
    /// Requests that may wait beyond those. Unset: twice `max_in_flight`.
    pub queue: Option<usize>,
    /// The longest a request waits for its turn.
    #[serde(with = "seconds")]
    pub queue_wait: Duration,
    /// Largest request body in bytes, after decompression.
    pub body_limit: usize,
    /// Largest request body in bytes when it may carry images.
    pub body_limit_images: usize,
    /// Largest file that may be uploaded, in bytes.
    pub file_limit: usize,
    /// The longest a request head may take to arrive.
    #[serde(with = "seconds")]
    pub head_timeout: Duration,
    /// The longest a request body may take to arrive.
    #[serde(with = "seconds")]
    pub body_timeout: Duration,
    /// The longest an answer may wait for a caller that does not read.
    #[serde(with = "seconds")]
    pub write_idle: Duration,
    /// The longest an idle connection is kept.
    #[serde(with = "seconds")]
    pub keep_alive: Duration,
    /// On shutdown: time between "not ready" and the end of accepting, for load balancers to notice.
    #[serde(with = "seconds")]
    pub drain_delay: Duration,
    /// On shutdown: time that running requests get to finish.
    #[serde(with = "seconds")]
    pub drain_timeout: Duration,
    /// Event loops. Unset: one a core.
    pub workers: Option<usize>,
    /// Opens routes that break parts of the service on purpose; never in production.
    pub test_hooks: bool,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            host: IpAddr::from([127, 0, 0, 1]),
            port: 8000,
            auth: None,
            api_keys_file: None,
            request_timeout: Duration::from_secs(300),
            max_in_flight: 512,
            queue: None,
            queue_wait: Duration::from_secs(10),
            body_limit: 4 << 20,
            body_limit_images: 20 << 20,
            file_limit: 200 << 20,
            head_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(30),
            write_idle: Duration::from_secs(30),
            keep_alive: Duration::from_secs(15),
            drain_delay: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(25),
            workers: None,
            test_hooks: false,
        }
    }
}

impl ServerSettings {
    /// Requests that may wait for their turn.
    pub fn queue_limit(&self) -> usize {
        self.queue.unwrap_or(self.max_in_flight.saturating_mul(2))
    }

    /// Whether callers must show a key.
    pub fn keys_required(&self) -> bool {
        match self.auth {
            Some(auth) => auth == Auth::Keys,
            None => self.api_keys_file.is_some(),
        }
    }

    /// Whether somebody decided about authentication: on, or explicitly off.
    pub fn auth_decided(&self) -> bool {
        self.auth.is_some() || self.api_keys_file.is_some()
    }

    /// Checks what a type alone cannot.
    ///
    /// # Errors
    /// The first key whose value cannot be used.
    pub fn validate(&self) -> Result<(), SettingsError> {
        let positive = [
            ("server.request_timeout", self.request_timeout),
            ("server.head_timeout", self.head_timeout),
            ("server.body_timeout", self.body_timeout),
            ("server.write_idle", self.write_idle),
        ];
        for (key, span) in positive {
            ensure(!span.is_zero(), key, "must be longer than 0 seconds")?;
        }
        ensure(self.max_in_flight >= 1, "server.max_in_flight", "must be at least 1")?;
        ensure(self.workers != Some(0), "server.workers", "must be at least 1; leave it out for one a core")?;
        ensure(self.body_limit >= 1024, "server.body_limit", "must be at least 1 KiB")?;
        ensure(
            self.body_limit_images >= self.body_limit,
            "server.body_limit_images",
            "must be at least server.body_limit",
        )?;
        ensure(self.file_limit >= 1024, "server.file_limit", "must be at least 1 KiB")?;
        let keys_without_file = self.auth == Some(Auth::Keys) && self.api_keys_file.is_none();
        ensure(!keys_without_file, "server.api_keys_file", "is required by server.auth = \"keys\"")
    }
}
