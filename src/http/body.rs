//! Reading a request's body: bounded in size and time, before anything else is done with it.

use std::io::{self, Write};
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use actix_web::web;
use bytes::{Bytes, BytesMut};
use flate2::write::MultiGzDecoder;
use futures::{Stream, StreamExt};

use super::error::{ApiError, Code};

/// Bounds on a body.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Most bytes, after decompression.
    pub bytes: usize,
    /// Longest time from the head to the last byte. The server's own timeout ends with the head, so a body
    /// that trickles in would otherwise hold its connection for ever.
    pub time: Duration,
}

/// Reads a JSON body to its end.
///
/// # Errors
/// 415 for another content type or encoding, 413 past the limit, 408 past the time, 400 for a broken body.
pub async fn read_json(
    req: &HttpRequest,
    payload: web::Payload,
    limits: BodyLimits,
) -> Result<Bytes, ApiError> {
    check_type(req)?;
    let announced = announced_length(req);
    if announced.is_some_and(|length| length > limits.bytes as u64) {
        return Err(too_large(limits.bytes));
    }
    let reading = async {
        match encoding(req)? {
            Encoding::Identity => collect(payload, announced, limits.bytes).await,
            Encoding::Gzip => unpack(payload, limits.bytes).await,
        }
    };
    match tokio::time::timeout(limits.time, reading).await {
        Ok(read) => read,
        Err(_) => Err(ApiError::new(Code::RequestTimeout, "the request body did not arrive in time")),
    }
}

enum Encoding {
    Identity,
    Gzip,
}

fn encoding(req: &HttpRequest) -> Result<Encoding, ApiError> {
    let Some(value) = req.headers().get(CONTENT_ENCODING) else { return Ok(Encoding::Identity) };
    match value.to_str().unwrap_or("").trim() {
        "" | "identity" => Ok(Encoding::Identity),
        "gzip" | "x-gzip" => Ok(Encoding::Gzip),
        _ => Err(ApiError::new(
            Code::UnsupportedMediaType,
            "this content-encoding is not supported; send the body as it is or with gzip",
        )),
    }
}

fn check_type(req: &HttpRequest) -> Result<(), ApiError> {
    let given = req.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    let essence = given.split(';').next().unwrap_or("").trim();
    let json = essence.eq_ignore_ascii_case("application/json")
        || (essence.len() > 5 && essence[essence.len() - 5..].eq_ignore_ascii_case("+json"));
    if json {
        return Ok(());
    }
    Err(ApiError::new(Code::UnsupportedMediaType, "the content-type must be application/json"))
}

fn announced_length(req: &HttpRequest) -> Option<u64> {
    req.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn too_large(limit: usize) -> ApiError {
    ApiError::new(Code::RequestTooLarge, format!("the request body is larger than {limit} bytes"))
}

async fn collect<S, E>(body: S, announced: Option<u64>, limit: usize) -> Result<Bytes, ApiError>
where
    S: Stream<Item = Result<Bytes, E>>,
{
    let mut body = std::pin::pin!(body);
    let broken = |_| broken();
    let Some(first) = body.next().await else { return Ok(Bytes::new()) };
    let first = first.map_err(broken)?;
    if first.len() > limit {
        return Err(too_large(limit));
    }
    // Most bodies arrive in one piece, and then nothing is copied.
    if announced == Some(first.len() as u64) {
        return Ok(first);
    }
    let mut all = BytesMut::from(first);
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(broken)?;
        if all.len() + piece.len() > limit {
            return Err(too_large(limit));
        }
        all.extend_from_slice(&piece);
    }
    Ok(all.freeze())
}

/// Reads a gzip body and unpacks it as it comes.
///
/// The server's own decoder unpacks each piece that arrives whole, which a bomb turns into a thousand times
/// its size before anyone can count; here unpacking stops at the limit.
async fn unpack<S, E>(body: S, limit: usize) -> Result<Bytes, ApiError>
where
    S: Stream<Item = Result<Bytes, E>>,
{
    let mut body = std::pin::pin!(body);
    let mut decoder = MultiGzDecoder::new(Bounded { bytes: Vec::new(), limit, passed: false });
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|_| broken())?;
        if decoder.write_all(&piece).is_err() {
            return Err(if decoder.get_ref().passed { too_large(limit) } else { broken() });
        }
    }
    match decoder.finish() {
        Ok(unpacked) => Ok(Bytes::from(unpacked.bytes)),
        Err(_) => Err(broken()),
    }
}

fn broken() -> ApiError {
    ApiError::new(Code::InvalidJson, "the request body could not be read to its end")
}

/// Takes bytes up to a limit and fails past it.
struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
    /// Whether more came than may.
    passed: bool,
}

impl Write for Bounded {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + piece.len() > self.limit {
            self.passed = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::convert::Infallible;

    use super::*;

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    async fn unpacked(bytes: &[u8], piece: usize, limit: usize) -> Result<Bytes, ApiError> {
        let pieces = bytes.chunks(piece).map(|p| Ok::<_, Infallible>(Bytes::copy_from_slice(p)));
        unpack(futures::stream::iter(pieces), limit).await
    }

    #[tokio::test]
    async fn a_packed_body_is_unpacked_however_it_is_split() {
        let text = b"{\"messages\":[]}".repeat(100);
        let bytes = packed(&text);
        for piece in [1, 2, 7, bytes.len()] {
            assert_eq!(unpacked(&bytes, piece, text.len()).await.unwrap(), text);
        }
        let two = [packed(b"a"), packed(b"b")].concat();
        assert_eq!(unpacked(&two, 3, 2).await.unwrap(), "ab");
    }

    #[tokio::test]
    async fn unpacking_stops_at_the_limit() {
        let bomb = packed(&vec![0; 8 << 20]);
        let error = unpacked(&bomb, bomb.len(), 1 << 20).await.unwrap_err();
        assert_eq!(error.code(), Code::RequestTooLarge);
    }

    #[tokio::test]
    async fn what_is_cut_or_no_gzip_is_broken() {
        let bytes = packed(b"{}");
        for bad in [&bytes[..bytes.len() - 1], b"{}", b""] {
            let error = unpacked(bad, 64, 1 << 20).await.unwrap_err();
            assert_eq!(error.code(), Code::InvalidJson, "{bad:?}");
        }
    }
}
