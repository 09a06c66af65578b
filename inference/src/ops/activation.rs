//! The gated activations of feed-forward layers (Shazeer, "GLU variants improve Transformer", 2020).

use burn::backend::Dispatch;
use burn::tensor::Tensor;
use burn::tensor::activation::{gelu_approximate, silu};
use opossum_kernels::activation;

use super::Place;
use super::kernels::{GateKernel, KernelOps};

/// How a feed-forward layer gates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    /// `silu(gate) * up`.
    Silu,
    /// `gelu(gate) * up`, with the tanh form of GELU.
    GeluTanh,
}

impl Gate {
    /// Gates `up`, `[tokens, width]`.
    pub(crate) fn forward(self, gate: Tensor<2>, up: Tensor<2>, place: &Place) -> Tensor<2> {
        let Some(pool) = &place.kernels else {
            return match self {
                Self::Silu => silu(gate) * up,
                Self::GeluTanh => gelu_approximate(gate) * up,
            };
        };
        let kernel: GateKernel = match self {
            Self::Silu => activation::swiglu,
            Self::GeluTanh => activation::geglu,
        };
        Tensor::from_dispatch(Dispatch::gated(gate.into_dispatch(), up.into_dispatch(), kernel, pool))
    }
}
