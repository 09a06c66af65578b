//! Files of callers: what batches read, and what they write.
//!
//! They lie in the ledger, so every replica that shares it has them, and in pieces, so that none need be in
//! memory whole.

mod content;
mod listing;
mod upload;

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use opossum_ledger::{Deleted, FileRecord, LedgerError, ObjectKey};
use serde::Serialize;

use super::{App, Made, answer};
use crate::http::context;
use crate::http::error::{ApiError, Code};
use crate::http::exchange::Exchange;
use crate::http::request_id;

pub(super) use self::listing::{List, ListQuery, Sizes};
pub(super) use self::upload::{LONGEST_KEPT, SHORTEST_KEPT};

/// By then a database that was away for a moment is back.
const LEDGER_BACK: Duration = Duration::from_secs(5);

/// A file as its owner sees it.
#[derive(Serialize)]
struct File<'a> {
    id: &'a str,
    object: &'static str,
    bytes: u64,
    created_at: i64,
    expires_at: i64,
    filename: &'a str,
    purpose: &'a str,
    status: &'static str,
    status_details: Option<()>,
}

impl<'a> File<'a> {
    fn of(record: &'a FileRecord) -> Self {
        Self {
            id: &record.id,
            object: "file",
            bytes: record.bytes,
            created_at: record.created_ms / 1000,
            expires_at: record.expires_ms / 1000,
            filename: &record.filename,
            purpose: &record.purpose,
            // Nothing is done to a file after its upload.
            status: "processed",
            status_details: None,
        }
    }
}

#[derive(Serialize)]
struct Gone<'a> {
    id: &'a str,
    object: &'static str,
    deleted: bool,
}

/// `POST /v1/files`.
async fn upload(req: HttpRequest, payload: web::Payload, app: web::Data<App>) -> HttpResponse {
    let exchange = Exchange::begin(request_id::of(&req), "/v1/files", app.series.file_uploaded.clone());
    let work = async move {
        let record = upload::store(&req, payload, &app).await?;
        Ok(Made::Whole(HttpResponse::Ok().json(File::of(&record))))
    };
    answer(exchange, work).await
}

/// `GET /v1/files`.
async fn list(req: HttpRequest, app: web::Data<App>) -> HttpResponse {
    let exchange = Exchange::begin(request_id::of(&req), "/v1/files", app.series.files.clone());
    let work = async move {
        let query = ListQuery::read(&req, &["purpose"], listing::FILES)?;
        let (tenant, purpose) = (context::ANONYMOUS.into(), query.purpose.clone());
        let found = app.ledger.files(tenant, purpose, query.page()).await.map_err(not_reached)?;
        let files: Vec<_> = found.iter().map(File::of).collect();
        Ok(Made::Whole(HttpResponse::Ok().json(List::of(files, &query, |file| file.id))))
    };
    answer(exchange, work).await
}

/// `GET /v1/files/{id}`.
async fn get(req: HttpRequest, id: web::Path<String>, app: web::Data<App>) -> HttpResponse {
    let exchange = Exchange::begin(request_id::of(&req), "/v1/files/{id}", app.series.file.clone());
    let work = async move {
        let (_, record) = find(&app, &id).await?;
        Ok(Made::Whole(HttpResponse::Ok().json(File::of(&record))))
    };
    answer(exchange, work).await
}

/// `GET /v1/files/{id}/content`.
async fn content(req: HttpRequest, id: web::Path<String>, app: web::Data<App>) -> HttpResponse {
    let series = app.series.file_content.clone();
    let exchange = Exchange::begin(request_id::of(&req), "/v1/files/{id}/content", series);
    let work = async move {
        let (key, record) = find(&app, &id).await?;
        Ok(Made::Whole(content::response(app.ledger.clone(), key, &record)))
    };
    answer(exchange, work).await
}

/// `DELETE /v1/files/{id}`.
async fn delete(req: HttpRequest, id: web::Path<String>, app: web::Data<App>) -> HttpResponse {
    let exchange = Exchange::begin(request_id::of(&req), "/v1/files/{id}", app.series.file_deleted.clone());
    let work = async move {
        let (key, record) = find(&app, &id).await?;
        // Somebody else may have been faster; it is gone either way.
        if app.ledger.delete_file(key).await.map_err(not_reached)? == Deleted::InUse {
            let message = "a batch that is not over reads this file; cancel it first";
            return Err(ApiError::new(Code::InvalidValue, message).with_param("id"));
        }
        let deleted = Gone { id: &record.id, object: "file", deleted: true };
        Ok(Made::Whole(HttpResponse::Ok().json(deleted)))
    };
    answer(exchange, work).await
}

async fn find(app: &App, id: &str) -> Result<(ObjectKey, FileRecord), ApiError> {
    let key = ObjectKey::new(context::ANONYMOUS, id);
    let missing = || ApiError::new(Code::NotFound, "there is no such file, or it has expired");
    match app.ledger.file(key.clone()).await {
        Ok(record) => Ok((key, record.ok_or_else(missing)?)),
        // An id that cannot be stored is nobody's.
        Err(LedgerError::Refused) => Err(missing()),
        Err(error) => Err(not_reached(error)),
    }
}

/// What a caller is told of a ledger that fails.
pub(super) fn not_reached(error: LedgerError) -> ApiError {
    tracing::warn!(%error, "the ledger cannot be asked");
    ApiError::of(Code::StorageUnavailable).with_retry_after(LEDGER_BACK)
}

/// Where the routes are; `only` answers other methods.
pub(super) fn configure(config: &mut web::ServiceConfig) {
    use super::{only, reading};
    config
        .service(
            web::resource("/v1/files")
                .route(reading().to(list))
                .route(web::post().to(upload))
                .default_service(only("GET, POST")),
        )
        .service(
            web::resource("/v1/files/{id}")
                .route(reading().to(get))
                .route(web::delete().to(delete))
                .default_service(only("GET, DELETE")),
        )
        .service(
            web::resource("/v1/files/{id}/content").route(reading().to(content)).default_service(only("GET")),
        );
}
