//! Answers kept: under which key, for how long, and who computes what many ask at once.
//!
//! A key covers everything an answer depends on, tenant included, so one tenant's answer can never reach
//! another. A store holds answers by least recent use within a budget of bytes. Identical requests that
//! arrive while the first is being answered wait for it ("single flight").

mod exact;
mod key;
mod lru;

#[cfg(test)]
mod tests;

pub use exact::{CacheConfig, CacheStats, Completed, ExactCache, OwnerId, Turn};
pub use key::{CacheKey, CacheTarget, SCHEMA_VERSION};
