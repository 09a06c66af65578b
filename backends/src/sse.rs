//! Server-sent events, split out of bytes that may be cut anywhere.
//!
//! Follows the WHATWG HTML standard, section 9.2.6: lines end in CRLF, LF or CR, a leading byte order mark is
//! skipped, `data` lines of one event are joined by LF, comments and unknown fields are ignored. `id` and
//! `retry` have no meaning here, since a generation cannot be resumed.
//!
//! An event whose one data line and blank line lie inside one chunk is handed out without copying.

use std::ops::Range;

use memchr::memchr2;
use opossum_core::class::FailureClass;

use crate::BackendError;

/// The longest event (and line), in bytes.
pub const MAX_EVENT_BYTES: usize = 1024 * 1024;

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SseEvent<'a> {
    /// The event's type; empty where none was given.
    pub name: &'a [u8],
    /// The data.
    pub data: &'a [u8],
}

/// Splits a stream of bytes into events.
#[derive(Debug, Default)]
pub struct SseSplitter {
    /// The begun line, when a chunk ended inside it.
    line: Vec<u8>,
    /// The data of the event so far, as far as it does not lie in the current chunk.
    data: Vec<u8>,
    /// Where the event's only data line lies in the current chunk.
    in_chunk: Option<Range<usize>>,
    has_data: bool,
    name: Vec<u8>,
    /// The last byte was a CR: an LF right after it belongs to the same line end.
    after_cr: bool,
    /// A first line was seen, so no byte order mark can follow.
    started: bool,
}

impl SseSplitter {
    /// Takes the next bytes and hands out each event that they complete.
    ///
    /// # Errors
    /// `BadResponse` for an event above [`MAX_EVENT_BYTES`], or the first error of `each`. The splitter is
    /// then of no further use.
    pub fn feed(
        &mut self,
        chunk: &[u8],
        mut each: impl FnMut(SseEvent<'_>) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        let mut at = 0;
        if self.after_cr && !chunk.is_empty() {
            self.after_cr = false;
            at = usize::from(chunk[0] == b'\n');
        }
        while let Some(length) = memchr2(b'\n', b'\r', &chunk[at..]) {
            let end = at + length;
            if self.line.is_empty() {
                self.take_line(chunk, Some(at..end), &mut each)?;
            } else {
                self.hold(&chunk[at..end])?;
                self.take_line(chunk, None, &mut each)?;
            }
            at = end + 1;
            if chunk[end] == b'\r' {
                match chunk.get(at) {
                    Some(b'\n') => at += 1,
                    Some(_) => {}
                    None => self.after_cr = true,
                }
            }
        }
        self.hold(&chunk[at..])?;
        // The chunk is about to go: what is held of it by reference must be kept.
        if let Some(range) = self.in_chunk.take() {
            self.data.extend_from_slice(&chunk[range]);
        }
        Ok(())
    }

    /// Hands out what is left when the bytes end without the last blank line.
    ///
    /// The standard discards it. Upstreams do leave the last blank line out, though, and a consumer that
    /// needs an end mark anyway can tell a whole event from a cut one by its content.
    ///
    /// # Errors
    /// That of `each`.
    pub fn finish(
        mut self,
        each: impl FnMut(SseEvent<'_>) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        self.feed(b"\n\n", each)
    }

    fn hold(&mut self, bytes: &[u8]) -> Result<(), BackendError> {
        if self.line.len() + self.data.len() + bytes.len() > MAX_EVENT_BYTES {
            return Err(too_long());
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    /// Takes one line, which lies in the chunk or in `self.line`.
    fn take_line(
        &mut self,
        chunk: &[u8],
        place: Option<Range<usize>>,
        each: &mut impl FnMut(SseEvent<'_>) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        let held = std::mem::take(&mut self.line);
        let in_chunk = place.is_some();
        let (line, mut start) = match place {
            Some(range) => (&chunk[range.clone()], range.start),
            None => (held.as_slice(), 0),
        };
        let mut rest = line;
        if !self.started {
            self.started = true;
            if let Some(after) = line.strip_prefix(b"\xef\xbb\xbf") {
                rest = after;
                start += 3;
            }
        }
        if rest.is_empty() {
            self.dispatch(chunk, each)?;
        } else if let Some(value) = field(rest, b"data") {
            let offset = rest.len() - value.len();
            self.take_data(chunk, value, in_chunk.then(|| start + offset..start + rest.len()))?;
        } else if let Some(value) = field(rest, b"event") {
            self.name.clear();
            self.name.extend_from_slice(value);
        }
        // Keep the allocation for the next cut line.
        self.line = held;
        self.line.clear();
        Ok(())
    }

    fn take_data(
        &mut self,
        chunk: &[u8],
        value: &[u8],
        place: Option<Range<usize>>,
    ) -> Result<(), BackendError> {
        if !self.has_data && place.is_some() {
            self.has_data = true;
            self.in_chunk = place;
            return Ok(());
        }
        if let Some(range) = self.in_chunk.take() {
            self.data.extend_from_slice(&chunk[range]);
        }
        if self.data.len() + value.len() >= MAX_EVENT_BYTES {
            return Err(too_long());
        }
        if self.has_data {
            self.data.push(b'\n');
        }
        self.has_data = true;
        self.data.extend_from_slice(value);
        Ok(())
    }

    fn dispatch(
        &mut self,
        chunk: &[u8],
        each: &mut impl FnMut(SseEvent<'_>) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        if std::mem::take(&mut self.has_data) {
            let data = match self.in_chunk.take() {
                Some(range) => &chunk[range],
                None => self.data.as_slice(),
            };
            each(SseEvent { name: &self.name, data })?;
            self.data.clear();
        }
        self.name.clear();
        Ok(())
    }
}

/// The value of a field line, without the one space that may follow the colon.
fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let rest = line.strip_prefix(name)?;
    match rest.split_first() {
        None => Some(rest),
        Some((b':', value)) => Some(value.strip_prefix(b" ").unwrap_or(value)),
        Some(_) => None,
    }
}

fn too_long() -> BackendError {
    BackendError::new(FailureClass::BadResponse, format!("an event is longer than {MAX_EVENT_BYTES} bytes"))
}

#[cfg(test)]
mod tests;
