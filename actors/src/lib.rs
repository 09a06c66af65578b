//! The owners of all shared state: supervised actors behind cheap, typed handles.
//!
//! This is the only crate that names actix actors. No address of an actor leaves it: callers hold a handle,
//! and an actor can be restarted or replaced behind it without their noticing more than one failed call.
//! What others read on the request path is a published snapshot; only changes travel to an actor.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`system`] | all actors of the service, started and ended together |
//! | [`breaker`] | BreakerActor, one a backend: who may call it now |
//! | [`router`] | RouterActor: which arm answers |
//! | [`cache`] | CacheActor: stored answers, and one computing what many ask at once |
//! | [`monitor`] | ServiceMonitor: the health of backends and dependencies |
//! | [`inference`] | InferenceActor: the embedded engine's life |
//! | [`guardian`] | the shell that survives a worker's panics, and the reference to it |
//! | [`registry`] | the actors' thread, the list of all actors, and the watch over them |
//! | [`outbox`] | bounded queue for events that follow every request |
//! | [`telemetry`] | what the actors tell the outside |

pub mod breaker;
pub mod cache;
mod clock;
pub mod guardian;
pub mod inference;
pub mod monitor;
pub mod outbox;
pub mod registry;
pub mod router;
pub mod system;
pub mod telemetry;
#[cfg(test)]
mod testing;

pub use breaker::{Attempt, AttemptOutcome, BreakerHandle};
pub use cache::{CacheHandle, CacheTurn, CachedAnswer, CachedBody, Followed, Follower, LeadGuard};
pub use guardian::{ActorError, RestartCause, quiet_hook};
pub use inference::{InferenceHandle, InferencePlan};
pub use monitor::{ActorHealth, BackendHealth, DependencyPlan, HealthSnapshot, MonitorHandle};
pub use registry::Registry;
pub use router::{Choice, RouterHandle};
pub use system::{ActorSystem, Actors, ActorsConfig, BackendPlan};
pub use telemetry::{NoTelemetry, Telemetry};
