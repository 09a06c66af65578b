//! The functions that no instruction computes.

use super::Simd;

/// Below it e^x is taken for zero: the last power of two that is not subnormal.
const LOWEST: f32 = -87.336_54;
/// Above it e^x is infinite in `f32`.
const HIGHEST: f32 = 88.722_84;
/// ln 2 in two parts: the first has so few bits that its product with a whole number below 256 is exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// e^x = 2^n e^r with whole n and |r| <= ln 2 / 2; e^r by its Taylor series to r^7, whose rest is below 6e-9.
#[inline(always)]
pub(super) fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    // One step over the highest, so that the result overflows to infinity there. The operand order keeps NaN.
    let bounded = s.min(s.splat(HIGHEST + 1.0), s.max(s.splat(LOWEST), x));
    let n = s.round(s.mul(bounded, s.splat(std::f32::consts::LOG2_E)));
    let r = s.fma(n, s.splat(-LN2_HIGH), bounded);
    let r = s.fma(n, s.splat(-LN2_LOW), r);
    let mut p = s.splat(1.0 / 5040.0);
    for factorial in [720.0, 120.0, 24.0, 6.0, 2.0, 1.0, 1.0f32] {
        p = s.fma(p, r, s.splat(1.0 / factorial));
    }
    let scaled = s.times_power_of_two(p, n);
    s.zero_below(scaled, x, LOWEST)
}

#[inline(always)]
pub(super) fn sigmoid<S: Simd>(s: S, x: S::F) -> S::F {
    let one = s.splat(1.0);
    s.div(one, s.add(one, exp(s, s.sub(s.splat(0.0), x))))
}

/// Of the magnitude, so that neither side overflows; the sign is put back.
#[inline(always)]
pub(super) fn tanh<S: Simd>(s: S, x: S::F) -> S::F {
    let one = s.splat(1.0);
    let magnitude = s.copy_sign(x, one);
    let decay = exp(s, s.mul(magnitude, s.splat(-2.0)));
    s.copy_sign(s.div(s.sub(one, decay), s.add(one, decay)), x)
}

/// Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26 (error below 1.5e-7).
#[inline(always)]
pub(super) fn erf<S: Simd>(s: S, x: S::F) -> S::F {
    let one = s.splat(1.0);
    let magnitude = s.copy_sign(x, one);
    let t = s.div(one, s.fma(magnitude, s.splat(0.327_591_1), one));
    let mut p = s.splat(1.061_405_4);
    for coefficient in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6f32] {
        p = s.fma(p, t, s.splat(coefficient));
    }
    let decay = exp(s, s.sub(s.splat(0.0), s.mul(magnitude, magnitude)));
    let value = s.sub(one, s.mul(s.mul(p, t), decay));
    s.copy_sign(value, x)
}
