//! An answer's head, and its body read whole and capped.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::response::Parts;
use http::{HeaderMap, StatusCode, header};
use hyper::body::{Body as _, Incoming};
use opossum_core::class::FailureClass;

use super::direct::DirectBody;
use crate::BackendError;

/// Most of an error's body that is read.
const MAX_ERROR_BYTES: usize = 64 * 1024;
/// How long an error's body is waited for: its status already says what matters.
const ERROR_BODY_PATIENCE: Duration = Duration::from_secs(1);

/// An answer whose head has come. Dropping it aborts the exchange.
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    body: Body,
    cap: usize,
}

impl Response {
    pub(super) fn new(head: Parts, body: Body, cap: usize) -> Self {
        Self { status: head.status, headers: head.headers, body, cap }
    }

    /// Whether the media type is this one, whatever its parameters; `None` when the answer names none.
    pub fn is_type(&self, media_type: &str) -> Option<bool> {
        let value = self.headers.get(header::CONTENT_TYPE)?.to_str().unwrap_or_default();
        let essence = value.split(';').next().unwrap_or_default().trim();
        Some(essence.eq_ignore_ascii_case(media_type))
    }

    /// The whole body.
    ///
    /// # Errors
    /// `BadResponse` when it is compressed (we never ask for that) or larger than the client's cap,
    /// `Truncated` when it breaks off.
    pub async fn whole(mut self) -> Result<Bytes, BackendError> {
        self.refuse_encoding()?;
        let cap = self.cap;
        let promised = self.body.incoming().size_hint().lower();
        if promised > cap as u64 {
            return Err(too_large(cap));
        }
        let Some(first) = self.body.next().await.transpose()? else { return Ok(Bytes::new()) };
        if self.body.incoming().is_end_stream() && first.len() <= cap {
            return Ok(first);
        }
        // The promise bounds the reservation only up to the cap, checked above.
        let mut all = BytesMut::with_capacity((promised as usize).saturating_add(first.len()).min(cap));
        let mut piece = Some(first);
        while let Some(bytes) = piece {
            if all.len() + bytes.len() > cap {
                return Err(too_large(cap));
            }
            all.extend_from_slice(&bytes);
            piece = self.body.next().await.transpose()?;
        }
        Ok(all.freeze())
    }

    /// As much of an error's body as comes soon, at most 64 KiB; never an error, since the status decides.
    pub async fn error_body(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        let read = async {
            while let Some(Ok(bytes)) = self.body.next().await {
                let room = MAX_ERROR_BYTES - all.len();
                all.extend_from_slice(&bytes[..bytes.len().min(room)]);
                if all.len() == MAX_ERROR_BYTES {
                    break;
                }
            }
        };
        // What came before the limit still helps to classify.
        tokio::time::timeout(ERROR_BODY_PATIENCE, read).await.ok();
        all
    }

    /// The body, to be read piece by piece.
    ///
    /// # Errors
    /// `BadResponse` when it is compressed.
    pub(super) fn into_body(self) -> Result<Body, BackendError> {
        self.refuse_encoding()?;
        Ok(self.body)
    }

    fn refuse_encoding(&self) -> Result<(), BackendError> {
        match self.headers.get(header::CONTENT_ENCODING) {
            Some(encoding) if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") => {
                Err(BackendError::new(
                    FailureClass::BadResponse,
                    "the body is compressed, which was not asked for",
                ))
            }
            _ => Ok(()),
        }
    }
}

/// A body in pieces.
pub(super) enum Body {
    /// Of a connection that another task drives.
    Pooled(Incoming),
    /// Of a connection that is driven by reading.
    Direct(DirectBody),
}

impl Body {
    fn incoming(&self) -> &Incoming {
        match self {
            Body::Pooled(incoming) => incoming,
            Body::Direct(body) => body.incoming(),
        }
    }

    /// The next piece; `None` at the body's proper end.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BackendError>>> {
        loop {
            let frame = match self {
                Body::Pooled(incoming) => Pin::new(incoming).poll_frame(cx),
                Body::Direct(body) => body.poll_frame(cx),
            };
            return match ready!(frame) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => Poll::Ready(Some(Ok(bytes))),
                    // Trailers.
                    Err(_) => continue,
                },
                Some(Err(error)) => Poll::Ready(Some(Err(broken_off(&error)))),
                None => Poll::Ready(None),
            };
        }
    }

    async fn next(&mut self) -> Option<Result<Bytes, BackendError>> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }
}

fn broken_off(error: &hyper::Error) -> BackendError {
    let class = if error.is_parse() { FailureClass::BadResponse } else { FailureClass::Truncated };
    BackendError::new(class, format!("the body broke off: {error}"))
}

fn too_large(cap: usize) -> BackendError {
    BackendError::new(FailureClass::BadResponse, format!("the body is larger than {cap} bytes"))
}
