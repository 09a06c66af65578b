//! The body of `streamGenerateContent?alt=sse` as events.
//!
//! Each server-sent event is one chunk; there is no end mark, so a stream is complete when it ends with a
//! finish reason for every candidate. An error after the head may come as an event, but also as bare JSON
//! between the events or instead of them (and then often in an array), which is not SSE at all: lines that
//! begin like JSON are therefore set apart and read as such.

use std::sync::Arc;

use memchr::memchr2_iter;
use opossum_core::answer::StreamEvent;
use opossum_core::class::FailureClass;
use tokio::time::Instant;

use super::Shared;
use super::answer::ReaderState;
use super::errors;
use crate::BackendError;
use crate::http::Decode;
use crate::sse::SseSplitter;

/// Most bytes of bare JSON that are collected.
const MAX_BARE_BYTES: usize = 64 * 1024;

/// Decodes one stream.
pub(super) struct Decoder {
    shared: Arc<Shared>,
    sse: SseSplitter,
    reader: ReaderState,
    /// Whether the next byte begins a line.
    line_start: bool,
    /// JSON outside of any event; everything after its first byte belongs to it.
    bare: Vec<u8>,
    events: u64,
}

impl Decoder {
    /// A decoder for an answer of the model asked for.
    pub(super) fn new(shared: Arc<Shared>, asked: &str) -> Self {
        Self {
            shared,
            sse: SseSplitter::default(),
            reader: ReaderState::new(asked),
            line_start: true,
            bare: Vec::new(),
            events: 0,
        }
    }

    fn feed_sse(&mut self, bytes: &[u8], out: &mut Vec<StreamEvent>) -> Result<(), BackendError> {
        let Self { sse, reader, shared, events, .. } = self;
        let now = Instant::now();
        sse.feed(bytes, |event| {
            *events += 1;
            reader.read(event.data, &shared.signatures, now, out)
        })
    }

    fn feed_bare(&mut self, bytes: &[u8]) -> Result<(), BackendError> {
        if self.bare.len() + bytes.len() > MAX_BARE_BYTES {
            return Err(not_sse());
        }
        self.bare.extend_from_slice(bytes);
        // Only what may be whole is worth parsing; an error need not wait for the body to end.
        if bytes.trim_ascii_end().ends_with(b"}") || bytes.trim_ascii_end().ends_with(b"]") {
            return errors::parse(&self.bare).map_or(Ok(()), |error| Err(error.classify(None)));
        }
        Ok(())
    }

    /// Where bare JSON begins in a chunk.
    fn bare_start(&self, bytes: &[u8]) -> Option<usize> {
        let opens = |at: &usize| matches!(bytes.get(*at), Some(b'{' | b'['));
        let first = self.line_start.then_some(0);
        first.into_iter().chain(memchr2_iter(b'\n', b'\r', bytes).map(|at| at + 1)).find(opens)
    }
}

impl Decode for Decoder {
    fn feed(&mut self, bytes: &[u8], out: &mut Vec<StreamEvent>) -> Result<(), BackendError> {
        let Some(last) = bytes.last() else { return Ok(()) };
        if !self.bare.is_empty() {
            return self.feed_bare(bytes);
        }
        let (events, bare) = match self.bare_start(bytes) {
            Some(at) => bytes.split_at(at),
            None => (bytes, &bytes[..0]),
        };
        self.line_start = matches!(last, b'\n' | b'\r');
        self.feed_sse(events, out)?;
        if bare.is_empty() { Ok(()) } else { self.feed_bare(bare) }
    }

    fn is_done(&self) -> bool {
        // The end of the body is the only end mark.
        false
    }

    fn end(&mut self, out: &mut Vec<StreamEvent>) -> Result<(), BackendError> {
        if !self.bare.is_empty() {
            return Err(errors::parse(&self.bare).map_or_else(not_sse, |error| error.classify(None)));
        }
        let Self { sse, reader, shared, events, .. } = self;
        let now = Instant::now();
        std::mem::take(sse).finish(|event| {
            *events += 1;
            // A last event without its blank line may have been cut; whether it is whole, its JSON tells.
            reader.read(event.data, &shared.signatures, now, out).map_err(cut_short)
        })?;
        if *events == 0 {
            return Err(BackendError::new(FailureClass::BadResponse, "the stream holds no event"));
        }
        reader.end(out)
    }

    fn scrub(&self, error: BackendError) -> BackendError {
        self.shared.endpoint.scrub(error)
    }
}

/// A last event that is not a chunk was cut.
fn cut_short(mut error: BackendError) -> BackendError {
    if error.class == FailureClass::BadResponse {
        error.class = FailureClass::Truncated;
    }
    error
}

fn not_sse() -> BackendError {
    BackendError::new(FailureClass::BadResponse, "the stream holds JSON outside of any event")
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
