//! RouterActor: the owner of what was learned about the arms.
//!
//! Choosing never waits for it: the request path asks the published policy. What was seen of an attempt
//! goes into an [`crate::outbox::Outbox`], and while there is news the policy is published anew at most
//! every 50 ms, so a thousand requests a second cost twenty publications and no message each.
//!
//! When the worker panics, the next one takes over what was last published. While there is no worker the
//! last policy goes on choosing; only learning pauses.

mod actor;
mod board;
mod handle;
mod messages;

#[cfg(test)]
mod tests;

pub use handle::{Choice, RouterHandle};
