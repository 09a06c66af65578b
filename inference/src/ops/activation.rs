//! The gated activations of feed-forward layers (Shazeer, "GLU variants improve Transformer", 2020).

use burn::tensor::Tensor;
use burn::tensor::activation::{gelu_approximate, silu};

/// `silu(gate) * up`.
pub(crate) fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    silu(gate) * up
}

/// `gelu(gate) * up`, with the tanh form of GELU.
pub(crate) fn geglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    gelu_approximate(gate) * up
}
