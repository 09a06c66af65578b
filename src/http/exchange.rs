//! One exchange: what is counted and logged about a request, however it ends.
//!
//! The value travels with the answer's body. Dropped before its end was told, it counts as a caller who
//! left (499), which is exactly when the server drops handler and body.

use std::sync::Arc;

use tokio::time::Instant;

use crate::telemetry::metrics::EndpointMetrics;

/// The status we log for a caller who left.
const CALLER_LEFT: u16 = 499;

/// What is known of a request before anything of it is read.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Identity of the request.
    pub request_id: Arc<str>,
    /// When its head was read.
    pub received: Instant,
    /// The route it asks.
    pub route: &'static str,
}

/// One request on its way.
pub struct Exchange {
    /// Its beginning.
    pub arrival: Arrival,
    series: EndpointMetrics,
    ended: bool,
}

impl Exchange {
    /// Begins with a request's head.
    pub fn begin(request_id: Arc<str>, route: &'static str, series: EndpointMetrics) -> Self {
        let arrival = Arrival { request_id, received: Instant::now(), route };
        Self { arrival, series, ended: false }
    }

    /// The answer is complete.
    pub fn end(&mut self, status: u16, error: Option<&str>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let Arrival { request_id, received, route } = &self.arrival;
        let took = received.elapsed();
        self.series.seen(status, took);
        let ms = (took.as_secs_f64() * 100_000.0).round() / 100.0;
        match error {
            Some(code) => {
                tracing::info!(%request_id, route, status, ms, code, "answered with an error");
            }
            None => {
                tracing::debug!(%request_id, route, status, ms, "answered");
            }
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.end(CALLER_LEFT, Some("cancelled"));
    }
}
