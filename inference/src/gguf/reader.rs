//! A cursor over untrusted bytes.

use std::io::Read;

use super::file::unreadable;
use super::header::MAX_HEADER_BYTES;
use crate::InferenceError;

/// Longest string the header may hold (a chat template or a token), in bytes.
const MAX_STRING_BYTES: usize = 4 << 20;

/// Reads little-endian values front to back; every read past the end is an error.
#[derive(Debug)]
pub(super) struct Reader<R> {
    source: R,
    position: usize,
    end: usize,
}

impl<R: Read> Reader<R> {
    /// Starts at the front of `len` bytes. Only the part a header may occupy is ever read.
    pub(super) fn new(source: R, len: u64) -> Self {
        let end = usize::try_from(len).unwrap_or(usize::MAX).min(MAX_HEADER_BYTES);
        Self { source, position: 0, end }
    }

    /// Bytes consumed so far.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// Bytes left to read.
    pub(super) fn remaining(&self) -> usize {
        self.end - self.position
    }

    /// Refuses to go on when fewer than `count` bytes are left.
    fn expect(&self, count: usize) -> Result<(), InferenceError> {
        if count <= self.remaining() {
            return Ok(());
        }
        Err(InferenceError::invalid(format!("the header ends early, at byte {}", self.position)))
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), InferenceError> {
        self.expect(bytes.len())?;
        self.source.read_exact(bytes).map_err(|error| unreadable(&error))?;
        self.position += bytes.len();
        Ok(())
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], InferenceError> {
        let mut value = [0; N];
        self.fill(&mut value)?;
        Ok(value)
    }

    pub(super) fn u32(&mut self) -> Result<u32, InferenceError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, InferenceError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A 64-bit count that may not exceed `limit`.
    pub(super) fn count(&mut self, what: &str, limit: usize) -> Result<usize, InferenceError> {
        let stated = self.u64()?;
        match usize::try_from(stated) {
            Ok(count) if count <= limit => Ok(count),
            _ => Err(InferenceError::invalid(format!("{what}: {stated} is above the limit of {limit}"))),
        }
    }

    /// A length-prefixed UTF-8 string.
    pub(super) fn string(&mut self) -> Result<String, InferenceError> {
        let length = self.count("string length", MAX_STRING_BYTES)?;
        // Before anything is allocated.
        self.expect(length)?;
        let mut bytes = vec![0; length];
        self.fill(&mut bytes)?;
        String::from_utf8(bytes).map_err(|_| InferenceError::invalid("a string in the header is not UTF-8"))
    }
}
