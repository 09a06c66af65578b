//! ServiceMonitor: what backends and dependencies were like when they were last asked.
//!
//! Every interval it probes all backends and dependencies side by side, each with a timeout of its own, and
//! publishes what it saw of each as soon as it is known. Health is read from that, never asked for on the
//! spot, so a hanging dependency cannot hang a health check. A probe says whether a backend can be reached;
//! it neither closes a breaker nor counts as its trial. What live requests learn is in the breakers, which a
//! snapshot reads at the moment it is taken, so a failure shows at once and not with the next probe.
//!
//! When the worker panics, what was published stays, and the next worker probes at once.

mod actor;
mod board;
mod handle;
mod messages;
mod round;
mod snapshot;

#[cfg(test)]
mod tests;

pub use board::{DependencyPlan, Probe};
pub use handle::MonitorHandle;
pub(crate) use handle::Pace;
pub use snapshot::{ActorHealth, BackendHealth, HealthSnapshot};
