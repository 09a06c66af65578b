//! Health: what ServiceMonitor last saw, never a wait for a slow dependency.

use std::collections::BTreeMap;

use actix_web::http::header::RETRY_AFTER;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};

use super::App;

/// The answer of `GET /health`.
#[derive(Debug, Serialize)]
struct Report<'a> {
    status: &'static str,
    version: &'a str,
    timestamp: String,
    services: Services,
    actors: BTreeMap<String, ActorReport>,
}

#[derive(Debug, Serialize)]
struct Services {
    #[serde(flatten)]
    dependencies: BTreeMap<String, String>,
    model_backends: BTreeMap<String, &'static str>,
    breakers: BTreeMap<String, serde_json::Value>,
}

#[derive(Debug, Serialize)]
struct ActorReport {
    alive: bool,
    restarts: u64,
}

/// `?refresh=true` probes now.
#[derive(Debug, Deserialize)]
struct Asked {
    #[serde(default)]
    refresh: bool,
}

/// `GET /health`: 200 whether all is well or something is degraded.
pub(super) async fn report(req: HttpRequest, app: web::Data<App>) -> HttpResponse {
    let refresh = web::Query::<Asked>::from_query(req.query_string()).is_ok_and(|asked| asked.refresh);
    let health = app.service.health(refresh).await;
    let status = if health.is_good() { "ok" } else { "degraded" };
    let model_backends = health
        .backends
        .iter()
        .map(|(name, b)| (name.clone(), if b.available { "available" } else { "unavailable" }))
        .collect();
    let actors = health
        .actors
        .into_iter()
        .map(|(name, a)| (name, ActorReport { alive: a.alive, restarts: a.restarts }))
        .collect();
    HttpResponse::Ok().json(Report {
        status,
        version: app.version,
        timestamp: jiff::Timestamp::now().to_string(),
        services: Services { dependencies: health.dependencies, model_backends, breakers: health.breakers },
        actors,
    })
}

/// `GET /health/live`: the event loop turns.
pub(super) async fn live() -> HttpResponse {
    HttpResponse::Ok().json(serde_json::json!({ "status": "ok" }))
}

/// `GET /health/ready`: work can be admitted.
pub(super) async fn ready(app: web::Data<App>) -> HttpResponse {
    match app.service.readiness() {
        Ok(()) => HttpResponse::Ok().json(serde_json::json!({ "status": "ready" })),
        Err(why) => HttpResponse::ServiceUnavailable()
            .insert_header((RETRY_AFTER, "1"))
            .json(serde_json::json!({ "status": "not ready", "reason": why })),
    }
}
