//! Reading GGUF model files.
//!
//! The file may come from anywhere, so nothing in it is believed: every count and length is checked against limits and
//! against the bytes that are really there before anything is allocated, offsets use checked arithmetic, and tensors
//! must lie inside the file, aligned, without overlapping. A file that breaks a rule is an
//! [`InferenceError::ModelInvalid`](crate::InferenceError::ModelInvalid), never a panic.
//!
//! Format: the GGUF specification in the ggml repository (`docs/gguf.md`), versions 2 and 3, little-endian.

mod dequantize;
mod file;
mod header;
mod kquants;
mod metadata;
mod quantize;
mod reader;
mod tensor_type;
#[cfg(test)]
mod tests;

pub use dequantize::dequantize;
pub use file::GgufFile;
pub(crate) use file::{digest, unreadable};
pub use header::{Header, MAX_HEADER_BYTES, MAX_TENSORS, TensorInfo};
pub use metadata::{Array, MAX_METADATA_ENTRIES, Metadata, Value};
pub use quantize::quantize;
pub use tensor_type::TensorType;
