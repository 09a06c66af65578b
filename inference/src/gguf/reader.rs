//! A cursor over untrusted bytes.

use super::header::MAX_HEADER_BYTES;
use crate::InferenceError;

/// Longest string the header may hold (a chat template or a token), in bytes.
const MAX_STRING_BYTES: usize = 4 << 20;

/// Reads little-endian values front to back; every read past the end is an error.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the front. Only the part a header may occupy is ever visible.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes: &bytes[..bytes.len().min(MAX_HEADER_BYTES)], position: 0 }
    }

    /// Bytes consumed so far.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// Bytes left to read.
    pub(super) fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], InferenceError> {
        if count > self.remaining() {
            return Err(InferenceError::invalid(format!("the header ends early, at byte {}", self.position)));
        }
        let taken = &self.bytes[self.position..self.position + count];
        self.position += count;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], InferenceError> {
        let mut value = [0; N];
        value.copy_from_slice(self.take(N)?);
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
    pub(super) fn string(&mut self) -> Result<&'a str, InferenceError> {
        let length = self.count("string length", MAX_STRING_BYTES)?;
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map_err(|_| InferenceError::invalid("a string in the header is not UTF-8"))
    }
}
