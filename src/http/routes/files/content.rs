//! A file's content, piece by piece as its caller takes it.

use std::io;

use actix_web::body::SizedStream;
use actix_web::http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use actix_web::{HttpResponse, web};
use futures::Stream;
use futures::stream::try_unfold;
use opossum_ledger::{FileRecord, Ledger, ObjectKey};

/// The content. One that cannot be read to its end breaks off before it, so nobody takes it for whole.
pub(super) fn response(ledger: Ledger, key: ObjectKey, record: &FileRecord) -> HttpResponse {
    let body = SizedStream::new(record.bytes, Box::pin(pieces(ledger, key, record.bytes)));
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "application/octet-stream"))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .body(body)
}

fn pieces(
    ledger: Ledger,
    key: ObjectKey,
    bytes: u64,
) -> impl Stream<Item = Result<web::Bytes, io::Error>> + 'static {
    try_unfold((0, bytes), move |(number, left)| {
        let (ledger, key) = (ledger.clone(), key.clone());
        async move {
            if left == 0 {
                return Ok(None);
            }
            let piece = ledger.piece(key, number).await.map_err(io::Error::other)?;
            let piece = piece.ok_or_else(|| io::Error::other("the file was deleted while it was read"))?;
            let rest = left.saturating_sub(piece.len() as u64);
            Ok(Some((piece, (number + 1, rest))))
        }
    })
}
