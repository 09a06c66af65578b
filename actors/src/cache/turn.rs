//! What a request is told by the cache, and the guards that go with it.

use std::fmt;
use std::sync::Arc;

use opossum_core::answer::Answer;
use opossum_core::cache::{CacheKey, OwnerId};
use opossum_core::embed::Embeddings;
use opossum_core::ids::ArmId;
use tokio::sync::oneshot;

use super::board::Board;
use super::messages::{Ended, LeadEnded};

/// A finished answer, as it is kept and shared.
#[derive(Clone, Debug)]
pub struct CachedAnswer {
    /// What was answered.
    pub body: CachedBody,
    /// Who gave it.
    pub arm: ArmId,
    /// Whether something better had been asked for. Such an answer is shared, but not kept.
    pub degraded: bool,
    /// Memory it takes, in bytes.
    pub bytes: usize,
}

/// What is kept, by the kind of request. The key tells the kinds apart.
#[derive(Clone, Debug)]
pub enum CachedBody {
    /// Of a chat or completion.
    Answer(Answer),
    /// Of inputs embedded.
    Embeddings(Arc<Embeddings>),
}

/// Whose turn it is.
#[derive(Debug)]
pub enum CacheTurn {
    /// Here it is.
    Hit(Arc<CachedAnswer>),
    /// It is the caller's to compute, for all who ask the same meanwhile.
    Lead(LeadGuard),
    /// Someone else is computing it.
    Join(Follower),
    /// The cache cannot be asked; compute it without.
    Bypass,
}

/// The right and duty to compute an answer for all who wait for it.
///
/// Dropped without [`LeadGuard::complete`], the first who waits leads in its place.
#[must_use = "dropping a lead hands it to the next who waits"]
pub struct LeadGuard {
    board: Arc<Board>,
    key: CacheKey,
    owner: OwnerId,
    /// Whether it leads a flight, or only replaces what is stored.
    in_flight: bool,
    open: bool,
}

impl LeadGuard {
    pub(super) fn of_flight(board: Arc<Board>, key: CacheKey, owner: OwnerId) -> Self {
        Self { board, key, owner, in_flight: true, open: true }
    }

    pub(super) fn outside(board: Arc<Board>, key: CacheKey, owner: OwnerId) -> Self {
        Self { board, key, owner, in_flight: false, open: true }
    }

    /// Shares the answer with all who wait and, unless it is degraded, stores it. `None` says that there is none to share: each of
    /// them then computes its own. Never blocks.
    pub fn complete(mut self, answer: Option<Arc<CachedAnswer>>) {
        let how = match answer {
            Some(answer) if !self.in_flight => Ended::Replaced(answer),
            answer => Ended::Completed(answer),
        };
        self.end(how);
    }

    fn end(&mut self, how: Ended) {
        let nothing_to_say = !self.in_flight && !matches!(how, Ended::Replaced(_));
        if std::mem::take(&mut self.open) && !nothing_to_say {
            self.board.ended.push(LeadEnded { key: self.key, owner: self.owner, how });
        }
    }
}

impl Drop for LeadGuard {
    fn drop(&mut self) {
        self.end(Ended::Abandoned);
    }
}

impl fmt::Debug for LeadGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeadGuard").field("owner", &self.owner).finish_non_exhaustive()
    }
}

/// Waits for someone else's answer.
#[derive(Debug)]
pub struct Follower {
    news: oneshot::Receiver<Followed>,
}

/// What came of waiting.
#[derive(Debug)]
pub enum Followed {
    /// The answer.
    Answer(Arc<CachedAnswer>),
    /// The leader left; it is the caller's to compute now.
    Lead(LeadGuard),
    /// There is nothing to share; compute it without the cache.
    Alone,
}

impl Follower {
    pub(super) fn new() -> (oneshot::Sender<Followed>, Self) {
        let (tx, news) = oneshot::channel();
        (tx, Self { news })
    }

    /// Waits for as long as it takes; the caller has a deadline of its own. Dropping the future leaves.
    pub async fn wait(self) -> Followed {
        // The sender is gone when the actor lost its state.
        self.news.await.unwrap_or(Followed::Alone)
    }
}
