//! The second door: opened once the path stands, where a broker is configured.

use std::sync::{Arc, OnceLock};

use opossum_actors::DependencyPlan;
use opossum_jobs::{BrokerUri, Door, DoorConfig, JobEvents, JobStore};
use opossum_ledger::Ledger;

use super::WiringError;
use crate::jobs::{LedgerStore, ServiceRunner};
use crate::service::Service;
use crate::settings::Settings;
use crate::telemetry::Metrics;

/// The queue's name in health.
const NAME: &str = "amqp";

/// Most jobs at once. Up to so many of each lane are held here, those under way among them, and wait for another
/// worker when this one dies.
const MOST_SLOTS: u16 = 64;

/// Where the door will be: health asks for it before the path stands that it leads to.
pub(super) type Doorway = Arc<OnceLock<Door>>;

/// What health says of the queue: what its connections last saw.
pub(super) fn plan(settings: &Settings, doorway: &Doorway) -> DependencyPlan {
    let doorway = Arc::clone(doorway);
    let ask = move || {
        let health = doorway.get().map(Door::health);
        let fault = health.as_ref().map_or(Some("connecting"), |health| health.fault());
        let answer = fault.map_or(Ok(()), |why| Err(why.to_owned()));
        Box::pin(std::future::ready(answer)) as futures::future::BoxFuture<'static, _>
    };
    let configured = settings.amqp.url.is_some();
    DependencyPlan { name: NAME.to_owned(), probe: configured.then(|| Arc::new(ask) as _) }
}

/// Opens the door; `None` where no broker is configured.
pub(super) fn open(
    settings: &Settings,
    service: &Service,
    metrics: &Metrics,
    ledger: &Ledger,
    doorway: &Doorway,
) -> Result<Option<Door>, WiringError> {
    let Some(url) = &settings.amqp.url else { return Ok(None) };
    let mut config = DoorConfig::new(BrokerUri::parse(url)?);
    config.slots = u16::try_from(settings.server.max_in_flight).unwrap_or(u16::MAX).min(MOST_SLOTS);
    let store = Arc::new(LedgerStore::new(ledger.clone())) as Arc<dyn JobStore>;
    let events = Arc::clone(&metrics.jobs) as Arc<dyn JobEvents>;
    let service = service.clone();
    let door =
        Door::open(config, store, events, move || ServiceRunner::new(service)).map_err(WiringError::Door)?;
    Ok(Some(doorway.get_or_init(|| door).clone()))
}
