//! What a door knows of a request besides its content, and what it is told about the answer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use opossum_core::admission::Lane;
use opossum_core::ids::ServiceName;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::catalogue::Arm;

/// What a door knows of a request besides its content.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// Identity of the request in logs, headers and errors.
    pub request_id: Arc<str>,
    /// The route it came by, as the ledger names it.
    pub endpoint: &'static str,
    /// Whose request it is; caches never cross it.
    pub tenant: Arc<str>,
    /// When it came in.
    pub received: Instant,
    /// When everything about it must be over: queue, attempts and stream.
    pub deadline: Instant,
    /// Whose turn it is when places are scarce.
    pub lane: Lane,
    /// Whether its door brings it again when it finds no place: that is not the end of the request then.
    pub comes_again: bool,
    /// What the caller wants of the cache.
    pub cache: CacheMode,
    /// The services that may answer; empty means all.
    pub only: SmallVec<[ServiceName; 4]>,
    /// W3C trace context that came with the request.
    pub traceparent: Option<Box<str>>,
}

/// What the caller wants of the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheMode {
    /// Look up and store what is repeatable.
    #[default]
    Auto,
    /// Neither look up nor store.
    Bypass,
    /// Do not look up, but store.
    Refresh,
}

/// What the cache did for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheStatus {
    /// The answer was made for this request.
    Miss,
    /// The answer was there, or was being made for an identical request.
    Hit,
    /// The caller told us not to use it.
    Bypass,
}

impl CacheStatus {
    /// The status in the answer's header.
    pub fn as_str(self) -> &'static str {
        match self {
            CacheStatus::Miss => "miss",
            CacheStatus::Hit => "hit",
            CacheStatus::Bypass => "bypass",
        }
    }
}

/// Where the time went until the answer was committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// Waiting for admission.
    pub queue: Duration,
    /// Asking the cache, or waiting for an identical request.
    pub cache: Duration,
    /// Choosing.
    pub route: Duration,
    /// In backends, failed attempts included.
    pub upstream: Duration,
}

/// What a door tells its caller about an answer.
#[derive(Clone)]
pub struct AnswerMeta {
    /// The arm that answered, now or when the cached answer was made.
    pub arm: Arc<Arm>,
    /// Calls to backends made for this request; 0 for an answer out of the cache.
    pub attempts: u32,
    /// What the cache did.
    pub cache: CacheStatus,
    /// Whether a fallback below the wanted quality answered.
    pub degraded: bool,
    /// Where the time went.
    pub timing: Timing,
}

impl fmt::Debug for AnswerMeta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerMeta")
            .field("arm", &self.arm.id)
            .field("attempts", &self.attempts)
            .field("cache", &self.cache)
            .field("degraded", &self.degraded)
            .field("timing", &self.timing)
            .finish()
    }
}
