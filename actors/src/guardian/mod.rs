//! A shell around a worker that survives the worker's panics.
//!
//! actix 0.13 does not bring a panicked actor back: its mailbox stays closed for good, and whatever
//! was queued is lost (`tests/actix_contract.rs` pins this and the other facts used here). So no
//! code of a worker ever runs unguarded. The guardian is the actix actor; the worker is plain state
//! inside it. When the worker panics, the guardian
//!
//! 1. answers [`ActorError::Panicked`] to the one caller whose message it was,
//! 2. drops the worker's state and stops its context, which under an actix `Supervisor` restarts
//!    the actor and keeps the address and the queue,
//! 3. builds a new worker from the factory: at once the first time, after a growing delay when it
//!    panics again soon ([`Backoff`]),
//! 4. counts the restart by its cause and writes one structured log line.
//!
//! While a short delay runs ([`BackoffPolicy::hold`], 80 ms) messages wait in the mailbox, so two
//! poisoned messages in a row still fail only their own callers. While a longer one runs they are
//! answered [`ActorError::Restarting`] at once: a caller with a fallback must not stand in a queue.
//!
//! A mailbox that closes all the same, or an actor that no longer answers, is the business of
//! [`crate::registry`], which gives the [`ActorRef`] a new address.

mod actor;
mod backoff;
mod call;
mod cx;
mod error;
mod panics;
mod reference;
mod restarts;
mod worker;

#[cfg(test)]
mod tests;

pub use actor::Guardian;
pub use backoff::{Backoff, BackoffPolicy};
pub use cx::Cx;
pub use error::ActorError;
pub use panics::{PanicHook, quiet_hook};
pub use reference::ActorRef;
pub use restarts::{RestartCause, RestartCounts};
pub use worker::{Handle, Reply, Worker};

pub(crate) use panics::catch_future;
pub(crate) use reference::{Blueprint, Slot};

/// Messages one mailbox holds before [`ActorError::Full`].
pub const MAILBOX_CAPACITY: usize = 256;
