//! Metrics, the OpenAPI document, and a signpost at the root.

use actix_web::{HttpRequest, HttpResponse, web};

use super::App;
use crate::http::error::{ApiError, Code};
use crate::http::{openapi, request_id};

/// `GET /metrics`: Prometheus text.
pub(super) async fn metrics(req: HttpRequest, app: web::Data<App>) -> HttpResponse {
    app.service.refresh_gauges();
    match app.metrics.text() {
        Ok(text) => HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text),
        Err(error) => {
            tracing::error!(%error, "metrics could not be written");
            ApiError::new(Code::InternalError, "internal error").response(&request_id::of(&req))
        }
    }
}

/// `GET /openapi.json`: the OpenAPI 3.1 document.
pub(super) async fn openapi() -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(openapi::document())
}

/// `GET /`: where to go from here.
pub(super) async fn index(app: web::Data<App>) -> HttpResponse {
    HttpResponse::Ok().json(serde_json::json!({
        "name": "Opossum Search",
        "version": app.version,
        "chat": "/v1/chat/completions",
        "embeddings": "/v1/embeddings",
        "models": "/v1/models",
        "jobs": "/v1/jobs",
        "health": "/health",
        "metrics": "/metrics",
        "openapi": "/openapi.json",
    }))
}
