//! Talking to a guarded actor, whichever address it has at the moment.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, ArbiterHandle, Context, Handler, Message, Supervisor};
use arc_swap::ArcSwap;
use tokio::sync::oneshot;

use crate::telemetry::Telemetry;

use super::call::{Call, Caller, Ping, Poison};
use super::panics::Panic;
use super::restarts::Restarts;
use super::{
    ActorError, BackoffPolicy, Guardian, Handle, MAILBOX_CAPACITY, RestartCause, RestartCounts, Worker,
};

/// What outlives every single incarnation of an actor: how to build it, and its history.
pub(crate) struct Blueprint<W> {
    pub(crate) name: Arc<str>,
    pub(crate) factory: Box<dyn Fn() -> W + Send + Sync>,
    pub(crate) backoff: BackoffPolicy,
    pub(crate) telemetry: Arc<dyn Telemetry>,
    pub(crate) restarts: Restarts,
}

impl<W> Blueprint<W> {
    /// The one place that tells of a worker's panic.
    pub(crate) fn panicked(&self, cause: RestartCause, panic: &Panic, delay: Duration) {
        self.restarts.count(cause);
        tracing::error!(
            actor = %self.name,
            cause = cause.label(),
            panic = %panic.message,
            place = panic.place.as_deref(),
            restart_in_ms = delay.as_millis(),
            "actor panicked; its state is built anew"
        );
        self.telemetry.actor_restarted(&self.name, cause);
    }

    /// The one place that tells of an actor that was lost.
    fn replaced(&self, cause: RestartCause) {
        self.restarts.count(cause);
        tracing::error!(actor = %self.name, cause = cause.label(), "actor lost and replaced");
        self.telemetry.actor_restarted(&self.name, cause);
    }

    /// The one place that tells of a panic outside of a worker's state.
    pub(crate) fn task_failed(&self, panic: &Panic) {
        self.restarts.count_failed_task();
        tracing::error!(
            actor = %self.name,
            panic = %panic.message,
            place = panic.place.as_deref(),
            "work of an actor panicked; only its message failed"
        );
    }
}

/// An actor's present address and its blueprint.
pub(crate) struct Slot<W: Worker> {
    pub(crate) blueprint: Arc<Blueprint<W>>,
    addr: ArcSwap<Addr<Guardian<W>>>,
}

impl<W: Worker> Slot<W> {
    pub(crate) fn start(arbiter: &ArbiterHandle, blueprint: Blueprint<W>) -> Self {
        let blueprint = Arc::new(blueprint);
        let addr = ArcSwap::from_pointee(spawn(arbiter, &blueprint));
        Self { blueprint, addr }
    }

    /// Starts a new actor in the place of this one. Whatever the old one had queued is lost; its
    /// callers see [`ActorError::Closed`], or their timeout when it hangs.
    pub(crate) fn replace(&self, arbiter: &ArbiterHandle, cause: RestartCause) {
        self.blueprint.replaced(cause);
        self.addr.store(Arc::new(spawn(arbiter, &self.blueprint)));
    }

    /// A receiver that resolves when the actor answers, or `Closed` when its mailbox is.
    pub(crate) fn ping(&self) -> Result<oneshot::Receiver<()>, ActorError> {
        let (tx, rx) = oneshot::channel();
        // A clone of an address has a slot of its own, so a full mailbox lets the ping in too, and
        // a busy actor is not taken for a silent one. Clones are not made for anything else: a
        // clone for each message would make the mailbox unbounded.
        let reserved = Addr::clone(&self.addr.load());
        offer(&reserved, Ping(tx))?;
        Ok(rx)
    }

    /// Makes the worker panic inside a handler, as if by a bug; resolves when it did.
    pub(crate) fn poison(&self) -> impl Future<Output = Result<(), ActorError>> + Send + 'static {
        let (caller, answer) = Caller::waiting();
        let sent = self.send(Poison(caller));
        async move {
            sent?;
            answer.await.unwrap_or(Err(ActorError::Closed))
        }
    }

    /// Whether the present mailbox is open.
    pub(crate) fn connected(&self) -> bool {
        self.addr.load().connected()
    }

    fn send<M>(&self, msg: M) -> Result<(), ActorError>
    where
        Guardian<W>: Actor<Context = Context<Guardian<W>>> + Handler<M>,
        M: Message<Result = ()> + Send + 'static,
    {
        offer(&self.addr.load(), msg)
    }
}

fn spawn<W: Worker>(arbiter: &ArbiterHandle, blueprint: &Arc<Blueprint<W>>) -> Addr<Guardian<W>> {
    let blueprint = Arc::clone(blueprint);
    Supervisor::start_in_arbiter(arbiter, move |ctx: &mut Context<Guardian<W>>| {
        ctx.set_mailbox_capacity(MAILBOX_CAPACITY);
        Guardian::new(blueprint)
    })
}

fn offer<W: Worker, M>(addr: &Addr<Guardian<W>>, msg: M) -> Result<(), ActorError>
where
    Guardian<W>: Actor<Context = Context<Guardian<W>>> + Handler<M>,
    M: Message<Result = ()> + Send + 'static,
{
    addr.try_send(msg).map_err(|refused| match refused {
        actix::prelude::SendError::Full(_) => ActorError::Full,
        actix::prelude::SendError::Closed(_) => ActorError::Closed,
    })
}

/// A typed reference to a guarded actor: cheap to clone, usable from any thread and runtime.
///
/// It stays valid when the actor is restarted or replaced. The actor lives as long as a reference
/// to it does. References stay inside this crate's handles.
pub struct ActorRef<W: Worker> {
    slot: Arc<Slot<W>>,
}

impl<W: Worker> ActorRef<W> {
    pub(crate) fn new(slot: Arc<Slot<W>>) -> Self {
        Self { slot }
    }

    /// Sends `msg` and waits at most `timeout` for the answer. Needs a tokio timer.
    ///
    /// When the future is dropped or times out before the actor gets to the message, the message
    /// is not handled at all; an asynchronous answer under way is cancelled.
    ///
    /// # Errors
    /// Every [`ActorError`]; `Full`, `Closed` and `Restarting` mean the message was not handled.
    pub async fn ask<M>(&self, msg: M, timeout: Duration) -> Result<M::Result, ActorError>
    where
        W: Handle<M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        let (caller, answer) = Caller::waiting();
        self.slot.send(Call { msg, caller })?;
        outcome(tokio::time::timeout(timeout, answer).await)
    }

    /// Sends `msg` without waiting for its outcome. Never blocks.
    ///
    /// # Errors
    /// `Full` or `Closed`: the message was not queued.
    pub fn tell<M>(&self, msg: M) -> Result<(), ActorError>
    where
        W: Handle<M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        self.slot.send(Call { msg, caller: Caller::nobody() })
    }

    /// Makes the worker panic inside a handler, as if by a bug.
    #[cfg(test)]
    pub(crate) async fn poison(&self) -> Result<(), ActorError> {
        self.slot.poison().await
    }

    /// The actor's name in logs and metrics.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.slot.blueprint.name
    }

    /// How often the actor was restarted, by cause.
    #[must_use]
    pub fn restarts(&self) -> RestartCounts {
        self.slot.blueprint.restarts.snapshot()
    }

    /// Closes the mailbox for good, as a panic outside of the guard would.
    #[cfg(test)]
    pub(crate) fn kill(&self) {
        let _ = self.slot.send(super::call::Kill);
    }
}

type Answered<R> =
    Result<Result<Result<R, ActorError>, oneshot::error::RecvError>, tokio::time::error::Elapsed>;

fn outcome<R>(answered: Answered<R>) -> Result<R, ActorError> {
    match answered {
        Ok(Ok(outcome)) => outcome,
        // The message was dropped unanswered with its mailbox.
        Ok(Err(_)) => Err(ActorError::Closed),
        Err(_) => Err(ActorError::Timeout),
    }
}

impl<W: Worker> Clone for ActorRef<W> {
    fn clone(&self) -> Self {
        Self { slot: Arc::clone(&self.slot) }
    }
}

impl<W: Worker> fmt::Debug for ActorRef<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ActorRef").field(&self.name()).finish()
    }
}
