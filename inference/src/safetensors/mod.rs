//! Reads safetensors files: eight bytes of length, a table in JSON, then the numbers.
//!
//! Source: the format's description in the safetensors project. Files come from anywhere: every length is checked
//! against the file before anything is allocated for it, and the file is read, never mapped.

mod header;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use half::{bf16, f16};

pub use header::{Dtype, MAX_HEADER_BYTES, TensorInfo};

use crate::InferenceError;
use crate::gguf::{digest, unreadable};

/// Bytes read at a time.
const CHUNK_BYTES: usize = 1 << 20;
/// Bytes in front of the table: its length.
const PREFIX: usize = 8;

/// The checked table of a file whose content is in memory.
///
/// # Errors
/// [`InferenceError::ModelInvalid`] when it breaks a rule of the format.
pub fn tensors_of(file: &[u8]) -> Result<HashMap<String, TensorInfo>, InferenceError> {
    let (prefix, rest) = file.split_first_chunk().ok_or_else(no_safetensors)?;
    let table = table_bytes(*prefix, file.len() as u64)?;
    header::parse(&rest[..table], (PREFIX + table) as u64, file.len() as u64)
}

/// The length of the table in a file of `len` bytes, which has a prefix.
fn table_bytes(prefix: [u8; PREFIX], len: u64) -> Result<usize, InferenceError> {
    let table = u64::from_le_bytes(prefix);
    // Within the limit it fits every integer type there is.
    if table > MAX_HEADER_BYTES as u64 || table > len - PREFIX as u64 {
        return Err(InferenceError::invalid("the table of tensors is longer than the file or the limit"));
    }
    Ok(table as usize)
}

fn no_safetensors() -> InferenceError {
    InferenceError::invalid("this is not a safetensors file")
}

/// An open file with a checked table.
#[derive(Debug)]
pub struct SafeTensors {
    file: File,
    tensors: HashMap<String, TensorInfo>,
    len: u64,
}

impl SafeTensors {
    /// Opens the file and checks its table; numbers are only read when asked for.
    ///
    /// # Errors
    /// [`InferenceError::ModelUnavailable`] when the file cannot be read, [`InferenceError::ModelInvalid`] when it
    /// breaks a rule of the format.
    pub fn open(path: &Path) -> Result<Self, InferenceError> {
        let cannot = |error| InferenceError::unavailable(format!("cannot read {}: {error}", path.display()));
        // A pipe or a device would block or never end, so the kind is looked at before anything is opened.
        if !path.metadata().map_err(cannot)?.is_file() {
            return Err(InferenceError::unavailable(format!("{} is not a file", path.display())));
        }
        let file = File::open(path).map_err(cannot)?;
        let len = file.metadata().map_err(cannot)?.len();
        let mut prefix = [0; PREFIX];
        file.read_exact_at(&mut prefix, 0).map_err(|_| no_safetensors())?;
        let mut json = vec![0; table_bytes(prefix, len)?];
        file.read_exact_at(&mut json, PREFIX as u64).map_err(|error| unreadable(&error))?;
        let tensors = header::parse(&json, (PREFIX + json.len()) as u64, len)?;
        Ok(Self { file, tensors, len })
    }

    /// The tensors by name.
    #[must_use]
    pub fn tensors(&self) -> &HashMap<String, TensorInfo> {
        &self.tensors
    }

    /// Length of the file in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.len
    }

    /// SHA-256 of the whole file in lower-case hexadecimal.
    ///
    /// # Errors
    /// [`InferenceError::ModelUnavailable`] when it cannot be read.
    pub fn sha256(&self) -> Result<String, InferenceError> {
        digest(&self.file)
    }

    /// The number of elements in all tensors.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        let elements = |info: &TensorInfo| (info.range.end - info.range.start) / info.dtype.bytes() as u64;
        self.tensors.values().map(elements).sum()
    }

    /// A tensor's numbers as `f32`, checked to have exactly these extents (outermost first).
    ///
    /// # Errors
    /// [`InferenceError::ModelInvalid`] when the tensor is absent, of another shape or of a type that is no float,
    /// [`InferenceError::ModelUnavailable`] when it cannot be read.
    pub fn load(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, InferenceError> {
        let info = self
            .tensors
            .get(name)
            .ok_or_else(|| InferenceError::invalid(format!("tensor {name:?} is missing")))?;
        if info.shape != shape {
            let found = &info.shape;
            return Err(InferenceError::invalid(format!(
                "tensor {name:?} has extents {found:?}, not {shape:?}"
            )));
        }
        // The table was checked: the tensor's bytes are in the file, so this is no more than it is long.
        let mut numbers = Vec::with_capacity(shape.iter().product());
        let mut bytes = vec![0; CHUNK_BYTES];
        let mut at = info.range.start;
        while at < info.range.end {
            let count = (info.range.end - at).min(CHUNK_BYTES as u64);
            let bytes = &mut bytes[..count as usize];
            self.file.read_exact_at(bytes, at).map_err(|error| unreadable(&error))?;
            at += count;
            match info.dtype {
                Dtype::F32 => {
                    numbers.extend(bytes.as_chunks().0.iter().map(|&four| f32::from_le_bytes(four)));
                }
                Dtype::F16 => {
                    numbers.extend(bytes.as_chunks().0.iter().map(|&two| f16::from_le_bytes(two).to_f32()));
                }
                Dtype::Bf16 => {
                    numbers.extend(bytes.as_chunks().0.iter().map(|&two| bf16::from_le_bytes(two).to_f32()));
                }
                Dtype::Other(_) => {
                    return Err(InferenceError::invalid(format!("tensor {name:?} does not hold floats")));
                }
            }
        }
        Ok(numbers)
    }
}
