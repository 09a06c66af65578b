//! What a guarded worker is.

use std::fmt;
use std::future::Future;

use actix::Message;
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;

use super::Cx;

/// State behind an actor, without anything of actix in it.
///
/// A worker lives on the actors' thread and is never shared, so it needs neither `Send` nor locks.
/// Its methods are called one at a time, must be quick (they hold up every other actor of the
/// thread), and may panic: the guardian then drops the worker and builds a new one.
pub trait Worker: Sized + 'static {
    /// Called once after each construction, before the first message: set timers and outboxes here.
    fn started(&mut self, cx: &mut Cx<'_, Self>) {
        let _ = cx;
    }
}

/// A worker that understands the message `M`.
pub trait Handle<M: Message>: Worker {
    /// Answers `msg`.
    ///
    /// Quick work answers by value (`Reply::from`); slow or fallible work returns a future that
    /// holds none of the worker's state ([`Reply::later`]).
    fn handle(&mut self, msg: M, cx: &mut Cx<'_, Self>) -> Reply<M::Result>;
}

/// The answer of a handler: now, or by a future.
pub enum Reply<R> {
    /// Known already.
    Now(R),
    /// Runs as a task of its own on the actors' thread. A panic in it fails only this message. It
    /// is dropped when the caller leaves or runs out of time; without a caller (`tell`) it runs to
    /// its end.
    Later(LocalBoxFuture<'static, R>),
}

impl<R> Reply<R> {
    /// An answer that `work` will have.
    pub fn later(work: impl Future<Output = R> + 'static) -> Self {
        Self::Later(work.boxed_local())
    }
}

impl<R> From<R> for Reply<R> {
    fn from(answer: R) -> Self {
        Self::Now(answer)
    }
}

impl<R> fmt::Debug for Reply<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Now(_) => "Reply::Now",
            Self::Later(_) => "Reply::Later",
        })
    }
}
