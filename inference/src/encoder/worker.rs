//! The loop on the encoder's thread.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::Receiver;

use super::load::{self, LoadedEncoder};
use super::{EncodeJob, Encoded, EncoderConfig};
use crate::InferenceError;
use crate::engine::worker::guarded;

/// A job whose inputs are tokens by now.
struct Active {
    job: EncodeJob,
    /// Sequences that are still to be computed.
    waiting: VecDeque<Vec<u32>>,
    encoded: Encoded,
}

/// The thread's state.
pub(super) struct Worker {
    pub(super) config: EncoderConfig,
    /// Absent after a panic, until it was loaded again.
    pub(super) model: Option<LoadedEncoder>,
    pub(super) jobs: Receiver<EncodeJob>,
    pub(super) stopping: Arc<AtomicBool>,
}

impl Worker {
    /// Works until the encoder is dropped.
    pub(super) fn run(mut self) {
        let mut active = VecDeque::new();
        while !self.stopping.load(Ordering::Relaxed) {
            if active.is_empty() {
                let Ok(job) = self.jobs.recv() else { break };
                active.extend(self.start(job));
            }
            while tokens(&active) < self.config.max_batch_tokens
                && let Ok(job) = self.jobs.try_recv()
            {
                active.extend(self.start(job));
            }
            active.retain(|one| !(one.job.cancelled)());
            self.step(&mut active);
        }
        for one in active {
            (one.job.reply)(Err(InferenceError::Stopped));
        }
        for job in self.jobs.try_iter() {
            (job.reply)(Err(InferenceError::Stopped));
        }
    }

    /// Makes tokens of a job's inputs; a job that cannot be computed is answered here.
    fn start(&mut self, mut job: EncodeJob) -> Option<Active> {
        if (job.cancelled)() {
            return None;
        }
        let inputs = std::mem::take(&mut job.inputs);
        let tokens = self.ensure_model().and_then(|model| {
            if inputs.is_empty() {
                let reason = "must not be empty".to_owned();
                return Err(InferenceError::BadParameter { name: "input", reason });
            }
            let encode = |input| model.tokens.encode(input, job.truncate);
            guarded(|| inputs.iter().map(encode).collect::<Result<VecDeque<_>, _>>())
                .unwrap_or_else(|message| Err(InferenceError::EnginePanicked { message }))
        });
        match tokens {
            Ok(waiting) => {
                let prompt_tokens = waiting.iter().map(Vec::len).sum();
                let encoded = Encoded { vectors: Vec::with_capacity(waiting.len()), prompt_tokens };
                Some(Active { job, waiting, encoded })
            }
            Err(error) => {
                (job.reply)(Err(error));
                None
            }
        }
    }

    /// Computes one batch: a sequence of each job in turn until there are enough tokens, so that a job of many inputs
    /// holds up no other.
    fn step(&mut self, active: &mut VecDeque<Active>) {
        let mut batch: Vec<(usize, Vec<u32>)> = Vec::new();
        let mut total = 0;
        let mut taken = true;
        while taken {
            taken = false;
            for (index, one) in active.iter_mut().enumerate() {
                let fits = |ids: &Vec<u32>| total == 0 || total + ids.len() <= self.config.max_batch_tokens;
                if one.waiting.front().is_some_and(fits)
                    && let Some(ids) = one.waiting.pop_front()
                {
                    total += ids.len();
                    batch.push((index, ids));
                    taken = true;
                }
            }
        }
        if batch.is_empty() {
            return;
        }
        let computed = self.compute(&batch);
        let failed: Vec<(usize, InferenceError)> = match computed {
            Ok(vectors) => batch
                .iter()
                .zip(vectors)
                .filter_map(|((index, _), mut vector)| match normalise(&mut vector) {
                    Ok(()) => {
                        active[*index].encoded.vectors.push(vector);
                        None
                    }
                    Err(error) => Some((*index, error)),
                })
                .collect(),
            Err(error) => batch.iter().map(|(index, _)| (*index, error.clone())).collect(),
        };
        answer(active, &failed);
    }

    fn compute(&mut self, batch: &[(usize, Vec<u32>)]) -> Result<Vec<Vec<f32>>, InferenceError> {
        let fault = self.config.fault.clone();
        let model = self.ensure_model()?;
        let sequences: Vec<&[u32]> = batch.iter().map(|(_, ids)| ids.as_slice()).collect();
        let computed = guarded(|| {
            if let Some(hook) = fault {
                (hook.0)();
            }
            model.bert.forward(&sequences)
        });
        let dimensions = model.info.dimensions;
        match computed {
            Ok(numbers) => Ok(numbers?.chunks_exact(dimensions).map(<[f32]>::to_vec).collect()),
            Err(message) => {
                tracing::error!(panic = message, "the encoder panicked and is loaded again");
                self.model = None;
                Err(InferenceError::EnginePanicked { message })
            }
        }
    }

    fn ensure_model(&mut self) -> Result<&LoadedEncoder, InferenceError> {
        if self.model.is_none() {
            self.model = Some(guarded(|| load::load(&self.config)).unwrap_or_else(|panic| {
                Err(InferenceError::unavailable(format!("loading the model panicked: {panic}")))
            })?);
        }
        self.model.as_ref().ok_or(InferenceError::Stopped)
    }
}

/// Tokens that are still to be computed.
fn tokens(active: &VecDeque<Active>) -> usize {
    active.iter().flat_map(|one| &one.waiting).map(Vec::len).sum()
}

/// Answers the jobs that failed and those that are complete, and keeps the others.
fn answer(active: &mut VecDeque<Active>, failed: &[(usize, InferenceError)]) {
    for (index, one) in std::mem::take(active).into_iter().enumerate() {
        if let Some((_, error)) = failed.iter().find(|(failed, _)| *failed == index) {
            (one.job.reply)(Err(error.clone()));
        } else if one.waiting.is_empty() {
            (one.job.reply)(Ok(one.encoded));
        } else {
            active.push_back(one);
        }
    }
}

/// Divides a vector by its length.
fn normalise(vector: &mut [f32]) -> Result<(), InferenceError> {
    let squares: f64 = vector.iter().map(|&number| f64::from(number) * f64::from(number)).sum();
    let length = squares.sqrt() as f32;
    if !length.is_finite() || length == 0.0 {
        return Err(InferenceError::NumericalFault { reason: "a vector has no length".to_owned() });
    }
    vector.iter_mut().for_each(|number| *number /= length);
    Ok(())
}
