//! Dividing one buffer among tasks.

use std::marker::PhantomData;
use std::ops::Range;

use crate::Pool;

/// Elements below which a second thread costs more than it saves.
const WORTH_SHARING: usize = 32 * 1024;

/// A mutable slice of which each task takes its own part.
pub(crate) struct Parts<'a, T> {
    start: *mut T,
    len: usize,
    whole: PhantomData<&'a mut [T]>,
}

// SAFETY: it gives out `&mut T` alone, and the caller of `take` keeps those apart.
unsafe impl<T: Send> Sync for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    pub(crate) fn new(whole: &'a mut [T]) -> Self {
        Self { start: whole.as_mut_ptr(), len: whole.len(), whole: PhantomData }
    }

    /// # Safety
    /// No two parts that are alive at the same time overlap.
    ///
    /// # Panics
    /// If the range is outside the slice.
    #[expect(clippy::mut_from_ref, reason = "the caller keeps the parts apart")]
    pub(crate) unsafe fn take(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "a part outside its buffer");
        // SAFETY: within the slice that `self` borrows mutably; the caller keeps the parts apart.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

/// Divides rows of `width` elements among the threads: evenly, and not at all where there is little to do.
/// `task` gets the numbers of its rows.
pub(crate) fn each_rows(pool: &Pool, rows: usize, width: usize, task: &(dyn Fn(Range<usize>) + Sync)) {
    if rows == 0 {
        return;
    }
    let threads = if rows * width < WORTH_SHARING { 1 } else { pool.threads() };
    // Several tasks a thread, so that one that is held up leaves its work to the others.
    let tasks = if threads == 1 { 1 } else { rows.min(threads * 4) };
    pool.run(tasks, &|index| task(rows * index / tasks..rows * (index + 1) / tasks));
}
