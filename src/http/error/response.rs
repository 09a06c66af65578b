//! An [`ApiError`] as an HTTP response.

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpResponse, HttpResponseBuilder, ResponseError};

use super::ApiError;

/// Header that repeats the identity of the request.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Header that tells OpenAI client libraries whether to retry.
pub const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

impl ApiError {
    /// The whole response: status, JSON body, `x-request-id`, `retry-after` on every 429 and 503,
    /// `x-should-retry` where it is set, `www-authenticate` on a 401.
    pub fn response(&self, request_id: &str) -> HttpResponse {
        let mut response = HttpResponseBuilder::new(self.status_code());
        response.insert_header((header::CONTENT_TYPE, HeaderValue::from_static("application/json")));
        if let Ok(id) = HeaderValue::from_str(request_id)
            && !id.is_empty()
        {
            response.insert_header((X_REQUEST_ID, id));
        }
        if let Some(seconds) = self.retry_after_seconds() {
            response.insert_header((header::RETRY_AFTER, HeaderValue::from(seconds)));
        }
        if let Some(retry) = self.should_retry {
            let value = HeaderValue::from_static(if retry { "true" } else { "false" });
            response.insert_header((X_SHOULD_RETRY, value));
        }
        if self.status() == 401 {
            response.insert_header((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
        }
        response.body(self.body(request_id))
    }
}

/// For handlers that end with `?`. The trait does not see the request, so this response carries no request
/// id; a door that knows it answers with [`ApiError::response`].
impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        // Every code's status is a valid one; a test walks over all of them.
        StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        self.response("")
    }
}
