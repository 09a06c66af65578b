//! Fault injection, for tests of what a panic may cost. There is no such route unless the test hooks are
//! switched on, which production refuses.

use actix_web::{HttpRequest, HttpResponse, web};
use opossum_actors::{ActorError, Registry};

use super::{App, Made, answer};
use crate::http::error::{ApiError, Code};
use crate::http::exchange::Exchange;
use crate::http::request_id;

/// `POST /debug/poison/{actor}`: a panic in an actor of this name or kind, or with `handler` right here.
pub(super) async fn actor(
    req: HttpRequest,
    name: web::Path<String>,
    app: web::Data<App>,
    registry: web::Data<Registry>,
) -> HttpResponse {
    let exchange = Exchange::begin(request_id::of(&req), "other", app.series.other.clone());
    let name = name.into_inner();
    answer(exchange, async move {
        if name == "handler" {
            fall();
        }
        match registry.poison(&name).await {
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
