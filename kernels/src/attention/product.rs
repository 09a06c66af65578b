//! The two products of attention: scores = queries x keys and out += weights x values.

use crate::simd::{Element, Simd};

/// Rows that are computed side by side: with two vectors of columns each they fill the registers of AVX2.
pub(super) const ROWS: usize = 6;

/// Row-major matrices: the rows of `left` are `left_stride` apart, and so on.
pub(super) struct Product<'a, E> {
    pub(super) left: &'a [f32],
    pub(super) left_stride: usize,
    pub(super) right: &'a [E],
    pub(super) right_stride: usize,
    pub(super) out: &'a mut [f32],
    pub(super) out_stride: usize,
    pub(super) rows: usize,
    /// A multiple of [`crate::simd::MAX_LANES`].
    pub(super) columns: usize,
    /// Columns of `left`, rows of `right`.
    pub(super) depth: usize,
    /// Adds to what is in `out` rather than replace it.
    pub(super) accumulate: bool,
}

impl<E: Element> Product<'_, E> {
    #[inline(always)]
    pub(super) fn compute<S: Simd>(mut self, s: S) {
        self.check();
        let mut row = 0;
        while self.rows - row >= ROWS {
            self.row_band::<S, ROWS>(s, row);
            row += ROWS;
        }
        match self.rows - row {
            5 => self.row_band::<S, 5>(s, row),
            4 => self.row_band::<S, 4>(s, row),
            3 => self.row_band::<S, 3>(s, row),
            2 => self.row_band::<S, 2>(s, row),
            1 => self.row_band::<S, 1>(s, row),
            _ => {}
        }
    }

    /// That all rows lie in their slices: what [`Self::cell`] relies on.
    #[inline(always)]
    fn check(&self) {
        let ends = |rows: usize, stride: usize, width: usize| rows.saturating_sub(1) * stride + width;
        assert!(ends(self.rows, self.left_stride, self.depth) <= self.left.len(), "left within its slice");
        assert!(
            ends(self.depth, self.right_stride, self.columns) <= self.right.len(),
            "right within its slice"
        );
        assert!(ends(self.rows, self.out_stride, self.columns) <= self.out.len(), "out within its slice");
        assert!(self.columns.is_multiple_of(crate::simd::MAX_LANES), "whole vectors");
    }

    #[inline(always)]
    fn row_band<S: Simd, const R: usize>(&mut self, s: S, row: usize) {
        let mut column = 0;
        while self.columns - column >= 2 * S::LANES {
            // SAFETY: R rows and two vectors of columns are left.
            unsafe { self.cell::<S, R, 2>(s, row, column) };
            column += 2 * S::LANES;
        }
        if column < self.columns {
            // SAFETY: R rows and one vector of columns are left.
            unsafe { self.cell::<S, R, 1>(s, row, column) };
        }
    }

    /// # Safety
    /// `check` passed; `row + R` is at most `rows`, `column + V * LANES` at most `columns`.
    #[inline(always)]
    unsafe fn cell<S: Simd, const R: usize, const V: usize>(&mut self, s: S, row: usize, column: usize) {
        // SAFETY: see above; every access is of a row below `rows` or `depth` and of columns within the stride.
        unsafe {
            let left = self.left.as_ptr().add(row * self.left_stride);
            let right = self.right.as_ptr().add(column);
            let out = self.out.as_mut_ptr().add(row * self.out_stride + column);
            let mut sums = [[s.splat(0.0); V]; R];
            if self.accumulate {
                for (r, sums) in sums.iter_mut().enumerate() {
                    for (v, sum) in sums.iter_mut().enumerate() {
                        *sum = s.load(out.add(r * self.out_stride + v * S::LANES));
                    }
                }
            }
            for k in 0..self.depth {
                let mut b = [s.splat(0.0); V];
                for (v, b) in b.iter_mut().enumerate() {
                    *b = E::load(s, right.add(k * self.right_stride + v * S::LANES));
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let a = s.splat(*left.add(r * self.left_stride + k));
                    for (sum, b) in sums.iter_mut().zip(b) {
                        *sum = s.fma(a, b, *sum);
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                for (v, sum) in sums.iter().enumerate() {
                    s.store(out.add(r * self.out_stride + v * S::LANES), *sum);
                }
            }
        }
    }
}
