//! Normalisation of rows: by their root mean square (Zhang and Sennrich 2019, arXiv:1910.07467) and by mean and
//! deviation (Ba et al. 2016, arXiv:1607.06450).
//!
//! A row is as wide as the scale, so that the rows of a `[tokens, heads, dim]` tensor may be its heads. All functions
//! panic where the lengths do not fit together.

use crate::simd::{Kernel, Simd, dispatch};
use crate::split::{Parts, each_rows};
use crate::{Isa, Pool};

/// `out = x / rms(x) * scale`, where `rms(x) = sqrt(mean(x^2) + epsilon)`.
pub fn rms_norm(pool: &Pool, x: &[f32], scale: &[f32], epsilon: f32, out: &mut [f32]) {
    let rows = rows(x, scale);
    assert_eq!(x.len(), out.len(), "as many numbers out as in");
    let (width, parts) = (scale.len(), Parts::new(out));
    each_rows(pool, rows, width, &|range| {
        let range = range.start * width..range.end * width;
        // SAFETY: each task has its own rows.
        let out = unsafe { parts.take(range.clone()) };
        dispatch(pool.isa(), Rms { x: &x[range], scale, epsilon, out });
    });
}

/// [`rms_norm`] of `x` into itself: what is done to the heads of queries and keys in some models.
pub fn rms_norm_in_place(pool: &Pool, x: &mut [f32], scale: &[f32], epsilon: f32) {
    let (rows, width, parts) = (rows(x, scale), scale.len(), Parts::new(x));
    each_rows(pool, rows, width, &|range| {
        // SAFETY: each task has its own rows.
        let x = unsafe { parts.take(range.start * width..range.end * width) };
        dispatch(pool.isa(), RmsInPlace { x, scale, epsilon });
    });
}

/// `x += y; out = rms_norm(x)`: the end of one half of a layer and the start of the next.
pub fn add_rms_norm(pool: &Pool, x: &mut [f32], y: &[f32], scale: &[f32], epsilon: f32, out: &mut [f32]) {
    let (rows, width) = (rows(x, scale), scale.len());
    assert!(x.len() == y.len() && x.len() == out.len(), "tensors of one shape");
    let (sums, outs) = (Parts::new(x), Parts::new(out));
    each_rows(pool, rows, width, &|range| {
        let range = range.start * width..range.end * width;
        // SAFETY: each task has its own rows.
        let (x, out) = unsafe { (sums.take(range.clone()), outs.take(range.clone())) };
        add_rows(pool.isa(), x, &y[range]);
        dispatch(pool.isa(), Rms { x, scale, epsilon, out });
    });
}

/// `out = (x - mean(x)) / sqrt(variance(x) + epsilon) * scale + bias`.
pub fn layer_norm(pool: &Pool, x: &[f32], scale: &[f32], bias: &[f32], epsilon: f32, out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "as many numbers out as in");
    out.copy_from_slice(x);
    layer_norm_in_place(pool, out, None, scale, bias, epsilon);
}

/// `x = layer_norm(x + y)`: how an encoder that normalises after the sum ends each half of a layer.
pub fn add_layer_norm(pool: &Pool, x: &mut [f32], y: &[f32], scale: &[f32], bias: &[f32], epsilon: f32) {
    assert_eq!(x.len(), y.len(), "tensors of one shape");
    layer_norm_in_place(pool, x, Some(y), scale, bias, epsilon);
}

/// `x += y`.
pub fn add(pool: &Pool, x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len(), "tensors of one shape");
    const CHUNK: usize = 4096;
    let (len, parts) = (x.len(), Parts::new(x));
    each_rows(pool, len.div_ceil(CHUNK), CHUNK, &|range| {
        let range = range.start * CHUNK..len.min(range.end * CHUNK);
        // SAFETY: each task has its own chunks.
        let x = unsafe { parts.take(range.clone()) };
        add_rows(pool.isa(), x, &y[range]);
    });
}

fn layer_norm_in_place(
    pool: &Pool,
    x: &mut [f32],
    y: Option<&[f32]>,
    scale: &[f32],
    bias: &[f32],
    epsilon: f32,
) {
    assert_eq!(scale.len(), bias.len(), "a bias as wide as the scale");
    let (rows, width, parts) = (rows(x, scale), scale.len(), Parts::new(x));
    each_rows(pool, rows, width, &|range| {
        let range = range.start * width..range.end * width;
        // SAFETY: each task has its own rows.
        let x = unsafe { parts.take(range.clone()) };
        if let Some(y) = y {
            add_rows(pool.isa(), x, &y[range]);
        }
        dispatch(pool.isa(), Layer { x, scale, bias, epsilon });
    });
}

fn rows(x: &[f32], scale: &[f32]) -> usize {
    assert!(!scale.is_empty() && x.len().is_multiple_of(scale.len()), "whole rows");
    x.len() / scale.len()
}

fn add_rows(isa: Isa, x: &mut [f32], y: &[f32]) {
    dispatch(isa, Add { x, y });
}

struct Add<'a> {
    x: &'a mut [f32],
    y: &'a [f32],
}

impl Kernel for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut x = self.x.chunks_exact_mut(S::LANES);
        let mut y = self.y.chunks_exact(S::LANES);
        for (x, y) in (&mut x).zip(&mut y) {
            s.write(x, s.add(s.read(x), s.read(y)));
        }
        for (x, y) in x.into_remainder().iter_mut().zip(y.remainder()) {
            *x += y;
        }
    }
}

struct Rms<'a> {
    x: &'a [f32],
    scale: &'a [f32],
    epsilon: f32,
    out: &'a mut [f32],
}

impl Kernel for Rms<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.scale.len();
        for (x, out) in self.x.chunks_exact(width).zip(self.out.chunks_exact_mut(width)) {
            let factor = 1.0 / (sum_of_squares(s, x) / width as f32 + self.epsilon).sqrt();
            scaled(s, x, factor, self.scale, out);
        }
    }
}

struct RmsInPlace<'a> {
    x: &'a mut [f32],
    scale: &'a [f32],
    epsilon: f32,
}

impl Kernel for RmsInPlace<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.scale.len();
        for x in self.x.chunks_exact_mut(width) {
            let factor = 1.0 / (sum_of_squares(s, x) / width as f32 + self.epsilon).sqrt();
            scaled_in_place(s, x, factor, self.scale, None);
        }
    }
}

struct Layer<'a> {
    x: &'a mut [f32],
    scale: &'a [f32],
    bias: &'a [f32],
    epsilon: f32,
}

impl Kernel for Layer<'_> {
    type Output = ();

    /// The mean is taken off before the squares are summed: the difference of two large sums would lose digits.
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.scale.len();
        for x in self.x.chunks_exact_mut(width) {
            let mean = sum(s, x) / width as f32;
            shift(s, x, -mean);
            let factor = 1.0 / (sum_of_squares(s, x) / width as f32 + self.epsilon).sqrt();
            scaled_in_place(s, x, factor, self.scale, Some(self.bias));
        }
    }
}

/// Four sums side by side, so that one addition need not wait for the last.
#[inline(always)]
fn sum_of_squares<S: Simd>(s: S, x: &[f32]) -> f32 {
    let mut sums = [s.splat(0.0); 4];
    let mut wide = x.chunks_exact(4 * S::LANES);
    for x in &mut wide {
        for (sum, x) in sums.iter_mut().zip(x.chunks_exact(S::LANES)) {
            let x = s.read(x);
            *sum = s.fma(x, x, *sum);
        }
    }
    for x in wide.remainder().chunks(S::LANES) {
        let x = if x.len() == S::LANES { s.read(x) } else { s.read_short(x) };
        sums[0] = s.fma(x, x, sums[0]);
    }
    s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])))
}

#[inline(always)]
fn sum<S: Simd>(s: S, x: &[f32]) -> f32 {
    let mut sum = s.splat(0.0);
    let mut chunks = x.chunks_exact(S::LANES);
    for x in &mut chunks {
        sum = s.add(sum, s.read(x));
    }
    s.sum(s.add(sum, s.read_short(chunks.remainder())))
}

#[inline(always)]
fn shift<S: Simd>(s: S, x: &mut [f32], by: f32) {
    let mut chunks = x.chunks_exact_mut(S::LANES);
    for x in &mut chunks {
        s.write(x, s.add(s.read(x), s.splat(by)));
    }
    for x in chunks.into_remainder() {
        *x += by;
    }
}

#[inline(always)]
fn scaled<S: Simd>(s: S, x: &[f32], factor: f32, scale: &[f32], out: &mut [f32]) {
    let whole = x.len() - x.len() % S::LANES;
    for at in (0..whole).step_by(S::LANES) {
        let v = s.mul(s.read(&x[at..]), s.splat(factor));
        s.write(&mut out[at..], s.mul(v, s.read(&scale[at..])));
    }
    for at in whole..x.len() {
        out[at] = x[at] * factor * scale[at];
    }
}

#[inline(always)]
fn scaled_in_place<S: Simd>(s: S, x: &mut [f32], factor: f32, scale: &[f32], bias: Option<&[f32]>) {
    let whole = x.len() - x.len() % S::LANES;
    for at in (0..whole).step_by(S::LANES) {
        let v = s.mul(s.read(&x[at..]), s.splat(factor));
        let bias = bias.map_or(s.splat(0.0), |bias| s.read(&bias[at..]));
        s.write(&mut x[at..], s.fma(v, s.read(&scale[at..]), bias));
    }
    for at in whole..x.len() {
        x[at] = x[at] * factor * scale[at] + bias.map_or(0.0, |bias| bias[at]);
    }
}

#[cfg(test)]
mod tests;
