//! Newline-delimited JSON, split out of bytes that may be cut anywhere.
//!
//! A line that lies inside one chunk is handed out without copying; blank lines are skipped.

use memchr::memchr;
use opossum_core::class::FailureClass;

use crate::BackendError;

/// Splits a stream of bytes into lines.
#[derive(Debug)]
pub struct LineSplitter {
    held: Vec<u8>,
    cap: usize,
}

impl LineSplitter {
    /// A splitter that refuses lines above `cap` bytes.
    pub fn new(cap: usize) -> Self {
        Self { held: Vec::new(), cap }
    }

    /// Takes the next bytes and hands out each line that they complete, without its line end.
    ///
    /// # Errors
    /// `BadResponse` for a line above the cap, or the first error of `each`.
    pub fn feed(
        &mut self,
        chunk: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        let mut rest = chunk;
        while let Some(end) = memchr(b'\n', rest) {
            let line = &rest[..end];
            rest = &rest[end + 1..];
            if self.held.is_empty() {
                hand_out(line, &mut each)?;
            } else {
                self.hold(line)?;
                hand_out(&self.held, &mut each)?;
                self.held.clear();
            }
        }
        self.hold(rest)
    }

    /// Hands out the last line when the bytes end without its line end.
    ///
    /// # Errors
    /// That of `each`.
    pub fn finish(self, mut each: impl FnMut(&[u8]) -> Result<(), BackendError>) -> Result<(), BackendError> {
        hand_out(&self.held, &mut each)
    }

    fn hold(&mut self, bytes: &[u8]) -> Result<(), BackendError> {
        if self.held.len() + bytes.len() > self.cap {
            let detail = format!("a line is longer than {} bytes", self.cap);
            return Err(BackendError::new(FailureClass::BadResponse, detail));
        }
        self.held.extend_from_slice(bytes);
        Ok(())
    }
}

fn hand_out(
    line: &[u8],
    each: &mut impl FnMut(&[u8]) -> Result<(), BackendError>,
) -> Result<(), BackendError> {
    let line = line.trim_ascii();
    if line.is_empty() { Ok(()) } else { each(line) }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        let mut splitter = LineSplitter::new(1000);
        let mut keep = |line: &[u8]| {
            lines.push(line.to_vec());
            Ok(())
        };
        for chunk in chunks {
            splitter.feed(chunk, &mut keep).unwrap();
        }
        splitter.finish(&mut keep).unwrap();
        lines
    }

    #[test]
    fn lines_lose_their_ends_and_blank_ones_vanish() {
        assert_eq!(split(&[b"{}\r\n\n{1}\n{2}"]), [b"{}".to_vec(), b"{1}".to_vec(), b"{2}".to_vec()]);
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut splitter = LineSplitter::new(1000);
        let refused = (0..20).any(|_| splitter.feed(&[b'x'; 100], |_| Ok(())).is_err());
        assert!(refused);
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_lines(
            text in "([a-zä]{0,5}\r?\n){0,10}[a-z]{0,3}",
            cuts in proptest::collection::vec(0usize..80, 0..10),
        ) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            let whole = split(&[bytes]);
            prop_assert_eq!(&split(&chunks), &whole);
        }
    }
}
