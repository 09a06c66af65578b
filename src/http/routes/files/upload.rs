//! A file as a form brings it: stored while it comes, and seen only once all of the form was good.

use std::cell::Cell;
use std::io;
use std::pin::pin;
use std::time::Duration;

use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use actix_web::{HttpRequest, web};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use multer::{Field, Multipart};
use opossum_ledger::{FileRecord, Ledger, NewFile, ObjectKey, PIECE};
use tokio::sync::mpsc;

use super::not_reached;
use crate::http::context;
use crate::http::error::{ApiError, Code, quoted};
use crate::http::request_id;
use crate::http::routes::App;

/// How long files are kept where nothing is said, and at most; at least an hour.
pub(in crate::http::routes) const LONGEST_KEPT: u64 = 30 * 86_400;
pub(in crate::http::routes) const SHORTEST_KEPT: u64 = 3600;

/// Most bytes of what is no file in a form.
const FORM: usize = 4096;

/// Most bytes that may wait for the form's parser to make sense of them.
const HELD: u64 = 1 << 20;

/// The longest name of a file, in bytes.
const LONGEST_NAME: usize = 255;

/// Reads a form and stores its file.
///
/// # Errors
/// 400 naming the field, 408, 413, 415, or 503 when the ledger fails.
pub(super) async fn store(
    req: &HttpRequest,
    payload: web::Payload,
    app: &App,
) -> Result<FileRecord, ApiError> {
    let boundary = boundary(req)?;
    let announced = req.headers().get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > app.file_limit.saturating_add(HELD)) {
        return Err(too_large(app.file_limit));
    }
    let late = || ApiError::new(Code::RequestTimeout, "the file did not arrive in time");
    let (held, feeder) = (Cell::new(0), mpsc::channel(2));
    let feed = feed(payload, feeder.0, &held, app.body.time);
    let form = async {
        let pieces = stream::unfold(feeder.1, async |mut fed: mpsc::Receiver<Bytes>| {
            fed.recv().await.map(|piece| (Ok::<_, io::Error>(piece), fed))
        });
        let draft = Draft::new(&app.ledger);
        Form::read(Multipart::new(pieces, boundary), draft, &held, app.file_limit).await?.finish().await
    };
    let both = async {
        let (mut feed, mut form) = (pin!(feed), pin!(form));
        tokio::select! {
            biased;
            stored = &mut form => stored,
            fed = &mut feed => { fed?; form.await }
        }
    };
    tokio::time::timeout(app.request_timeout, both).await.unwrap_or_else(|_| Err(late()))
}

fn boundary(req: &HttpRequest) -> Result<String, ApiError> {
    let header = |name| req.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("").trim();
    if !matches!(header(CONTENT_ENCODING), "" | "identity") {
        let message = "files are taken without a content-encoding";
        return Err(ApiError::new(Code::UnsupportedMediaType, message));
    }
    multer::parse_boundary(header(CONTENT_TYPE)).map_err(|_| {
        let message = "the content-type must be multipart/form-data with a boundary";
        ApiError::new(Code::UnsupportedMediaType, message)
    })
}

/// Hands the body on, no faster than it is taken. The body belongs to its connection's thread, which the parser
/// does not know.
async fn feed(
    mut payload: web::Payload,
    to: mpsc::Sender<Bytes>,
    held: &Cell<u64>,
    silence: Duration,
) -> Result<(), ApiError> {
    loop {
        let next = tokio::time::timeout(silence, payload.next()).await;
        let next = next.map_err(|_| ApiError::new(Code::RequestTimeout, "the file stopped to arrive"))?;
        let Some(piece) = next else { return Ok(()) };
        let piece = piece.map_err(|_| broken())?;
        held.set(held.get() + piece.len() as u64);
        if held.get() > HELD {
            return Err(broken());
        }
        if to.send(piece).await.is_err() {
            // The form's end has been read; what follows it is nothing.
            return Ok(());
        }
    }
}

/// What a form says besides the file.
#[derive(Default)]
struct Words {
    purpose: Option<String>,
    anchor: Option<String>,
    seconds: Option<String>,
}

/// A form that was read to its end.
struct Form<'a> {
    words: Words,
    draft: Draft<'a>,
}

impl<'a> Form<'a> {
    async fn read(
        mut parts: Multipart<'_>,
        mut draft: Draft<'a>,
        held: &Cell<u64>,
        limit: u64,
    ) -> Result<Self, ApiError> {
        let mut words = Words::default();
        while let Some(mut field) = parts.next_field().await.map_err(|_| broken())? {
            let name = field.name().unwrap_or("").to_owned();
            let place = match name.as_str() {
                "file" => {
                    draft.take(&mut field, held, limit).await?;
                    continue;
                }
                "purpose" => &mut words.purpose,
                "expires_after[anchor]" => &mut words.anchor,
                "expires_after[seconds]" => &mut words.seconds,
                _ => return Err(ApiError::unsupported(quoted(&name))),
            };
            if place.is_some() {
                return Err(wrong(name, "is given twice"));
            }
            *place = Some(text(&mut field, &name, held).await?);
        }
        Ok(Self { words, draft })
    }

    async fn finish(self) -> Result<FileRecord, ApiError> {
        let Self { words, draft } = self;
        let purpose = words.purpose.ok_or_else(|| missing("purpose"))?;
        if purpose != "batch" {
            return Err(wrong("purpose".to_owned(), "must be batch"));
        }
        let keep = keep(words.anchor.as_deref(), words.seconds.as_deref())?;
        draft.finish(purpose, keep).await
    }
}

/// How long a file is to be kept.
fn keep(anchor: Option<&str>, seconds: Option<&str>) -> Result<Duration, ApiError> {
    match (anchor, seconds) {
        (None, None) => Ok(Duration::from_secs(LONGEST_KEPT)),
        (None, Some(_)) => Err(missing("expires_after[anchor]")),
        (Some("created_at"), Some(seconds)) => match seconds.parse() {
            Ok(seconds) if (SHORTEST_KEPT..=LONGEST_KEPT).contains(&seconds) => {
                Ok(Duration::from_secs(seconds))
            }
            _ => {
                let rule = format!("must be a whole number from {SHORTEST_KEPT} to {LONGEST_KEPT}");
                Err(wrong("expires_after[seconds]".to_owned(), &rule))
            }
        },
        (Some("created_at"), None) => Err(missing("expires_after[seconds]")),
        (Some(_), _) => Err(wrong("expires_after[anchor]".to_owned(), "must be created_at")),
    }
}

/// A file on its way into the ledger. Dropped before its end, as when its caller leaves, it leaves nothing.
struct Draft<'a> {
    ledger: &'a Ledger,
    key: ObjectKey,
    filename: Option<String>,
    /// What does not fill a piece yet.
    rest: BytesMut,
    pieces: u64,
    bytes: u64,
    /// Whether the ledger has something of it that nobody wants.
    is_begun: bool,
}

impl<'a> Draft<'a> {
    fn new(ledger: &'a Ledger) -> Self {
        let key = ObjectKey::new(context::ANONYMOUS, request_id::fresh("file-"));
        let rest = BytesMut::new();
        Self { ledger, key, filename: None, rest, pieces: 0, bytes: 0, is_begun: false }
    }

    async fn take(&mut self, field: &mut Field<'_>, held: &Cell<u64>, limit: u64) -> Result<(), ApiError> {
        let Some(filename) = field.file_name() else {
            return Err(wrong("file".to_owned(), "must be a file with a name"));
        };
        if self.filename.replace(plain_name(filename)).is_some() {
            return Err(wrong("file".to_owned(), "is given twice"));
        }
        self.is_begun = true;
        self.ledger.begin_file(self.key.clone()).await.map_err(not_reached)?;
        while let Some(piece) = field.chunk().await.map_err(|_| broken())? {
            held.set(held.get().saturating_sub(piece.len() as u64));
            self.bytes += piece.len() as u64;
            if self.bytes > limit {
                return Err(too_large(limit));
            }
            self.rest.extend_from_slice(&piece);
            while self.rest.len() >= PIECE {
                let piece = self.rest.split_to(PIECE);
                self.write(piece.freeze()).await?;
            }
        }
        if !self.rest.is_empty() {
            let last = self.rest.split();
            self.write(last.freeze()).await?;
        }
        Ok(())
    }

    async fn write(&mut self, piece: Bytes) -> Result<(), ApiError> {
        self.ledger.add_piece(self.key.clone(), self.pieces, piece).await.map_err(not_reached)?;
        self.pieces += 1;
        Ok(())
    }

    async fn finish(mut self, purpose: String, keep: Duration) -> Result<FileRecord, ApiError> {
        let filename = self.filename.take().ok_or_else(|| missing("file"))?;
        let file = NewFile { purpose, filename, bytes: self.bytes, keep };
        let stored = self.ledger.finish_file(self.key.clone(), file).await.map_err(not_reached)?;
        self.is_begun = false;
        stored.ok_or_else(|| ApiError::of(Code::StorageUnavailable))
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if self.is_begun {
            let (ledger, key) = (self.ledger.clone(), self.key.clone());
            crate::tasks::background("file discarded", async move {
                if let Err(error) = ledger.delete_file(key).await {
                    tracing::debug!(%error, "an unfinished file stays until it is pruned");
                }
            });
        }
    }
}

/// A name without folders and control characters, of a length that can be stored.
fn plain_name(given: &str) -> String {
    let last = given.rsplit(['/', '\\']).next().unwrap_or("");
    let mut name = String::new();
    for letter in last.chars().filter(|letter| !letter.is_control()) {
        if name.len() + letter.len_utf8() > LONGEST_NAME {
            break;
        }
        name.push(letter);
    }
    if name.is_empty() { "file".to_owned() } else { name }
}

async fn text(field: &mut Field<'_>, name: &str, held: &Cell<u64>) -> Result<String, ApiError> {
    let mut bytes = Vec::new();
    while let Some(piece) = field.chunk().await.map_err(|_| broken())? {
        held.set(held.get().saturating_sub(piece.len() as u64));
        bytes.extend_from_slice(&piece);
        if bytes.len() > FORM {
            return Err(wrong(name.to_owned(), "is too long"));
        }
    }
    String::from_utf8(bytes).map_err(|_| wrong(name.to_owned(), "must be text in UTF-8"))
}

fn broken() -> ApiError {
    ApiError::new(Code::InvalidValue, "the form could not be read to its end")
}

fn missing(name: &'static str) -> ApiError {
    ApiError::new(Code::MissingParameter, format!("'{name}' is missing")).with_param(name)
}

fn wrong(name: String, rule: &str) -> ApiError {
    ApiError::new(Code::InvalidValue, format!("'{name}' {rule}")).with_param(name)
}

fn too_large(limit: u64) -> ApiError {
    ApiError::new(Code::RequestTooLarge, format!("the file is larger than {limit} bytes"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn how_long_a_file_is_kept_is_checked_field_by_field() {
        assert_eq!(keep(None, None).unwrap(), Duration::from_secs(2_592_000));
        assert_eq!(keep(Some("created_at"), Some("3600")).unwrap(), Duration::from_secs(3600));
        for (anchor, seconds, name) in [
            (Some("now"), Some("3600"), "expires_after[anchor]"),
            (None, Some("3600"), "expires_after[anchor]"),
            (Some("created_at"), None, "expires_after[seconds]"),
            (Some("created_at"), Some("3599"), "expires_after[seconds]"),
            (Some("created_at"), Some("2592001"), "expires_after[seconds]"),
            (Some("created_at"), Some("soon"), "expires_after[seconds]"),
        ] {
            assert_eq!(keep(anchor, seconds).unwrap_err().param.unwrap(), name, "{anchor:?} {seconds:?}");
        }
    }

    #[test]
    fn a_name_is_only_a_name() {
        assert_eq!(plain_name("../../etc/passwd"), "passwd");
        assert_eq!(plain_name("C:\\lines.jsonl"), "lines.jsonl");
        assert_eq!(plain_name("a\r\nb\0"), "ab");
        assert_eq!(plain_name("/"), "file");
        assert_eq!(plain_name(&"ü".repeat(200)).len(), 254);
    }
}
