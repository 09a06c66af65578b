//! Vectors of `f32` under one name: a kernel is written once over [`Simd`] and compiled for each [`Isa`].
//!
//! Every method and every kernel body is `inline(always)`, so that it becomes part of the function in [`dispatch`]
//! that has the instruction set enabled; a body that is not inlined would still be right, but slow.

mod math;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use half::{bf16, f16};

use crate::Isa;

/// The most lanes that any set has.
pub(crate) const MAX_LANES: usize = 16;
/// Bytes of a cache line.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;

/// One instruction set. A value of it is proof that the processor has the set, so that its methods are safe.
pub(crate) trait Simd: Copy {
    /// [`Self::LANES`] numbers.
    type F: Copy;
    const LANES: usize;

    fn splat(self, value: f32) -> Self::F;
    /// # Safety
    /// `from` is valid for reads of [`Self::LANES`] values; no alignment is asked.
    unsafe fn load(self, from: *const f32) -> Self::F;
    /// # Safety
    /// `to` is valid for writes of [`Self::LANES`] values; no alignment is asked.
    unsafe fn store(self, to: *mut f32, v: Self::F);
    /// # Safety
    /// As [`Self::load`].
    unsafe fn load_half(self, from: *const f16) -> Self::F;
    /// # Safety
    /// As [`Self::load`].
    unsafe fn load_bfloat(self, from: *const bf16) -> Self::F;
    /// # Safety
    /// As [`Self::store`].
    unsafe fn store_half(self, to: *mut f16, v: Self::F);

    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `b` where either is not a number.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// `b` where either is not a number.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The nearest whole number, ties to even.
    fn round(self, v: Self::F) -> Self::F;
    /// `v * 2^n` for whole `n` of at least -252 and at most 254.
    fn times_power_of_two(self, v: Self::F, n: Self::F) -> Self::F;
    /// `v`, but zero where `x` is below `limit`.
    fn zero_below(self, v: Self::F, x: Self::F, limit: f32) -> Self::F;
    /// The magnitude of `a` with the sign of `b`.
    fn copy_sign(self, a: Self::F, b: Self::F) -> Self::F;
    /// All lanes added up.
    fn sum(self, v: Self::F) -> f32;
    /// The greatest lane.
    fn greatest(self, v: Self::F) -> f32;

    /// e^v to about one part in ten million: zero below -87, infinite above 88.7; not a number stays so.
    #[inline(always)]
    fn exp(self, v: Self::F) -> Self::F {
        math::exp(self, v)
    }

    /// 1 / (1 + e^-v).
    #[inline(always)]
    fn sigmoid(self, v: Self::F) -> Self::F {
        math::sigmoid(self, v)
    }

    /// The error function, to 1e-6 absolute.
    #[inline(always)]
    fn erf(self, v: Self::F) -> Self::F {
        math::erf(self, v)
    }

    /// tanh, to 5e-7 absolute.
    #[inline(always)]
    fn tanh(self, v: Self::F) -> Self::F {
        math::tanh(self, v)
    }

    /// The first lanes of a slice.
    #[inline(always)]
    fn read(self, from: &[f32]) -> Self::F {
        let from = &from[..Self::LANES];
        // SAFETY: the slice is that long.
        unsafe { self.load(from.as_ptr()) }
    }

    /// Puts all lanes at the front of a slice.
    #[inline(always)]
    fn write(self, to: &mut [f32], v: Self::F) {
        let to = &mut to[..Self::LANES];
        // SAFETY: the slice is that long.
        unsafe { self.store(to.as_mut_ptr(), v) }
    }

    /// All of a slice that is shorter than a vector; zeros after it.
    #[inline(always)]
    fn read_short(self, from: &[f32]) -> Self::F {
        let mut padded = [0.0; MAX_LANES];
        padded[..from.len()].copy_from_slice(from);
        self.read(&padded)
    }

    /// The first lanes into a slice that is shorter than a vector.
    #[inline(always)]
    fn write_short(self, to: &mut [f32], v: Self::F) {
        let mut padded = [0.0; MAX_LANES];
        self.write(&mut padded, v);
        to.copy_from_slice(&padded[..to.len()]);
    }
}

/// What numbers are stored as.
pub(crate) trait Element: Copy {
    /// # Safety
    /// `from` is valid for reads of a vector; no alignment is asked.
    unsafe fn load<S: Simd>(s: S, from: *const Self) -> S::F;
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const Self) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { s.load(from) }
    }
}

impl Element for f16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const Self) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { s.load_half(from) }
    }
}

impl Element for bf16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const Self) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { s.load_bfloat(from) }
    }
}

/// Asks for memory that is read soon, so that it is near when it is. Nothing depends on it but speed.
#[inline(always)]
pub(crate) fn prefetch<E>(memory: &[E]) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..size_of_val(memory)).step_by(LINE) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: every processor with 64 bits has the instruction, which changes nothing, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(memory.as_ptr().cast::<i8>().wrapping_add(line)) };
    }
    let _ = memory;
}

/// Work that is written over any instruction set. `run` is to be `inline(always)`.
pub(crate) trait Kernel {
    type Output;
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Runs a kernel with the vectors of `isa`, which this processor must have.
pub(crate) fn dispatch<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    {
        if isa >= Isa::Avx512Vnni {
            // SAFETY: an `Isa` above portable comes from detection alone (see `Pool::with_isa`).
            return unsafe { x86::on_avx512(kernel) };
        }
        if isa >= Isa::Avx2 {
            // SAFETY: as above.
            return unsafe { x86::on_avx2(kernel) };
        }
    }
    let _ = isa;
    kernel.run(portable::Portable)
}

#[cfg(test)]
mod tests;
