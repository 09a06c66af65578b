//! What is sent to the CacheActor.

use std::sync::Arc;

use actix::Message;
use opossum_core::cache::{CacheKey, OwnerId};

use super::turn::{CacheTurn, CachedAnswer};

/// Looks a key up and takes part in its flight.
#[derive(Message)]
#[rtype(result = "CacheTurn")]
pub(super) struct Begin {
    pub(super) key: CacheKey,
    pub(super) owner: OwnerId,
}

/// Looks a key up and takes part in nothing.
#[derive(Message)]
#[rtype(result = "Option<Arc<CachedAnswer>>")]
pub(super) struct Peek {
    pub(super) key: CacheKey,
    pub(super) owner: OwnerId,
}

/// Drops every stored answer.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Flush;

/// A leader is done.
pub(super) struct LeadEnded {
    pub(super) key: CacheKey,
    pub(super) owner: OwnerId,
    pub(super) how: Ended,
}

/// How it is done.
pub(super) enum Ended {
    /// With an answer to share, or knowing that there is none.
    Completed(Option<Arc<CachedAnswer>>),
    /// With an answer made outside any flight, to replace what is stored.
    Replaced(Arc<CachedAnswer>),
    /// It gave up, or left.
    Abandoned,
}
