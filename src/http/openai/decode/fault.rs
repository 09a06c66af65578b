//! What is wrong with a field, with a path that grows on the way out of the nested objects.

use std::borrow::Cow;

use crate::http::error::{ApiError, Code, quoted};

/// Something wrong at `path`, seen from the object that is being read.
#[derive(Debug)]
pub(crate) struct Fault {
    code: Code,
    path: String,
    detail: Cow<'static, str>,
}

/// The result of reading a piece of a body. Boxed: faults are rare and results are moved often.
pub(crate) type Checked<T> = Result<T, Box<Fault>>;

impl Fault {
    /// A fault of the value being read itself.
    pub(super) fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Box<Self> {
        Box::new(Self { code, path: String::new(), detail: detail.into() })
    }

    /// A value of the wrong type or out of its range; `detail` goes on from "Invalid value for 'x': ".
    pub(super) fn invalid(detail: impl Into<Cow<'static, str>>) -> Box<Self> {
        Self::new(Code::InvalidValue, detail)
    }

    /// A value of another type than `expected`.
    pub(super) fn mistyped(expected: &'static str) -> Box<Self> {
        Self::invalid(format!("expected {expected}."))
    }

    /// A required field that is absent or null.
    pub(super) fn missing(name: &str) -> Box<Self> {
        Self::new(Code::MissingParameter, "").under(name)
    }

    /// A field or value this service does not take; `detail` says what to do instead, or is empty.
    pub(super) fn unsupported(detail: impl Into<Cow<'static, str>>) -> Box<Self> {
        Self::new(Code::UnsupportedParameter, detail)
    }

    /// A key that is in the object twice: two readers of one body must not see two requests.
    pub(super) fn twice(name: &str) -> Box<Self> {
        Self::new(Code::InvalidJson, "the key is there twice.").under(name)
    }

    /// The same fault seen from one level further out.
    pub(super) fn under(mut self: Box<Self>, prefix: &str) -> Box<Self> {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path.insert_str(0, dot);
        self.path.insert_str(0, prefix);
        self
    }

    /// The same fault seen from the array that holds the value.
    pub(super) fn at(self: Box<Self>, index: usize) -> Box<Self> {
        self.under(&format!("[{index}]"))
    }
}

impl From<Box<Fault>> for ApiError {
    fn from(fault: Box<Fault>) -> Self {
        let Fault { code, path, detail } = *fault;
        let param = quoted(&path);
        let head = match code {
            Code::MissingParameter => format!("Missing required parameter: '{param}'."),
            Code::UnsupportedParameter => format!("Unsupported parameter: '{param}'."),
            Code::InvalidJson => format!("The body is not valid JSON at '{param}':"),
            Code::InvalidImage | Code::InvalidImageUrl => format!("Invalid image in '{param}':"),
            _ => format!("Invalid value for '{param}':"),
        };
        let message = if detail.is_empty() { head } else { format!("{head} {detail}") };
        ApiError::new(code, message).with_param(param)
    }
}
