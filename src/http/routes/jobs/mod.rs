//! Jobs over HTTP: submitted to the same durable queue as over AMQP, and fetched, followed or cancelled by
//! their id.
//!
//! A 202 is a promise: the broker has the job on disk. Ids are random and long; who has one may use it.

mod follow;
mod submission;

use std::time::Duration;

use actix_web::http::header::LOCATION;
use actix_web::{HttpRequest, HttpResponse, web};
use opossum_core::jobs::{JobKey, JobState};
use opossum_jobs::{Door, JobView, PublishError, StoreError, Submission};
use serde::Serialize;
use serde_json::value::RawValue;

use self::submission::{Wish, read, until};
use super::{App, Made, answer};
use crate::http::body::{BodyLimits, read_json};
use crate::http::context;
use crate::http::error::{ApiError, Code};
use crate::http::exchange::Exchange;
use crate::http::request_id;

/// By then a broker that was away for a moment is back.
const BROKER_BACK: Duration = Duration::from_secs(5);

/// A job as its caller sees it.
#[derive(Serialize)]
struct Job<'a> {
    id: &'a str,
    status: JobState,
    /// Once it is answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<JobResult<'a>>,
}

#[derive(Serialize)]
struct JobResult<'a> {
    /// The status that the answer would have had over HTTP.
    status: u16,
    /// The body that it would have had.
    body: &'a RawValue,
}

impl<'a> Job<'a> {
    fn of(key: &'a JobKey, view: &'a JobView) -> Self {
        let result = view.reply.as_ref().and_then(|reply| {
            // Every reply is JSON that this service wrote.
            let body = serde_json::from_slice::<&RawValue>(&reply.body).ok()?;
            Some(JobResult { status: reply.status, body })
        });
        Self { id: &key.id, status: view.state, result }
    }
}

/// `POST /v1/jobs`: 202 once the broker has confirmed it.
pub(super) async fn submit(req: HttpRequest, payload: web::Payload, app: web::Data<App>) -> HttpResponse {
    let exchange = Exchange::begin(request_id::of(&req), "/v1/jobs", app.series.jobs.clone());
    let work = async move {
        let door = door(&app)?;
        let steering = context::steering(&req)?;
        let bytes = opossum_core::jobs::message::MAX_BYTES.min(app.body.bytes);
        let payload = read_json(&req, payload, BodyLimits { bytes, ..app.body }).await?;
        let Wish { endpoint, body, lane } = read(&payload)?;
        let key = JobKey::new(context::ANONYMOUS, &*request_id::fresh("job_"));
        let submission = Submission {
            key: &key,
            lane,
            endpoint,
            body,
            deadline: steering.timeout.map(until),
            traceparent: steering.traceparent.as_deref(),
        };
        door.submit(submission).await.map_err(not_accepted)?;
        let job = Job { id: &key.id, status: JobState::Queued, result: None };
        let location = format!("/v1/jobs/{}", key.id);
        Ok(Made::Whole(HttpResponse::Accepted().insert_header((LOCATION, location)).json(job)))
    };
    answer(exchange, work).await
}

/// `GET /v1/jobs/{id}`.
pub(super) async fn get(req: HttpRequest, id: web::Path<String>, app: web::Data<App>) -> HttpResponse {
    let exchange = Exchange::begin(request_id::of(&req), "/v1/jobs/{id}", app.series.job.clone());
    let work = async move {
        let (_, key, view) = find(&app, &id).await?;
        Ok(Made::Whole(HttpResponse::Ok().json(Job::of(&key, &view))))
    };
    answer(exchange, work).await
}

/// `DELETE /v1/jobs/{id}`: cancels what is not over yet.
pub(super) async fn cancel(req: HttpRequest, id: web::Path<String>, app: web::Data<App>) -> HttpResponse {
    let exchange = Exchange::begin(request_id::of(&req), "/v1/jobs/{id}", app.series.job_cancelled.clone());
    let work = async move {
        let (door, key, _) = find(&app, &id).await?;
        let state = door.cancel(&key).await.map_err(|error| not_told(&error))?;
        let view = JobView { state, reply: None };
        Ok(Made::Whole(HttpResponse::Ok().json(Job::of(&key, &view))))
    };
    answer(exchange, work).await
}

/// `GET /v1/jobs/{id}/events`: the job whenever its state changes, until it is over.
pub(super) async fn events(req: HttpRequest, id: web::Path<String>, app: web::Data<App>) -> HttpResponse {
    let exchange =
        Exchange::begin(request_id::of(&req), "/v1/jobs/{id}/events", app.series.job_events.clone());
    let work = async move {
        let (door, key, view) = find(&app, &id).await?;
        Ok(Made::Whole(follow::response(door.clone(), key, view)))
    };
    answer(exchange, work).await
}

async fn find<'a>(app: &'a App, id: &str) -> Result<(&'a Door, JobKey, JobView), ApiError> {
    let door = door(app)?;
    let key = JobKey::new(context::ANONYMOUS, id);
    match door.job(&key).await.map_err(|error| not_told(&error))? {
        Some(view) => Ok((door, key, view)),
        None => Err(ApiError::new(Code::NotFound, "there is no such job, or it is too long ago")),
    }
}

fn door(app: &App) -> Result<&Door, ApiError> {
    app.door.as_ref().ok_or_else(no_queue)
}

/// What a caller is told where there is no queue.
pub(super) fn no_queue() -> ApiError {
    let message = "this service has no job queue: AMQP_URL is not set";
    ApiError::new(Code::QueueUnavailable, message).with_retry_after(BROKER_BACK)
}

fn not_accepted(error: PublishError) -> ApiError {
    let code = match error {
        PublishError::Unavailable => Code::QueueUnavailable,
        PublishError::Unroutable => Code::QueueUnroutable,
        PublishError::Full => Code::QueueFull,
    };
    ApiError::of(code).with_retry_after(BROKER_BACK)
}

fn not_told(error: &StoreError) -> ApiError {
    tracing::warn!(%error, "a job cannot be looked up");
    let message = "where jobs are remembered cannot be reached now";
    ApiError::new(Code::QueueUnavailable, message).with_retry_after(BROKER_BACK)
}

/// The job as one event's data.
fn frame(key: &JobKey, view: &JobView) -> web::Bytes {
    let mut out = b"data: ".to_vec();
    // Strings into memory cannot fail to serialise.
    serde_json::to_writer(&mut out, &Job::of(key, view)).ok();
    out.extend_from_slice(b"\n\n");
    web::Bytes::from(out)
}

/// Where the routes are; `only` answers other methods.
pub(super) fn configure(config: &mut web::ServiceConfig) {
    use super::{only, reading};
    config
        .service(web::resource("/v1/jobs").route(web::post().to(submit)).default_service(only("POST")))
        .service(
            web::resource("/v1/jobs/{id}")
                .route(reading().to(get))
                .route(web::delete().to(cancel))
                .default_service(only("GET, DELETE")),
        )
        .service(
            web::resource("/v1/jobs/{id}/events").route(reading().to(events)).default_service(only("GET")),
        );
}
