//! The second door: the same path behind jobs as behind HTTP.
//!
//! Messages, brokers and replies are `opossum-jobs`'s; here a job becomes a request of the one path, and its
//! answer the reply.

mod runner;
mod store;

pub use runner::ServiceRunner;
pub use store::LedgerStore;
