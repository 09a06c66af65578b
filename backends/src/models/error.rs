//! Why a model could not be pulled, verified or removed.

use std::io;
use std::path::{Path, PathBuf};

use opossum_inference::InferenceError;

/// Why a pull failed.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// No model of this name is in the catalogue.
    #[error("there is no model named {0:?} to pull")]
    UnknownModel(String),
    /// Another process is pulling the same model into the same folder.
    #[error("{0} is being pulled by another process")]
    Busy(String),
    /// The models folder cannot be written.
    #[error("{path}: {source}")]
    Disk {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Every source failed; each with its reason.
    #[error("no source gave {model}: {}", .reasons.iter().map(|(from, why)| format!("{from}: {why}")).collect::<Vec<_>>().join("; "))]
    AllSources {
        /// The model.
        model: String,
        /// Source and reason, in the order tried.
        reasons: Vec<(String, SourceError)>,
    },
}

impl PullError {
    pub(super) fn disk(path: &Path, source: io::Error) -> Self {
        Self::Disk { path: path.to_owned(), source }
    }
}

/// Why one source did not give a model.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// pip is absent, refuses, or does not find the package.
    #[error("pip: {0}")]
    Pip(String),
    /// The address is not one we follow.
    #[error("address: {0}")]
    Address(&'static str),
    /// The server answered with this status.
    #[error("the server answered {0}")]
    Status(u16),
    /// The connection failed or fell silent, as often as was tried.
    #[error("the connection failed: {0}")]
    Network(String),
    /// The server does not speak HTTP as it should.
    #[error("the server's answer makes no sense: {0}")]
    Protocol(&'static str),
    /// More or fewer bytes than there must be.
    #[error("size is {found} bytes instead of {expected}")]
    Size {
        /// Bytes there must be.
        expected: u64,
        /// Bytes there are (or are announced).
        found: u64,
    },
    /// The bytes are not the ones that were asked for.
    #[error("SHA-256 is {found} instead of {expected}")]
    Hash {
        /// The hash there must be.
        expected: String,
        /// The hash of what came.
        found: String,
    },
    /// The archive is damaged or lacks the model.
    #[error("archive: {0}")]
    Archive(String),
    /// The models folder cannot be read or written.
    #[error("{path}: {source}")]
    Disk {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl SourceError {
    pub(super) fn disk(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Disk { path, source }
    }

    /// Whether trying the same address again may help.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            SourceError::Network(_) | SourceError::Protocol(_) => true,
            SourceError::Status(status) => matches!(status, 408 | 425 | 429 | 500..),
            SourceError::Pip(_)
            | SourceError::Address(_)
            | SourceError::Size { .. }
            | SourceError::Hash { .. }
            | SourceError::Archive(_)
            | SourceError::Disk { .. } => false,
        }
    }
}

/// Why a model on disk could not be verified or removed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Neither a path nor the name of a model in the folder.
    #[error("there is no model {0:?} here")]
    NotFound(String),
    /// A name that would leave the models folder.
    #[error("{0:?} is not the name of a model")]
    BadName(String),
    /// The file is not a model that can be loaded.
    #[error("{path}: {source}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: InferenceError,
    },
    /// The file carries a catalogue model's name but not its bytes.
    #[error("{path}: SHA-256 is {found} instead of {expected}")]
    Hash {
        /// The file.
        path: PathBuf,
        /// The catalogue's hash.
        expected: &'static str,
        /// The file's hash.
        found: String,
    },
    /// The file cannot be read or removed.
    #[error("{path}: {source}")]
    Disk {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl StoreError {
    pub(super) fn disk(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Disk { path, source }
    }
}
