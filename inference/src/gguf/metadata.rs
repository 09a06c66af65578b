//! The key-value section of a GGUF file.

use std::collections::HashMap;
use std::io::Read;

use super::reader::Reader;
use crate::InferenceError;

/// Most key-value pairs a file may have.
pub const MAX_METADATA_ENTRIES: usize = 65_536;
/// Most elements of one array: far above any vocabulary.
const MAX_ARRAY_ELEMENTS: usize = 4 << 20;
/// Longest key, in bytes, as the specification has it.
const MAX_KEY_BYTES: usize = 65_535;

/// One metadata value. All integers are widened to 64 bits.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Any unsigned integer.
    Unsigned(u64),
    /// Any signed integer.
    Signed(i64),
    /// Any floating-point number.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// UTF-8 text.
    String(String),
    /// A homogeneous list.
    Array(Array),
}

/// A homogeneous list of metadata values.
#[derive(Debug, Clone, PartialEq)]
pub enum Array {
    /// Unsigned and signed integers; unsigned 64-bit values beyond `i64` are rejected.
    Integers(Vec<i64>),
    /// Floating-point numbers.
    Floats(Vec<f32>),
    /// Truth values.
    Bools(Vec<bool>),
    /// UTF-8 texts.
    Strings(Vec<String>),
}

/// The file's key-value pairs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata(HashMap<String, Value>);

impl Metadata {
    pub(super) fn read(reader: &mut Reader<impl Read>, count: usize) -> Result<Self, InferenceError> {
        let mut entries = HashMap::new();
        for _ in 0..count {
            let key = reader.string()?;
            if key.len() > MAX_KEY_BYTES {
                return Err(InferenceError::invalid("a metadata key is too long"));
            }
            let type_code = reader.u32()?;
            let value = read_value(reader, type_code)?;
            if entries.contains_key(&key) {
                return Err(InferenceError::invalid(format!("metadata key {key:?} appears twice")));
            }
            entries.insert(key, value);
        }
        Ok(Self(entries))
    }

    /// The value under `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// The text under `key`; `None` when absent or not text.
    #[must_use]
    pub fn string(&self, key: &str) -> Option<&str> {
        match self.get(key) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// The truth value under `key`; `None` when absent or of another type.
    #[must_use]
    pub fn bool(&self, key: &str) -> Option<bool> {
        match self.get(key) {
            Some(Value::Bool(value)) => Some(*value),
            _ => None,
        }
    }

    /// The non-negative integer under `key`; `None` when absent or of another type.
    #[must_use]
    pub fn unsigned(&self, key: &str) -> Option<u64> {
        match self.get(key) {
            Some(Value::Unsigned(value)) => Some(*value),
            Some(Value::Signed(value)) => u64::try_from(*value).ok(),
            _ => None,
        }
    }

    /// The number under `key`; `None` when absent or of another type.
    #[must_use]
    pub fn float(&self, key: &str) -> Option<f64> {
        match self.get(key) {
            Some(Value::Float(value)) => Some(*value),
            _ => None,
        }
    }

    /// The texts under `key`; `None` when absent or of another type.
    #[must_use]
    pub fn strings(&self, key: &str) -> Option<&[String]> {
        match self.get(key) {
            Some(Value::Array(Array::Strings(texts))) => Some(texts),
            _ => None,
        }
    }

    /// The integers under `key`; `None` when absent or of another type.
    #[must_use]
    pub fn integers(&self, key: &str) -> Option<&[i64]> {
        match self.get(key) {
            Some(Value::Array(Array::Integers(values))) => Some(values),
            _ => None,
        }
    }
}

fn read_value(reader: &mut Reader<impl Read>, type_code: u32) -> Result<Value, InferenceError> {
    Ok(match type_code {
        0 => Value::Unsigned(u64::from(u8::from_le_bytes(reader.array()?))),
        1 => Value::Signed(i64::from(i8::from_le_bytes(reader.array()?))),
        2 => Value::Unsigned(u64::from(u16::from_le_bytes(reader.array()?))),
        3 => Value::Signed(i64::from(i16::from_le_bytes(reader.array()?))),
        4 => Value::Unsigned(u64::from(reader.u32()?)),
        5 => Value::Signed(i64::from(i32::from_le_bytes(reader.array()?))),
        6 => Value::Float(f64::from(f32::from_le_bytes(reader.array()?))),
        7 => Value::Bool(read_bool(reader)?),
        8 => Value::String(reader.string()?),
        9 => Value::Array(read_array(reader)?),
        10 => Value::Unsigned(reader.u64()?),
        11 => Value::Signed(i64::from_le_bytes(reader.array()?)),
        12 => Value::Float(f64::from_le_bytes(reader.array()?)),
        other => return Err(unknown_type(other)),
    })
}

fn read_array(reader: &mut Reader<impl Read>) -> Result<Array, InferenceError> {
    let element_type = reader.u32()?;
    let smallest = match element_type {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        // A string takes at least its length prefix.
        8 | 10..=12 => 8,
        9 => return Err(InferenceError::invalid("nested metadata arrays are not supported")),
        other => return Err(unknown_type(other)),
    };
    // What cannot fit into the rest of the header is refused before anything is allocated for it.
    let after_count = reader.remaining().saturating_sub(size_of::<u64>());
    let limit = MAX_ARRAY_ELEMENTS.min(after_count / smallest);
    let count = reader.count("array length", limit)?;
    Ok(match element_type {
        6 => Array::Floats(collect(count, || Ok(f32::from_le_bytes(reader.array()?)))?),
        12 => Array::Floats(collect(count, || Ok(f64::from_le_bytes(reader.array()?) as f32))?),
        7 => Array::Bools(collect(count, || read_bool(reader))?),
        8 => Array::Strings(collect(count, || reader.string())?),
        _ => Array::Integers(collect(count, || read_integer(reader, element_type))?),
    })
}

fn collect<T>(
    count: usize,
    mut next: impl FnMut() -> Result<T, InferenceError>,
) -> Result<Vec<T>, InferenceError> {
    (0..count).map(|_| next()).collect()
}

fn read_integer(reader: &mut Reader<impl Read>, type_code: u32) -> Result<i64, InferenceError> {
    match read_value(reader, type_code)? {
        Value::Signed(value) => Ok(value),
        Value::Unsigned(value) => {
            i64::try_from(value).map_err(|_| InferenceError::invalid("an integer in an array is too large"))
        }
        _ => Err(unknown_type(type_code)),
    }
}

fn read_bool(reader: &mut Reader<impl Read>) -> Result<bool, InferenceError> {
    match reader.array::<1>()? {
        [0] => Ok(false),
        [1] => Ok(true),
        [other] => Err(InferenceError::invalid(format!("a truth value is {other}"))),
    }
}

fn unknown_type(code: u32) -> InferenceError {
    InferenceError::invalid(format!("metadata type {code} is unknown"))
}
