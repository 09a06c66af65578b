//! The table of contents of a safetensors file: JSON that says where each tensor lies.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};

use crate::InferenceError;

/// Most bytes the table may take.
pub const MAX_HEADER_BYTES: usize = 16 << 20;
/// Most tensors a file may have.
const MAX_TENSORS: usize = 100_000;
/// Most dimensions of a tensor.
const MAX_DIMENSIONS: usize = 8;

/// How numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of a single.
    Bf16,
    /// Something else, of so many bytes an element: such a tensor may lie in the file but cannot be loaded.
    Other(usize),
}

impl Dtype {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "F32" => Self::F32,
            "F16" => Self::F16,
            "BF16" => Self::Bf16,
            "BOOL" | "U8" | "I8" | "F8_E4M3" | "F8_E5M2" => Self::Other(1),
            "U16" | "I16" => Self::Other(2),
            "U32" | "I32" => Self::Other(4),
            "U64" | "I64" | "F64" => Self::Other(8),
            _ => return None,
        })
    }

    /// Bytes of an element.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Other(bytes) => bytes,
        }
    }
}

/// Where a tensor lies and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Extents, outermost first, as the file has them.
    pub shape: Vec<usize>,
    /// How its numbers are stored.
    pub dtype: Dtype,
    /// Byte range in the file.
    pub range: Range<u64>,
}

/// One entry of the table.
#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    /// Relative to the end of the table.
    data_offsets: (u64, u64),
}

/// The table's entries in their order. A name that appears twice is an error: readers would disagree on which counts.
struct Table(Vec<(String, Entry)>);

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TableVisitor)
    }
}

struct TableVisitor;

impl<'de> Visitor<'de> for TableVisitor {
    type Value = Table;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Table, A::Error> {
        let mut entries = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if entries.len() == MAX_TENSORS {
                return Err(serde::de::Error::custom("too many tensors"));
            }
            entries.push((name, map.next_value()?));
        }
        Ok(Table(entries))
    }
}

/// Reads the table of a file of `file_len` bytes whose data begins at `data_start`.
pub(super) fn parse(
    json: &[u8],
    data_start: u64,
    file_len: u64,
) -> Result<HashMap<String, TensorInfo>, InferenceError> {
    let table: Table = serde_json::from_slice(json)
        .map_err(|error| InferenceError::invalid(format!("the table of tensors: {error}")))?;
    let mut tensors = HashMap::with_capacity(table.0.len());
    for (name, entry) in table.0 {
        let info = place(&name, &entry, data_start, file_len)?;
        if tensors.contains_key(&name) {
            return Err(InferenceError::invalid(format!("tensor {name:?} appears twice")));
        }
        tensors.insert(name, info);
    }
    let mut ranges: Vec<&Range<u64>> = tensors.values().map(|info| &info.range).collect();
    ranges.sort_unstable_by_key(|range| (range.start, range.end));
    // The format forbids holes: a byte that belongs to no tensor could hide anything.
    let end = ranges.iter().try_fold(data_start, |at, range| (range.start == at).then_some(range.end));
    match end {
        Some(end) if end == file_len => Ok(tensors),
        _ => Err(InferenceError::invalid("the tensors do not lie side by side up to the end of the file")),
    }
}

fn place(name: &str, entry: &Entry, data_start: u64, file_len: u64) -> Result<TensorInfo, InferenceError> {
    let wrong = |what: &str| InferenceError::invalid(format!("tensor {name:?} {what}"));
    let dtype = Dtype::parse(&entry.dtype).ok_or_else(|| wrong("has an unknown type"))?;
    if entry.shape.len() > MAX_DIMENSIONS {
        return Err(wrong("has too many dimensions"));
    }
    let shape: Option<Vec<usize>> = entry.shape.iter().map(|&extent| usize::try_from(extent).ok()).collect();
    let shape = shape.ok_or_else(|| wrong("has impossible extents"))?;
    let bytes = shape.iter().try_fold(dtype.bytes(), |product, &extent| product.checked_mul(extent));
    let (start, end) = entry.data_offsets;
    let (start, end) = (data_start.checked_add(start), data_start.checked_add(end));
    let (Some(bytes), Some(start), Some(end)) = (bytes, start, end) else {
        return Err(wrong("has impossible extents"));
    };
    if end > file_len || end.checked_sub(start) != Some(bytes as u64) {
        return Err(wrong("has another size than its extents say, or lies outside the file"));
    }
    Ok(TensorInfo { shape, dtype, range: start..end })
}
