//! Rotary position embedding (Su et al., "RoFormer", 2021), in the rotate-half form.
//!
//! Dimension `i` of the first half of a head is paired with dimension `i` of the second half. GGUF files of the Llama
//! family store query and key rows for the other convention, neighbouring dimensions paired; loading puts them back.

use burn::tensor::{Device, Tensor, TensorData};
use opossum_kernels::rope::Angles;

use crate::model::BatchEntry;

/// The angles by which one position turns each pair of dimensions.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rope {
    frequencies: Vec<f64>,
}

impl Rope {
    /// `base^(-2 i / head_dim)` for each pair `i`.
    pub(crate) fn new(base: f64, head_dim: usize) -> Self {
        let frequency = |index: usize| base.powf(-2.0 * index as f64 / head_dim as f64);
        Self { frequencies: (0..head_dim / 2).map(frequency).collect() }
    }

    /// Divides each frequency by its own factor, as files of Llama 3.1 and later have it.
    pub(crate) fn divided(mut self, factors: &[f32]) -> Self {
        for (frequency, &factor) in self.frequencies.iter_mut().zip(factors) {
            *frequency /= f64::from(factor);
        }
        self
    }

    /// Divides every frequency by `factor`, which stretches the positions a model can tell apart.
    pub(crate) fn slowed(mut self, factor: f64) -> Self {
        self.frequencies.iter_mut().for_each(|frequency| *frequency /= factor);
        self
    }

    /// Cosines and sines of a batch's positions, for the CPU kernels.
    pub(super) fn angles(&self, batch: &[BatchEntry<'_>]) -> Angles {
        Angles::new(&self.frequencies, batch.iter().flat_map(|entry| entry.past..entry.seen()))
    }

    /// Cosines and sines for these positions.
    pub(super) fn tables(&self, positions: &[usize], device: &Device) -> Tables {
        let half = self.frequencies.len();
        let table = |function: fn(f64) -> f64| {
            let angles = positions
                .iter()
                .flat_map(|&at| self.frequencies.iter().map(move |frequency| at as f64 * frequency));
            let numbers: Vec<f32> = angles.map(|angle| function(angle) as f32).collect();
            Tensor::from_data(TensorData::new(numbers, [positions.len(), 1, half]), device)
        };
        Tables { cos: table(f64::cos), sin: table(f64::sin) }
    }
}

/// Cosines and sines of some positions.
#[derive(Debug, Clone)]
pub(super) struct Tables {
    /// `[tokens, 1, head_dim / 2]`.
    cos: Tensor<3>,
    /// As `cos`.
    sin: Tensor<3>,
}

impl Tables {
    /// Rotates `[tokens, heads, head_dim]`; the tables must be those of exactly these tokens.
    pub(super) fn rotate(&self, x: Tensor<3>) -> Tensor<3> {
        let half = x.dims()[2] / 2;
        let (first, second) = (x.clone().narrow(2, 0, half), x.narrow(2, half, half));
        let turned_first = first.clone() * self.cos.clone() - second.clone() * self.sin.clone();
        let turned_second = second * self.cos.clone() + first * self.sin.clone();
        Tensor::cat(vec![turned_first, turned_second], 2)
    }
}
