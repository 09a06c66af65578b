//! Writes small GGUF files.

use std::io;

use crate::gguf::{Array, TensorType, Value, quantize};

/// Alignment of tensor data, in bytes.
const ALIGNMENT: usize = 32;

/// Collects metadata and tensors, then lays them out as a GGUF version 3 file.
#[derive(Debug, Default)]
pub struct GgufWriter {
    metadata: Vec<u8>,
    metadata_count: u64,
    tensors: Vec<u8>,
    tensor_count: u64,
    data: Vec<u8>,
}

impl GgufWriter {
    /// Adds a key-value pair. Integers are written as 32 bits (they must fit), floats as 32 bits.
    pub fn set(&mut self, key: &str, value: Value) {
        write_string(&mut self.metadata, key);
        write_value(&mut self.metadata, value);
        self.metadata_count += 1;
    }

    /// Adds a tensor of these numbers, stored as `kind`; `dims` are innermost first.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for a type other than F32, F16, BF16, Q4_0 and Q8_0, or rows that are not whole
    /// blocks.
    pub fn tensor(
        &mut self,
        name: &str,
        dims: &[usize],
        kind: TensorType,
        numbers: &[f32],
    ) -> io::Result<()> {
        let whole =
            dims.iter().product::<usize>() == numbers.len() && dims[0].is_multiple_of(kind.block_len());
        if !whole {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "extents do not match the numbers"));
        }
        self.raw_tensor(name, dims, kind, &encode(kind, numbers)?);
        Ok(())
    }

    /// Adds a tensor whose stored bytes are given.
    pub fn raw_tensor(&mut self, name: &str, dims: &[usize], kind: TensorType, bytes: &[u8]) {
        write_string(&mut self.tensors, name);
        self.tensors.extend((dims.len() as u32).to_le_bytes());
        for &extent in dims {
            self.tensors.extend((extent as u64).to_le_bytes());
        }
        self.tensors.extend(kind.code().to_le_bytes());
        self.tensors.extend((self.data.len() as u64).to_le_bytes());
        self.tensor_count += 1;
        self.data.extend(bytes);
        pad(&mut self.data);
    }

    /// The file's content.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(3_u32.to_le_bytes());
        file.extend(self.tensor_count.to_le_bytes());
        file.extend(self.metadata_count.to_le_bytes());
        file.extend(self.metadata);
        file.extend(self.tensors);
        pad(&mut file);
        file.extend(self.data);
        file
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn write_value(out: &mut Vec<u8>, value: Value) {
    match value {
        Value::Unsigned(number) => write_scalar(out, 4, &(number as u32).to_le_bytes()),
        Value::Signed(number) => write_scalar(out, 5, &(number as i32).to_le_bytes()),
        Value::Float(number) => write_scalar(out, 6, &(number as f32).to_le_bytes()),
        Value::Bool(truth) => write_scalar(out, 7, &[u8::from(truth)]),
        Value::String(text) => {
            out.extend(8_u32.to_le_bytes());
            write_string(out, &text);
        }
        Value::Array(array) => {
            out.extend(9_u32.to_le_bytes());
            write_array(out, array);
        }
    }
}

fn write_scalar(out: &mut Vec<u8>, type_code: u32, bytes: &[u8]) {
    out.extend(type_code.to_le_bytes());
    out.extend(bytes);
}

fn write_array(out: &mut Vec<u8>, array: Array) {
    let mut start = |type_code: u32, count: usize| {
        out.extend(type_code.to_le_bytes());
        out.extend((count as u64).to_le_bytes());
    };
    match array {
        Array::Integers(numbers) => {
            start(5, numbers.len());
            out.extend(numbers.iter().flat_map(|&number| (number as i32).to_le_bytes()));
        }
        Array::Floats(numbers) => {
            start(6, numbers.len());
            out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        }
        Array::Bools(truths) => {
            start(7, truths.len());
            out.extend(truths.iter().map(|&truth| u8::from(truth)));
        }
        Array::Strings(texts) => {
            start(8, texts.len());
            texts.iter().for_each(|text| write_string(out, text));
        }
    }
}

fn encode(kind: TensorType, numbers: &[f32]) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; numbers.len() / kind.block_len() * kind.block_bytes()];
    quantize(kind, numbers, &mut bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))?;
    Ok(bytes)
}
