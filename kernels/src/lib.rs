//! Kernels of transformer inference on the CPU, over plain slices.
//!
//! The tensor library above runs a model; what it has no fast operation for is here: matrices that stay in the
//! quantized blocks of their file, attention over a cache in blocks, normalisation, rotary positions and the gated
//! activation. Nothing here knows a tensor, a model or a file format beyond the layout of its blocks.
//!
//! Each kernel exists at least twice: portable code that says what is computed, and code for the vector instructions
//! that [`isa::Isa::detect`] found. Tests hold the one against the other.
//!
//! # Units
//! Matrices are row-major. Activations are `f32`, `[tokens, width]`.

pub mod activation;
pub mod attention;
mod heap;
pub mod isa;
pub mod kv;
pub mod matrix;
pub mod norm;
mod pages;
pub mod pool;
pub mod rope;
mod simd;
mod split;
#[cfg(test)]
mod testing;

pub use isa::Isa;
pub use kv::{BLOCK_TOKENS, KvError, KvShape, KvStore};
pub use matrix::{Matrix, gated_matmul, matmul};
pub use pool::Pool;
