//! The key of an answer.

use std::fmt;
use std::io;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::ids::ServiceName;

/// Raised whenever the meaning of a stored answer or of a key changes: older entries are then never found.
pub const SCHEMA_VERSION: u32 = 1;

/// What is asked to answer.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct CacheTarget<'a> {
    /// The endpoint's kind, such as `chat`: it tells requests of different kinds apart.
    pub endpoint: &'a str,
    /// The model as the caller named it: `auto`, an alias or a pinned model.
    pub model: &'a str,
    /// The revision of what that name means now: it changes with the alias's definition and with the
    /// backend's model.
    pub revision: &'a str,
    /// The services a caller allows, if it says; their order does not matter.
    pub restrict: Option<&'a [ServiceName]>,
}

/// SHA-256 over everything an answer depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheKey(pub [u8; 32]);

#[derive(Serialize)]
struct Parts<'a, R> {
    schema: u32,
    tenant: &'a str,
    target: CacheTarget<'a>,
    request: &'a R,
}

impl CacheKey {
    /// Streams schema version, tenant, target and the whole request as JSON (fields in the order of their
    /// declaration, so one value has one text) into the hash. Nothing of the request is copied.
    ///
    /// # Errors
    /// When a value cannot be written as JSON; the caller then does without the cache.
    pub fn of<R: Serialize>(
        tenant: &str,
        target: CacheTarget<'_>,
        request: &R,
    ) -> Result<Self, serde_json::Error> {
        let mut sorted: Vec<ServiceName>;
        let restrict = match target.restrict {
            Some(services) if !services.is_sorted_by(|a, b| a < b) => {
                sorted = services.to_vec();
                sorted.sort_unstable();
                sorted.dedup();
                Some(&*sorted)
            }
            other => other,
        };
        let target = CacheTarget { restrict, ..target };
        let mut hasher = HashWriter(Sha256::new());
        serde_json::to_writer(&mut hasher, &Parts { schema: SCHEMA_VERSION, tenant, target, request })?;
        Ok(Self(hasher.0.finalize().into()))
    }
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

struct HashWriter(Sha256);

impl io::Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
