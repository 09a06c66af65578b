//! How wide the numbers of a model's matrices are.

use burn::tensor::DType;
use burn::tensor::quantization::{QuantScheme, QuantValue, ScaleDtype};

use crate::gguf::TensorType;

/// Memory of a GPU, in bytes, up to which weights are kept in 8 bits.
const SMALL: u64 = 8 << 30;
/// Numbers of a quantized row that share a scale.
const BLOCK: u8 = 32;

/// The width that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// What suits the device: on the CPU what the file has, on a GPU with more than 8 GiB 16 bits, on a smaller one 8.
    #[default]
    Auto,
    /// 32-bit floats.
    F32,
    /// 16-bit floats with the range of 32-bit ones.
    Bf16,
    /// 16-bit IEEE floats.
    F16,
    /// Blocks of 32 with a scale, 8 bits each.
    Q8,
    /// Blocks of 32 with a scale, 4 bits each.
    Q4,
}

/// What matrices are kept as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// As the file has them.
    Stored,
    /// As the file has them unless that is quantized, and in 32 bits then: nothing is lost.
    Unquantized,
    F32,
    Bf16,
    F16,
    Q8,
    Q4,
}

impl Precision {
    /// What the CPU kernels keep. `quantized` says whether blocks with a scale are allowed where nothing asks for them.
    pub(crate) fn on_kernels(self, quantized: bool) -> Kept {
        match self {
            Self::Auto if quantized => Kept::Stored,
            Self::Auto => Kept::Unquantized,
            asked => asked.kept(),
        }
    }

    /// What stock tensor operations keep, on a device with so many bytes of memory; `None` is the CPU.
    pub(crate) fn on_tensors(self, quantized: bool, memory: Option<u64>) -> Kept {
        match (self, memory) {
            (Self::Auto, None) => Kept::F32,
            (Self::Auto, Some(..=SMALL)) if quantized => Kept::Q8,
            (Self::Auto, Some(_)) => Kept::Bf16,
            (asked, _) => asked.kept(),
        }
    }

    fn kept(self) -> Kept {
        match self {
            Self::Auto => Kept::Stored,
            Self::F32 => Kept::F32,
            Self::Bf16 => Kept::Bf16,
            Self::F16 => Kept::F16,
            Self::Q8 => Kept::Q8,
            Self::Q4 => Kept::Q4,
        }
    }
}

impl Kept {
    /// What a matrix with rows of `inputs` numbers becomes for the CPU kernels. Rows that are not whole blocks stay
    /// floats.
    pub(crate) fn packed(self, stored: TensorType, inputs: usize) -> TensorType {
        let is_quantized = stored.block_len() > 1;
        let whole = inputs.is_multiple_of(usize::from(BLOCK));
        match self {
            Self::Stored => stored,
            Self::Unquantized if !is_quantized => stored,
            Self::Unquantized | Self::F32 => TensorType::F32,
            Self::Bf16 => TensorType::Bf16,
            Self::Q8 if whole => TensorType::Q8_0,
            Self::Q4 if whole => TensorType::Q4_0,
            Self::F16 | Self::Q8 | Self::Q4 => TensorType::F16,
        }
    }

    /// How stock tensor operations quantize a matrix with rows of `inputs` numbers; `None` when they do not.
    pub(crate) fn scheme(self, inputs: usize) -> Option<QuantScheme> {
        let value = match self {
            Self::Q8 => QuantValue::Q8S,
            Self::Q4 => QuantValue::Q4S,
            _ => return None,
        };
        let scheme = QuantScheme::default().with_value(value).per_block([BLOCK], ScaleDtype::F32);
        inputs.is_multiple_of(usize::from(BLOCK)).then_some(scheme)
    }

    /// What stock tensor operations store floats as.
    pub(crate) fn storage(self) -> DType {
        match self {
            Self::Stored | Self::Unquantized | Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 | Self::Q8 | Self::Q4 => DType::BF16,
        }
    }

    /// Bytes that stock tensor operations take for a matrix of so many numbers.
    pub(crate) fn bytes(self, numbers: u64) -> u64 {
        match self {
            // A scale of 4 bytes for 32 numbers.
            Self::Q8 => numbers.saturating_add(numbers / 8),
            Self::Q4 => (numbers / 2).saturating_add(numbers / 8),
            _ => numbers.saturating_mul(self.storage().size() as u64),
        }
    }

    /// The name of what a file of this type is kept as.
    pub(crate) fn name(self, stored: TensorType) -> String {
        self.packed(stored, usize::from(BLOCK)).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn automatic_is_16_bits_on_a_large_gpu_8_on_a_small_one_and_the_file_on_the_cpu() {
        let gpu = |gib: u64, quantized| Precision::Auto.on_tensors(quantized, Some(gib << 30));
        assert_eq!((gpu(24, true), gpu(8, true), gpu(6, false)), (Kept::Bf16, Kept::Q8, Kept::Bf16));
        assert_eq!(Precision::Auto.on_tensors(true, None), Kept::F32);
        assert_eq!(Precision::Auto.on_kernels(true), Kept::Stored);
        assert_eq!(Precision::Q8.on_tensors(true, Some(80 << 30)), Kept::Q8);
    }

    #[test]
    fn without_quantized_weights_blocks_become_floats_and_floats_stay() {
        let kept = Precision::Auto.on_kernels(false);
        assert_eq!(kept.packed(TensorType::Q4K, 256), TensorType::F32);
        assert_eq!(kept.packed(TensorType::Bf16, 256), TensorType::Bf16);
    }

    #[test]
    fn rows_that_are_no_whole_blocks_stay_floats() {
        assert_eq!(Kept::Q8.packed(TensorType::F32, 64), TensorType::Q8_0);
        assert_eq!(Kept::Q8.packed(TensorType::F32, 40), TensorType::F16);
        assert!(Kept::Q4.scheme(64).is_some() && Kept::Q4.scheme(40).is_none());
    }
}
