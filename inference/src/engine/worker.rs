//! The loop on the engine's thread.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Select, TryRecvError};

use super::intake::Intake;
use super::listener::{Listener, ask};
use super::scheduler::Scheduler;
use super::shared::Shared;
use super::{EngineConfig, Job, ModelInfo, Readiness};
use crate::InferenceError;
use crate::model::{BLOCK_TOKENS, BatchEntry, KvCache, Language, LoadedModel, Logits, Rows};

/// How often listeners that were not ready are asked again when there is nothing else to do.
const PARKED_POLL: Duration = Duration::from_millis(2);

/// Runs a closure that may panic; the error is the panic's message.
///
/// Unwind safety: every caller throws away what the closure could have left half-done.
pub(crate) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| message(&*panic))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

/// A job on its way to the engine's thread.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) job: Job,
    pub(super) submitted: Instant,
}

/// A model with the cache of all its sequences.
pub(super) struct Loaded {
    model: LoadedModel,
    cache: KvCache,
}

impl Loaded {
    /// Loads the model and makes a cache of `blocks` blocks, or of as many as the settings and the memory allow.
    ///
    /// # Errors
    /// As [`LoadedModel::load`].
    pub(super) fn load(config: &EngineConfig, blocks: Option<usize>) -> Result<Self, InferenceError> {
        let options = config.load_options();
        let load = || {
            let model = LoadedModel::load(&options)?;
            let blocks = blocks.unwrap_or_else(|| config.cache_blocks(&model));
            let mut cache = model.new_cache(blocks)?;
            if model.compiles() {
                let began = Instant::now();
                let passes = model.warm_up(&mut cache, config.max_sequences)?;
                tracing::info!(
                    passes,
                    seconds = began.elapsed().as_secs_f64(),
                    "the device's kernels are compiled"
                );
            }
            Ok(Self { model, cache })
        };
        guarded(load).unwrap_or_else(|panic| {
            Err(InferenceError::unavailable(format!("loading the model panicked: {panic}")))
        })
    }

    /// What the model is, its context no longer than the cache.
    pub(super) fn info(&self) -> ModelInfo {
        let mut info = self.model.info().clone();
        info.context_length = self.context();
        info
    }

    /// What turns prompts into tokens.
    pub(super) fn language(&self) -> &Arc<Language> {
        self.model.language()
    }

    /// Tokens of prompt and answer together that one sequence can have.
    fn context(&self) -> usize {
        self.model.info().context_length.min(self.blocks() * BLOCK_TOKENS)
    }

    /// Blocks of the cache.
    pub(super) fn blocks(&self) -> usize {
        self.cache.blocks()
    }
}

/// The engine's thread state.
pub(super) struct Worker {
    config: EngineConfig,
    /// Absent after a panic that broke it and while it could not be loaded again.
    loaded: Option<Loaded>,
    shared: Arc<Shared>,
    jobs: Receiver<Queued>,
    waiting: VecDeque<Queued>,
    intake: Intake,
    scheduler: Scheduler,
}

impl Worker {
    /// # Errors
    /// As [`Intake::start`].
    pub(super) fn new(
        config: EngineConfig,
        loaded: Loaded,
        shared: Arc<Shared>,
        jobs: Receiver<Queued>,
    ) -> Result<Self, InferenceError> {
        let scheduler = Scheduler::new(loaded.blocks());
        let intake = Intake::start(Arc::clone(loaded.language()), loaded.context(), Arc::clone(&shared))?;
        Ok(Self { config, loaded: Some(loaded), shared, jobs, waiting: VecDeque::new(), intake, scheduler })
    }

    /// Works until the engine is stopped.
    pub(super) fn run(mut self) {
        while !self.shared.is_stopping() {
            self.scheduler.settle();
            self.take_jobs();
            self.admit();
            self.show();
            if !self.step() && !self.wait() {
                break;
            }
        }
        self.stop();
    }

    /// Moves new jobs over and forgets those whose listener left: each frees its place in the queue.
    fn take_jobs(&mut self) {
        self.waiting.extend(self.jobs.try_iter());
        let shared = &self.shared;
        self.waiting.retain_mut(|queued| {
            let listens = ask(&mut *queued.job.sink) != Readiness::Closed;
            if !listens {
                shared.free_place();
            }
            listens
        });
    }

    /// Has jobs started as long as there are places, and takes in the sequences that they became.
    fn admit(&mut self) {
        while self.scheduler.len() + self.intake.len() < self.config.max_sequences {
            let Some(queued) = self.waiting.pop_front() else { break };
            self.shared.free_place();
            self.shared.waited(queued.submitted.elapsed());
            self.intake.give(queued);
        }
        while let Some(started) = self.intake.take() {
            match (started, self.ensure_loaded()) {
                (Ok(sequence), Ok(_)) => self.scheduler.add(sequence),
                (Ok(sequence), Err(error)) => sequence.fail(error),
                (Err((listener, error)), _) => listener.fail(error),
            }
        }
    }

    /// Computes one step; `false` when there was nothing to compute.
    fn step(&mut self) -> bool {
        let Some(loaded) = &mut self.loaded else { return false };
        if !self.scheduler.plan() {
            return false;
        }
        let began = Instant::now();
        let batch = self.scheduler.batch();
        match forward(loaded, &batch, &self.config) {
            Ok(mut logits) => {
                drop(batch);
                self.scheduler.take(&mut logits, &loaded.model, began, &self.shared);
            }
            Err(error) => {
                drop(batch);
                self.recover(&error);
            }
        }
        true
    }

    /// After a step that failed as a whole: tells the sequences that were in it, throws the cache away, and makes
    /// sure that the weights still work.
    fn recover(&mut self, error: &InferenceError) {
        self.shared.count_restart();
        let sequences = self.scheduler.fail_step(error);
        tracing::error!(%error, sequences, "a step of the inference engine failed; it starts afresh");
        let works = match &mut self.loaded {
            None => false,
            Some(loaded) => match guarded(|| loaded.model.new_cache(loaded.cache.blocks())) {
                Ok(Ok(cache)) => {
                    loaded.cache = cache;
                    works(loaded, &self.config)
                }
                Ok(Err(_)) | Err(_) => false,
            },
        };
        if works {
            return;
        }
        self.loaded = None;
        if let Err(error) = self.ensure_loaded() {
            tracing::error!(%error, "the model cannot be loaded again; the next job will try");
            self.scheduler.fail_all(&error);
        }
    }

    fn ensure_loaded(&mut self) -> Result<&Loaded, InferenceError> {
        let loaded = match self.loaded.take() {
            Some(loaded) => loaded,
            None => Loaded::load(&self.config, Some(self.scheduler.blocks().total()))?,
        };
        Ok(self.loaded.insert(loaded))
    }

    /// Lets the handle see what is going on.
    fn show(&self) {
        self.shared.set_active(self.scheduler.len() + self.intake.len());
        self.shared.set_blocks_in_use(self.scheduler.blocks().in_use());
    }

    /// Sleeps until there may be something to do; `false` when the engine was dropped.
    fn wait(&mut self) -> bool {
        let mut events = Select::new();
        events.recv(&self.jobs);
        if self.intake.len() > 0 {
            events.recv(self.intake.ready());
        }
        if self.scheduler.len() == 0 && self.waiting.is_empty() {
            events.ready();
        } else {
            // That nothing came in time is no news.
            let _ = events.ready_timeout(PARKED_POLL);
        }
        match self.jobs.try_recv() {
            Ok(job) => self.waiting.push_back(job),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return false,
        }
        true
    }

    fn stop(mut self) {
        self.scheduler.settle();
        self.scheduler.fail_all(&InferenceError::Stopped);
        for started in self.intake.stop() {
            match started {
                Ok(sequence) => sequence.fail(InferenceError::Stopped),
                Err((listener, error)) => listener.fail(error),
            }
        }
        self.waiting.extend(self.jobs.try_iter());
        for queued in self.waiting.drain(..) {
            self.shared.free_place();
            Listener::new(queued.job.sink).fail(InferenceError::Stopped);
        }
        self.shared.set_active(0);
        self.shared.set_blocks_in_use(0);
    }
}

/// One pass through the model; a panic in it is an error.
fn forward(
    loaded: &mut Loaded,
    batch: &[BatchEntry<'_>],
    config: &EngineConfig,
) -> Result<Logits, InferenceError> {
    let pass = || {
        if let Some(hook) = &config.fault {
            (hook.0)();
        }
        loaded.model.forward(batch, &mut loaded.cache)
    };
    guarded(pass).unwrap_or_else(|message| Err(InferenceError::EnginePanicked { message }))
}

/// One token through the whole model.
fn works(loaded: &mut Loaded, config: &EngineConfig) -> bool {
    let entry = BatchEntry { tokens: &[0], past: 0, blocks: &[0], rows: Rows::Last };
    let tried = forward(loaded, &[entry], config);
    tried.is_ok_and(|mut logits| logits.row(0).iter().all(|logit| logit.is_finite()))
}
