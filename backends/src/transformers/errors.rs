//! What the engine's errors mean to a caller.

use opossum_core::class::FailureClass;
use opossum_inference::{ErrorKind, InferenceError, SubmitError, TemplateError};

use super::BUSY_WAIT;
use crate::BackendError;

/// The class of an engine's error.
///
/// A full queue or a broken engine is a reason to ask another backend, not to refuse the caller; what is
/// wrong with the messages themselves is the caller's, who is told what it is.
pub fn backend_error(error: &InferenceError) -> BackendError {
    let class = match error.kind() {
        ErrorKind::ContextLengthExceeded => FailureClass::ContextLength,
        ErrorKind::BadParameter => FailureClass::CallerError,
        ErrorKind::TemplateFailed => template_class(error),
        ErrorKind::ModelInvalid | ErrorKind::ModelUnavailable => FailureClass::ModelMissing,
        ErrorKind::NumericalFault
        | ErrorKind::GrammarFailed
        | ErrorKind::EnginePanicked
        | ErrorKind::Stopped => FailureClass::ServerError,
    };
    match error {
        InferenceError::BadParameter { name, reason } => BackendError::new(class, reason).about(name).told(),
        _ => BackendError::new(class, error.to_string()),
    }
}

/// Only a template that refused the messages speaks about the caller.
fn template_class(error: &InferenceError) -> FailureClass {
    match error {
        InferenceError::Template(TemplateError::Rejected(_)) => FailureClass::CallerError,
        _ => FailureClass::Template,
    }
}

/// The class of a job that was not taken.
pub(super) fn not_taken(error: SubmitError) -> BackendError {
    match error {
        SubmitError::QueueFull => {
            BackendError::new(FailureClass::RateLimited, error.to_string()).with_retry_after(Some(BUSY_WAIT))
        }
        SubmitError::Stopped => BackendError::new(FailureClass::ServerError, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use opossum_core::class::FailureClass as Class;

    use super::*;

    #[test]
    fn one_row_a_kind() {
        let reason = || "r".to_owned();
        for (error, class) in [
            (InferenceError::ModelInvalid { reason: reason() }, Class::ModelMissing),
            (InferenceError::ModelUnavailable { reason: reason() }, Class::ModelMissing),
            (InferenceError::ContextLengthExceeded { prompt: 9, max: 8 }, Class::ContextLength),
            (TemplateError::Rejected(reason()).into(), Class::CallerError),
            (TemplateError::OutOfFuel { fuel: 1 }.into(), Class::Template),
            (InferenceError::BadParameter { name: "top_p", reason: reason() }, Class::CallerError),
            (InferenceError::NumericalFault { reason: reason() }, Class::ServerError),
            (InferenceError::GrammarFailed { reason: reason() }, Class::ServerError),
            (InferenceError::EnginePanicked { message: reason() }, Class::ServerError),
            (InferenceError::Stopped, Class::ServerError),
        ] {
            assert_eq!(backend_error(&error).class, class, "{error}");
        }
        let bad = InferenceError::BadParameter { name: "response_format", reason: reason() };
        assert_eq!(backend_error(&bad).param, Some("response_format"));
        assert_eq!(backend_error(&bad).told.as_deref(), Some("r"));
        let full = not_taken(SubmitError::QueueFull);
        assert_eq!((full.class, full.retry_after), (Class::RateLimited, Some(BUSY_WAIT)));
        assert_eq!(not_taken(SubmitError::Stopped).class, Class::ServerError);
    }
}
