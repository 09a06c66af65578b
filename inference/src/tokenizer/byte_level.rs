//! The byte alphabet of byte-level BPE.
//!
//! Source: `bytes_to_unicode` of GPT-2. Printable Latin-1 bytes stand for themselves; the other 68 are mapped, in
//! order, to the characters from U+0100 on, so that every token is printable text.

/// The character that stands for a byte.
#[must_use]
pub fn byte_to_char(byte: u8) -> char {
    if is_printable(byte) {
        char::from(byte)
    } else {
        let before = (0..byte).filter(|&other| !is_printable(other)).count() as u32;
        char::from_u32(0x100 + before).unwrap_or(char::REPLACEMENT_CHARACTER)
    }
}

fn is_printable(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff)
}

/// Turns a token's text back into the bytes it stands for.
#[derive(Debug)]
pub(super) struct ByteAlphabet(std::collections::HashMap<char, u8>);

impl ByteAlphabet {
    pub(super) fn new() -> Self {
        Self((0..=255).map(|byte| (byte_to_char(byte), byte)).collect())
    }

    /// Appends the bytes of a token. A character outside the alphabet stands for its own UTF-8.
    pub(super) fn decode(&self, token: &str, bytes: &mut Vec<u8>) {
        for character in token.chars() {
            match self.0.get(&character) {
                Some(&byte) => bytes.push(byte),
                None => bytes.extend(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
    }
}
