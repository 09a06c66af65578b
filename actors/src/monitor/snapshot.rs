//! Health as it is shown.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use opossum_backends::UpstreamModel;
use opossum_core::breaker::StateName;
use opossum_core::ids::ServiceName;

/// The health of everything the service leans on.
#[derive(Clone, Debug, Default)]
pub struct HealthSnapshot {
    /// Backends by name.
    pub backends: BTreeMap<ServiceName, BackendHealth>,
    /// Dependencies by name: `ok`, `disabled`, or `error: …`.
    pub dependencies: BTreeMap<String, String>,
    /// Actors in the order they were started.
    pub actors: Vec<ActorHealth>,
}

/// One backend's health.
#[derive(Clone, Debug)]
pub struct BackendHealth {
    /// Whether its last probe was good and its gate lets someone in.
    pub available: bool,
    /// What the last probe said: `ok`, or in one word why not. Never an upstream's own text.
    pub detail: Cow<'static, str>,
    /// Since when the probe says so.
    pub since: Timestamp,
    /// The state of its breakers.
    pub breaker: StateName,
    /// The models it listed last; `None` until it has listed any.
    pub models: Option<Arc<[UpstreamModel]>>,
}

/// One actor's health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActorHealth {
    /// Its name.
    pub name: String,
    /// Whether its mailbox is open.
    pub alive: bool,
    /// Restarts and replacements since the start.
    pub restarts: u64,
}
