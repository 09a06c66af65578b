//! One error type for the whole crate.

use thiserror::Error;

/// What went wrong, without the details: the closed set callers match on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The model file is damaged, hostile, or of a kind this build cannot run.
    ModelInvalid,
    /// The model cannot be loaded here and now: file absent, device absent, or not enough memory.
    ModelUnavailable,
    /// Prompt (and at least one token of answer) does not fit the context window.
    ContextLengthExceeded,
    /// The chat template refused the messages or broke its limits.
    TemplateFailed,
    /// A generation parameter is out of range.
    BadParameter,
    /// The model produced a number that is not finite.
    NumericalFault,
    /// The grammar of an answer cannot be followed any further, or not be compiled here and now.
    GrammarFailed,
    /// The tensor library panicked while this sequence was in flight.
    EnginePanicked,
    /// The engine was stopped.
    Stopped,
}

/// Everything that can go wrong in this crate.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum InferenceError {
    /// See [`ErrorKind::ModelInvalid`].
    #[error("the model file is invalid: {reason}")]
    ModelInvalid {
        /// What is wrong with it.
        reason: String,
    },
    /// See [`ErrorKind::ModelUnavailable`].
    #[error("the model is unavailable: {reason}")]
    ModelUnavailable {
        /// What is missing.
        reason: String,
    },
    /// See [`ErrorKind::ContextLengthExceeded`]. Found before anything is computed.
    #[error("the prompt has {prompt} tokens, the context holds {max} including the answer")]
    ContextLengthExceeded {
        /// Tokens in the prompt (a lower bound when the text is far too long to be worth tokenizing).
        prompt: usize,
        /// Tokens of prompt and answer together that fit.
        max: usize,
    },
    /// See [`ErrorKind::TemplateFailed`].
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// See [`ErrorKind::BadParameter`].
    #[error("parameter {name}: {reason}")]
    BadParameter {
        /// The field of [`GenerationParams`](crate::GenerationParams) or [`Job`](crate::Job) that is wrong.
        name: &'static str,
        /// What it should have been.
        reason: String,
    },
    /// See [`ErrorKind::NumericalFault`].
    #[error("numerical fault: {reason}")]
    NumericalFault {
        /// Which value, where.
        reason: String,
    },
    /// See [`ErrorKind::GrammarFailed`].
    #[error("the grammar failed: {reason}")]
    GrammarFailed {
        /// What went wrong.
        reason: String,
    },
    /// See [`ErrorKind::EnginePanicked`]. The engine itself goes on.
    #[error("the inference engine panicked: {message}")]
    EnginePanicked {
        /// The panic's message.
        message: String,
    },
    /// See [`ErrorKind::Stopped`].
    #[error("the inference engine is stopped")]
    Stopped,
}

/// Why a chat template did not produce a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// The model file carries no chat template.
    #[error("the model has no chat template")]
    Missing,
    /// The template does not parse.
    #[error("the chat template does not parse: {0}")]
    Syntax(String),
    /// The template called `raise_exception`: the messages break a rule of the model.
    #[error("the chat template rejected the messages: {0}")]
    Rejected(String),
    /// The template ran out of fuel.
    #[error("the chat template took more than {fuel} steps")]
    OutOfFuel {
        /// The limit, in template instructions.
        fuel: u64,
    },
    /// The template produced too much text.
    #[error("the chat template produced more than {limit} bytes")]
    TooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// Any other failure while rendering.
    #[error("the chat template failed: {0}")]
    Render(String),
}

impl InferenceError {
    /// The closed set to match on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::ModelInvalid { .. } => ErrorKind::ModelInvalid,
            Self::ModelUnavailable { .. } => ErrorKind::ModelUnavailable,
            Self::ContextLengthExceeded { .. } => ErrorKind::ContextLengthExceeded,
            Self::Template(_) => ErrorKind::TemplateFailed,
            Self::BadParameter { .. } => ErrorKind::BadParameter,
            Self::NumericalFault { .. } => ErrorKind::NumericalFault,
            Self::GrammarFailed { .. } => ErrorKind::GrammarFailed,
            Self::EnginePanicked { .. } => ErrorKind::EnginePanicked,
            Self::Stopped => ErrorKind::Stopped,
        }
    }

    /// A [`InferenceError::ModelInvalid`] with this reason.
    pub(crate) fn invalid(reason: impl Into<String>) -> Self {
        Self::ModelInvalid { reason: reason.into() }
    }

    /// A [`InferenceError::ModelUnavailable`] with this reason.
    pub(crate) fn unavailable(reason: impl Into<String>) -> Self {
        Self::ModelUnavailable { reason: reason.into() }
    }
}
