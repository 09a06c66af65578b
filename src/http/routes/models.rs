//! What can be asked for.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;

use super::{App, Made, answer};
use crate::http::error::ApiError;
use crate::http::exchange::Exchange;
use crate::http::request_id;
use crate::service::{ModelEntry, PipelineError};

#[derive(Serialize)]
struct List {
    object: &'static str,
    data: Vec<Model>,
}

#[derive(Serialize)]
struct Model {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: String,
    /// What may answer, best first, with its state: ours, beside the fields of the OpenAI dialect.
    backends: Vec<Candidate>,
}

#[derive(Serialize)]
struct Candidate {
    service: String,
    model: String,
    available: bool,
    capabilities: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context_length: Option<u32>,
}

impl From<ModelEntry> for Model {
    fn from(entry: ModelEntry) -> Self {
        let backends = entry
            .candidates
            .into_iter()
            .map(|c| Candidate {
                service: c.arm.service.to_string(),
                model: c.arm.model.to_string(),
                available: c.available,
                capabilities: c.can.names(),
                context_length: c.context_tokens,
            })
            .collect();
        Self { id: entry.id, object: "model", created: 0, owned_by: entry.owner, backends }
    }
}

/// `GET /v1/models`.
pub(super) async fn list(req: HttpRequest, app: web::Data<App>) -> HttpResponse {
    let exchange = Exchange::begin(request_id::of(&req), "/v1/models", app.series.models.clone());
    let data = app.service.models().into_iter().map(Model::from).collect();
    answer(exchange, async move { Ok(Made::Whole(HttpResponse::Ok().json(List { object: "list", data }))) })
        .await
}

/// `GET /v1/models/{id}`; an id may hold slashes.
pub(super) async fn one(req: HttpRequest, id: web::Path<String>, app: web::Data<App>) -> HttpResponse {
    let exchange = Exchange::begin(request_id::of(&req), "/v1/models/{id}", app.series.model.clone());
    let id = id.into_inner();
    let found = app.service.model(&id).map(Model::from);
    answer(exchange, async move {
        let model = found.ok_or_else(|| ApiError::from(PipelineError::ModelNotFound { model: id }))?;
        Ok(Made::Whole(HttpResponse::Ok().json(model)))
    })
    .await
}
