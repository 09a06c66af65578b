//! A model file on disk.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::{Header, TensorInfo, TensorType, dequantize};
use crate::InferenceError;

/// Bytes read at a time where a file is read from end to end.
const CHUNK_BYTES: usize = 1 << 20;

/// An open GGUF file with a checked header.
///
/// It is read, never mapped: a file that another process shortens is then an error and not the end of this process.
#[derive(Debug)]
pub struct GgufFile {
    file: File,
    /// Length and time of the last change when it was opened.
    state: (u64, Option<SystemTime>),
    header: Header,
}

impl GgufFile {
    /// Opens the file and checks its header; tensor data is only read when asked for.
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
        let state = state(&file).map_err(cannot)?;
        let header = Header::read(BufReader::with_capacity(CHUNK_BYTES, &file), state.0)?;
        Ok(Self { file, state, header })
    }

    /// The checked header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Length of the file in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.state.0
    }

    /// SHA-256 of the whole file in lower-case hexadecimal.
    ///
    /// # Errors
    /// [`InferenceError::ModelUnavailable`] when it cannot be read.
    pub fn sha256(&self) -> Result<String, InferenceError> {
        digest(&self.file)
    }

    /// Refuses what was read if the file changed meanwhile.
    ///
    /// # Errors
    /// [`InferenceError::ModelUnavailable`] when it did.
    pub fn check_unchanged(&self) -> Result<(), InferenceError> {
        match state(&self.file) {
            Ok(now) if now == self.state => Ok(()),
            Ok(_) => Err(InferenceError::unavailable("the file was changed while it was read")),
            Err(error) => Err(unreadable(&error)),
        }
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

    /// As [`GgufFile::tensor`], checked to have exactly these extents (innermost first).
    ///
    /// # Errors
    /// [`InferenceError::ModelInvalid`] when the tensor is absent or of another shape.
    pub fn tensor_of(&self, name: &str, dims: &[usize]) -> Result<&TensorInfo, InferenceError> {
        let info = self.tensor(name)?;
        if info.dims == dims {
            return Ok(info);
        }
        Err(InferenceError::invalid(format!("tensor {name:?} has extents {:?}, not {dims:?}", info.dims)))
    }

    /// Fills `bytes` from the stored bytes of a tensor, `offset` bytes behind its start.
    ///
    /// # Errors
    /// When the tensor has not that many bytes or the file cannot be read.
    pub fn read_at(&self, info: &TensorInfo, offset: usize, bytes: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(bytes.len()).is_none_or(|end| end > info.range.len()) {
            return Err(io::Error::new(ErrorKind::InvalidInput, "beyond the end of the tensor"));
        }
        self.file.read_exact_at(bytes, (info.range.start + offset) as u64)
    }

    /// A tensor's numbers as `f32`, checked to have exactly these extents (innermost first).
    ///
    /// # Errors
    /// [`InferenceError::ModelInvalid`] when the tensor is absent or of another shape,
    /// [`InferenceError::ModelUnavailable`] when it cannot be read.
    pub fn load(&self, name: &str, dims: &[usize]) -> Result<Vec<f32>, InferenceError> {
        let info = self.tensor_of(name, dims)?;
        let (block_len, block_bytes) = (info.kind.block_len(), info.kind.block_bytes());
        let blocks = (CHUNK_BYTES / block_bytes).max(1);
        let mut numbers = vec![0.0; info.elements];
        let mut bytes = vec![0; (blocks * block_bytes).min(info.range.len())];
        for (index, numbers) in numbers.chunks_mut(blocks * block_len).enumerate() {
            let bytes = &mut bytes[..numbers.len() / block_len * block_bytes];
            self.read_at(info, index * blocks * block_bytes, bytes).map_err(|error| unreadable(&error))?;
            dequantize(info.kind, bytes, numbers)?;
        }
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

fn state(file: &File) -> io::Result<(u64, Option<SystemTime>)> {
    let metadata = file.metadata()?;
    Ok((metadata.len(), metadata.modified().ok()))
}

/// What a read that fails means: the file itself was there and sound before.
pub(crate) fn unreadable(error: &io::Error) -> InferenceError {
    match error.kind() {
        ErrorKind::UnexpectedEof => InferenceError::unavailable("the file was shortened while it was read"),
        _ => InferenceError::unavailable(format!("reading the file: {error}")),
    }
}

/// SHA-256 of a whole file in lower-case hexadecimal.
///
/// # Errors
/// [`InferenceError::ModelUnavailable`] when it cannot be read.
pub(crate) fn digest(mut file: &File) -> Result<String, InferenceError> {
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    file.rewind().map_err(|error| unreadable(&error))?;
    loop {
        match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => hash.update(&chunk[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(&error)),
        }
    }
    Ok(hash.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    }))
}
