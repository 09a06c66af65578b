//! The names of all errors, with status, type and what each says by itself.

/// Every error the service can answer with.
///
/// The name in snake case is the `code` of the answer; names are part of the public contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each variant's own message says what it means")]
pub enum Code {
    InvalidJson,
    MissingParameter,
    InvalidValue,
    UnsupportedParameter,
    ContextLengthExceeded,
    ContentFilter,
    InvalidImage,
    InvalidImageUrl,
    InvalidBackup,
    InvalidApiKey,
    InsufficientScope,
    ModelNotFound,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    IdempotencyInProgress,
    RequestTooLarge,
    UnsupportedMediaType,
    IdempotencyKeyReused,
    MessageIdReused,
    RateLimitExceeded,
    ConcurrencyLimit,
    DailyQuotaExceeded,
    UpstreamRateLimited,
    HeadersTooLarge,
    Cancelled,
    InternalError,
    JobFailed,
    TemplateError,
    UpstreamError,
    UpstreamBadResponse,
    UpstreamTruncated,
    Overloaded,
    Draining,
    BackendsUnavailable,
    ModelUnavailable,
    QueueUnavailable,
    QueueUnroutable,
    QueueFull,
    StorageUnavailable,
    UpstreamTimeout,
    UpstreamStalled,
    DeadlineExceeded,
}

const INVALID: &str = "invalid_request_error";
const LIMIT: &str = "rate_limit_error";
const SERVER: &str = "server_error";
const UPSTREAM: &str = "upstream_error";

impl Code {
    /// Every code, ordered by status.
    pub const ALL: [Code; 43] = [
        Code::InvalidJson,
        Code::MissingParameter,
        Code::InvalidValue,
        Code::UnsupportedParameter,
        Code::ContextLengthExceeded,
        Code::ContentFilter,
        Code::InvalidImage,
        Code::InvalidImageUrl,
        Code::InvalidBackup,
        Code::InvalidApiKey,
        Code::InsufficientScope,
        Code::ModelNotFound,
        Code::NotFound,
        Code::MethodNotAllowed,
        Code::RequestTimeout,
        Code::IdempotencyInProgress,
        Code::RequestTooLarge,
        Code::UnsupportedMediaType,
        Code::IdempotencyKeyReused,
        Code::MessageIdReused,
        Code::RateLimitExceeded,
        Code::ConcurrencyLimit,
        Code::DailyQuotaExceeded,
        Code::UpstreamRateLimited,
        Code::HeadersTooLarge,
        Code::Cancelled,
        Code::InternalError,
        Code::JobFailed,
        Code::TemplateError,
        Code::UpstreamError,
        Code::UpstreamBadResponse,
        Code::UpstreamTruncated,
        Code::Overloaded,
        Code::Draining,
        Code::BackendsUnavailable,
        Code::ModelUnavailable,
        Code::QueueUnavailable,
        Code::QueueUnroutable,
        Code::QueueFull,
        Code::StorageUnavailable,
        Code::UpstreamTimeout,
        Code::UpstreamStalled,
        Code::DeadlineExceeded,
    ];

    /// The HTTP status. The stream-only codes name the status they have outside of a stream.
    pub fn status(self) -> u16 {
        self.row().0
    }

    /// The `type` of the OpenAI shape.
    pub fn kind(self) -> &'static str {
        self.row().1
    }

    /// The `code` of the OpenAI shape, also the error's name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        self.row().2
    }

    /// What the error says when nothing more exact is known.
    pub fn default_message(self) -> &'static str {
        self.row().3
    }

    /// The one table: status, type, name, message.
    #[rustfmt::skip]
    fn row(self) -> (u16, &'static str, &'static str, &'static str) {
        match self {
            Code::InvalidJson => (400, INVALID, "invalid_json", "The body is not valid JSON."),
            Code::MissingParameter => (400, INVALID, "missing_parameter", "A required parameter is missing."),
            Code::InvalidValue => (400, INVALID, "invalid_value", "A parameter has a value that is not allowed."),
            Code::UnsupportedParameter => (400, INVALID, "unsupported_parameter", "A parameter is not supported."),
            Code::ContextLengthExceeded => (400, INVALID, "context_length_exceeded", "The prompt is longer than the model's context. Shorten it or choose a model with a longer context."),
            Code::ContentFilter => (400, INVALID, "content_filter", "The content was refused by the policy of the model's provider."),
            Code::InvalidImage => (400, INVALID, "invalid_image", "An image is damaged, too large, or not a PNG, JPEG, WebP or still GIF."),
            Code::InvalidImageUrl => (400, INVALID, "invalid_image_url", "An image must be a data: URL or an https URL of a public host."),
            Code::InvalidBackup => (400, INVALID, "invalid_backup", "The backup is damaged or of another version. Nothing was changed."),
            Code::InvalidApiKey => (401, "authentication_error", "invalid_api_key", "The API key is missing or not valid. Send it as 'Authorization: Bearer KEY'."),
            Code::InsufficientScope => (403, "permission_error", "insufficient_scope", "The API key does not have the scope that this route needs."),
            Code::ModelNotFound => (404, INVALID, "model_not_found", "The model does not exist or is not available here. GET /v1/models lists what is."),
            Code::NotFound => (404, INVALID, "not_found", "There is nothing at this address."),
            Code::MethodNotAllowed => (405, INVALID, "method_not_allowed", "This route does not take this method. The 'allow' header lists those that it takes."),
            Code::RequestTimeout => (408, INVALID, "request_timeout", "The request did not arrive in time."),
            Code::IdempotencyInProgress => (409, INVALID, "idempotency_in_progress", "A request with this idempotency key is still being answered."),
            Code::RequestTooLarge => (413, INVALID, "request_too_large", "The body is larger than this service accepts."),
            Code::UnsupportedMediaType => (415, INVALID, "unsupported_media_type", "The body must be sent as application/json, plain or gzip-encoded."),
            Code::IdempotencyKeyReused => (422, INVALID, "idempotency_key_reused", "This idempotency key was used with another body."),
            Code::MessageIdReused => (422, INVALID, "message_id_reused", "This message id was used with another body."),
            Code::RateLimitExceeded => (429, LIMIT, "rate_limit_exceeded", "The key's limit of requests or tokens a minute is reached. Come again after 'retry-after'."),
            Code::ConcurrencyLimit => (429, LIMIT, "concurrency_limit", "The key's limit of requests at the same time is reached."),
            Code::DailyQuotaExceeded => (429, LIMIT, "daily_quota_exceeded", "The key's quota of the day is used up."),
            Code::UpstreamRateLimited => (429, LIMIT, "upstream_rate_limited", "Every backend that may answer is at its own limit. Come again after 'retry-after'."),
            Code::HeadersTooLarge => (431, INVALID, "headers_too_large", "The request's headers are too many or too long."),
            Code::Cancelled => (499, INVALID, "cancelled", "The request was cancelled by the caller."),
            Code::InternalError => (500, SERVER, "internal_error", "The service failed on this request. The request id finds it in the service's log."),
            Code::JobFailed => (500, SERVER, "job_failed", "The job failed in every attempt."),
            Code::TemplateError => (500, SERVER, "template_error", "The model's chat template could not be applied to these messages."),
            Code::UpstreamError => (502, UPSTREAM, "upstream_error", "The last backend that could be tried failed."),
            Code::UpstreamBadResponse => (502, UPSTREAM, "upstream_bad_response", "The last backend that could be tried sent an answer that could not be understood."),
            Code::UpstreamTruncated => (502, UPSTREAM, "upstream_truncated", "The backend's answer was cut off before its end. What came before is incomplete."),
            Code::Overloaded => (503, SERVER, "overloaded", "The service has as many requests in flight as it takes. Come again after 'retry-after'."),
            Code::Draining => (503, SERVER, "draining", "This instance is shutting down. Come again after 'retry-after'."),
            Code::BackendsUnavailable => (503, SERVER, "backends_unavailable", "No backend that may answer this request is available now. Come again after 'retry-after'."),
            Code::ModelUnavailable => (503, SERVER, "model_unavailable", "The model cannot be loaded now."),
            Code::QueueUnavailable => (503, SERVER, "queue_unavailable", "The job queue is off or cannot be reached. The job was not accepted."),
            Code::QueueUnroutable => (503, SERVER, "queue_unroutable", "The job queue does not exist at the broker. The job was not accepted."),
            Code::QueueFull => (503, SERVER, "queue_full", "The job queue is full. The job was not accepted."),
            Code::StorageUnavailable => (503, SERVER, "storage_unavailable", "Where files and batches are kept cannot be reached now. Come again after 'retry-after'."),
            Code::UpstreamTimeout => (504, UPSTREAM, "upstream_timeout", "No backend that could be tried answered in time."),
            Code::UpstreamStalled => (504, UPSTREAM, "upstream_stalled", "The backend stopped sending in the middle of its answer. What came before is incomplete."),
            Code::DeadlineExceeded => (504, UPSTREAM, "deadline_exceeded", "The request's deadline passed before the answer was complete."),
        }
    }
}
