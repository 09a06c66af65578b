//! The actix actor around a worker.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use actix::fut::{ActorFuture, ActorFutureExt as _, wrap_future};
use actix::{Actor, ActorContext as _, AsyncContext as _, Context, Handler, Message, Supervised};
use tokio::time::Instant;

use super::call::{Call, Caller, Ping, Poison};
use super::panics::{Panic, catch};
use super::{ActorError, Backoff, Blueprint, Cx, Handle, RestartCause, Worker};

/// The actor that keeps a [`Worker`] and survives its panics. See the module's documentation.
pub struct Guardian<W: Worker> {
    blueprint: Arc<Blueprint<W>>,
    /// None between a panic and the next successful construction.
    /// Boxed because actix wants actors that are `Unpin`.
    worker: Option<Box<W>>,
    backoff: Backoff,
    /// How long the next construction has to wait.
    delay: Duration,
}

impl<W: Worker> Guardian<W> {
    pub(crate) fn new(blueprint: Arc<Blueprint<W>>) -> Self {
        let backoff = Backoff::new(blueprint.backoff);
        Self { blueprint, worker: None, backoff, delay: Duration::ZERO }
    }

    /// Runs the worker's code; after a panic the worker is gone and a restart under way.
    ///
    /// None when it panicked, or when there is no worker.
    pub(crate) fn guarded<R>(
        &mut self,
        cause: RestartCause,
        ctx: &mut Context<Self>,
        work: impl FnOnce(&mut W, &mut Cx<'_, W>) -> R,
    ) -> Option<R> {
        let worker = self.worker.as_mut()?;
        match catch(|| work(worker, &mut Cx::new(ctx))) {
            Ok(output) => Some(output),
            Err(panic) => {
                self.failed(cause, &panic, ctx);
                None
            }
        }
    }

    /// A panic in work that holds none of the worker's state: one message failed, nothing else.
    pub(crate) fn task_failed(&self, panic: &Panic) {
        self.blueprint.task_failed(panic);
    }

    fn failed(&mut self, cause: RestartCause, panic: &Panic, ctx: &mut Context<Self>) {
        let worker = self.worker.take();
        // State that a panic left half changed may well panic again while it is dropped.
        let dropped = catch(|| drop(worker));
        self.delay = self.backoff.failed(Instant::now());
        self.blueprint.panicked(cause, panic, self.delay);
        if let Err(panic) = dropped {
            self.blueprint.task_failed(&panic);
        }
        ctx.stop();
    }

    fn build(&mut self, ctx: &mut Context<Self>) {
        match catch(|| (self.blueprint.factory)()) {
            Ok(worker) => {
                self.worker = Some(Box::new(worker));
                self.backoff.alive(Instant::now());
                self.guarded(RestartCause::Started, ctx, |worker, cx| worker.started(cx));
            }
            Err(panic) => self.failed(RestartCause::Factory, &panic, ctx),
        }
    }
}

impl<W: Worker> Actor for Guardian<W> {
    type Context = Context<Self>;

    /// actix calls this for the first start and again after every restart.
    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.spawn(EndWithLastReference);
        let delay = std::mem::take(&mut self.delay);
        if delay.is_zero() {
            self.build(ctx);
        } else if self.backoff.holds(delay) {
            let pause = tokio::time::sleep(delay);
            ctx.wait(wrap_future::<_, Self>(pause).map(|(), guardian, ctx| guardian.build(ctx)));
        } else {
            ctx.run_later(delay, Self::build);
        }
    }
}

impl<W: Worker> Supervised for Guardian<W> {}

/// Stops an actor that no address leads to any more.
///
/// actix keeps an actor with a running timer or future alive without any address, so an actor that
/// was replaced would go on ticking beside its successor. The loss of the last address polls the
/// context, and with it this future.
struct EndWithLastReference;

impl<W: Worker> ActorFuture<Guardian<W>> for EndWithLastReference {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        _: &mut Guardian<W>,
        ctx: &mut Context<Guardian<W>>,
        _: &mut std::task::Context<'_>,
    ) -> Poll<()> {
        if ctx.connected() {
            return Poll::Pending;
        }
        ctx.stop();
        Poll::Ready(())
    }
}

impl<W, M> Handler<Call<M>> for Guardian<W>
where
    W: Handle<M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    type Result = ();

    fn handle(&mut self, call: Call<M>, ctx: &mut Context<Self>) {
        let Call { msg, mut caller } = call;
        if self.worker.is_none() {
            return caller.fail(ActorError::Restarting);
        }
        let handled = self.guarded(RestartCause::Handler, ctx, |worker, cx| {
            // Nobody waits any more: the message is dropped unread.
            if caller.left() { None } else { caller.answer(worker.handle(msg, cx)) }
        });
        match handled {
            None => caller.fail(ActorError::Panicked),
            Some(None) => {}
            Some(Some(pending)) => {
                let blueprint = Arc::clone(&self.blueprint);
                actix_rt::spawn(async move {
                    if let Some(panic) = pending.run().await {
                        blueprint.task_failed(&panic);
                    }
                });
            }
        }
    }
}

impl<W: Worker> Handler<Ping> for Guardian<W> {
    type Result = ();

    fn handle(&mut self, ping: Ping, _: &mut Context<Self>) {
        let _ = ping.0.send(());
    }
}

#[expect(clippy::panic, reason = "injects the very fault the guardian is for")]
impl<W: Worker> Handler<Poison> for Guardian<W> {
    type Result = ();

    fn handle(&mut self, poison: Poison, ctx: &mut Context<Self>) {
        let mut caller: Caller<()> = poison.0;
        if self.worker.is_none() {
            return caller.fail(ActorError::Restarting);
        }
        self.guarded(RestartCause::Handler, ctx, |_, _| {
            panic!("poisoned on purpose");
        });
        caller.fail(ActorError::Panicked);
    }
}

#[cfg(test)]
#[expect(clippy::panic, reason = "injects the very fault the guardian is for")]
impl<W: Worker> Handler<super::call::Kill> for Guardian<W> {
    type Result = ();

    fn handle(&mut self, _: super::call::Kill, _: &mut Context<Self>) {
        panic!("killed on purpose");
    }
}
