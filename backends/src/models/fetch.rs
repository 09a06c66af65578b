//! One file over HTTP, resumed where it broke off.
//!
//! A download of a hundred megabytes meets every fault there is, so a broken connection is not an error but
//! a pause: the part on disk is kept and the rest asked for by `Range`, under the same `ETag` where the
//! server gave one. A server that cannot resume answers 200, and the file starts anew. Redirects are followed
//! here, and only here: at most five, and never from `https` to `http`.
//!
//! Nothing that a server says is believed about the content: the size is known beforehand, one byte too many
//! ends the transfer, and the SHA-256 decides. This client is its own, not the backends': it sends no
//! credential, waits longer, and must not count as traffic of any service.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rand::RngExt;
use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncWriteExt;

use super::address::{address, resolve};
use super::error::SourceError;
use super::pull::{Phase, Reporter};
use super::unpack;

/// Redirects followed for one request.
const MAX_REDIRECTS: usize = 5;

/// Patience of a download.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Limit for the head of an answer, connecting included.
    pub(super) head: Duration,
    /// Longest silence within a body.
    pub(super) idle: Duration,
    /// Failures in a row, without one byte gained between them, after which a source is given up.
    pub(super) failures: u32,
    /// Wait before the second try; doubles up to sixteen times this, with full jitter.
    pub(super) backoff: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(30),
            idle: Duration::from_secs(30),
            failures: 5,
            backoff: Duration::from_millis(500),
        }
    }
}

/// What is to be downloaded, and what it must be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    /// Where it is.
    pub(super) url: &'a str,
    /// Its size in bytes.
    pub(super) bytes: u64,
    /// Its SHA-256, lower-case hexadecimal.
    pub(super) sha256: &'a str,
}

/// Downloads files.
pub(super) struct Fetcher {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    patience: Patience,
}

impl Fetcher {
    /// A fetcher that trusts the system's certificates.
    pub(super) fn new(patience: Patience) -> Result<Self, SourceError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(Duration::from_secs(10)));
        let https = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(provider)
            .map_err(|e| SourceError::Network(e.to_string()))?
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        Ok(Self { client: Client::builder(TokioExecutor::new()).build(https), patience })
    }

    /// Brings the file to `part`, checked.
    ///
    /// What `part` holds already counts as the beginning. After a lasting network failure it stays, to be
    /// resumed another time; with a wrong hash it is deleted.
    pub(super) async fn fetch(
        &self,
        wanted: Wanted<'_>,
        part: &Path,
        report: &mut Reporter<'_>,
    ) -> Result<(), SourceError> {
        let inherited = length(part).await > 0;
        self.complete(wanted, part, report).await?;
        let result = check(wanted, part, report).await;
        if !matches!(result, Err(SourceError::Hash { .. } | SourceError::Size { .. })) {
            return result;
        }
        remove(part).await?;
        if !inherited {
            return result;
        }
        // The beginning may have been of another file: once more, all of it from this source.
        self.complete(wanted, part, report).await?;
        let result = check(wanted, part, report).await;
        if result.is_err() {
            remove(part).await?;
        }
        result
    }

    /// Transfers until `part` has its size.
    async fn complete(
        &self,
        wanted: Wanted<'_>,
        part: &Path,
        report: &mut Reporter<'_>,
    ) -> Result<(), SourceError> {
        let mut transfer = Transfer { fetcher: self, wanted, part, etag: None };
        let mut failures = 0;
        loop {
            let before = length(part).await;
            if before > wanted.bytes {
                remove(part).await?;
                continue;
            }
            if before == wanted.bytes {
                return Ok(());
            }
            let error = match transfer.attempt(before, report).await {
                Ok(()) => continue,
                Err(error) if error.is_passing() => error,
                Err(error) => return Err(error),
            };
            failures = if length(part).await > before { 1 } else { failures + 1 };
            if failures >= self.patience.failures {
                return Err(error);
            }
            tracing::debug!(%error, failures, "download interrupted");
            tokio::time::sleep(self.pause(failures)).await;
        }
    }

    /// The wait after so many failures in a row: full jitter below a doubling limit.
    fn pause(&self, failures: u32) -> Duration {
        let limit = self.patience.backoff * (1 << failures.saturating_sub(1).min(4));
        limit.mul_f64(rand::rng().random::<f64>())
    }

    /// Sends a request, following redirects, and gives the head of the answer.
    async fn open(&self, url: &str, headers: &HeaderMap) -> Result<http::Response<Incoming>, SourceError> {
        let mut uri = address(url)?;
        for _ in 0..=MAX_REDIRECTS {
            let mut request = Request::new(Empty::new());
            *request.uri_mut() = uri.clone();
            *request.headers_mut() = headers.clone();
            let answer = tokio::time::timeout(self.patience.head, self.client.request(request))
                .await
                .map_err(|_| SourceError::Network("no answer in time".into()))?
                .map_err(|e| SourceError::Network(chain(&e)))?;
            let Some(location) = redirect(&answer) else { return Ok(answer) };
            uri = resolve(&uri, location)?;
        }
        Err(SourceError::Address("more than five redirects"))
    }
}

/// One file's transfer, over as many connections as it takes.
struct Transfer<'a> {
    fetcher: &'a Fetcher,
    wanted: Wanted<'a>,
    part: &'a Path,
    /// The strong `ETag` of what the part is a part of, where this transfer saw one.
    etag: Option<HeaderValue>,
}

impl Transfer<'_> {
    /// Transfers from `offset` as far as the connection holds.
    async fn attempt(&mut self, offset: u64, report: &mut Reporter<'_>) -> Result<(), SourceError> {
        let answer = self.fetcher.open(self.wanted.url, &self.headers(offset)).await?;
        let start = match answer.status() {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT if starts_at(&answer, offset, self.wanted.bytes) => offset,
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                remove(self.part).await?;
                return Err(SourceError::Protocol("another range than the one asked for"));
            }
            other => return Err(SourceError::Status(other.as_u16())),
        };
        if answer.headers().get(header::CONTENT_ENCODING).is_some_and(|e| e != "identity") {
            return Err(SourceError::Protocol("an encoding that was not asked for"));
        }
        if let Some(promised) = content_length(answer.headers()) {
            unpack::check_size(self.wanted.bytes, start.saturating_add(promised))?;
        }
        self.etag = strong_etag(answer.headers());
        self.receive(answer.into_body(), start, report).await
    }

    fn headers(&self, offset: u64) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let agent = concat!("opossum/", env!("CARGO_PKG_VERSION"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if offset > 0
            && let Ok(range) = HeaderValue::try_from(format!("bytes={offset}-"))
        {
            headers.insert(header::RANGE, range);
            if let Some(etag) = &self.etag {
                headers.insert(header::IF_RANGE, etag.clone());
            }
        }
        headers
    }

    async fn receive(
        &self,
        mut body: Incoming,
        start: u64,
        report: &mut Reporter<'_>,
    ) -> Result<(), SourceError> {
        let disk = || SourceError::disk(self.part);
        let mut file = open_at(self.part, start).await.map_err(disk())?;
        let mut at = start;
        let result = loop {
            let frame = match tokio::time::timeout(self.fetcher.patience.idle, body.frame()).await {
                Err(_) => break Err(SourceError::Network("silence".into())),
                Ok(None) => break Ok(()),
                Ok(Some(Err(error))) => break Err(SourceError::Network(chain(&error))),
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(data) = frame.into_data() else { continue };
            at += data.len() as u64;
            if at > self.wanted.bytes {
                break Err(SourceError::Size { expected: self.wanted.bytes, found: at });
            }
            file.write_all(&data).await.map_err(disk())?;
            report.step(Phase::Downloading, at, self.wanted.bytes);
        };
        // What came before the break is what the next connection resumes from.
        file.flush().await.map_err(disk())?;
        file.sync_all().await.map_err(disk())?;
        match result {
            Err(error @ SourceError::Size { .. }) => {
                remove(self.part).await?;
                Err(error)
            }
            Ok(()) if at < self.wanted.bytes => Err(SourceError::Network("it ended early".into())),
            other => other,
        }
    }
}

/// Checks the size and hash of what was transferred.
async fn check(wanted: Wanted<'_>, part: &Path, report: &mut Reporter<'_>) -> Result<(), SourceError> {
    unpack::check_size(wanted.bytes, length(part).await)?;
    let path = part.to_owned();
    let hash = report
        .blocking(Phase::Verifying, wanted.bytes, move |done| {
            unpack::sha256_of(&path, done).map_err(SourceError::disk(&path))
        })
        .await??;
    unpack::check_hash(wanted.sha256, hash)
}

async fn open_at(path: &Path, start: u64) -> std::io::Result<File> {
    let file = OpenOptions::new().create(true).write(true).truncate(start == 0).open(path).await?;
    let mut file = file;
    tokio::io::AsyncSeekExt::seek(&mut file, std::io::SeekFrom::Start(start)).await?;
    Ok(file)
}

/// A file's size; 0 where there is none.
async fn length(path: &Path) -> u64 {
    tokio::fs::metadata(path).await.map_or(0, |m| m.len())
}

/// Deletes a file that may not exist.
pub(super) async fn remove(path: &Path) -> Result<(), SourceError> {
    match tokio::fs::remove_file(path).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(SourceError::disk(path)(error)),
        _ => Ok(()),
    }
}

/// Where an answer sends us, if it does.
fn redirect(answer: &http::Response<Incoming>) -> Option<&str> {
    if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    answer.headers().get(header::LOCATION)?.to_str().ok()
}

/// Whether a partial answer begins where it was asked to, of a file of the right size.
fn starts_at(answer: &http::Response<Incoming>, offset: u64, total: u64) -> bool {
    let range = answer.headers().get(header::CONTENT_RANGE).and_then(|v| v.to_str().ok());
    range
        .and_then(content_range)
        .is_some_and(|(start, whole)| start == offset && whole.is_none_or(|whole| whole == total))
}

/// Start and total of `bytes START-END/TOTAL`, where the total may be `*`.
fn content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = value.trim().strip_prefix("bytes")?.trim_start().split_once('/')?;
    let start = range.split_once('-')?.0.trim().parse().ok()?;
    match total.trim() {
        "*" => Some((start, None)),
        total => Some((start, Some(total.parse().ok()?))),
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn strong_etag(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(header::ETAG).filter(|e| e.as_bytes().starts_with(b"\"")).cloned()
}

/// An error with its causes.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn ranges_of_all_forms() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        for odd in ["bytes */10", "5-9/10", "bytes 5-9", "bytes x-9/10", ""] {
            assert_eq!(content_range(odd), None, "{odd}");
        }
    }

    #[test]
    fn pauses_double_up_to_a_limit() {
        let backoff = Duration::from_millis(100);
        let fetcher = Fetcher::new(Patience { backoff, ..Patience::default() }).unwrap();
        for (failures, limit) in [(1, 100), (2, 200), (5, 1600), (40, 1600)] {
            for _ in 0..50 {
                assert!(fetcher.pause(failures) <= Duration::from_millis(limit));
            }
        }
    }
}
