//! The owners of all shared state: supervised actors behind cheap, typed handles.
//!
//! This is the only crate that names actix actors. No address of an actor leaves it: callers hold a
//! handle, and an actor can be restarted or replaced behind it without their noticing more than one
//! failed call.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`guardian`] | the shell that survives a worker's panics, and the reference to it |
//! | [`registry`] | the actors' thread, the list of all actors, and the watch over them |
//! | [`outbox`] | bounded queue for events that follow every request |

pub mod guardian;
pub mod outbox;
pub mod registry;
