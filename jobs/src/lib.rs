//! Durable jobs over AMQP: a request is published to a queue, and its reply arrives once, whatever dies in
//! between.
//!
//! What is decided is decided in `opossum_core::jobs`; this crate does it with a RabbitMQ (3.10 or later), and
//! is the only one that names an AMQP library. It knows neither HTTP nor backends: a [`Runner`] answers jobs,
//! a [`JobStore`] remembers them.
//!
//! ```text
//!  publisher ─► opossum.jobs.{high,normal,batch} ─► worker ─► reply_to
//!                   ▲              │                  │          └ gone: opossum.replies.parked
//!        opossum.jobs.retry.* ◄────┼── failed ────────┤
//!                                  │                  └ nobody to tell, or given up: opossum.jobs.dead
//!                                  └ expired, delivered too often: opossum.jobs.undelivered ─► responder
//! ```
//!
//! # The order of work
//! Read, claim, run, **store the reply**, publish it and wait for the broker's confirm, acknowledge the job. A
//! worker that dies between any two of these leaves a message that is delivered again and finds what was
//! stored; so a job that was confirmed to its publisher is answered, and answered alike every time. Only with
//! the store *and* the worker lost can it run twice with two answers.
//!
//! # What breaks, and what follows
//! | what | what follows |
//! | --- | --- |
//! | the broker is away, frozen or refuses | a [`Door`] that says so; publishing fails within 5 s; connections come back within a second of it |
//! | a channel is closed, a consumer cancelled, a queue deleted | the connection is made anew, with its queues and consumers |
//! | a queue exists with other arguments | the door is [refused](LinkState::Refused), says why, and looks again every half minute |
//! | the store fails | the job runs all the same: twice rather than never |
//! | a runner panics or hangs | that attempt failed; the job's deadline ends it |
//!
//! The broker library's own recovery is off: it recovers channels only with their connection, and publishing
//! waits for it without an end.

mod broker;
mod config;
mod door;
mod events;
mod runner;
mod store;
mod tasks;
mod work;

pub use broker::{BrokerUri, LinkState, PublishError, UriError};
pub use config::DoorConfig;
pub use door::{Door, DoorHealth, Submission};
pub use events::{JobEvents, NoEvents};
pub use runner::{Chunks, Fault, Ran, Runner, Task};
pub use store::{Answer, Claiming, JobStore, JobView, MemoryStore, StoreError};
