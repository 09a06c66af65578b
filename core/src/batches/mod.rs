//! Batches: a file of requests, each of which becomes a job.
//!
//! Everything that is decided on the way from the file to the answers is decided here, without a store, a
//! broker or a clock:
//!
//! | module | what it decides or names |
//! | --- | --- |
//! | [`batch`] | what a batch is, its statuses and what may follow what |
//! | [`input`] | from a file's bytes to requests, or what is wrong with which line |
//! | [`flight`] | which line is published next, how many at once, and what becomes of one that failed |
//! | [`output`] | the lines of the files that tell what came of each request |

pub mod batch;
pub mod flight;
pub mod input;
pub mod output;

pub use batch::{Batch, Counts, LineFault, Order, Status, Times, Tokens};
pub use flight::{Flight, Landed, Launch, Mark, Verdict};
pub use input::{Place, Reader};
