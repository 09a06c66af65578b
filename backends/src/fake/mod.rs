//! A scripted backend inside the process: for trying the service out without a model, and for tests.
//!
//! It answers and fails exactly as its script says, call by call. Nothing in it is random. A token is a piece
//! of text that ends with a space, which is enough to make limits and usage visible.

mod play;
mod script;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::BoxFuture;
use opossum_core::embed::Embeddings;
use opossum_core::ids::{ModelName, ServiceName};
use opossum_core::needs::Needs;

pub use self::script::{FakeScript, Step, Then};
use crate::{Backend, BackendError, Call, EmbedCall, Reply, UpstreamModel};

/// What it can do. A seed is honoured trivially: every answer is the same.
pub const CAN: Needs = Needs::CHAT
    .union(Needs::COMPLETION)
    .union(Needs::TOOLS)
    .union(Needs::TOOL_CHOICE)
    .union(Needs::SERIAL_TOOLS)
    .union(Needs::JSON_OBJECT)
    .union(Needs::MANY_CHOICES)
    .union(Needs::SEED)
    .union(Needs::STOP)
    .union(Needs::EMBEDDING);

/// A scripted backend; clones share script and counters.
#[derive(Clone)]
pub struct FakeBackend(Arc<Inner>);

struct Inner {
    service: ServiceName,
    script: FakeScript,
    counters: Arc<Counters>,
}

#[derive(Default)]
struct Counters {
    calls: AtomicU64,
    aborts: AtomicU64,
}

impl FakeBackend {
    /// A backend that follows a script.
    pub fn new(service: impl Into<ServiceName>, script: FakeScript) -> Self {
        Self(Arc::new(Inner { service: service.into(), script, counters: Arc::default() }))
    }

    /// The next call's step.
    fn begin(&self) -> (Arc<Inner>, Step, Running) {
        let inner = Arc::clone(&self.0);
        let number = inner.counters.calls.fetch_add(1, Ordering::Relaxed);
        let running = Running { counters: Arc::clone(&inner.counters), ended: false };
        let step = inner.script.step(number);
        (inner, step, running)
    }

    /// Calls so far.
    pub fn calls(&self) -> u64 {
        self.0.counters.calls.load(Ordering::Relaxed)
    }

    /// Calls that were dropped before they had ended, well or not.
    pub fn aborts(&self) -> u64 {
        self.0.counters.aborts.load(Ordering::Relaxed)
    }
}

impl Backend for FakeBackend {
    fn service(&self) -> &ServiceName {
        &self.0.service
    }

    fn generate(&self, call: Call) -> BoxFuture<'static, Result<Reply, BackendError>> {
        let (inner, step, running) = self.begin();
        Box::pin(async move { play::play(&inner.script, step, &call, running).await })
    }

    fn embed(&self, call: EmbedCall) -> BoxFuture<'static, Result<Embeddings, BackendError>> {
        let (inner, step, running) = self.begin();
        Box::pin(async move { play::embed(&inner.script, step, &call, running).await })
    }

    fn models(&self) -> BoxFuture<'static, Result<Vec<UpstreamModel>, BackendError>> {
        let describe = |name: &String| UpstreamModel {
            name: ModelName::new(name.as_str()),
            can: CAN,
            context_tokens: None,
        };
        let models = self.0.script.models.iter().map(describe).collect();
        Box::pin(std::future::ready(Ok(models)))
    }

    /// Fails when the next call would.
    fn probe(&self) -> BoxFuture<'static, Result<(), BackendError>> {
        let failure = self.0.script.step(self.calls()).failure();
        Box::pin(std::future::ready(match failure {
            Some((class, wait)) => Err(BackendError::new(class, "as scripted").with_retry_after(wait)),
            None => Ok(()),
        }))
    }
}

/// Counts a call as aborted when it is dropped before its end.
struct Running {
    counters: Arc<Counters>,
    ended: bool,
}

impl Running {
    fn end(&mut self) {
        self.ended = true;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            self.counters.aborts.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
