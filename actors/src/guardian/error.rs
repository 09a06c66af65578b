//! Why a message got no answer.

/// What a caller of an actor can meet instead of an answer.
///
/// The request path never turns one of these into a refusal by itself: every handle documents what
/// it does without its actor (a cache is bypassed, a router falls back to its last snapshot).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ActorError {
    /// This very message made the worker panic. Asking again would most likely do the same.
    #[error("the actor panicked on this message")]
    Panicked,
    /// The worker panicked repeatedly and is not back yet; the message was not looked at.
    #[error("the actor is restarting")]
    Restarting,
    /// The mailbox holds [`crate::guardian::MAILBOX_CAPACITY`] messages; the message was not queued.
    #[error("the actor's mailbox is full")]
    Full,
    /// The actor is gone and was not replaced yet, or went while the message was queued.
    #[error("the actor is gone")]
    Closed,
    /// The thread or event loop of the actors could not be made.
    #[error("the actors' thread could not be started")]
    NotStarted,
    /// No answer in the time given. The work is cancelled where it can be.
    #[error("the actor did not answer in time")]
    Timeout,
}

impl ActorError {
    /// Label of a metric; one of a fixed set.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Panicked => "panicked",
            Self::Restarting => "restarting",
            Self::Full => "full",
            Self::Closed => "closed",
            Self::NotStarted => "not_started",
            Self::Timeout => "timeout",
        }
    }
}
