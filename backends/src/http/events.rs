//! From the bytes of a streamed answer to events, as much at a time as has arrived.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::Stream;
use opossum_core::answer::StreamEvent;
use tokio::time::Sleep;

use super::response::{Body, Response};
use crate::BackendError;

/// Most bytes decoded into one batch, so that one busy stream cannot hold its event loop.
const MAX_BATCH_BYTES: usize = 64 * 1024;
/// How long the body's own end is waited for after the dialect's end mark. It mostly follows at once, and only
/// a body read to its end leaves a connection that can be used again.
const LINGER: Duration = Duration::from_millis(100);

/// A dialect's streaming decoder: bytes in, events out.
pub trait Decode: Send + Unpin + 'static {
    /// Takes the next bytes, however they were cut, and appends the events they complete.
    ///
    /// # Errors
    /// What the upstream reported or broke. The stream is then over; events appended before are kept.
    fn feed(&mut self, bytes: &[u8], out: &mut Vec<StreamEvent>) -> Result<(), BackendError>;

    /// Whether the dialect's end mark has come. What follows it is not decoded.
    fn is_done(&self) -> bool;

    /// The body ended without the end mark.
    ///
    /// # Errors
    /// `Truncated`, unless the dialect counts what came as complete.
    fn end(&mut self, out: &mut Vec<StreamEvent>) -> Result<(), BackendError>;

    /// A last look at an error on its way out, such as to take a credential out of its text.
    fn scrub(&self, error: BackendError) -> BackendError {
        error
    }
}

/// A streamed answer as batches of events.
///
/// Each poll drains what is ready (up to 64 KiB) into one batch: an upstream that outruns us costs one
/// wake-up for many tokens instead of one each.
pub struct EventBody<D> {
    /// `None` once the stream is over, which aborts the exchange or returns its connection.
    body: Option<Body>,
    decoder: D,
    /// An error that waits for the events before it to be taken.
    failed: Option<BackendError>,
    /// Set once the end mark came before the body's end.
    linger: Option<Pin<Box<Sleep>>>,
}

impl<D: Decode> EventBody<D> {
    /// Decodes an answer's body.
    ///
    /// # Errors
    /// `BadResponse` when it is compressed.
    pub fn new(response: Response, decoder: D) -> Result<Self, BackendError> {
        Ok(Self { body: Some(response.into_body()?), decoder, failed: None, linger: None })
    }

    /// Decodes until nothing more is ready; `Pending` when the stream goes on.
    fn drain(&mut self, cx: &mut Context<'_>, out: &mut Vec<StreamEvent>) -> Poll<Result<(), BackendError>> {
        let mut taken = 0;
        while let Some(body) = &mut self.body
            && taken < MAX_BATCH_BYTES
            && !self.decoder.is_done()
        {
            match ready!(body.poll_next(cx)) {
                Some(Ok(bytes)) => {
                    self.decoder.feed(&bytes, out)?;
                    taken += bytes.len();
                }
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => {
                    self.body = None;
                    self.decoder.end(out)?;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads on to the body's end after the end mark, for a short while and without looking.
    fn finish_body(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let linger = self.linger.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        while let Some(body) = &mut self.body {
            match body.poll_next(cx) {
                Poll::Ready(Some(Ok(_))) if !linger.is_elapsed() => {}
                Poll::Ready(_) => self.body = None,
                Poll::Pending => {
                    ready!(linger.as_mut().poll(cx));
                    self.body = None;
                }
            }
        }
        Poll::Ready(())
    }
}

impl<D: Decode> Stream for EventBody<D> {
    type Item = Result<Vec<StreamEvent>, BackendError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(error) = this.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let mut out = Vec::new();
        let drained = this.drain(cx, &mut out);
        if let Poll::Ready(Err(error)) = drained {
            this.body = None;
            let error = this.decoder.scrub(error);
            if out.is_empty() {
                return Poll::Ready(Some(Err(error)));
            }
            this.failed = Some(error);
        } else if out.is_empty() && this.decoder.is_done() {
            ready!(this.finish_body(cx));
            return Poll::Ready(None);
        } else if out.is_empty() && drained.is_pending() {
            return Poll::Pending;
        } else if out.is_empty() && this.body.is_none() {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(out)))
    }
}
