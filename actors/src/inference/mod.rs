//! InferenceActor: loads the embedded engine, watches it, and puts a new one in the place of a dead one.
//!
//! Jobs do not pass through it. While the engine is ready, a job goes straight to it and answers with the
//! stream that the engine writes into. While it is being loaded, jobs wait, for as long as their callers do.
//! When it could not be loaded they are refused at once, and loading is tried again after a growing delay.
//! An engine whose thread is gone refuses a job; that job waits for the next engine instead of failing.
//!
//! The encoder, which embeds, is kept in the same way by an actor of its own.
//!
//! Loading blocks, so it runs on a thread for blocking work. When the worker panics, a ready engine stays in
//! use; a load under way is begun anew.

mod actor;
mod board;
mod handle;

#[cfg(test)]
mod tests;

pub(crate) use actor::InferenceWorker;
pub use board::{EngineFactory, Hosted};
pub use handle::{InferenceHandle, InferencePlan};
