//! CacheActor: the owner of stored answers, and of who computes what many ask at once.
//!
//! Of identical requests that arrive together the first leads and the others follow. Leading is a guard
//! value ([`LeadGuard`]): dropped before it is done, wherever that happens, it makes the first follower
//! lead. Answers do not pass through the mailbox twice: a leader hands its answer to an outbox, and each
//! follower waits on a channel of its own.
//!
//! It fails open. Whatever goes wrong with the actor, a request is told [`CacheTurn::Bypass`] or
//! [`Followed::Alone`] and computes its own answer. A panic loses the stored answers, nothing else.

mod actor;
mod board;
mod handle;
mod messages;
mod turn;

#[cfg(test)]
mod tests;

pub use handle::CacheHandle;
pub use turn::{CacheTurn, CachedAnswer, CachedBody, Followed, Follower, LeadGuard};
