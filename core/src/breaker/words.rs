//! What is asked of a breaker and what it answers.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::class::FailureClass;
use crate::ids::ModelName;

/// The permit of a trial. It names one grant and is reported once, or expires by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(pub(super) u64);

/// How a caller may go in.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// As any other.
    Normal,
    /// As the one trial; its outcome, or its being cancelled, is to be reported with the lease.
    Trial {
        /// The permit.
        lease: LeaseId,
        /// States that changed by granting it (open to half-open).
        transitions: Transitions,
    },
}

/// Why a caller may not go in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusedWhy {
    /// Too many failures, or the operator's word.
    Open,
    /// Half-open, and someone else is trying.
    TrialInFlight,
    /// The upstream asked for a pause.
    Cooling,
    /// The allowance is spent.
    Exhausted,
    /// The upstream does not accept our credential or does not have the model.
    Disabled,
    /// Just closed; this caller is not in the share admitted so far.
    Ramping,
}

impl RefusedWhy {
    /// The reason's name in metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            RefusedWhy::Open => "open",
            RefusedWhy::TrialInFlight => "trial_in_flight",
            RefusedWhy::Cooling => "cooling",
            RefusedWhy::Exhausted => "exhausted",
            RefusedWhy::Disabled => "disabled",
            RefusedWhy::Ramping => "ramping",
        }
    }

    /// Whether it is a limit of the upstream's and not a fault: when every candidate is so, the caller is
    /// told of a limit (429) and not of an outage (503).
    pub fn is_limit(self) -> bool {
        matches!(self, RefusedWhy::Cooling | RefusedWhy::Exhausted)
    }
}

/// A refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{}, again in {retry_in:?}", reason.label())]
pub struct Refused {
    /// Why; of several reasons the one that lasts longest.
    pub reason: RefusedWhy,
    /// When asking again may succeed, at least 1 ms from now.
    pub retry_in: Duration,
}

/// What a published gate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateDecision {
    /// Go in; nobody needs to be asked.
    Pass,
    /// A trial is due: ask the owner for it.
    AskActor,
    /// Stay out.
    Refused(Refused),
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With a whole answer.
    Ok {
        /// True when it took longer than is acceptable.
        slow: bool,
    },
    /// Without.
    Failed {
        /// How.
        class: FailureClass,
        /// How long the upstream asked to be left alone.
        retry_after: Option<Duration>,
    },
}

impl Outcome {
    /// The caller left before the end: neither success nor failure, the permit goes back.
    pub const CANCELLED: Outcome = Outcome::Failed { class: FailureClass::Cancelled, retry_after: None };
}

/// The report on one attempt.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// The model that was asked.
    pub model: &'a ModelName,
    /// The permit, if it was a trial.
    pub lease: Option<LeaseId>,
    /// How it ended.
    pub outcome: Outcome,
    /// A fingerprint of the request: the server errors of one request, however often it is repeated, count
    /// once, since it may be the request that breaks the server.
    pub request: Option<u64>,
    /// True when no other backend could serve: slowness alone then never opens, for slow is better than none.
    pub last_backend: bool,
}

impl<'a> Report<'a> {
    /// A report with nothing special about it.
    pub fn new(model: &'a ModelName, outcome: Outcome) -> Self {
        Self { model, lease: None, outcome, request: None, last_backend: false }
    }
}

/// What a transition concerns.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The whole backend.
    Backend,
    /// One of its models.
    Model(ModelName),
}

/// A breaker's state by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateName {
    /// Everyone is admitted.
    Closed,
    /// A rising share is admitted after closing.
    Ramping,
    /// Nobody is admitted; with the interval over, the next caller becomes the trial.
    Open,
    /// One trial at a time is admitted.
    HalfOpen,
    /// A limit's pause.
    Cooling,
    /// An allowance is spent.
    Exhausted,
    /// Credential or model refused.
    Disabled,
}

impl StateName {
    /// Every state, for metrics that show one series each.
    pub const ALL: [StateName; 7] = [
        StateName::Closed,
        StateName::Ramping,
        StateName::Open,
        StateName::HalfOpen,
        StateName::Cooling,
        StateName::Exhausted,
        StateName::Disabled,
    ];

    /// The state's name in metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            StateName::Closed => "closed",
            StateName::Ramping => "ramping",
            StateName::Open => "open",
            StateName::HalfOpen => "half_open",
            StateName::Cooling => "cooling",
            StateName::Exhausted => "exhausted",
            StateName::Disabled => "disabled",
        }
    }
}

/// A change of state. The end of a pause by the passing of time is not one: it is read off, not entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// What changed.
    pub scope: Scope,
    /// From.
    pub from: StateName,
    /// To.
    pub to: StateName,
}

/// The changes of one call: of the backend, of the model, of both or none.
pub type Transitions = SmallVec<[Transition; 2]>;
