//! Rotary position embedding (Su et al., "RoFormer", 2021), in the rotate-half form.
//!
//! Dimension `i` of the first half of a head is paired with dimension `i` of the second half. GGUF files of the Llama
//! family store query and key rows for the other convention, neighbouring dimensions paired; `load` puts them back.

use burn::tensor::{Device, Tensor, TensorData};

use super::LlamaConfig;

/// Cosines and sines of every position and frequency.
#[derive(Debug, Clone)]
pub(super) struct Rope {
    /// `[positions, 1, head_dim / 2]`.
    cos: Tensor<3>,
    /// As `cos`.
    sin: Tensor<3>,
}

impl Rope {
    /// Tables for `positions` positions. `factors` divides each frequency, as files of Llama 3.1 and later have it.
    pub(super) fn new(
        config: &LlamaConfig,
        positions: usize,
        factors: Option<&[f32]>,
        device: &Device,
    ) -> Self {
        let half = config.head_dim / 2;
        let frequencies: Vec<f64> = (0..half)
            .map(|index| {
                let plain = config.rope_base.powf(-2.0 * index as f64 / config.head_dim as f64);
                factors.map_or(plain, |factors| plain / f64::from(factors[index]))
            })
            .collect();
        let table = |function: fn(f64) -> f64| {
            let angles =
                (0..positions).flat_map(|at| frequencies.iter().map(move |frequency| at as f64 * frequency));
            let numbers: Vec<f32> = angles.map(|angle| function(angle) as f32).collect();
            Tensor::from_data(TensorData::new(numbers, [positions, 1, half]), device)
        };
        Self { cos: table(f64::cos), sin: table(f64::sin) }
    }

    /// The tables' rows for `tokens` positions from `start` on.
    pub(super) fn rows(&self, start: usize, tokens: usize) -> Self {
        Self {
            cos: self.cos.clone().narrow(0, start, tokens),
            sin: self.sin.clone().narrow(0, start, tokens),
        }
    }

    /// Rotates `[tokens, heads, head_dim]`; `self` must have exactly these tokens' rows.
    pub(super) fn rotate(&self, x: Tensor<3>) -> Tensor<3> {
        let half = x.dims()[2] / 2;
        let (first, second) = (x.clone().narrow(2, 0, half), x.narrow(2, half, half));
        let turned_first = first.clone() * self.cos.clone() - second.clone() * self.sin.clone();
        let turned_second = second * self.cos.clone() + first * self.sin.clone();
        Tensor::cat(vec![turned_first, turned_second], 2)
    }
}
