//! The request path's side of the CacheActor.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use opossum_core::cache::{CacheConfig, CacheKey, CacheStats};

use super::actor::CacheWorker;
use super::board::Board;
use super::messages::{Begin, Flush, Peek};
use super::turn::{CacheTurn, CachedAnswer, LeadGuard};
use crate::guardian::{ActorError, ActorRef};
use crate::registry::ActorThreads;
use crate::telemetry::Telemetry;

/// How long a request waits for the cache to answer before it does without.
const ASK: Duration = Duration::from_millis(100);
/// How long an operator's command waits.
const COMMAND: Duration = Duration::from_secs(5);

/// The cache of this process. Cheap to clone; usable from any thread and runtime.
#[derive(Clone)]
pub struct CacheHandle {
    board: Arc<Board>,
    actor: ActorRef<CacheWorker>,
}

impl CacheHandle {
    /// Starts the actor, named `cache`.
    pub(crate) fn start(threads: &ActorThreads, config: CacheConfig, telemetry: Arc<dyn Telemetry>) -> Self {
        let board = Arc::new(Board::new(config, telemetry));
        let shared = Arc::clone(&board);
        let actor = threads.spawn("cache", move || CacheWorker::new(Arc::clone(&shared)));
        Self { board, actor }
    }

    /// Looks a key up and, when it is not there, leads or joins the computing of it. Waits at most 100 ms for
    /// the actor; whatever goes wrong is a bypass.
    pub async fn begin(&self, key: CacheKey) -> CacheTurn {
        let begin = Begin { key, owner: self.board.owner() };
        self.actor.ask(begin, ASK).await.unwrap_or(CacheTurn::Bypass)
    }

    /// Looks a key up without leading or joining.
    pub async fn peek(&self, key: &CacheKey) -> Option<Arc<CachedAnswer>> {
        let peek = Peek { key: *key, owner: self.board.owner() };
        self.actor.ask(peek, ASK).await.ok().flatten()
    }

    /// A lead outside any flight, for an answer that is to replace what is stored. Nobody waits for it, and
    /// dropping it changes nothing.
    pub fn refresh(&self, key: CacheKey) -> LeadGuard {
        LeadGuard::outside(Arc::clone(&self.board), key, self.board.owner())
    }

    /// What the cache did so far.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        *self.board.stats.lock()
    }

    /// Drops every stored answer; what is being computed at this moment is not stored either.
    ///
    /// # Errors
    /// When the actor cannot be reached; with `Timeout` it may still happen.
    pub async fn flush(&self) -> Result<(), ActorError> {
        self.actor.ask(Flush, COMMAND).await
    }
}

impl fmt::Debug for CacheHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheHandle").field("stats", &self.stats()).finish()
    }
}
