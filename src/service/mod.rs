//! The one path behind every door: admission, cache, router, breaker, attempts, answer.

pub mod error;

pub use error::PipelineError;
