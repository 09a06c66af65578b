//! The far end of a sequence: who hears its events.

use std::collections::VecDeque;

use super::worker::guarded;
use super::{Readiness, TokenEvent, TokenSink};
use crate::InferenceError;

/// A sink and what it has not been given yet. A sink that panics counts as closed: it must not take the engine along.
pub(super) struct Listener {
    sink: Box<dyn TokenSink>,
    due: VecDeque<TokenEvent>,
}

impl Listener {
    pub(super) fn new(sink: Box<dyn TokenSink>) -> Self {
        Self { sink, due: VecDeque::new() }
    }

    pub(super) fn queue(&mut self, event: TokenEvent) {
        self.due.push_back(event);
    }

    /// Sends what is due as long as the sink takes it; `Ready` means that nothing is due any more.
    pub(super) fn deliver(&mut self) -> Readiness {
        loop {
            let readiness = ask(&mut *self.sink);
            if readiness != Readiness::Ready {
                return readiness;
            }
            let Some(event) = self.due.pop_front() else { return Readiness::Ready };
            if !guarded(|| self.sink.send(event)).unwrap_or(false) {
                return Readiness::Closed;
            }
        }
    }

    /// Sends the last event, whether or not the sink is ready.
    pub(super) fn fail(mut self, error: InferenceError) {
        // Whether anyone still listens makes no difference any more.
        let _ = guarded(|| self.sink.send(TokenEvent::Failed(error)));
    }
}

/// Whether a sink is ready.
pub(super) fn ask(sink: &mut dyn TokenSink) -> Readiness {
    guarded(|| sink.ready()).unwrap_or(Readiness::Closed)
}
