//! Embeddings.

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};

use super::{App, Made, answer, answer_head, in_field};
use crate::http::body::{BodyLimits, read_json};
use crate::http::context;
use crate::http::exchange::Exchange;
use crate::http::openai::decode::decode_embedding;
use crate::http::openai::encode::write_embeddings;
use crate::http::request_id;

/// `POST /v1/embeddings`.
pub(super) async fn embeddings(req: HttpRequest, payload: web::Payload, app: web::Data<App>) -> HttpResponse {
    let exchange = Exchange::begin(request_id::of(&req), "/v1/embeddings", app.series.embeddings.clone());
    let arrival = exchange.arrival.clone();
    let work = async move {
        let context = context::read(&req, arrival, app.request_timeout)?;
        let bytes = app.body.bytes.min(app.body_without_images);
        let body = read_json(&req, payload, BodyLimits { bytes, ..app.body }).await?;
        let decoded = decode_embedding(&body)?;
        drop(body);
        let request_id = Arc::clone(&context.request_id);
        let embedded = app.service.embed(context, decoded.request, &decoded.model).await;
        let embedded = embedded.map_err(|error| in_field(error, "input"))?;
        let mut response = HttpResponseBuilder::new(StatusCode::OK);
        answer_head(&mut response, &embedded.meta, &request_id);
        response.insert_header((CONTENT_TYPE, HeaderValue::from_static("application/json")));
        let mut out = Vec::new();
        let model = embedded.meta.arm.id.model.as_str();
        write_embeddings(&embedded.vectors, model, decoded.format, &mut out);
        Ok(Made::Whole(response.body(out)))
    };
    answer(exchange, work).await
}
