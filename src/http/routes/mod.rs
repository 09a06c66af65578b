//! Routes, and what they share.

mod batches;
mod embed;
mod files;
mod generate;
mod head;
mod health;
mod jobs;
mod meta;
mod models;
mod poison;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use actix_web::guard;
use actix_web::http::header::HeaderValue;
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, Route};
use futures::FutureExt;
use opossum_jobs::Door;
use opossum_ledger::Ledger;

use self::head::answer_head;
pub use self::poison::Hooks;
use super::body::BodyLimits;
use super::error::{ApiError, Code};
use super::exchange::Exchange;
use super::openai::encode::StreamEncoder;
use super::request_id;
use super::stream::SseBody;
use crate::batches::Batches;
use crate::service::{AnswerStream, PipelineError, Service};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::EndpointMetrics;

/// What every route can reach.
pub struct App {
    /// The one path.
    pub service: Service,
    /// The job queue, where there is one.
    pub door: Option<Door>,
    /// The work on batches, where there is a job queue.
    pub batches: Option<Batches>,
    /// Where files and jobs are kept.
    pub ledger: Ledger,
    /// Metrics of the process.
    pub metrics: Arc<Metrics>,
    /// Bounds on bodies that may carry images.
    pub body: BodyLimits,
    /// Most bytes of a body without images.
    pub body_without_images: usize,
    /// Most bytes of a file.
    pub file_limit: u64,
    /// Longest time a request may take in all.
    pub request_timeout: Duration,
    /// The running version.
    pub version: &'static str,
    series: Series,
}

/// The series of each route, looked up once.
struct Series {
    chat: EndpointMetrics,
    completions: EndpointMetrics,
    embeddings: EndpointMetrics,
    models: EndpointMetrics,
    model: EndpointMetrics,
    jobs: EndpointMetrics,
    job: EndpointMetrics,
    job_cancelled: EndpointMetrics,
    job_events: EndpointMetrics,
    file_uploaded: EndpointMetrics,
    files: EndpointMetrics,
    file: EndpointMetrics,
    file_content: EndpointMetrics,
    file_deleted: EndpointMetrics,
    batch_created: EndpointMetrics,
    batches: EndpointMetrics,
    batch: EndpointMetrics,
    batch_cancelled: EndpointMetrics,
    other: EndpointMetrics,
}

impl App {
    /// Joins what the routes need.
    pub fn new(
        service: Service,
        door: Option<Door>,
        batches: Option<Batches>,
        ledger: Ledger,
        metrics: Arc<Metrics>,
        options: AppOptions,
    ) -> Self {
        let series = Series {
            chat: metrics.endpoint("POST", "/v1/chat/completions"),
            completions: metrics.endpoint("POST", "/v1/completions"),
            embeddings: metrics.endpoint("POST", "/v1/embeddings"),
            models: metrics.endpoint("GET", "/v1/models"),
            model: metrics.endpoint("GET", "/v1/models/{id}"),
            jobs: metrics.endpoint("POST", "/v1/jobs"),
            job: metrics.endpoint("GET", "/v1/jobs/{id}"),
            job_cancelled: metrics.endpoint("DELETE", "/v1/jobs/{id}"),
            job_events: metrics.endpoint("GET", "/v1/jobs/{id}/events"),
            file_uploaded: metrics.endpoint("POST", "/v1/files"),
            files: metrics.endpoint("GET", "/v1/files"),
            file: metrics.endpoint("GET", "/v1/files/{id}"),
            file_content: metrics.endpoint("GET", "/v1/files/{id}/content"),
            file_deleted: metrics.endpoint("DELETE", "/v1/files/{id}"),
            batch_created: metrics.endpoint("POST", "/v1/batches"),
            batches: metrics.endpoint("GET", "/v1/batches"),
            batch: metrics.endpoint("GET", "/v1/batches/{id}"),
            batch_cancelled: metrics.endpoint("POST", "/v1/batches/{id}/cancel"),
            other: metrics.endpoint("other", "other"),
        };
        let AppOptions { body, body_without_images, file_limit, request_timeout, version } = options;
        Self {
            service,
            door,
            batches,
            ledger,
            metrics,
            body,
            body_without_images,
            file_limit,
            request_timeout,
            version,
            series,
        }
    }
}

/// Bounds and facts the routes need from the settings.
#[derive(Clone, Copy, Debug)]
pub struct AppOptions {
    /// Bounds on bodies that may carry images.
    pub body: BodyLimits,
    /// Most bytes of a body without images.
    pub body_without_images: usize,
    /// Most bytes of a file.
    pub file_limit: u64,
    /// Longest time a request may take in all.
    pub request_timeout: Duration,
    /// The running version.
    pub version: &'static str,
}

/// Adds every route to a server.
pub fn configure(config: &mut ServiceConfig) {
    config
        .service(
            web::resource("/v1/chat/completions")
                .route(web::post().to(generate::chat))
                .default_service(only("POST")),
        )
        .service(
            web::resource("/v1/completions")
                .route(web::post().to(generate::completions))
                .default_service(only("POST")),
        )
        .service(
            web::resource("/v1/embeddings")
                .route(web::post().to(embed::embeddings))
                .default_service(only("POST")),
        )
        .service(web::resource("/v1/models").route(reading().to(models::list)).default_service(only("GET")))
        .service(
            web::resource("/v1/models/{id:.+}").route(reading().to(models::one)).default_service(only("GET")),
        )
        .service(web::resource("/health").route(reading().to(health::report)).default_service(only("GET")))
        .service(web::resource("/health/live").route(reading().to(health::live)).default_service(only("GET")))
        .service(
            web::resource("/health/ready").route(reading().to(health::ready)).default_service(only("GET")),
        )
        .service(web::resource("/metrics").route(reading().to(meta::metrics)).default_service(only("GET")))
        .service(
            web::resource("/openapi.json").route(reading().to(meta::openapi)).default_service(only("GET")),
        )
        .service(web::resource("/").route(reading().to(meta::index)).default_service(only("GET")));
    jobs::configure(config);
    files::configure(config);
    batches::configure(config);
    config.default_service(web::to(not_found));
}

/// Adds the routes that break parts of the service on purpose.
pub fn configure_hooks(config: &mut ServiceConfig, hooks: &Hooks) {
    config
        .app_data(web::Data::new(hooks.clone()))
        .service(web::resource("/debug/poison/{actor}").route(web::post().to(poison::actor)));
}

/// `GET`, and `HEAD`, which load balancers and uptime checks send.
fn reading() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

/// Answers a known route that was asked with another method.
fn only(method: &'static str) -> Route {
    web::to(move |req: HttpRequest| async move {
        let error = ApiError::new(Code::MethodNotAllowed, format!("this route takes {method} only"));
        let mut response = error.response(&request_id::of(&req));
        let allow = HeaderValue::from_static(method);
        response.headers_mut().insert(actix_web::http::header::ALLOW, allow);
        response
    })
}

async fn not_found(req: HttpRequest, app: web::Data<App>) -> HttpResponse {
    let id = request_id::of(&req);
    let mut exchange = Exchange::begin(Arc::clone(&id), "other", app.series.other.clone());
    let error = ApiError::new(Code::NotFound, "there is no such route");
    exchange.end(error.status(), Some(error.code().as_str()));
    error.response(&id)
}

/// The path's error, of a request whose content is in this field: the path does not know its name.
fn in_field(error: PipelineError, field: &'static str) -> ApiError {
    let too_long = error == PipelineError::ContextLength;
    let error = ApiError::from(error);
    if too_long { error.with_param(field) } else { error }
}

/// What a handler made: all of it, or the beginning of a stream.
enum Made {
    Whole(HttpResponse),
    Stream { head: HttpResponseBuilder, events: AnswerStream, encoder: StreamEncoder },
}

/// Runs a handler so that neither an error nor a panic in it leaves the caller without an answer, and so
/// that the exchange is counted once: here, at the end of the stream, or when the caller leaves.
async fn answer(mut exchange: Exchange, work: impl Future<Output = Result<Made, ApiError>>) -> HttpResponse {
    let made = AssertUnwindSafe(work).catch_unwind().await;
    match made.unwrap_or_else(|_| Err(ApiError::new(Code::InternalError, "internal error"))) {
        Ok(Made::Whole(response)) => {
            exchange.end(response.status().as_u16(), None);
            response
        }
        Ok(Made::Stream { mut head, events, encoder }) => head.body(SseBody::new(events, encoder, exchange)),
        Err(error) => {
            exchange.end(error.status(), Some(error.code().as_str()));
            error.response(&exchange.arrival.request_id)
        }
    }
}
