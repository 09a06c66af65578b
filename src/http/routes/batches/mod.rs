//! Batches over HTTP: ordered, looked at, listed and called off.

mod order;
mod view;

use std::time::{SystemTime, UNIX_EPOCH};

use actix_web::{HttpRequest, HttpResponse, web};
use opossum_core::batches::Batch;
use opossum_core::jobs::UnixMillis;
use opossum_ledger::{BatchRecord, LedgerError, ObjectKey};

use self::order::wrong;
use self::view::View;
use super::files::{List, ListQuery, Sizes, not_reached};
use super::{App, Made, answer, jobs};
use crate::batches::Batches;
use crate::http::body::{BodyLimits, read_json};
use crate::http::context;
use crate::http::error::{ApiError, Code};
use crate::http::exchange::Exchange;
use crate::http::request_id;

/// Pages of batches.
const BATCHES: Sizes = Sizes { usual: 20, most: 100 };

/// Most bytes of an order.
const LONGEST_ORDER: usize = 64 * 1024;

/// `POST /v1/batches`.
async fn create(req: HttpRequest, payload: web::Payload, app: web::Data<App>) -> HttpResponse {
    let exchange = Exchange::begin(request_id::of(&req), "/v1/batches", app.series.batch_created.clone());
    let work = async move {
        let batches = open(&app)?;
        let payload = read_json(&req, payload, BodyLimits { bytes: LONGEST_ORDER, ..app.body }).await?;
        let order = order::read(&payload)?;
        let file = ObjectKey::new(context::ANONYMOUS, &*order.input_file_id);
        match app.ledger.file(file).await.map_err(not_reached)? {
            None => return Err(wrong("input_file_id", "must be the id of a file that exists")),
            Some(file) if file.purpose != "batch" => {
                return Err(wrong("input_file_id", "must be the id of a file for batches"));
            }
            Some(_) => {}
        }
        let key = ObjectKey::new(context::ANONYMOUS, request_id::fresh("batch_"));
        let record = BatchRecord { key, batch: Batch::new(order, unix_millis()) };
        let kept = app.ledger.create_batch(record.key.clone(), record.batch.clone()).await;
        kept.map_err(not_reached)?;
        batches.wake();
        Ok(Made::Whole(HttpResponse::Ok().json(View::of(&record))))
    };
    answer(exchange, work).await
}

/// `GET /v1/batches`.
async fn list(req: HttpRequest, app: web::Data<App>) -> HttpResponse {
    let exchange = Exchange::begin(request_id::of(&req), "/v1/batches", app.series.batches.clone());
    let work = async move {
        open(&app)?;
        let query = ListQuery::read(&req, &[], BATCHES)?;
        let found = app.ledger.batches(context::ANONYMOUS.into(), query.page()).await.map_err(not_reached)?;
        let views: Vec<_> = found.iter().map(View::of).collect();
        Ok(Made::Whole(HttpResponse::Ok().json(List::of(views, &query, |view| view.id))))
    };
    answer(exchange, work).await
}

/// `GET /v1/batches/{id}`.
async fn get(req: HttpRequest, id: web::Path<String>, app: web::Data<App>) -> HttpResponse {
    let exchange = Exchange::begin(request_id::of(&req), "/v1/batches/{id}", app.series.batch.clone());
    let work = async move {
        open(&app)?;
        let found = app.ledger.batch(ObjectKey::new(context::ANONYMOUS, id.as_str())).await;
        Ok(Made::Whole(HttpResponse::Ok().json(View::of(&there(found)?))))
    };
    answer(exchange, work).await
}

/// `POST /v1/batches/{id}/cancel`: calls off what is not over yet.
async fn cancel(req: HttpRequest, id: web::Path<String>, app: web::Data<App>) -> HttpResponse {
    let series = app.series.batch_cancelled.clone();
    let exchange = Exchange::begin(request_id::of(&req), "/v1/batches/{id}/cancel", series);
    let work = async move {
        let batches = open(&app)?;
        let found = app.ledger.cancel_batch(ObjectKey::new(context::ANONYMOUS, id.as_str())).await;
        let record = there(found)?;
        batches.wake();
        Ok(Made::Whole(HttpResponse::Ok().json(View::of(&record))))
    };
    answer(exchange, work).await
}

fn open(app: &App) -> Result<&Batches, ApiError> {
    app.batches.as_ref().ok_or_else(jobs::no_queue)
}

fn there(found: Result<Option<BatchRecord>, LedgerError>) -> Result<BatchRecord, ApiError> {
    match found {
        Ok(Some(record)) => Ok(record),
        // An id that cannot be stored is nobody's.
        Ok(None) | Err(LedgerError::Refused) => Err(ApiError::new(Code::NotFound, "there is no such batch")),
        Err(error) => Err(not_reached(error)),
    }
}

fn unix_millis() -> UnixMillis {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis::try_from(now.as_millis()).unwrap_or(UnixMillis::MAX)
}

/// Where the routes are; `only` answers other methods.
pub(super) fn configure(config: &mut web::ServiceConfig) {
    use super::{only, reading};
    config
        .service(
            web::resource("/v1/batches")
                .route(reading().to(list))
                .route(web::post().to(create))
                .default_service(only("GET, POST")),
        )
        .service(web::resource("/v1/batches/{id}").route(reading().to(get)).default_service(only("GET")))
        .service(
            web::resource("/v1/batches/{id}/cancel")
                .route(web::post().to(cancel))
                .default_service(only("POST")),
        );
}
