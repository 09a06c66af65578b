//! The thread that turns prompts into tokens. A long prompt takes as long as many steps, and a grammar longer still:
//! nobody's next token waits for that.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, TryRecvError, unbounded};

use super::listener::Listener;
use super::sequence::Sequence;
use super::shared::Shared;
use super::worker::Queued;
use crate::InferenceError;
use crate::model::Language;

/// A sequence that may join, or whom to tell why there is none.
pub(super) type Started = Result<Sequence, (Listener, InferenceError)>;

/// The engine's side of the thread.
pub(super) struct Intake {
    jobs: Sender<Queued>,
    started: Receiver<Started>,
    /// Jobs that were given and have not come back.
    under_way: usize,
    thread: JoinHandle<()>,
}

impl Intake {
    /// Starts the thread. `context` is how many tokens a sequence can have.
    ///
    /// # Errors
    /// [`InferenceError::ModelUnavailable`] when there can be no further thread.
    pub(super) fn start(
        language: Arc<Language>,
        context: usize,
        shared: Arc<Shared>,
    ) -> Result<Self, InferenceError> {
        let (jobs, given) = unbounded();
        let (answer, started) = unbounded();
        let thread = std::thread::Builder::new()
            .name("inference-text".to_owned())
            .spawn(move || run(&language, context, &shared, &given, &answer))
            .map_err(|error| InferenceError::unavailable(format!("cannot start a thread: {error}")))?;
        Ok(Self { jobs, started, under_way: 0, thread })
    }

    /// Jobs under way.
    pub(super) fn len(&self) -> usize {
        self.under_way
    }

    /// Hands a job over.
    pub(super) fn give(&mut self, queued: Queued) {
        match self.jobs.send(queued) {
            Ok(()) => self.under_way += 1,
            // The thread is gone, which only a panic outside the guarded parts explains.
            Err(lost) => Listener::new(lost.0.job.sink).fail(InferenceError::Stopped),
        }
    }

    /// What came back, without waiting; jobs come back in the order they were given.
    pub(super) fn take(&mut self) -> Option<Started> {
        let started = self.started.try_recv();
        self.under_way = match started {
            Ok(_) => self.under_way - 1,
            Err(TryRecvError::Empty) => self.under_way,
            // The thread is gone with all that it had.
            Err(TryRecvError::Disconnected) => 0,
        };
        started.ok()
    }

    /// Is ready when there is something to take.
    pub(super) fn ready(&self) -> &Receiver<Started> {
        &self.started
    }

    /// Ends the thread; answers what it still had.
    pub(super) fn stop(self) -> Vec<Started> {
        drop(self.jobs);
        let left = self.started.iter().collect();
        // An error is a panic that is already reported; nothing is left to clean up.
        let _ = self.thread.join();
        left
    }
}

fn run(
    language: &Language,
    context: usize,
    shared: &Shared,
    given: &Receiver<Queued>,
    answer: &Sender<Started>,
) {
    for Queued { job, submitted } in given {
        let started = match shared.is_stopping() {
            true => Err((Listener::new(job.sink), InferenceError::Stopped)),
            false => Sequence::start(job, language, context, submitted),
        };
        if answer.send(started).is_err() {
            return;
        }
    }
}
