//! From request headers to what the path needs to know.

use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpRequest;
use opossum_core::ids::ServiceName;
use smallvec::SmallVec;

use super::error::{ApiError, Code};
use super::exchange::Arrival;
use crate::admission::Lane;
use crate::service::{CacheMode, RequestContext};

const TIMEOUT: &str = "x-opossum-timeout-ms";
const CACHE: &str = "x-opossum-cache";
const ROUTE: &str = "x-opossum-route";
const TRACEPARENT: &str = "traceparent";

/// The tenant of callers without a key.
pub use opossum_core::jobs::message::ANONYMOUS;

/// What steers a job; the other headers have no place in its message.
pub struct Steering {
    /// How much time it has from now.
    pub timeout: Option<Duration>,
    /// W3C trace context.
    pub traceparent: Option<String>,
}

/// Reads the headers that steer a job.
///
/// # Errors
/// 400 naming the header: `invalid_value`, or `unsupported_parameter` for one that steers requests only.
pub fn steering(req: &HttpRequest) -> Result<Steering, ApiError> {
    for name in [CACHE, ROUTE] {
        if header(req, name)?.is_some() {
            let message = format!("the header {name} has no effect on jobs; leave it out");
            return Err(ApiError::new(Code::UnsupportedParameter, message).with_param(name));
        }
    }
    Ok(Steering { timeout: timeout(req)?, traceparent: header(req, TRACEPARENT)?.map(str::to_owned) })
}

/// Reads the headers that steer a request.
///
/// # Errors
/// 400 `invalid_value` naming the header.
pub fn read(req: &HttpRequest, arrival: Arrival, longest: Duration) -> Result<RequestContext, ApiError> {
    let Arrival { request_id, received, route } = arrival;
    let time = timeout(req)?.map_or(longest, |asked| asked.min(longest));
    Ok(RequestContext {
        request_id,
        endpoint: route,
        tenant: Arc::from(ANONYMOUS),
        received,
        deadline: received + time,
        lane: Lane::Live,
        comes_again: false,
        cache: cache_mode(req)?,
        only: services(req)?,
        traceparent: header(req, TRACEPARENT)?.map(Box::from),
    })
}

fn header<'r>(req: &'r HttpRequest, name: &'static str) -> Result<Option<&'r str>, ApiError> {
    let Some(value) = req.headers().get(name) else { return Ok(None) };
    value.to_str().map(|text| Some(text.trim())).map_err(|_| invalid(name, "must be plain ASCII text"))
}

fn timeout(req: &HttpRequest) -> Result<Option<Duration>, ApiError> {
    let Some(text) = header(req, TIMEOUT)? else { return Ok(None) };
    match text.parse::<u64>() {
        Ok(ms) if ms > 0 => Ok(Some(Duration::from_millis(ms))),
        _ => Err(invalid(TIMEOUT, "must be a whole number of milliseconds above 0")),
    }
}

fn cache_mode(req: &HttpRequest) -> Result<CacheMode, ApiError> {
    match header(req, CACHE)? {
        None => Ok(CacheMode::Auto),
        Some("bypass") => Ok(CacheMode::Bypass),
        Some("refresh") => Ok(CacheMode::Refresh),
        Some(_) => Err(invalid(CACHE, "must be `bypass` or `refresh`")),
    }
}

fn services(req: &HttpRequest) -> Result<SmallVec<[ServiceName; 4]>, ApiError> {
    let Some(text) = header(req, ROUTE)? else { return Ok(SmallVec::new()) };
    let names: SmallVec<[ServiceName; 4]> =
        text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(ServiceName::from).collect();
    if names.is_empty() || names.len() > 32 {
        return Err(invalid(ROUTE, "must name one to 32 services, separated by commas"));
    }
    Ok(names)
}

fn invalid(header: &'static str, rule: &str) -> ApiError {
    ApiError::new(Code::InvalidValue, format!("the header {header} {rule}")).with_param(header)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use actix_web::test::TestRequest;
    use tokio::time::Instant;

    use super::*;

    fn context(name: &'static str, value: &str) -> Result<RequestContext, ApiError> {
        let req = TestRequest::default().insert_header((name, value)).to_http_request();
        let arrival = Arrival { request_id: Arc::from("r"), received: Instant::now(), route: "/" };
        read(&req, arrival, Duration::from_secs(300))
    }

    #[test]
    fn a_callers_deadline_shortens_ours_and_never_lengthens_it() {
        let short = context(TIMEOUT, "5000").unwrap();
        assert_eq!(short.deadline - short.received, Duration::from_secs(5));
        let long = context(TIMEOUT, "9999999").unwrap();
        assert_eq!(long.deadline - long.received, Duration::from_secs(300));
    }

    #[test]
    fn wrong_headers_are_named() {
        for (name, value) in
            [(TIMEOUT, "0"), (TIMEOUT, "-1"), (TIMEOUT, "soon"), (CACHE, "maybe"), (ROUTE, " , ")]
        {
            assert!(context(name, value).is_err(), "{name}: {value}");
        }
    }

    #[test]
    fn a_route_is_a_set_of_services() {
        let names = context(ROUTE, "ollama, gemini").unwrap().only;
        assert_eq!(names.as_slice(), &[ServiceName::from("ollama"), ServiceName::from("gemini")]);
    }
}
