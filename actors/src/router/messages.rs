//! What is sent to the RouterActor.

use actix::Message;
use opossum_core::router::RouterState;

/// Takes the arms of the board, which a handle has just changed.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct TakeArms;

/// Forgets everything learned.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Forget;

/// Stops (or resumes) learning, as the board says.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct TakeFrozen;

/// Puts back what was saved; answers how many sums were unsound and were left at their prior.
#[derive(Message)]
#[rtype(result = "usize")]
pub(super) struct Restore(pub(super) RouterState);
