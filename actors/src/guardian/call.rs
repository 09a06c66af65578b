//! The envelopes in a guardian's mailbox.

use actix::Message;
use futures::future::LocalBoxFuture;
use tokio::sync::oneshot;

use super::panics::{Panic, catch_future};
use super::{ActorError, Reply};

/// A message with the way back to its caller.
///
/// actix has such an envelope of its own behind `send`, but `send` always gets in past a full
/// mailbox, and a panic leaves its caller with "closed". With the way back in the message,
/// `try_send` bounds the queue and the guardian can say what happened.
pub(crate) struct Call<M: Message> {
    pub(crate) msg: M,
    pub(crate) caller: Caller<M::Result>,
}

impl<M: Message> Message for Call<M> {
    type Result = ();
}

/// Who waits for an answer; nobody after `tell`, or once the answer is given.
pub(crate) struct Caller<R>(Option<oneshot::Sender<Result<R, ActorError>>>);

impl<R: 'static> Caller<R> {
    pub(crate) fn nobody() -> Self {
        Self(None)
    }

    pub(crate) fn waiting() -> (Self, oneshot::Receiver<Result<R, ActorError>>) {
        let (tx, rx) = oneshot::channel();
        (Self(Some(tx)), rx)
    }

    /// Whether there was a caller who has left: then nobody wants the work done.
    pub(crate) fn left(&self) -> bool {
        self.0.as_ref().is_some_and(oneshot::Sender::is_closed)
    }

    pub(crate) fn fail(&mut self, error: ActorError) {
        self.send(Err(error));
    }

    fn send(&mut self, outcome: Result<R, ActorError>) {
        if let Some(tx) = self.0.take() {
            // The caller may have left a moment ago; the answer is then dropped here.
            let _ = tx.send(outcome);
        }
    }

    /// Gives the answer, or hands back the work that will have it.
    pub(crate) fn answer(&mut self, reply: Reply<R>) -> Option<PendingReply<R>> {
        match reply {
            Reply::Now(answer) => {
                self.send(Ok(answer));
                None
            }
            Reply::Later(work) => Some(PendingReply { work, caller: Self(self.0.take()) }),
        }
    }
}

/// An asynchronous answer on its way.
pub(crate) struct PendingReply<R> {
    work: LocalBoxFuture<'static, R>,
    caller: Caller<R>,
}

impl<R> PendingReply<R> {
    /// Runs the work until it is done or its caller left; the panic, if that is how it ended.
    pub(crate) async fn run(self) -> Option<Panic> {
        let work = catch_future(self.work);
        let Some(mut tx) = self.caller.0 else {
            return work.await.err();
        };
        let outcome = tokio::select! {
            biased;
            outcome = work => outcome,
            () = tx.closed() => return None,
        };
        let (answer, panic) = match outcome {
            Ok(answer) => (Ok(answer), None),
            Err(panic) => (Err(ActorError::Panicked), Some(panic)),
        };
        let _ = tx.send(answer);
        panic
    }
}

/// Asks whether the actor still turns; answered by the guardian, whatever the worker does.
pub(crate) struct Ping(pub(crate) oneshot::Sender<()>);

impl Message for Ping {
    type Result = ();
}

/// Makes the worker panic inside a guarded handler: fault injection.
pub(crate) struct Poison(pub(crate) Caller<()>);

impl Message for Poison {
    type Result = ();
}

/// Panics outside of the guard, as only a bug of the guardian could: closes the mailbox for good.
#[cfg(test)]
pub(crate) struct Kill;

#[cfg(test)]
impl Message for Kill {
    type Result = ();
}
