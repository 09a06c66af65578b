//! What the service says about itself: metrics and logs.
//!
//! The names of all metrics live in [`names`]; a metric and the log line of the same event are emitted by
//! one function.

mod engine;
mod jobs;
mod ledger;
pub mod logs;
pub mod metrics;
pub mod names;

pub use engine::EngineMetrics;
pub use jobs::JobMetrics;
pub use ledger::LedgerMetrics;
pub use metrics::Metrics;
