//! What a door needs to know.

use std::time::Duration;

use crate::BrokerUri;

/// What a [`Door`](crate::Door) needs to know.
#[derive(Clone, Debug)]
pub struct DoorConfig {
    /// The broker.
    pub broker: BrokerUri,
    /// Jobs run at once, at least 1. As many of each queue are fetched ahead.
    pub slots: u16,
    /// This worker's name, unlike any other's, also of one that ran here before.
    pub worker: String,
    /// How long a claim holds unless it is renewed, which happens three times in it. A job whose worker died
    /// waits so long.
    pub lease: Duration,
    /// Certificates, in DER, of authorities that are trusted besides those of the machine.
    pub roots: Vec<Vec<u8>>,
}

impl DoorConfig {
    /// A door with the usual slots and lease, and a random name.
    pub fn new(broker: BrokerUri) -> Self {
        let worker = format!("worker-{:016x}", rand::random::<u64>());
        Self { broker, slots: 64, worker, lease: Duration::from_secs(15), roots: Vec::new() }
    }
}
