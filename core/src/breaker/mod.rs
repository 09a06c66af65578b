//! Circuit breakers of a backend: who may call it now, and when to come again.
//!
//! A backend has one breaker for its transport, fed only by what concerns every model (it cannot be reached,
//! it refuses our credential), and one for each model, fed by everything else. A call must pass both. Each
//! is a state machine over three independent things:
//!
//! * **trip**: closed, open, half-open. Opened by failures in a row, by their share, or by the share of slow
//!   calls; half-open lets one trial through at a time, under a lease; after enough good trials admission
//!   rises from a tenth to all, so that a healed backend is not run over.
//! * **holds**: cooling after a limit, exhausted until an allowance is renewed, disabled until someone mends
//!   the configuration. They are what the upstream *said*, so they neither count as failures nor open.
//! * **the operator's word**: forced open until closed or reset.
//!
//! What an outcome does is decided by its class ([`crate::class::FailureClass::breaker`]) alone:
//!
//! | outcome | transport | model | a trial it was |
//! | --- | --- | --- | --- |
//! | answered | good | good | good for both |
//! | transport | failure | – | failed for both |
//! | first token timeout | – | failure | failed for both: accepted, yet silent |
//! | stalled, truncated | good | failure | good for the transport, failed for the model |
//! | server error, bad response | good | failure, once a request | good for the transport, failed for the model |
//! | rate limited, quota spent | good | hold | good for the transport, none for the model |
//! | bad credential | good, hold | – | good for the transport's trip, none for the model |
//! | model missing | good | hold | good for the transport, none for the model |
//! | refused content | good | – | good for the transport, none for the model |
//! | caller error, context length | – | – | none: our own checks may have found it, so it proves nothing |
//! | cancelled, local | – | – | none: the permit goes back |
//!
//! There is no clock here and no health probe: a probe neither closes nor counts as a trial, so it has no
//! entrance. A state of time (an open interval that has passed, a wait that is over) needs no timer either:
//! it is read off at the next question.
//!
//! Two sorts of caller use this: the owner, who holds the [`BackendBreaker`] and reports outcomes, and the
//! request path, which reads a published [`BackendGate`] and asks the owner only for a trial.

mod backend;
mod config;
mod face;
mod gate;
mod machine;
mod status;
mod window;
mod words;

#[cfg(test)]
mod tests;

pub use backend::BackendBreaker;
pub use config::{BreakerConfig, QuotaRenewal};
pub use gate::BackendGate;
pub use status::{BackendStatus, BreakerStatus};
pub use words::{
    Entry, GateDecision, LeaseId, Outcome, Refused, RefusedWhy, Report, Scope, StateName, Transition,
    Transitions,
};
