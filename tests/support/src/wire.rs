//! Reading HTTP/1.1 from a socket, byte for byte: used by the fake upstreams and by the client.

use std::io::{self, ErrorKind};

use tokio::io::{AsyncRead, AsyncReadExt};

/// A read half and what has been read ahead from it.
pub(crate) struct Wire<R> {
    io: R,
    pub(crate) ahead: Vec<u8>,
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// So many bytes are left.
    Length(usize),
    /// Chunked transfer coding.
    Chunked,
    /// The body ends with the connection.
    UntilClose,
    /// Nothing is left.
    Ended,
}

/// Names and values of a head, in order; names in lower case.
pub(crate) type Headers = Vec<(String, String)>;

/// The first value of a header.
pub(crate) fn header<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// Headers as `httparse` gives them, owned.
pub(crate) fn owned(parsed: &[httparse::Header<'_>]) -> Headers {
    parsed
        .iter()
        .map(|h| (h.name.to_ascii_lowercase(), String::from_utf8_lossy(h.value).into_owned()))
        .collect()
}

/// The framing that a head announces; `otherwise` where it announces none.
pub(crate) fn framing(headers: &Headers, otherwise: Framing) -> Framing {
    if header(headers, "transfer-encoding").is_some_and(|v| v.to_ascii_lowercase().contains("chunked")) {
        return Framing::Chunked;
    }
    match header(headers, "content-length").and_then(|v| v.trim().parse().ok()) {
        Some(0) => Framing::Ended,
        Some(n) => Framing::Length(n),
        None => otherwise,
    }
}

impl<R: AsyncRead + Unpin> Wire<R> {
    pub(crate) fn new(io: R) -> Self {
        Self { io, ahead: Vec::new() }
    }

    /// Reads some more; 0 at the end of the connection.
    pub(crate) async fn fill(&mut self) -> io::Result<usize> {
        self.ahead.reserve(16 * 1024);
        self.io.read_buf(&mut self.ahead).await
    }

    /// Reads until the connection ends or breaks, keeping what arrives.
    pub(crate) async fn until_gone(&mut self) {
        while matches!(self.fill().await, Ok(n) if n > 0) {}
    }

    /// The bytes of the next head, through its empty line. `None` when the connection ended before a byte.
    pub(crate) async fn head(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut searched = 0;
        loop {
            let from = usize::saturating_sub(searched, 3);
            if let Some(at) = self.ahead[from..].windows(4).position(|w| w == b"\r\n\r\n") {
                return Ok(Some(self.ahead.drain(..from + at + 4).collect()));
            }
            searched = self.ahead.len();
            if self.fill().await? == 0 {
                return if self.ahead.is_empty() { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// The next line, without its end.
    async fn line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.ahead.iter().position(|b| *b == b'\n') {
                let mut line: Vec<u8> = self.ahead.drain(..=at).collect();
                line.truncate(line.len() - 1);
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(line);
            }
            if self.fill().await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Exactly so many bytes.
    async fn exactly(&mut self, n: usize) -> io::Result<Vec<u8>> {
        while self.ahead.len() < n {
            if self.fill().await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.ahead.drain(..n).collect())
    }

    /// The next piece of a body as it comes; `None` at its clean end. A connection that ends before the
    /// framing says so is `UnexpectedEof`.
    pub(crate) async fn piece(&mut self, framing: &mut Framing) -> io::Result<Option<Vec<u8>>> {
        match *framing {
            Framing::Ended => Ok(None),
            Framing::Length(left) => {
                if self.ahead.is_empty() && self.fill().await? == 0 {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                let n = left.min(self.ahead.len());
                *framing = if n == left { Framing::Ended } else { Framing::Length(left - n) };
                Ok(Some(self.ahead.drain(..n).collect()))
            }
            Framing::UntilClose => {
                if self.ahead.is_empty() && self.fill().await? == 0 {
                    *framing = Framing::Ended;
                    return Ok(None);
                }
                Ok(Some(std::mem::take(&mut self.ahead)))
            }
            Framing::Chunked => self.chunk(framing).await,
        }
    }

    async fn chunk(&mut self, framing: &mut Framing) -> io::Result<Option<Vec<u8>>> {
        let line = self.line().await?;
        let digits = line.split(|b| *b == b';').next().unwrap_or_default();
        let size = std::str::from_utf8(digits)
            .ok()
            .and_then(|text| usize::from_str_radix(text.trim(), 16).ok())
            .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "chunk size"))?;
        if size == 0 {
            while !self.line().await?.is_empty() {}
            *framing = Framing::Ended;
            return Ok(None);
        }
        let data = self.exactly(size).await?;
        self.exactly(2).await?;
        Ok(Some(data))
    }

    /// The whole body.
    pub(crate) async fn body(&mut self, mut framing: Framing) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(piece) = self.piece(&mut framing).await? {
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[tokio::test]
    async fn a_chunked_body_is_read_to_its_end_and_no_further() {
        let bytes: &[u8] = b"5\r\nhello\r\n1;x=y\r\n!\r\n0\r\n\r\nGET";
        let mut wire = Wire::new(bytes);
        assert_eq!(wire.body(Framing::Chunked).await.unwrap(), b"hello!");
        assert_eq!(wire.ahead, b"GET");
    }

    #[tokio::test]
    async fn a_body_cut_short_is_no_clean_end() {
        for (bytes, framing) in [(&b"5\r\nhel"[..], Framing::Chunked), (&b"hel"[..], Framing::Length(5))] {
            let err = Wire::new(bytes).body(framing).await.unwrap_err();
            assert_eq!(err.kind(), ErrorKind::UnexpectedEof);
        }
    }

    #[tokio::test]
    async fn a_head_split_anywhere_is_found() {
        let head = b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n";
        for split in 0..head.len() {
            let io = tokio_chain(&head[..split], &head[split..]);
            let got = Wire::new(io).head().await.unwrap().unwrap();
            assert_eq!(got, head);
        }
    }

    fn tokio_chain<'a>(a: &'a [u8], b: &'a [u8]) -> impl AsyncRead + Unpin + 'a {
        AsyncReadExt::chain(a, b)
    }
}
