//! Rotary positions (Su et al. 2021, arXiv:2104.09864), in the order that rotates dimension `i` with `i + half`.

use std::ops::Range;

use crate::Pool;
use crate::simd::{Kernel, Simd, dispatch};
use crate::split::{Parts, each_rows};

/// Cosine and sine of the angles of a batch: computed once, used by every layer.
#[derive(Debug, Clone)]
pub struct Angles {
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Angles {
    /// `frequencies`: radians a position, one for each pair of dimensions. `positions`: one for each row of the batch.
    ///
    /// The products are double: at position 100,000 a single one would be off by a hundredth of a radian.
    #[must_use]
    pub fn new(frequencies: &[f64], positions: impl IntoIterator<Item = usize>) -> Self {
        let (cos, sin) = positions
            .into_iter()
            .flat_map(|position| frequencies.iter().map(move |frequency| position as f64 * frequency))
            .map(|angle| (angle.cos() as f32, angle.sin() as f32))
            .unzip();
        Self { half: frequencies.len(), cos, sin }
    }

    /// Rotates `x`, `[rows, heads, dim]`, by the angles of these rows.
    #[inline(always)]
    pub(crate) fn rotate<S: Simd>(&self, s: S, rows: Range<usize>, heads: usize, dim: usize, x: &mut [f32]) {
        let half = self.half;
        if half > 0 {
            let table = rows.start * half..rows.end * half;
            let (cos, sin) = (&self.cos[table.clone()], &self.sin[table]);
            Rotate { x, cos, sin, half, heads, dim }.run(s);
        }
    }
}

/// Rotates the first dimensions of each head of `x`, `[tokens, heads, dim]`; those beyond the angles stay.
///
/// # Panics
/// If `x` is not of that shape for as many tokens as the angles, or a head has fewer dimensions than they rotate.
pub fn rope(pool: &Pool, angles: &Angles, heads: usize, dim: usize, x: &mut [f32]) {
    let half = angles.half;
    let tokens = angles.cos.len().checked_div(half).unwrap_or(0);
    assert!(2 * half <= dim, "no more rotated dimensions than a head has");
    assert!(half == 0 || x.len() == tokens * heads * dim, "x of the shape tokens, heads, dim");
    let (width, parts) = (heads * dim, Parts::new(x));
    each_rows(pool, tokens, width, &|range| {
        // SAFETY: each task has its own rows.
        let x = unsafe { parts.take(range.start * width..range.end * width) };
        let table = range.start * half..range.end * half;
        let (cos, sin) = (&angles.cos[table.clone()], &angles.sin[table]);
        dispatch(pool.isa(), Rotate { x, cos, sin, half, heads, dim });
    });
}

struct Rotate<'a> {
    x: &'a mut [f32],
    cos: &'a [f32],
    sin: &'a [f32],
    half: usize,
    heads: usize,
    dim: usize,
}

impl Kernel for Rotate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { x, cos, sin, half, heads, dim } = self;
        let tables = cos.chunks_exact(half).zip(sin.chunks_exact(half));
        for (row, (cos, sin)) in x.chunks_exact_mut(heads * dim).zip(tables) {
            for head in row.chunks_exact_mut(dim) {
                let (low, high) = head[..2 * half].split_at_mut(half);
                rotate(s, low, high, cos, sin);
            }
        }
    }
}

#[inline(always)]
fn rotate<S: Simd>(s: S, low: &mut [f32], high: &mut [f32], cos: &[f32], sin: &[f32]) {
    let whole = low.len() - low.len() % S::LANES;
    for at in (0..whole).step_by(S::LANES) {
        let (a, b) = (s.read(&low[at..]), s.read(&high[at..]));
        let (cos, sin) = (s.read(&cos[at..]), s.read(&sin[at..]));
        s.write(&mut low[at..], s.sub(s.mul(a, cos), s.mul(b, sin)));
        s.write(&mut high[at..], s.fma(a, sin, s.mul(b, cos)));
    }
    for at in whole..low.len() {
        let (a, b) = (low[at], high[at]);
        low[at] = a * cos[at] - b * sin[at];
        high[at] = a * sin[at] + b * cos[at];
    }
}

#[cfg(test)]
mod tests;
