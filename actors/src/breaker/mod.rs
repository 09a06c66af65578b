//! BreakerActor: the owner of one backend's breakers.
//!
//! The request path does not wait for it. It reads the published gate, and in good times reports a success
//! by one atomic addition. Only a trial, which exactly one request may have, is asked for by message, and
//! only what is not a plain success travels to the actor, through an [`crate::outbox::Outbox`].
//!
//! When the worker panics, the next one takes the states over from what was last published; permits of its
//! predecessor mean nothing to it. While there is no worker the published gate holds on: what was open
//! stays shut, what was closed stays open, and a trial is refused.

mod actor;
mod attempt;
mod board;
mod handle;
mod messages;

#[cfg(test)]
mod tests;

pub use attempt::Attempt;
pub use handle::BreakerHandle;
pub use opossum_core::breaker::Outcome as AttemptOutcome;
