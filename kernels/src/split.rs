//! Dividing one buffer among tasks.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::Pool;
use crate::pool::wait_until;

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

/// A count on a cache line of its own.
#[derive(Default)]
#[repr(align(64))]
struct Count(AtomicUsize);

/// Counts a task that is over, however it ended.
struct Counted<'a>(&'a Count);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Release);
    }
}

/// Calls `prepare` with each number below `preparations`; when all are done, divides `count` items that lie one behind
/// the other in memory. Each thread works through a stretch of its own, `grain` items at a time, and then helps with what
/// is left of the others'. What reads memory ahead, in the processor or in a kernel, finds what it fetched; it would not
/// where neighbouring items went to different threads.
pub(crate) fn each_stretch(
    pool: &Pool,
    preparations: usize,
    prepare: &(dyn Fn(usize) + Sync),
    count: usize,
    grain: usize,
    task: &(dyn Fn(Range<usize>) + Sync),
) {
    let threads = pool.threads().min(count.div_ceil(grain.max(1)));
    let bound = |thread: usize| count * thread / threads;
    let nexts: Vec<Count> = (0..threads).map(|thread| Count(AtomicUsize::new(bound(thread)))).collect();
    let prepared = Count::default();
    // Threads take these in order: whoever waits for a preparation, another thread is at it.
    pool.run(preparations + threads, &|index| {
        if index < preparations {
            let _counted = Counted(&prepared);
            return prepare(index);
        }
        wait_until(|| prepared.0.load(Ordering::Acquire) == preparations);
        let own = index - preparations;
        for thread in (own..threads).chain(0..own) {
            loop {
                let start = nexts[thread].0.fetch_add(grain, Ordering::Relaxed);
                let end = bound(thread + 1);
                if start >= end {
                    break;
                }
                task(start..end.min(start + grain));
            }
        }
    });
}
