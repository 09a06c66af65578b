//! Chat and completions.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use bytes::Bytes;

use super::{App, Made, answer, answer_head, in_field};
use crate::http::body::{BodyLimits, read_json};
use crate::http::context;
use crate::http::error::{ApiError, Code};
use crate::http::exchange::Exchange;
use crate::http::openai::decode::{self, Decoded};
use crate::http::openai::encode::{Head, Kind, StreamEncoder, write_chat, write_completion};
use crate::http::request_id;
use crate::service::{Served, ServedBody};

/// `POST /v1/chat/completions`.
pub(super) async fn chat(req: HttpRequest, payload: web::Payload, app: web::Data<App>) -> HttpResponse {
    let exchange = Exchange::begin(request_id::of(&req), "/v1/chat/completions", app.series.chat.clone());
    generate(req, payload, app, exchange, Kind::Chat).await
}

/// `POST /v1/completions`.
pub(super) async fn completions(
    req: HttpRequest,
    payload: web::Payload,
    app: web::Data<App>,
) -> HttpResponse {
    let exchange = Exchange::begin(request_id::of(&req), "/v1/completions", app.series.completions.clone());
    generate(req, payload, app, exchange, Kind::Completion).await
}

async fn generate(
    req: HttpRequest,
    payload: web::Payload,
    app: web::Data<App>,
    exchange: Exchange,
    kind: Kind,
) -> HttpResponse {
    let arrival = exchange.arrival.clone();
    let work = async move {
        let context = context::read(&req, arrival, app.request_timeout)?;
        let body = read_json(&req, payload, app.body).await?;
        check_size(&body, app.body_without_images, app.body)?;
        let decoded = match kind {
            Kind::Chat => decode::decode_chat(&body)?,
            Kind::Completion => decode::decode_completion(&body)?,
        };
        drop(body);
        let Decoded { request, model, include_usage, .. } = decoded;
        let request_id = Arc::clone(&context.request_id);
        let served = app.service.generate(context, request, &model).await;
        let served = served.map_err(|error| match kind {
            Kind::Chat => error.into(),
            Kind::Completion => in_field(error, "prompt"),
        })?;
        Ok(encode(served, kind, include_usage, &request_id))
    };
    answer(exchange, work).await
}

/// Only images justify a large body.
fn check_size(body: &Bytes, without_images: usize, limits: BodyLimits) -> Result<(), ApiError> {
    let has_images = || memchr::memmem::find(body, b"image_url").is_some();
    if body.len() <= without_images.min(limits.bytes) || has_images() {
        return Ok(());
    }
    Err(ApiError::new(
        Code::RequestTooLarge,
        format!("the request body is larger than {without_images} bytes and carries no image"),
    ))
}

fn encode(served: Served, kind: Kind, include_usage: bool, request_id: &Arc<str>) -> Made {
    let id = request_id::fresh(match kind {
        Kind::Chat => "chatcmpl-",
        Kind::Completion => "cmpl-",
    });
    let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let mut response = HttpResponseBuilder::new(StatusCode::OK);
    answer_head(&mut response, &served.meta, request_id);
    match served.body {
        ServedBody::Whole(answer) => {
            let mut out = Vec::with_capacity(1024);
            let head = Head { id: &id, created, model: served.meta.arm.id.model.as_str() };
            match kind {
                Kind::Chat => write_chat(&answer, &head, &mut out),
                Kind::Completion => write_completion(&answer, &head, &mut out),
            }
            response.insert_header((CONTENT_TYPE, HeaderValue::from_static("application/json")));
            Made::Whole(response.body(out))
        }
        ServedBody::Stream(events) => {
            let head = Head { id: &id, created, model: served.meta.arm.id.model.as_str() };
            let encoder = StreamEncoder::new(&head, kind, include_usage);
            response
                .insert_header((CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8")));
            response.insert_header((CACHE_CONTROL, HeaderValue::from_static("no-cache")));
            // Proxies of the nginx kind hold streams back unless told otherwise.
            response.insert_header((
                HeaderName::from_static("x-accel-buffering"),
                HeaderValue::from_static("no"),
            ));
            Made::Stream { head: response, events, encoder }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_body_needs_an_image() {
        let limits = BodyLimits { bytes: 100, time: std::time::Duration::from_secs(1) };
        assert!(check_size(&Bytes::from(vec![b' '; 11]), 10, limits).is_err());
        assert!(check_size(&Bytes::from_static(b"{\"type\":\"image_url\"}"), 10, limits).is_ok());
    }
}
