//! The gated activations of feed-forward layers (Shazeer, "GLU variants improve Transformer", 2020).

use burn::tensor::Tensor;
use burn::tensor::activation::{gelu_approximate, silu};
use opossum_kernels::activation::Gating;

/// How a feed-forward layer gates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    /// `silu(gate) * up`.
    Silu,
    /// `gelu(gate) * up`, with the tanh form of GELU.
    GeluTanh,
}

impl Gate {
    /// Gates `up`, `[tokens, width]`, in stock tensor operations.
    pub(super) fn forward(self, gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Silu => silu(gate) * up,
            Self::GeluTanh => gelu_approximate(gate) * up,
        }
    }

    /// The kernels' name for it.
    pub(super) fn gating(self) -> Gating {
        match self {
            Self::Silu => Gating::Silu,
            Self::GeluTanh => Gating::GeluTanh,
        }
    }
}
