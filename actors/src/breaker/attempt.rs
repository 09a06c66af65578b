//! The guard of one attempt at a backend.

use std::fmt;
use std::sync::Arc;

use opossum_core::breaker::{LeaseId, Outcome};
use opossum_core::class::FailureClass;
use opossum_core::ids::ModelName;

use super::board::Board;
use super::messages::AttemptFinished;

/// Who wants to go in.
pub(super) struct Entrant {
    pub(super) board: Arc<Board>,
    pub(super) model: ModelName,
    /// The request's fingerprint: its server errors count once.
    pub(super) request: u64,
    /// Whether the request has nobody else to ask.
    pub(super) last: bool,
}

/// Leave to call a backend, and the duty to say how it ended.
///
/// Dropped without [`Attempt::finish`] it was cancelled: neither success nor failure, and a trial's permit
/// goes back. That holds wherever it is dropped, in a caller that left just as in an answer that no longer
/// found one, so no permit can leak.
#[must_use = "dropping an attempt reports it as cancelled"]
pub struct Attempt {
    entrant: Entrant,
    lease: Option<LeaseId>,
    open: bool,
}

impl Attempt {
    pub(super) fn new(entrant: Entrant, lease: Option<LeaseId>) -> Self {
        Self { entrant, lease, open: true }
    }

    /// Whether this is the trial of a breaker that is not closed.
    #[must_use]
    pub fn is_trial(&self) -> bool {
        self.lease.is_some()
    }

    /// Says how the attempt ended. Never blocks; a plain success costs one atomic addition.
    pub fn finish(mut self, outcome: Outcome) {
        self.report(outcome);
    }

    fn report(&mut self, outcome: Outcome) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        let Entrant { board, model, request, last } = &self.entrant;
        if self.lease.is_none() && (says_nothing(outcome) || is_plain(outcome) && board.count_success(model))
        {
            return;
        }
        board.finished.push(AttemptFinished {
            model: model.clone(),
            request: *request,
            last: *last,
            lease: self.lease,
            outcome,
        });
    }
}

/// A success that was quick: these are counted, not sent.
pub(super) fn is_plain(outcome: Outcome) -> bool {
    outcome == Outcome::Ok { slow: false }
}

/// An end that no breaker learns anything from, unless it was a trial's.
fn says_nothing(outcome: Outcome) -> bool {
    let Outcome::Failed { class, .. } = outcome else { return false };
    matches!(
        class,
        FailureClass::CallerError
            | FailureClass::ContextLength
            | FailureClass::Cancelled
            | FailureClass::Local
    )
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.report(Outcome::CANCELLED);
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("service", &self.entrant.board.service)
            .field("model", &self.entrant.model)
            .field("lease", &self.lease)
            .finish_non_exhaustive()
    }
}
