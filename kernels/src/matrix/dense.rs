//! The product with weights that are plain floats, for few tokens: written once, compiled for each instruction set.

use half::{bf16, f16};

use super::format::TILE;
use super::portable::Sums;
use super::{Format, Matrix};
use crate::simd::{Element, Kernel, Simd, dispatch};

/// Tokens whose sums stay in registers while the weights of a tile pass by.
const TOKENS: usize = 4;

/// Inputs whose products are summed apart for a single token: an addition does not wait for the one before.
const APART: usize = 4;

/// Vectors in a row of a tile, at most.
const VECTORS: usize = 2;

/// Multiplies one tile with the tokens `first..first + sums.len()`; `x` is `[tokens, inputs]`.
pub(super) fn multiply(matrix: &Matrix, tile: usize, x: &[f32], first: usize, sums: &mut [Sums]) {
    let inputs = matrix.inputs;
    let x = &x[first * inputs..(first + sums.len()) * inputs];
    let weights = matrix.tile(tile);
    // Packing has checked that the processor has this instruction set.
    match matrix.format {
        Format::F16 => dispatch(matrix.isa, Product { weights: elements::<f16>(weights), x, inputs, sums }),
        Format::BF16 => dispatch(matrix.isa, Product { weights: elements::<bf16>(weights), x, inputs, sums }),
        _ => dispatch(matrix.isa, Product { weights: elements::<f32>(weights), x, inputs, sums }),
    }
}

/// The numbers of a tile.
fn elements<E: Element>(bytes: &[u8]) -> &[E] {
    // SAFETY: the elements are floats, of which any bits are valid.
    let (before, elements, after) = unsafe { bytes.align_to::<E>() };
    assert!(before.is_empty() && after.is_empty(), "tiles start on a cache line");
    elements
}

/// A packed tile, for each input the weights of sixteen rows, and some tokens.
struct Product<'a, E> {
    weights: &'a [E],
    x: &'a [f32],
    inputs: usize,
    sums: &'a mut [Sums],
}

impl<E: Element> Kernel for Product<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { weights, x, inputs, sums } = self;
        let mut x = x.chunks_exact(inputs);
        let (some, rest) = sums.as_chunks_mut::<TOKENS>();
        for sums in some {
            let mut tokens = [[].as_slice(); TOKENS];
            tokens.iter_mut().zip(&mut x).for_each(|(token, x)| *token = x);
            product::<S, E, TOKENS, 1>(s, weights, tokens, sums);
        }
        for (x, sums) in x.zip(rest) {
            product::<S, E, 1, APART>(s, weights, [x], std::array::from_mut(sums));
        }
    }
}

/// The products of all inputs with `N` tokens, `U` inputs at a time.
#[inline(always)]
fn product<S: Simd, E: Element, const N: usize, const U: usize>(
    s: S,
    weights: &[E],
    x: [&[f32]; N],
    out: &mut [Sums; N],
) {
    const { assert!(TILE.is_multiple_of(S::LANES) && TILE / S::LANES <= VECTORS) };
    assert!(x.iter().all(|x| x.len() * TILE == weights.len()), "a weight for each input and row");
    let mut sums = [[[s.splat(0.0); VECTORS]; N]; U];
    let mut at = 0;
    let (some, rest) = weights.as_chunks::<TILE>().0.as_chunks::<U>();
    for weights in some {
        for (apart, weights) in weights.iter().enumerate() {
            // SAFETY: there are as many inputs as rows of weights.
            unsafe { add(s, weights, &x, at + apart, &mut sums[apart]) };
        }
        at += U;
    }
    for (apart, weights) in rest.iter().enumerate() {
        // SAFETY: as above.
        unsafe { add(s, weights, &x, at + apart, &mut sums[apart]) };
    }
    for (token, out) in out.iter_mut().enumerate() {
        for (vector, out) in out.chunks_exact_mut(S::LANES).enumerate() {
            let mut sum = sums[0][token][vector];
            for sums in &sums[1..] {
                sum = s.add(sum, sums[token][vector]);
            }
            s.write(out, sum);
        }
    }
}

/// Adds the products of one input.
///
/// # Safety
/// Each token has this input.
#[inline(always)]
unsafe fn add<S: Simd, E: Element, const N: usize>(
    s: S,
    weights: &[E; TILE],
    x: &[&[f32]; N],
    input: usize,
    sums: &mut [[S::F; VECTORS]; N],
) {
    for vector in 0..TILE / S::LANES {
        // SAFETY: sixteen weights are there.
        let weights = unsafe { E::load(s, weights.as_ptr().add(vector * S::LANES)) };
        for (sums, x) in sums.iter_mut().zip(x) {
            // SAFETY: the caller's promise.
            let x = unsafe { *x.get_unchecked(input) };
            sums[vector] = s.fma(weights, s.splat(x), sums[vector]);
        }
    }
}
