//! The watch over the actors.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix::ArbiterHandle;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::host::Host;
use super::{Registry, Watched};
use crate::guardian::{Backoff, BackoffPolicy, RestartCause, catch_future};

/// How actors are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watch {
    /// Time between two pings of an actor.
    pub interval: Duration,
    /// Rounds in a row without an answer after which an actor is replaced (at least 1). Rounds are
    /// counted and not time, so a process that was stopped and continued replaces nothing.
    pub misses: u32,
    /// How long the actors' thread may take to answer before it counts as lost, asked only when an
    /// actor is.
    pub host_patience: Duration,
    /// Delay between two replacements of the thread; a blocked thread cannot be ended, so a handler
    /// that blocks every time would otherwise leave one behind each round.
    pub host_backoff: BackoffPolicy,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
            misses: 2,
            host_patience: Duration::from_millis(500),
            host_backoff: BackoffPolicy {
                first: Duration::from_secs(1),
                ceiling: Duration::from_secs(60),
                settled: Duration::from_secs(60),
                hold: Duration::ZERO,
            },
        }
    }
}

/// The pings to one actor.
#[derive(Debug, Default)]
struct Pulse {
    waiting: Option<oneshot::Receiver<()>>,
    missed: u32,
}

impl Pulse {
    /// One round: what became of the last ping, and the next one.
    fn beat(&mut self, actor: &dyn Watched, misses: u32) -> Option<RestartCause> {
        if let Some(answer) = &mut self.waiting {
            match answer.try_recv() {
                Ok(()) => {}
                Err(oneshot::error::TryRecvError::Closed) => return Some(RestartCause::Dead),
                Err(oneshot::error::TryRecvError::Empty) => {
                    self.missed += 1;
                    return (self.missed >= misses).then_some(RestartCause::Silent);
                }
            }
        }
        match actor.ping() {
            Ok(answer) => {
                *self = Self { waiting: Some(answer), missed: 0 };
                None
            }
            Err(_) => Some(RestartCause::Dead),
        }
    }
}

/// Pings every actor and replaces those that are dead or silent.
pub struct Watchdog {
    registry: Registry,
    host: Arc<Mutex<Host>>,
    watch: Watch,
    pulses: HashMap<usize, Pulse>,
    host_backoff: Backoff,
    host_not_before: Option<Instant>,
}

impl Watchdog {
    pub(crate) fn new(registry: Registry, host: Arc<Mutex<Host>>, watch: Watch) -> Self {
        Self {
            registry,
            host,
            watch,
            pulses: HashMap::new(),
            host_backoff: Backoff::new(watch.host_backoff),
            host_not_before: None,
        }
    }

    /// Watches until `stop` resolves.
    pub(crate) async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        let mut rounds = tokio::time::interval(self.watch.interval);
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = &mut stop => return,
                _ = rounds.tick() => {}
            }
            // The watch is watched by nobody, so nothing may end it.
            if let Err(panic) = catch_future(self.round()).await {
                tracing::error!(panic = %panic.message, place = panic.place.as_deref(), "a round of the watch panicked");
            }
        }
    }

    /// One round over all actors.
    pub(crate) async fn round(&mut self) {
        let living = self.registry.living();
        self.pulses.retain(|id, _| living.iter().any(|actor| identity(actor) == *id));
        let mut lost = Vec::new();
        for actor in &living {
            let pulse = self.pulses.entry(identity(actor)).or_default();
            if let Some(cause) = pulse.beat(&**actor, self.watch.misses) {
                lost.push((Arc::clone(actor), cause));
            }
        }
        if lost.is_empty() {
            return;
        }
        if !self.host_answers().await {
            if !self.replace_host() {
                return;
            }
            // Those whose ping is still under way lived on the same thread.
            lost = living.into_iter().map(|actor| (actor, RestartCause::Silent)).collect();
        }
        let arbiter = self.host.lock().arbiter().clone();
        self.replace(&lost, &arbiter);
    }

    fn replace(&mut self, lost: &[(Arc<dyn Watched>, RestartCause)], arbiter: &ArbiterHandle) {
        for (actor, cause) in lost {
            self.pulses.remove(&identity(actor));
            actor.replace(arbiter, *cause);
        }
    }

    async fn host_answers(&self) -> bool {
        let answer = self.host.lock().ping();
        matches!(tokio::time::timeout(self.watch.host_patience, answer).await, Ok(Ok(())))
    }

    /// Starts a new actors' thread; false while the last replacement is too recent.
    fn replace_host(&mut self) -> bool {
        let now = Instant::now();
        if self.host_not_before.is_some_and(|earliest| now < earliest) {
            return false;
        }
        match Host::start() {
            Ok(host) => {
                tracing::error!("the actors' thread does not answer; all actors move to a new one");
                let old = std::mem::replace(&mut *self.host.lock(), host);
                old.stop();
                let delay = self.host_backoff.failed(now);
                self.host_backoff.alive(now);
                self.host_not_before = Some(now + delay);
                true
            }
            Err(error) => {
                tracing::error!(%error, "the actors' thread does not answer and no new one starts");
                false
            }
        }
    }
}

/// Actors are told apart by where they live; names need not be unique.
fn identity(actor: &Arc<dyn Watched>) -> usize {
    Arc::as_ptr(actor).cast::<()>() as usize
}
