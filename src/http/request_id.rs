//! Identities of requests and completions.

use std::sync::Arc;

use actix_web::HttpRequest;

/// Header that carries a request's identity, in and out.
pub const HEADER: &str = "x-request-id";

/// Longest identity taken over from a caller.
const LONGEST: usize = 128;

/// The caller's own identity for this request, if it is a harmless token, else a new one.
pub fn of(req: &HttpRequest) -> Arc<str> {
    let given = req.headers().get(HEADER).and_then(|v| v.to_str().ok()).filter(|id| is_token(id));
    given.map_or_else(|| fresh("req_"), Arc::from)
}

/// A new identity: a prefix and 96 random bits in hexadecimal.
pub fn fresh(prefix: &str) -> Arc<str> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bits = [rand::random::<u64>(), u64::from(rand::random::<u32>())];
    let mut text = [0_u8; 40];
    let (head, rest) = text.split_at_mut(prefix.len().min(16));
    head.copy_from_slice(&prefix.as_bytes()[..head.len()]);
    for (i, digit) in rest[..24].iter_mut().enumerate() {
        let (word, place) = if i < 16 { (bits[0], i) } else { (bits[1], i - 16) };
        *digit = HEX[(word >> (place * 4)) as usize & 15];
    }
    let end = head.len() + 24;
    Arc::from(std::str::from_utf8(&text[..end]).unwrap_or(prefix))
}

fn is_token(id: &str) -> bool {
    (1..=LONGEST).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_identity_has_its_prefix_and_is_new() {
        let (a, b) = (fresh("chatcmpl-"), fresh("chatcmpl-"));
        assert!(a.starts_with("chatcmpl-") && a.len() == 9 + 24, "{a}");
        assert_ne!(a, b);
        assert!(is_token(&a));
    }

    #[test]
    fn only_harmless_tokens_are_taken_over() {
        for bad in ["", "a b", "a\r\nset-cookie: x", &"x".repeat(129), "ü"] {
            assert!(!is_token(bad), "{bad:?}");
        }
        assert!(is_token("0af7651916cd43dd8448eb211c80319c"));
    }
}
