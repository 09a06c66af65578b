//! Fault injection, for tests of what a panic may cost. There is no such route unless the test hooks are
//! switched on, which production refuses.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::{HttpRequest, HttpResponse, web};
use opossum_actors::{ActorError, Registry};

use super::{App, Made, answer};
use crate::http::error::{ApiError, Code};
use crate::http::exchange::Exchange;
use crate::http::request_id;

/// What the route can break.
#[derive(Clone, Debug)]
pub struct Hooks {
    /// Every actor.
    pub registry: Registry,
    /// Set to make the next step of the embedded engine panic.
    pub engine: Arc<AtomicBool>,
}

/// `POST /debug/poison/{actor}`: a panic in an actor of this name or kind, with `engine` in the next step of the
/// embedded engine, or with `handler` right here.
pub(super) async fn actor(
    req: HttpRequest,
    name: web::Path<String>,
    app: web::Data<App>,
    hooks: web::Data<Hooks>,
) -> HttpResponse {
    let exchange = Exchange::begin(request_id::of(&req), "other", app.series.other.clone());
    let name = name.into_inner();
    answer(exchange, async move {
        if name == "handler" {
            fall();
        }
        if name == "engine" {
            hooks.engine.store(true, Ordering::Release);
            return Ok(Made::Whole(HttpResponse::Ok().finish()));
        }
        match hooks.registry.poison(&name).await {
            Some(ActorError::Panicked) => Ok(Made::Whole(HttpResponse::Ok().finish())),
            Some(other) => Err(ApiError::new(Code::Overloaded, other.to_string())),
            None => Err(ApiError::new(Code::NotFound, "there is no such actor")),
        }
    })
    .await
}

#[expect(clippy::panic, reason = "injects the very fault the route is for")]
fn fall() {
    panic!("poisoned on purpose");
}
