//! Reading and writing JSON, as every dialect does it.

use opossum_core::class::FailureClass;
use serde::de::Deserialize;
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::BackendError;

/// Reads an upstream's answer.
///
/// # Errors
/// `BadResponse`, without a word of the answer itself.
pub(crate) fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, BackendError> {
    serde_json::from_slice(body).map_err(|error| {
        let detail = if body.trim_ascii().is_empty() {
            "the answer is empty".to_owned()
        } else {
            // The error's own text may quote the answer, which belongs in no log.
            let (kind, line, column) = (error.classify(), error.line(), error.column());
            format!("the answer is not what the protocol says: {kind:?} at line {line} column {column}")
        };
        BackendError::new(FailureClass::BadResponse, detail)
    })
}

/// Writes a request's body.
///
/// # Errors
/// `Local`: only a fault of ours keeps a request from being JSON.
pub(crate) fn write(body: &impl Serialize) -> Result<Vec<u8>, BackendError> {
    let mut bytes = Vec::with_capacity(1024);
    match serde_json::to_writer(&mut bytes, body) {
        Ok(()) => Ok(bytes),
        Err(error) => Err(BackendError::new(FailureClass::Local, error.to_string())),
    }
}

/// Writes a field, unless there is no value for it.
pub(crate) fn entry<M: SerializeMap>(
    map: &mut M,
    key: &'static str,
    value: Option<impl Serialize>,
) -> Result<(), M::Error> {
    match value {
        Some(value) => map.serialize_entry(key, &value),
        None => Ok(()),
    }
}

/// A list, each item seen through a wrapper that knows how to write it.
pub(crate) struct Each<'a, T, F>(pub(crate) &'a [T], pub(crate) F);

impl<'a, T, W: Serialize, F: Fn(&'a T) -> W> Serialize for Each<'a, T, F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(&self.1))
    }
}
