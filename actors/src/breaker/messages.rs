//! What is sent to a BreakerActor.

use actix::Message;
use opossum_core::breaker::{BackendStatus, BreakerConfig, LeaseId, Outcome, Refused};
use opossum_core::ids::ModelName;

use super::attempt::{Attempt, Entrant};

/// Asks for a trial, or to go in if there is no need of one any more.
#[derive(Message)]
#[rtype(result = "Result<Attempt, Refused>")]
pub(super) struct Enter {
    pub(super) entrant: Entrant,
    /// Uniform in [0, 1); 0 is admitted by every ramp.
    pub(super) roll: f64,
}

/// An operator's command over a model, or over the whole backend.
#[derive(Message)]
#[rtype(result = "BackendStatus")]
pub(super) struct Operate {
    pub(super) command: Command,
    pub(super) model: Option<ModelName>,
}

/// What an operator can do.
#[derive(Clone, Copy)]
pub(super) enum Command {
    Open,
    Close,
    Reset,
}

/// Takes new numbers.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Reconfigure(pub(super) BreakerConfig);

/// Takes in everything that has ended so far; answered when the gate shows it.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct CatchUp;

/// Puts saved states back.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Restore(pub(super) BackendStatus);

/// An attempt ended, and not as plainly as a quick success.
#[derive(Clone, Debug)]
pub(super) struct AttemptFinished {
    pub(super) model: ModelName,
    pub(super) request: u64,
    pub(super) last: bool,
    pub(super) lease: Option<LeaseId>,
    pub(super) outcome: Outcome,
}
