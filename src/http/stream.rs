//! The body of a streamed answer: events of the path, as server-sent events.

use std::future::Future as _;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;
use tokio::time::{Instant, Sleep};

use super::error::{ApiError, Code};
use super::exchange::Exchange;
use super::openai::encode::{KEEP_ALIVE, StreamEncoder};
use crate::service::AnswerStream;

/// A comment is sent after this much silence, so that proxies on the way keep the connection.
const SILENCE: Duration = Duration::from_secs(10);

/// A streamed answer on its way to the caller. Dropping it cancels the work.
pub struct SseBody {
    events: Option<AnswerStream>,
    encoder: StreamEncoder,
    exchange: Exchange,
    quiet: Pin<Box<Sleep>>,
}

impl SseBody {
    /// Starts with a committed stream.
    pub fn new(events: AnswerStream, encoder: StreamEncoder, exchange: Exchange) -> Self {
        Self { events: Some(events), encoder, exchange, quiet: Box::pin(tokio::time::sleep(SILENCE)) }
    }

    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut out = Vec::new();
        while out.is_empty() {
            let Some(events) = self.events.as_mut() else { return Poll::Ready(None) };
            match events.as_mut().poll_next(cx) {
                Poll::Pending => return self.poll_quiet(cx),
                Poll::Ready(Some(Ok(batch))) => self.encoder.encode(&batch, &mut out),
                Poll::Ready(Some(Err(error))) => {
                    let error = ApiError::from(error);
                    self.fail(&error, &mut out);
                }
                Poll::Ready(None) => {
                    self.encoder.finish(&mut out);
                    self.exchange.end(200, None);
                    self.events = None;
                }
            }
        }
        self.quiet.as_mut().reset(Instant::now() + SILENCE);
        Poll::Ready(Some(Bytes::from(out)))
    }

    /// An error frame and no end mark, so that no client takes the rest for an answer.
    fn fail(&mut self, error: &ApiError, out: &mut Vec<u8>) {
        self.encoder.fail(error, &self.exchange.arrival.request_id, out);
        self.exchange.end(200, Some(error.code().as_str()));
        self.events = None;
    }

    fn poll_quiet(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.quiet.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.quiet.as_mut().reset(Instant::now() + SILENCE);
        Poll::Ready(Some(Bytes::from_static(KEEP_ALIVE)))
    }
}

impl MessageBody for SseBody {
    type Error = std::convert::Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        // The head is sent already: a panic can only become an error frame.
        let advanced = std::panic::catch_unwind(AssertUnwindSafe(|| self.advance(cx)));
        let polled = advanced.unwrap_or_else(|_| {
            let mut out = Vec::new();
            self.fail(&ApiError::new(Code::InternalError, "internal error"), &mut out);
            Poll::Ready(Some(Bytes::from(out)))
        });
        polled.map(|item| item.map(Ok))
    }
}
