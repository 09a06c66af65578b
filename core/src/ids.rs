//! Names of services, models and arms.
//!
//! They are cloned into every attempt, log line and metric, so they are reference-counted strings:
//! a clone is one atomic increment and no allocation.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! name {
    ($(#[$doc:meta])* $ty:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $ty(Arc<str>);

        impl $ty {
            /// Wraps a name; no rule is applied to its characters here.
            pub fn new(name: impl Into<Arc<str>>) -> Self {
                Self(name.into())
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $ty {
            fn from(name: &str) -> Self {
                Self(name.into())
            }
        }

        impl std::borrow::Borrow<str> for $ty {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $ty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $ty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

name!(
    /// A configured backend: `gemini`, `ollama`, `openai`, `transformers` or a name of the operator's choice.
    ServiceName
);
name!(
    /// A model's name as its backend knows it.
    ModelName
);

/// One thing the router can choose: a model behind a service.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct ArmId {
    /// The backend.
    pub service: ServiceName,
    /// The model as that backend knows it.
    pub model: ModelName,
}

impl ArmId {
    /// Joins a service and a model.
    pub fn new(service: impl Into<ServiceName>, model: impl Into<ModelName>) -> Self {
        Self { service: service.into(), model: model.into() }
    }
}

impl fmt::Display for ArmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.model)
    }
}
