//! What stands between the two matrices of a feed-forward layer: gated (Shazeer 2020, arXiv:2002.05202) or plain.
//!
//! All functions panic where the lengths differ.

use std::marker::PhantomData;

use crate::simd::{Kernel, Simd, dispatch};
use crate::split::{Parts, each_rows};
use crate::{Isa, Pool};

/// Elements that are never divided.
const CHUNK: usize = 1024;

/// How a feed-forward layer gates what it computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gating {
    /// `silu(gate) * up`, where `silu(x) = x / (1 + e^-x)`.
    Silu,
    /// `gelu(gate) * up` by the tanh form of gelu (Hendrycks and Gimpel 2016, arXiv:1606.08415).
    GeluTanh,
}

impl Gating {
    /// Gates on the calling thread, with the instructions of a pool.
    pub(crate) fn apply(self, isa: Isa, gate: &[f32], up: &[f32], out: &mut [f32]) {
        assert!(gate.len() == up.len() && gate.len() == out.len(), "tensors of one shape");
        match self {
            Self::Silu => dispatch(isa, Gated { gate, up, out, by: PhantomData::<Silu> }),
            Self::GeluTanh => dispatch(isa, Gated { gate, up, out, by: PhantomData::<GeluTanh> }),
        }
    }
}

/// `x = x / 2 * (1 + erf(x / sqrt 2))`.
pub fn gelu(pool: &Pool, x: &mut [f32]) {
    let (len, parts) = (x.len(), Parts::new(x));
    each_rows(pool, len.div_ceil(CHUNK), CHUNK, &|range| {
        // SAFETY: each task has its own chunks.
        let x = unsafe { parts.take(range.start * CHUNK..len.min(range.end * CHUNK)) };
        dispatch(pool.isa(), Gelu { x });
    });
}

/// A function of each number. `of` is to be `inline(always)`.
trait Activation {
    fn of<S: Simd>(s: S, x: S::F) -> S::F;
}

struct Silu;

impl Activation for Silu {
    #[inline(always)]
    fn of<S: Simd>(s: S, x: S::F) -> S::F {
        s.mul(x, s.sigmoid(x))
    }
}

struct GeluTanh;

impl Activation for GeluTanh {
    /// `(1 + tanh u) / 2` is the sigmoid of `2u`.
    #[inline(always)]
    fn of<S: Simd>(s: S, x: S::F) -> S::F {
        const TWO_OVER_ROOT: f32 = std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::SQRT_2;
        let bent = s.fma(s.mul(x, x), s.splat(0.044_715), s.splat(1.0));
        s.mul(x, s.sigmoid(s.mul(s.mul(x, s.splat(TWO_OVER_ROOT)), bent)))
    }
}

struct GeluErf;

impl Activation for GeluErf {
    #[inline(always)]
    fn of<S: Simd>(s: S, x: S::F) -> S::F {
        let erf = s.erf(s.mul(x, s.splat(std::f32::consts::FRAC_1_SQRT_2)));
        let half = s.mul(x, s.splat(0.5));
        s.fma(half, erf, half)
    }
}

struct Gated<'a, A> {
    gate: &'a [f32],
    up: &'a [f32],
    out: &'a mut [f32],
    by: PhantomData<A>,
}

impl<A: Activation> Kernel for Gated<'_, A> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { gate, up, out, by: _ } = self;
        let whole = out.len() - out.len() % S::LANES;
        for at in (0..whole).step_by(S::LANES) {
            let v = s.mul(A::of(s, s.read(&gate[at..])), s.read(&up[at..]));
            s.write(&mut out[at..], v);
        }
        let v = s.mul(A::of(s, s.read_short(&gate[whole..])), s.read_short(&up[whole..]));
        s.write_short(&mut out[whole..], v);
    }
}

struct Gelu<'a> {
    x: &'a mut [f32],
}

impl Kernel for Gelu<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut chunks = self.x.chunks_exact_mut(S::LANES);
        for x in &mut chunks {
            s.write(x, GeluErf::of(s, s.read(x)));
        }
        let rest = chunks.into_remainder();
        s.write_short(rest, GeluErf::of(s, s.read_short(rest)));
    }
}

#[cfg(test)]
mod tests;
