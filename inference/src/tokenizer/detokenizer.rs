//! Bytes to text, a token at a time.

/// Turns a stream of token bytes into whole characters.
///
/// A token may end in the middle of a character: those bytes are held back until the character is complete. Bytes that
/// can never become a character turn into U+FFFD, with the grouping of [`String::from_utf8_lossy`], so the output does
/// not depend on how the bytes were cut into tokens.
#[derive(Debug, Clone, Default)]
pub struct Detokenizer {
    held: Vec<u8>,
}

impl Detokenizer {
    /// Adds a token's bytes and returns the characters that are complete now.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.held.extend_from_slice(bytes);
        let mut text = String::new();
        let mut consumed = 0;
        while consumed < self.held.len() {
            match std::str::from_utf8(&self.held[consumed..]) {
                Ok(valid) => {
                    text.push_str(valid);
                    consumed = self.held.len();
                }
                Err(error) => {
                    let valid_to = consumed + error.valid_up_to();
                    text.push_str(&String::from_utf8_lossy(&self.held[consumed..valid_to]));
                    consumed = valid_to;
                    // No length: the bytes are the start of a character and may yet be completed.
                    let Some(broken) = error.error_len() else { break };
                    text.push(char::REPLACEMENT_CHARACTER);
                    consumed += broken;
                }
            }
        }
        self.held.drain(..consumed);
        text
    }

    /// Ends the stream: an incomplete character becomes U+FFFD.
    pub fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.held).into_owned();
        self.held.clear();
        text
    }
}
