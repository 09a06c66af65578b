//! Every guarded actor by name, the thread they run on, and the watch over both.
//!
//! A guardian survives its worker's panics by itself. What it cannot survive is the loss of its
//! thread, a handler that never returns, or a bug of its own. [`Watchdog`] finds these from
//! outside: it runs on a thread of its own, pings each actor, and gives the reference of one that is
//! dead or silent the address of a new actor. When the thread itself no longer answers, a new one
//! is started and all actors move there; the old thread, which nobody can stop from outside, ends
//! when it comes back, if ever.

mod host;
mod threads;
mod watchdog;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Weak};

use actix::ArbiterHandle;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::guardian::{
    ActorError, ActorRef, BackoffPolicy, Blueprint, RestartCause, RestartCounts, Slot, Worker,
};

use crate::telemetry::Telemetry;

pub use host::HOST_THREAD;
pub use threads::ActorThreads;
pub use watchdog::{Watch, Watchdog};

/// What is known of one actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActorReport {
    /// Its name in logs and metrics.
    pub name: Arc<str>,
    /// Restarts and replacements by cause.
    pub restarts: RestartCounts,
    /// Whether its mailbox is open.
    pub alive: bool,
}

/// All actors that live. Cheap to clone; all clones are one list.
#[derive(Clone, Default)]
pub struct Registry {
    /// Weak, so that an actor ends with the last handle to it; the dead are left out on reading.
    actors: Arc<Mutex<Vec<Weak<dyn Watched>>>>,
}

impl Registry {
    /// Starts a guarded actor on `arbiter` and lists it.
    pub(crate) fn spawn<W: Worker>(
        &self,
        arbiter: &ArbiterHandle,
        name: impl Into<Arc<str>>,
        backoff: BackoffPolicy,
        telemetry: Arc<dyn Telemetry>,
        factory: impl Fn() -> W + Send + Sync + 'static,
    ) -> ActorRef<W> {
        let blueprint = Blueprint {
            name: name.into(),
            factory: Box::new(factory),
            backoff,
            telemetry,
            restarts: Default::default(),
        };
        let slot = Arc::new(Slot::start(arbiter, blueprint));
        let watched: Weak<dyn Watched> = Arc::<Slot<W>>::downgrade(&slot);
        self.actors.lock().push(watched);
        ActorRef::new(slot)
    }

    /// A report of every living actor, in the order they were started.
    #[must_use]
    pub fn report(&self) -> Vec<ActorReport> {
        self.living().iter().map(|actor| actor.report()).collect()
    }

    /// Fault injection: makes the first actor of this name, or of this kind (`breaker` for
    /// `breaker:ollama`), panic in a handler as if by a bug, and waits for its end. For test hooks only;
    /// nothing in the service calls it by itself.
    ///
    /// None when there is no such actor, else what the sender of the poisoned message is told:
    /// [`ActorError::Panicked`] when all went as it should.
    pub async fn poison(&self, name: &str) -> Option<ActorError> {
        let is_meant = |actor: &Arc<dyn Watched>| {
            let actor = actor.report().name;
            actor.split(':').next() == Some(name) || *actor == *name
        };
        let poisoned = self.living().into_iter().find(is_meant)?.poison();
        poisoned.await.err()
    }

    pub(crate) fn living(&self) -> Vec<Arc<dyn Watched>> {
        let mut actors = self.actors.lock();
        let mut living = Vec::with_capacity(actors.len());
        actors.retain(|actor| actor.upgrade().map(|actor| living.push(actor)).is_some());
        living
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.report()).finish()
    }
}

/// An actor of any type, as its watch sees it.
pub(crate) trait Watched: Send + Sync {
    fn ping(&self) -> Result<oneshot::Receiver<()>, ActorError>;
    fn replace(&self, arbiter: &ArbiterHandle, cause: RestartCause);
    fn report(&self) -> ActorReport;
    fn poison(&self) -> BoxFuture<'static, Result<(), ActorError>>;
}

impl<W: Worker> Watched for Slot<W> {
    fn ping(&self) -> Result<oneshot::Receiver<()>, ActorError> {
        Slot::ping(self)
    }

    fn replace(&self, arbiter: &ArbiterHandle, cause: RestartCause) {
        Slot::replace(self, arbiter, cause);
    }

    fn poison(&self) -> BoxFuture<'static, Result<(), ActorError>> {
        Slot::poison(self).boxed()
    }

    fn report(&self) -> ActorReport {
        ActorReport {
            name: Arc::clone(&self.blueprint.name),
            restarts: self.blueprint.restarts.snapshot(),
            alive: self.connected(),
        }
    }
}
