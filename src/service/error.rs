//! Why the path could not answer.
//!
//! One enum for the path, whatever the door. Doors translate it into their dialect; it carries nothing an
//! upstream said, so that no door can leak it.

use std::time::Duration;

use opossum_core::class::FailureClass;

/// Why the path could not answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PipelineError {
    /// No candidate can honour this field of the request.
    #[error("no backend that may answer supports `{param}`")]
    Unsupported {
        /// The request field.
        param: &'static str,
        /// What of it is not supported, where only a part is.
        reason: Option<String>,
    },
    /// A field of the request is wrong; found when a backend or the catalogue looked at it.
    #[error("{message}")]
    Invalid {
        /// The request field, where it is known.
        param: Option<&'static str>,
        /// What is wrong with it.
        message: String,
    },
    /// The model is not in the catalogue.
    #[error("the model does not exist or is not available here")]
    ModelNotFound {
        /// What the caller asked for.
        model: String,
    },
    /// The prompt is longer than the model's context.
    #[error("the prompt is longer than the model's context")]
    ContextLength,
    /// The upstream refuses the content.
    #[error("the content was refused by the model's provider")]
    ContentFilter,
    /// Too much is in flight here.
    #[error("too many requests are in flight")]
    Overloaded {
        /// When it is worth coming again.
        retry_after: Duration,
    },
    /// The service is shutting down.
    #[error("the service is shutting down")]
    Draining {
        /// When it is worth coming again (to another replica).
        retry_after: Duration,
    },
    /// No candidate can be tried now.
    #[error("no backend can answer now")]
    BackendsUnavailable {
        /// When the earliest candidate may be tried again.
        retry_after: Duration,
    },
    /// Every candidate is cooling down or out of quota.
    #[error("every backend is at its rate limit")]
    UpstreamRateLimited {
        /// When the earliest candidate may be tried again.
        retry_after: Duration,
    },
    /// The embedded model cannot be used.
    #[error("the model cannot be loaded")]
    ModelUnavailable {
        /// When it is worth coming again.
        retry_after: Duration,
    },
    /// The embedded model's chat template cannot lay out these messages.
    #[error("the chat template could not be applied")]
    Template,
    /// The last candidate failed with an error of its own.
    #[error("the backend failed")]
    UpstreamError,
    /// The last candidate's answer was not what its protocol says.
    #[error("the backend's answer could not be understood")]
    UpstreamBadResponse,
    /// The last candidate gave no content in time.
    #[error("the backend did not answer in time")]
    UpstreamTimeout,
    /// A stream fell silent after its first content.
    #[error("the backend stopped sending")]
    UpstreamStalled,
    /// A stream ended after its first content without its end mark.
    #[error("the backend's answer was cut off")]
    UpstreamTruncated,
    /// The caller's own deadline passed.
    #[error("the deadline passed before an answer was complete")]
    DeadlineExceeded,
    /// The caller left.
    #[error("the request was cancelled")]
    Cancelled,
    /// A defect of ours.
    #[error("internal error")]
    Internal,
}

impl PipelineError {
    /// What the caller is told when the last attempt ended so and nothing else is left to try.
    ///
    /// Failures that mean "this backend is out of use" become [`PipelineError::BackendsUnavailable`]; the
    /// caller cannot mend our credentials.
    pub fn from_class(class: FailureClass, retry_after: Duration) -> Self {
        match class {
            FailureClass::Transport | FailureClass::BadCredential | FailureClass::ModelMissing => {
                Self::BackendsUnavailable { retry_after }
            }
            FailureClass::RateLimited | FailureClass::QuotaExhausted => {
                Self::UpstreamRateLimited { retry_after }
            }
            FailureClass::FirstTokenTimeout => Self::UpstreamTimeout,
            FailureClass::Stalled => Self::UpstreamStalled,
            FailureClass::Truncated => Self::UpstreamTruncated,
            FailureClass::ServerError => Self::UpstreamError,
            FailureClass::BadResponse => Self::UpstreamBadResponse,
            FailureClass::NotLoaded => Self::ModelUnavailable { retry_after },
            FailureClass::Template => Self::Template,
            FailureClass::CallerError => Self::Invalid {
                param: None,
                message: "the model's provider refused the request as invalid".into(),
            },
            FailureClass::ContextLength => Self::ContextLength,
            FailureClass::Refused => Self::ContentFilter,
            FailureClass::Cancelled => Self::Cancelled,
            FailureClass::Local => Self::DeadlineExceeded,
        }
    }

    /// The error's name in metrics, logs and span status.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Unsupported { .. } => "unsupported_parameter",
            Self::Invalid { .. } => "invalid_value",
            Self::ModelNotFound { .. } => "model_not_found",
            Self::ContextLength => "context_length_exceeded",
            Self::ContentFilter => "content_filter",
            Self::Overloaded { .. } => "overloaded",
            Self::Draining { .. } => "draining",
            Self::BackendsUnavailable { .. } => "backends_unavailable",
            Self::UpstreamRateLimited { .. } => "upstream_rate_limited",
            Self::ModelUnavailable { .. } => "model_unavailable",
            Self::Template => "template_error",
            Self::UpstreamError => "upstream_error",
            Self::UpstreamBadResponse => "upstream_bad_response",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::UpstreamStalled => "upstream_stalled",
            Self::UpstreamTruncated => "upstream_truncated",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Cancelled => "cancelled",
            Self::Internal => "internal_error",
        }
    }
}
