//! The loop on the engine's thread.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::sequence::{Listener, Sequence, Visit, ask};
use super::shared::Shared;
use super::{EngineConfig, Job, Readiness};
use crate::InferenceError;
use crate::model::LoadedModel;

/// How often listeners that were not ready are asked again when there is nothing else to do.
const PARKED_POLL: Duration = Duration::from_millis(2);

/// Runs a closure that may panic; the error is the panic's message.
///
/// Unwind safety: every caller throws away what the closure could have left half-done.
pub(super) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| message(&*panic))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

/// The engine's thread state.
pub(super) struct Worker {
    config: EngineConfig,
    /// Absent after a panic that broke it and while it could not be loaded again.
    model: Option<LoadedModel>,
    shared: Arc<Shared>,
    jobs: Receiver<Job>,
    waiting: VecDeque<Job>,
    active: Vec<Sequence>,
}

impl Worker {
    pub(super) fn new(
        config: EngineConfig,
        model: LoadedModel,
        shared: Arc<Shared>,
        jobs: Receiver<Job>,
    ) -> Self {
        Self { config, model: Some(model), shared, jobs, waiting: VecDeque::new(), active: Vec::new() }
    }

    /// Works until the engine is stopped.
    pub(super) fn run(mut self) {
        while !self.shared.is_stopping() {
            self.take_jobs();
            self.admit();
            let advanced = self.round();
            self.shared.set_active(self.active.len());
            if !advanced && !self.wait() {
                break;
            }
        }
        self.stop();
    }

    /// Moves new jobs over and forgets those whose listener left: each frees its place in the queue.
    fn take_jobs(&mut self) {
        self.waiting.extend(self.jobs.try_iter());
        let shared = &self.shared;
        self.waiting.retain_mut(|job| {
            let listens = ask(&mut *job.sink) != Readiness::Closed;
            if !listens {
                shared.free_place();
            }
            listens
        });
    }

    fn admit(&mut self) {
        while self.active.len() < self.config.max_sequences {
            let Some(job) = self.waiting.pop_front() else { break };
            self.shared.free_place();
            self.start(job);
        }
        self.shared.set_active(self.active.len());
    }

    fn start(&mut self, job: Job) {
        if let Err(error) = self.ensure_model() {
            return Listener::new(job.sink).fail(error);
        }
        let Some(model) = &self.model else { return };
        match guarded(|| Sequence::start(job, model, rand::random(), rand::random())) {
            Ok(Ok(sequence)) => self.active.push(sequence),
            Ok(Err((listener, error))) => listener.fail(error),
            // The job went down with the panic, its sink with it: dropping a sink tells its other end.
            Err(panic) => self.recover(&panic),
        }
    }

    /// Visits every sequence once; answers whether any of them advanced.
    fn round(&mut self) -> bool {
        let mut advanced = false;
        let mut index = 0;
        while index < self.active.len() && !self.shared.is_stopping() {
            match self.visit(index) {
                Ok(Visit::Advanced) => {
                    advanced = true;
                    index += 1;
                }
                Ok(Visit::Parked) => index += 1,
                Ok(Visit::Gone) => {
                    advanced = true;
                    self.active.remove(index);
                }
                Err(panic) => {
                    self.recover(&panic);
                    return true;
                }
            }
        }
        advanced
    }

    fn visit(&mut self, index: usize) -> Result<Visit, String> {
        let Some(model) = &self.model else { return Ok(Visit::Gone) };
        let sequence = &mut self.active[index];
        let before = sequence.deliver();
        if before != Visit::Advanced {
            return Ok(before);
        }
        let fault = self.config.fault.as_ref();
        let computed = guarded(|| {
            if let Some(hook) = fault {
                (hook.0)();
            }
            sequence.compute(model)
        })?;
        match computed {
            Ok(work) => {
                self.shared.count_tokens(work.prefilled, work.generated);
                Ok(match sequence.deliver() {
                    Visit::Gone => Visit::Gone,
                    Visit::Parked | Visit::Advanced => Visit::Advanced,
                })
            }
            Err(error) => {
                self.active.remove(index).fail(error);
                // The place now holds the next sequence; it gets its turn in the next round.
                Ok(Visit::Advanced)
            }
        }
    }

    /// After a panic: fails what is in flight, then makes sure that the weights still work.
    fn recover(&mut self, panic: &str) {
        self.shared.count_restart();
        tracing::error!(
            panic,
            sequences = self.active.len(),
            "the inference engine panicked and starts afresh"
        );
        for sequence in self.active.drain(..) {
            sequence.fail(InferenceError::EnginePanicked { message: panic.to_owned() });
        }
        self.shared.set_active(0);
        if !self.model_works() {
            self.model = None;
            if let Err(error) = self.ensure_model() {
                tracing::error!(%error, "the model cannot be loaded again; the next job will try");
            }
        }
    }

    /// One token through the whole model.
    fn model_works(&self) -> bool {
        let Some(model) = &self.model else { return false };
        let fault = self.config.fault.as_ref();
        let tried = guarded(|| {
            if let Some(hook) = fault {
                (hook.0)();
            }
            model.step(&[0], &mut model.new_session()?)
        });
        matches!(tried, Ok(Ok(logits)) if logits.iter().all(|logit| logit.is_finite()))
    }

    fn ensure_model(&mut self) -> Result<(), InferenceError> {
        if self.model.is_some() {
            return Ok(());
        }
        let options = self.config.load_options();
        let loaded = guarded(|| LoadedModel::load(&options)).unwrap_or_else(|panic| {
            Err(InferenceError::unavailable(format!("loading the model panicked: {panic}")))
        })?;
        self.model = Some(loaded);
        Ok(())
    }

    /// Sleeps until there may be something to do; `false` when the engine was dropped.
    fn wait(&mut self) -> bool {
        let received = if self.active.is_empty() && self.waiting.is_empty() {
            self.jobs.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            self.jobs.recv_timeout(PARKED_POLL)
        };
        match received {
            Ok(job) => self.waiting.push_back(job),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return false,
        }
        true
    }

    fn stop(mut self) {
        for sequence in self.active.drain(..) {
            sequence.fail(InferenceError::Stopped);
        }
        self.waiting.extend(self.jobs.try_iter());
        for job in self.waiting.drain(..) {
            self.shared.free_place();
            Listener::new(job.sink).fail(InferenceError::Stopped);
        }
        self.shared.set_active(0);
    }
}
