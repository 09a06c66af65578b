//! A model file on disk.

use std::fmt::Write as _;
use std::fs::File;
use std::path::Path;

use memmap2::Mmap;
use sha2::{Digest, Sha256};

use super::{Header, TensorInfo, TensorType, dequantize};
use crate::InferenceError;

/// A memory-mapped GGUF file with a checked header.
#[derive(Debug)]
pub struct GgufFile {
    map: Mmap,
    header: Header,
}

impl GgufFile {
    /// Maps the file and checks its header; tensor data is only touched when asked for.
    ///
    /// # Errors
    /// [`InferenceError::ModelUnavailable`] when the file cannot be opened, [`InferenceError::ModelInvalid`] when it
    /// breaks a rule of the format.
    pub fn open(path: &Path) -> Result<Self, InferenceError> {
        let cannot = |error| InferenceError::unavailable(format!("cannot read {}: {error}", path.display()));
        let file = File::open(path).map_err(cannot)?;
        if !file.metadata().map_err(cannot)?.is_file() {
            return Err(InferenceError::unavailable(format!("{} is not a file", path.display())));
        }
        // SAFETY: the mapping is read-only and private to this value. Its bytes are only ever copied out and checked,
        // never trusted, so a concurrent writer can spoil the numbers read but no type. A file truncated while it is
        // mapped kills the process; `EngineConfig::model_path` asks callers to leave it alone.
        let map = unsafe { Mmap::map(&file) }.map_err(cannot)?;
        let header = Header::parse(&map)?;
        Ok(Self { map, header })
    }

    /// The checked header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Length of the file in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.map.len()
    }

    /// SHA-256 of the whole file in lower-case hexadecimal.
    #[must_use]
    pub fn sha256(&self) -> String {
        Sha256::digest(&self.map).iter().fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// The description of a tensor.
    ///
    /// # Errors
    /// [`InferenceError::ModelInvalid`] when the file has no such tensor.
    pub fn tensor(&self, name: &str) -> Result<&TensorInfo, InferenceError> {
        self.header
            .tensors
            .get(name)
            .ok_or_else(|| InferenceError::invalid(format!("tensor {name:?} is missing")))
    }

    /// A tensor's numbers as `f32`, checked to have exactly these extents (innermost first).
    ///
    /// # Errors
    /// [`InferenceError::ModelInvalid`] when the tensor is absent or of another shape.
    pub fn load(&self, name: &str, dims: &[usize]) -> Result<Vec<f32>, InferenceError> {
        let info = self.tensor(name)?;
        if info.dims != dims {
            return Err(InferenceError::invalid(format!(
                "tensor {name:?} has extents {:?}, not {dims:?}",
                info.dims
            )));
        }
        let mut numbers = vec![0.0; info.elements];
        dequantize(info.kind, &self.map[info.range.clone()], &mut numbers)?;
        Ok(numbers)
    }

    /// The number of weights in all tensors.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        self.header.tensors.values().map(|info| info.elements as u64).sum()
    }

    /// The storage type of most matrices, by number of tensors.
    #[must_use]
    pub fn prevailing_type(&self) -> TensorType {
        let matrices = || self.header.tensors.values().filter(|info| info.dims.len() > 1);
        let count = |kind: TensorType| matrices().filter(|info| info.kind == kind).count();
        TensorType::ALL.into_iter().max_by_key(|&kind| count(kind)).unwrap_or(TensorType::F32)
    }
}
