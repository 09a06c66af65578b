//! Vectors of AVX2 and AVX-512.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::{Kernel, Simd};

/// 8 lanes. Made by [`on_avx2`] alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2(());

/// 16 lanes. Made by [`on_avx512`] alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512(());

/// # Safety
/// The processor has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn on_avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx2(()))
}

/// # Safety
/// The processor has AVX-512 F, BW, VL and DQ, with AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")]
pub(crate) unsafe fn on_avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512(()))
}

/// Methods that are one intrinsic.
macro_rules! intrinsics {
    ($($name:ident($($arg:ident),*) = $call:expr;)*) => {
        $(#[inline(always)]
        fn $name(self, $($arg: Self::F),*) -> Self::F {
            // SAFETY: `self` is proof that the processor has the instruction, which touches no memory.
            unsafe { $call }
        })*
    };
}

impl Simd for Avx2 {
    type F = __m256;
    const LANES: usize = 8;

    intrinsics! {
        add(a, b) = _mm256_add_ps(a, b);
        sub(a, b) = _mm256_sub_ps(a, b);
        mul(a, b) = _mm256_mul_ps(a, b);
        div(a, b) = _mm256_div_ps(a, b);
        max(a, b) = _mm256_max_ps(a, b);
        min(a, b) = _mm256_min_ps(a, b);
        fma(a, b, c) = _mm256_fmadd_ps(a, b, c);
        round(v) = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v);
        times_power_of_two(v, n) = {
            // In two steps: 2^n alone may be out of range where the product is not.
            let bias = _mm256_set1_epi32(127);
            let n = _mm256_cvtps_epi32(n);
            let half = _mm256_srai_epi32::<1>(n);
            let first = _mm256_slli_epi32::<23>(_mm256_add_epi32(half, bias));
            let second = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_sub_epi32(n, half), bias));
            _mm256_mul_ps(_mm256_mul_ps(v, _mm256_castsi256_ps(first)), _mm256_castsi256_ps(second))
        };
        copy_sign(a, b) = {
            let sign = _mm256_set1_ps(-0.0);
            _mm256_or_ps(_mm256_andnot_ps(sign, a), _mm256_and_ps(sign, b))
        };
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Self::F {
        // SAFETY: `self` is proof of the instruction.
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::F {
        // SAFETY: the caller's promise.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, v: Self::F) {
        // SAFETY: the caller's promise.
        unsafe { _mm256_storeu_ps(to, v) }
    }

    #[inline(always)]
    unsafe fn load_half(self, from: *const f16) -> Self::F {
        // SAFETY: the caller's promise; `f16` is 16 bits.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }

    #[inline(always)]
    unsafe fn load_bfloat(self, from: *const bf16) -> Self::F {
        // SAFETY: the caller's promise; `bf16` is the upper 16 bits of a number.
        unsafe {
            let halves = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(halves))
        }
    }

    #[inline(always)]
    unsafe fn store_half(self, to: *mut f16, v: Self::F) {
        // SAFETY: the caller's promise; `f16` is 16 bits.
        unsafe { _mm_storeu_si128(to.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v)) }
    }

    #[inline(always)]
    fn zero_below(self, v: Self::F, x: Self::F, limit: f32) -> Self::F {
        // SAFETY: `self` is proof of the instructions.
        unsafe { _mm256_and_ps(v, _mm256_cmp_ps::<_CMP_NLT_UQ>(x, _mm256_set1_ps(limit))) }
    }

    #[inline(always)]
    fn sum(self, v: Self::F) -> f32 {
        // SAFETY: `self` is proof of the instructions.
        unsafe {
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
        }
    }

    #[inline(always)]
    fn greatest(self, v: Self::F) -> f32 {
        // SAFETY: `self` is proof of the instructions.
        unsafe {
            let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
        }
    }
}

impl Simd for Avx512 {
    type F = __m512;
    const LANES: usize = 16;

    intrinsics! {
        add(a, b) = _mm512_add_ps(a, b);
        sub(a, b) = _mm512_sub_ps(a, b);
        mul(a, b) = _mm512_mul_ps(a, b);
        div(a, b) = _mm512_div_ps(a, b);
        max(a, b) = _mm512_max_ps(a, b);
        min(a, b) = _mm512_min_ps(a, b);
        fma(a, b, c) = _mm512_fmadd_ps(a, b, c);
        round(v) = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v);
        times_power_of_two(v, n) = _mm512_scalef_ps(v, n);
        copy_sign(a, b) = {
            let sign = _mm512_set1_ps(-0.0);
            _mm512_or_ps(_mm512_andnot_ps(sign, a), _mm512_and_ps(sign, b))
        };
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Self::F {
        // SAFETY: `self` is proof of the instruction.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::F {
        // SAFETY: the caller's promise.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, v: Self::F) {
        // SAFETY: the caller's promise.
        unsafe { _mm512_storeu_ps(to, v) }
    }

    #[inline(always)]
    unsafe fn load_half(self, from: *const f16) -> Self::F {
        // SAFETY: the caller's promise; `f16` is 16 bits.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn load_bfloat(self, from: *const bf16) -> Self::F {
        // SAFETY: the caller's promise; `bf16` is the upper 16 bits of a number.
        unsafe {
            let halves = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves))
        }
    }

    #[inline(always)]
    unsafe fn store_half(self, to: *mut f16, v: Self::F) {
        // SAFETY: the caller's promise; `f16` is 16 bits.
        unsafe { _mm256_storeu_si256(to.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v)) }
    }

    #[inline(always)]
    fn zero_below(self, v: Self::F, x: Self::F, limit: f32) -> Self::F {
        // SAFETY: `self` is proof of the instructions.
        unsafe { _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, _mm512_set1_ps(limit)), v) }
    }

    #[inline(always)]
    fn sum(self, v: Self::F) -> f32 {
        // SAFETY: `self` is proof of the instructions.
        unsafe { _mm512_reduce_add_ps(v) }
    }

    #[inline(always)]
    fn greatest(self, v: Self::F) -> f32 {
        // SAFETY: `self` is proof of the instructions.
        unsafe { _mm512_reduce_max_ps(v) }
    }
}
