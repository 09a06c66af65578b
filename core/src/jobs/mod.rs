//! Durable jobs: what a message must say, and every decision on its way to one reply.
//!
//! A job is a request that was published to a queue. Workers die, brokers restart and messages come twice;
//! what holds it all together is decided here, without a broker, a clock or a store:
//!
//! | module | what it decides or names |
//! | --- | --- |
//! | [`words`] | queues, endpoints, states, a job's identity and its stored reply |
//! | [`message`] | from a message's properties and payload to a [`Job`](message::Job), or why not |
//! | [`deadline`] | until when a job may run |
//! | [`reply_to`] | to whom a reply may go |
//! | [`attempts`] | what follows when an attempt failed |
//! | [`claims`] | who runs a job, and what a second message of the same identity gets |
//! | [`backlog`] | how long the oldest message of a queue has waited |
//! | [`turns`] | which queue a free worker serves next |

pub mod attempts;
pub mod backlog;
pub mod claims;
pub mod deadline;
pub mod message;
pub mod reply_to;
pub mod turns;
pub mod words;

pub use attempts::{Attempts, Next, RetryQueue};
pub use backlog::Backlog;
pub use claims::{Claim, Claimed, Entry, Finished, Renewal};
pub use deadline::Deadline;
pub use message::{HeaderValue, Job, Properties, Refusal, Rejection};
pub use turns::Turns;
pub use words::{BodyHash, Endpoint, JobKey, JobState, Lane, StoredReply};

/// Time, in milliseconds since the Unix epoch: deadlines travel between machines, so they use the wall clock.
pub type UnixMillis = i64;
