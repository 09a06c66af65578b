//! Vectors that are an array; the compiler makes of them what the base instruction set allows.

use std::array;

use half::{bf16, f16};

use super::Simd;

const LANES: usize = 8;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable;

#[inline(always)]
fn zip(a: [f32; LANES], b: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    array::from_fn(|i| f(a[i], b[i]))
}

impl Simd for Portable {
    type F = [f32; LANES];
    const LANES: usize = LANES;

    #[inline(always)]
    fn splat(self, value: f32) -> Self::F {
        [value; LANES]
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::F {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<Self::F>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, v: Self::F) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<Self::F>().write_unaligned(v) }
    }

    #[inline(always)]
    unsafe fn load_half(self, from: *const f16) -> Self::F {
        // SAFETY: the caller's promise.
        let halves = unsafe { from.cast::<[f16; LANES]>().read_unaligned() };
        halves.map(f16::to_f32)
    }

    #[inline(always)]
    unsafe fn load_bfloat(self, from: *const bf16) -> Self::F {
        // SAFETY: the caller's promise.
        let halves = unsafe { from.cast::<[bf16; LANES]>().read_unaligned() };
        halves.map(bf16::to_f32)
    }

    #[inline(always)]
    unsafe fn store_half(self, to: *mut f16, v: Self::F) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[f16; LANES]>().write_unaligned(v.map(f16::from_f32)) }
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a / b)
    }

    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| if a < b { a } else { b })
    }

    /// Rounded twice: without the instruction, a fused product is a slow call.
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        array::from_fn(|i| a[i] * b[i] + c[i])
    }

    #[inline(always)]
    fn round(self, v: Self::F) -> Self::F {
        v.map(f32::round_ties_even)
    }

    #[inline(always)]
    fn times_power_of_two(self, v: Self::F, n: Self::F) -> Self::F {
        // In two steps: 2^n alone may be out of range where the product is not.
        let power = |n: i32| f32::from_bits(((n + 127) as u32) << 23);
        zip(v, n, |v, n| v * power(n as i32 / 2) * power(n as i32 - n as i32 / 2))
    }

    #[inline(always)]
    fn zero_below(self, v: Self::F, x: Self::F, limit: f32) -> Self::F {
        zip(v, x, |v, x| if x < limit { 0.0 } else { v })
    }

    #[inline(always)]
    fn copy_sign(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, f32::copysign)
    }

    #[inline(always)]
    fn sum(self, v: Self::F) -> f32 {
        v.iter().sum()
    }

    #[inline(always)]
    fn greatest(self, v: Self::F) -> f32 {
        v.into_iter().fold(f32::NEG_INFINITY, |a, b| if a > b { a } else { b })
    }
}
