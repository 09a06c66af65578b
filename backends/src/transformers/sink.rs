//! The way from the engine's thread to the task that reads.
//!
//! A bounded channel with one place more than is ever used for tokens: the engine's last word about a failed
//! sequence comes unasked and must not be lost because the reader is slow.

use std::task::{Context, Poll};

use opossum_inference::{Readiness, TokenEvent, TokenSink};
use tokio::sync::mpsc;

/// Tokens on their way before a sequence is parked. Few, so that a caller who left costs few tokens, and
/// enough to cover the reader's wake-up.
const CAPACITY: usize = 32;

/// The engine's end.
#[derive(Debug)]
pub struct LocalSink(mpsc::Sender<TokenEvent>);

/// The reader's end. Dropping it cancels the job between two tokens.
#[derive(Debug)]
pub struct LocalStream(mpsc::Receiver<TokenEvent>);

impl LocalStream {
    /// A stream and the sink that fills it.
    pub fn channel() -> (LocalSink, Self) {
        let (sender, receiver) = mpsc::channel(CAPACITY + 1);
        (LocalSink(sender), Self(receiver))
    }

    /// The next event; `None` when the engine let go of the job.
    pub async fn recv(&mut self) -> Option<TokenEvent> {
        self.0.recv().await
    }

    /// All events that are ready, at least one; `Ready(0)` when the engine let go of the job.
    pub(super) fn poll_many(&mut self, cx: &mut Context<'_>, events: &mut Vec<TokenEvent>) -> Poll<usize> {
        self.0.poll_recv_many(cx, events, CAPACITY + 1)
    }
}

impl TokenSink for LocalSink {
    fn ready(&mut self) -> Readiness {
        if self.0.is_closed() {
            Readiness::Closed
        } else if self.0.capacity() <= 1 {
            Readiness::Full
        } else {
            Readiness::Ready
        }
    }

    fn send(&mut self, event: TokenEvent) -> bool {
        self.0.try_send(event).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use opossum_inference::InferenceError;

    use super::*;

    fn text() -> TokenEvent {
        TokenEvent::Text { text: "x".into(), tokens: 1, logprobs: Vec::new() }
    }

    #[tokio::test]
    async fn a_slow_reader_parks_and_still_hears_of_a_failure() {
        let (mut sink, mut stream) = LocalStream::channel();
        let mut sent = 0;
        while sink.ready() == Readiness::Ready {
            assert!(sink.send(text()));
            sent += 1;
        }
        assert_eq!((sent, sink.ready()), (CAPACITY, Readiness::Full));
        assert!(sink.send(TokenEvent::Failed(InferenceError::Stopped)));
        let mut last = None;
        drop(sink);
        while let Some(event) = stream.recv().await {
            last = Some(event);
        }
        assert_eq!(last, Some(TokenEvent::Failed(InferenceError::Stopped)));
    }

    #[test]
    fn a_reader_who_left_closes_the_sink() {
        let (mut sink, stream) = LocalStream::channel();
        assert_eq!(sink.ready(), Readiness::Ready);
        drop(stream);
        assert_eq!(sink.ready(), Readiness::Closed);
        assert!(!sink.send(text()));
    }
}
