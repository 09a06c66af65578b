//! The table of contents: magic, metadata, tensor descriptions.

use std::collections::HashMap;
use std::io::Read;
use std::ops::Range;

use super::TensorType;
use super::metadata::{MAX_METADATA_ENTRIES, Metadata};
use super::reader::Reader;
use crate::InferenceError;

/// Most bytes everything before the tensor data may take.
pub const MAX_HEADER_BYTES: usize = 100 << 20;
/// Most tensors a file may have.
pub const MAX_TENSORS: usize = 100_000;
/// Longest tensor name in bytes.
const MAX_NAME_BYTES: usize = 256;
/// Most dimensions of a tensor.
const MAX_DIMENSIONS: u32 = 4;
/// Alignment of tensor data when the file does not state one, in bytes.
const DEFAULT_ALIGNMENT: u64 = 32;
/// Largest alignment accepted, in bytes.
const MAX_ALIGNMENT: u64 = 1 << 16;

/// Where a tensor lies and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Extents, innermost (consecutive in memory) first, as the file has them.
    pub dims: Vec<usize>,
    /// Storage type.
    pub kind: TensorType,
    /// Number of elements.
    pub elements: usize,
    /// Byte range in the file.
    pub range: Range<usize>,
}

/// Everything a file says before its tensor data.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// The key-value section.
    pub metadata: Metadata,
    /// The tensors by name.
    pub tensors: HashMap<String, TensorInfo>,
}

/// A tensor description as it stands in the file: its place is still relative to the data section.
struct Described {
    name: String,
    dims: Vec<usize>,
    kind: TensorType,
    elements: usize,
    bytes: usize,
    offset: u64,
}

impl Header {
    /// Reads and checks the header of a file whose whole content is `bytes`.
    ///
    /// # Errors
    /// [`InferenceError::ModelInvalid`] saying which rule the file breaks.
    pub fn parse(bytes: &[u8]) -> Result<Self, InferenceError> {
        Self::read(bytes, bytes.len() as u64)
    }

    /// Reads and checks the header of a file of `len` bytes from its start.
    ///
    /// # Errors
    /// As [`Header::parse`], and [`InferenceError::ModelUnavailable`] when reading fails.
    pub(super) fn read(source: impl Read, len: u64) -> Result<Self, InferenceError> {
        let mut reader = Reader::new(source, len);
        if reader.array::<4>().ok() != Some(*b"GGUF") {
            return Err(InferenceError::invalid("this is not a GGUF file"));
        }
        let version = reader.u32()?;
        if !(2..=3).contains(&version) {
            return Err(InferenceError::invalid(format!("GGUF version {version} is not supported")));
        }
        let tensor_count = reader.count("tensor count", MAX_TENSORS)?;
        let entry_count = reader.count("metadata count", MAX_METADATA_ENTRIES)?;
        let metadata = Metadata::read(&mut reader, entry_count)?;
        let alignment = alignment(&metadata)?;
        let described =
            (0..tensor_count).map(|_| Described::read(&mut reader)).collect::<Result<Vec<_>, _>>()?;
        let data_start = (reader.position() as u64).next_multiple_of(alignment);
        let tensors = place(described, data_start, alignment, len)?;
        Ok(Self { metadata, tensors })
    }
}

fn alignment(metadata: &Metadata) -> Result<u64, InferenceError> {
    let key = "general.alignment";
    let alignment = match metadata.get(key) {
        None => DEFAULT_ALIGNMENT,
        Some(_) => metadata.unsigned(key).unwrap_or(0),
    };
    if alignment.is_power_of_two() && (8..=MAX_ALIGNMENT).contains(&alignment) {
        Ok(alignment)
    } else {
        Err(InferenceError::invalid("general.alignment is not a power of two from 8 to 65536"))
    }
}

impl Described {
    fn read(reader: &mut Reader<impl Read>) -> Result<Self, InferenceError> {
        let name = reader.string()?;
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            return Err(InferenceError::invalid("a tensor name is empty or too long"));
        }
        let rank = reader.u32()?;
        if rank == 0 || rank > MAX_DIMENSIONS {
            return Err(InferenceError::invalid(format!("tensor {name:?} has {rank} dimensions")));
        }
        let dims = (0..rank)
            .map(|_| reader.count("tensor extent", usize::MAX >> 1))
            .collect::<Result<Vec<_>, _>>()?;
        let code = reader.u32()?;
        let kind = TensorType::from_code(code)
            .ok_or_else(|| InferenceError::invalid(format!("tensor {name:?} has unsupported type {code}")))?;
        let (elements, bytes) = sizes(&dims, kind).ok_or_else(|| {
            InferenceError::invalid(format!("tensor {name:?} has impossible extents {dims:?}"))
        })?;
        Ok(Self { name, dims, kind, elements, bytes, offset: reader.u64()? })
    }
}

/// Elements and bytes of a tensor; `None` on overflow, on an empty extent, or when rows are not whole blocks.
fn sizes(dims: &[usize], kind: TensorType) -> Option<(usize, usize)> {
    let elements = dims.iter().try_fold(1_usize, |product, &extent| product.checked_mul(extent))?;
    if elements == 0 || !dims.first()?.is_multiple_of(kind.block_len()) {
        return None;
    }
    Some((elements, (elements / kind.block_len()).checked_mul(kind.block_bytes())?))
}

/// Turns relative offsets into ranges of the file, checking alignment, bounds, names and overlaps.
fn place(
    described: Vec<Described>,
    data_start: u64,
    alignment: u64,
    file_len: u64,
) -> Result<HashMap<String, TensorInfo>, InferenceError> {
    let mut tensors = HashMap::with_capacity(described.len());
    let mut ranges = Vec::with_capacity(described.len());
    for Described { name, dims, kind, elements, bytes, offset } in described {
        if !offset.is_multiple_of(alignment) {
            return Err(InferenceError::invalid(format!("tensor {name:?} is not aligned")));
        }
        let range = range_in_file(data_start, offset, bytes, file_len)
            .ok_or_else(|| InferenceError::invalid(format!("tensor {name:?} lies outside the file")))?;
        ranges.push(range.clone());
        let info = TensorInfo { dims, kind, elements, range };
        if tensors.insert(name.clone(), info).is_some() {
            return Err(InferenceError::invalid(format!("tensor {name:?} appears twice")));
        }
    }
    ranges.sort_unstable_by_key(|range| range.start);
    if ranges.windows(2).any(|pair| pair[0].end > pair[1].start) {
        return Err(InferenceError::invalid("two tensors overlap"));
    }
    Ok(tensors)
}

fn range_in_file(data_start: u64, offset: u64, bytes: usize, file_len: u64) -> Option<Range<usize>> {
    let start = usize::try_from(data_start.checked_add(offset)?).ok()?;
    let end = start.checked_add(bytes)?;
    (end as u64 <= file_len).then_some(start..end)
}
