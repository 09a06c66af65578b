//! Admission at the door: a permit is taken before work starts and lives as long as the answer's body.
//!
//! Who may work and who waits is counted by [`Limiter`]; this keeps those who wait, in the order of their
//! arrival, and wakes them. Beyond the queue a request is refused at once, with the time when it is worth
//! coming again. While the service drains, those who wait are sent away: another replica can serve them.

use std::collections::VecDeque;
use std::sync::Arc;

pub use opossum_core::admission::{AdmissionConfig, Lane};
use opossum_core::admission::{Limiter, LimiterCounts, Verdict};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::service::PipelineError;

/// By then a draining replica is gone and its address leads to another.
const ELSEWHERE: std::time::Duration = std::time::Duration::from_secs(5);

/// The door. Clones share one count.
#[derive(Clone)]
pub struct Admission {
    shared: Arc<Mutex<State>>,
}

struct State {
    limiter: Limiter,
    live: VecDeque<oneshot::Sender<Turn>>,
    batch: VecDeque<oneshot::Sender<Turn>>,
    draining: bool,
}

/// What one who waited is told.
enum Turn {
    Granted,
    Draining,
}

/// A place at work. Dropping it frees the place.
pub struct Permit {
    shared: Arc<Mutex<State>>,
    lane: Lane,
    taken: Instant,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared.lock().release(self.lane, Some(self.taken.elapsed()));
    }
}

/// One who waits. Dropped, its place in the queue, or the one it was just granted, is free again.
struct Waiter {
    shared: Arc<Mutex<State>>,
    lane: Lane,
    turn: oneshot::Receiver<Turn>,
    served: bool,
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.served {
            return;
        }
        // Turns are granted under the same lock, so the answer of `try_recv` is final.
        let mut state = self.shared.lock();
        match self.turn.try_recv() {
            Ok(Turn::Granted) => state.release(self.lane, None),
            Ok(Turn::Draining) => {}
            Err(_) => {
                self.turn.close();
                state.limiter.give_up(self.lane);
                state.wake();
            }
        }
    }
}

impl State {
    fn release(&mut self, lane: Lane, service: Option<std::time::Duration>) {
        self.limiter.release(lane, service);
        self.wake();
    }

    /// Gives free places to those who wait.
    fn wake(&mut self) {
        while let Some(lane) = self.limiter.admit_next() {
            let queue = self.queue(lane);
            // Those who left closed their end and are not counted any more.
            let granted =
                std::iter::from_fn(|| queue.pop_front()).any(|waiter| waiter.send(Turn::Granted).is_ok());
            if !granted {
                self.limiter.release(lane, None);
                return;
            }
        }
    }

    fn queue(&mut self, lane: Lane) -> &mut VecDeque<oneshot::Sender<Turn>> {
        match lane {
            Lane::Live => &mut self.live,
            Lane::Batch => &mut self.batch,
        }
    }
}

impl Admission {
    /// A door with these limits.
    pub fn new(config: AdmissionConfig) -> Self {
        let state = State {
            limiter: Limiter::new(config),
            live: VecDeque::new(),
            batch: VecDeque::new(),
            draining: false,
        };
        Self { shared: Arc::new(Mutex::new(state)) }
    }

    /// Takes a place, waiting for one if the queue has room.
    ///
    /// # Errors
    /// `Overloaded` when the queue is full or the wait too long, `Draining` when the service shuts down
    /// while waiting, `DeadlineExceeded` when the request's own deadline passes first.
    pub async fn admit(&self, lane: Lane, deadline: Instant) -> Result<Permit, PipelineError> {
        let now = Instant::now();
        let (until, turn) = {
            let mut state = self.shared.lock();
            match state.limiter.arrive(lane, now.into_std()) {
                Verdict::Run => return Ok(self.permit(lane, now)),
                Verdict::Refuse { retry_after } => return Err(PipelineError::Overloaded { retry_after }),
                Verdict::Wait { .. } if state.draining => {
                    state.limiter.give_up(lane);
                    return Err(PipelineError::Draining { retry_after: ELSEWHERE });
                }
                Verdict::Wait { until } => {
                    let (tell, turn) = oneshot::channel();
                    state.queue(lane).push_back(tell);
                    (Instant::from_std(until), turn)
                }
            }
        };
        let waiter = Waiter { shared: Arc::clone(&self.shared), lane, turn, served: false };
        self.wait(waiter, until, deadline).await
    }

    async fn wait(
        &self,
        mut waiter: Waiter,
        until: Instant,
        deadline: Instant,
    ) -> Result<Permit, PipelineError> {
        let Ok(turn) = tokio::time::timeout_at(until.min(deadline), &mut waiter.turn).await else {
            return Err(if deadline <= until { PipelineError::DeadlineExceeded } else { self.overloaded() });
        };
        waiter.served = true;
        match turn {
            Ok(Turn::Granted) => Ok(self.permit(waiter.lane, Instant::now())),
            Ok(Turn::Draining) | Err(_) => Err(PipelineError::Draining { retry_after: ELSEWHERE }),
        }
    }

    fn permit(&self, lane: Lane, taken: Instant) -> Permit {
        Permit { shared: Arc::clone(&self.shared), lane, taken }
    }

    fn overloaded(&self) -> PipelineError {
        PipelineError::Overloaded { retry_after: self.shared.lock().limiter.retry_after() }
    }

    /// Sends away those who wait, now and from now on. Requests at work go on.
    pub fn drain(&self) {
        let mut state = self.shared.lock();
        state.draining = true;
        for lane in [Lane::Live, Lane::Batch] {
            for waiter in std::mem::take(state.queue(lane)) {
                if waiter.send(Turn::Draining).is_ok() {
                    state.limiter.give_up(lane);
                }
            }
        }
    }

    /// Whether the service is shutting down.
    pub fn is_draining(&self) -> bool {
        self.shared.lock().draining
    }

    /// Requests at work and waiting, by lane.
    pub fn counts(&self) -> LimiterCounts {
        self.shared.lock().limiter.counts()
    }
}

#[cfg(test)]
mod tests;
