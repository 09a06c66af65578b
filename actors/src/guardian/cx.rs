//! What a worker can do to its own actor.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use actix::fut::{ActorFutureExt as _, wrap_future};
use actix::{AsyncContext as _, Context};
use tokio::task::{JoinError, JoinHandle};

use super::actor::Guardian;
use super::panics::catch_future;
use super::{RestartCause, Worker};
use crate::outbox::Outbox;

/// A worker's view of its context: timers, background work, outboxes.
///
/// actix's own context is not handed out, because a panic in a future or timer spawned on it closes
/// the mailbox. All that is started here is guarded, belongs to the present worker, and ends when
/// the worker is replaced.
pub struct Cx<'a, W: Worker> {
    ctx: &'a mut Context<Guardian<W>>,
}

impl<'a, W: Worker> Cx<'a, W> {
    pub(crate) fn new(ctx: &'a mut Context<Guardian<W>>) -> Self {
        Self { ctx }
    }

    /// Calls `tick` every `period`, the first time one period from now. Ticks missed while the
    /// thread was busy are made up for at once, so `tick` must take its time from the clock and not
    /// from how often it is called.
    pub fn every(&mut self, period: Duration, mut tick: impl FnMut(&mut W, &mut Cx<'_, W>) + 'static) {
        self.ctx.run_interval(period, move |guardian, ctx| {
            guardian.guarded(RestartCause::Timer, ctx, |worker, cx| tick(worker, cx));
        });
    }

    /// Calls `then` once, `delay` from now.
    pub fn after(&mut self, delay: Duration, then: impl FnOnce(&mut W, &mut Cx<'_, W>) + 'static) {
        self.ctx.run_later(delay, move |guardian, ctx| {
            guardian.guarded(RestartCause::Timer, ctx, then);
        });
    }

    /// Runs `work` as a task of its own and hands its output to the worker.
    ///
    /// A panic in `work` is logged and counted, and `then` is not called. When the worker is
    /// replaced meanwhile, the task is aborted.
    pub fn spawn<T: 'static>(
        &mut self,
        work: impl Future<Output = T> + 'static,
        then: impl FnOnce(&mut W, T, &mut Cx<'_, W>) + 'static,
    ) {
        let task = AbortOnDrop(actix_rt::spawn(catch_future(work)));
        let done = wrap_future::<_, Guardian<W>>(task).map(|outcome, guardian, ctx| match outcome {
            Ok(Ok(output)) => {
                guardian.guarded(RestartCause::Timer, ctx, |worker, cx| then(worker, output, cx));
            }
            Ok(Err(panic)) => guardian.task_failed(&panic),
            // Aborted with its worker, or with the runtime.
            Err(_) => {}
        });
        self.ctx.spawn(done);
    }

    /// Empties `outbox` into the worker: at most `batch` items at a time, at once when it was idle
    /// and then no more often than every `pause`.
    ///
    /// `fold` gets the items in order, in a buffer it empties (what it leaves is dropped). A batch
    /// that makes it panic is lost, not replayed, for it would most likely panic again.
    pub fn drain<T: Send + 'static>(
        &mut self,
        outbox: Arc<Outbox<T>>,
        batch: usize,
        pause: Duration,
        fold: impl FnMut(&mut W, &mut Vec<T>, &mut Cx<'_, W>) + 'static,
    ) {
        let buffer = Vec::with_capacity(batch);
        self.drain_round(Drain { outbox, batch, pause, buffer, fold });
    }

    fn drain_round<T, F>(&mut self, drain: Drain<T, F>)
    where
        T: Send + 'static,
        F: FnMut(&mut W, &mut Vec<T>, &mut Cx<'_, W>) + 'static,
    {
        let news = async move {
            drain.outbox.ready().await;
            drain
        };
        let round = wrap_future::<_, Guardian<W>>(news).map(|mut drain, guardian, ctx| {
            drain.buffer.clear();
            drain.outbox.take(drain.batch, &mut drain.buffer);
            guardian.guarded(RestartCause::Timer, ctx, |worker, cx| {
                (drain.fold)(worker, &mut drain.buffer, cx);
                let pause = drain.pause;
                cx.after(pause, move |_, cx| cx.drain_round(drain));
            });
        });
        self.ctx.spawn(round);
    }
}

/// One `drain` between its rounds.
struct Drain<T, F> {
    outbox: Arc<Outbox<T>>,
    batch: usize,
    pause: Duration,
    buffer: Vec<T>,
    fold: F,
}

/// A task that ends with whoever waits for it.
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Future for AbortOnDrop<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
