//! What the CacheActor and its handles share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use opossum_core::cache::{CacheConfig, CacheStats, OwnerId};
use parking_lot::Mutex;

use super::messages::LeadEnded;
use crate::outbox::Outbox;
use crate::telemetry::Telemetry;

/// Ended leads on their way at most; more than can be in flight.
const ENDED: usize = 4096;

pub(super) struct Board {
    pub(super) config: CacheConfig,
    pub(super) ended: Arc<Outbox<LeadEnded>>,
    /// A lock held for a copy of some numbers, so that stats need no message.
    pub(super) stats: Mutex<CacheStats>,
    pub(super) telemetry: Arc<dyn Telemetry>,
    next_owner: AtomicU64,
}

impl Board {
    pub(super) fn new(config: CacheConfig, telemetry: Arc<dyn Telemetry>) -> Self {
        Self {
            config,
            ended: Arc::new(Outbox::new(ENDED)),
            stats: Mutex::default(),
            telemetry,
            next_owner: AtomicU64::new(0),
        }
    }

    /// A number that no other request has.
    pub(super) fn owner(&self) -> OwnerId {
        OwnerId(self.next_owner.fetch_add(1, Ordering::Relaxed))
    }
}
