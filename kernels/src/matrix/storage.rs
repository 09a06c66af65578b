//! Memory for packed weights.

/// One cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// From this size on, weights ask for huge pages: fewer misses of the address cache when a matrix streams through.
const HUGE_PAGE: usize = 2 << 20;

/// Bytes that start on a cache line.
pub(super) struct Storage {
    lines: Vec<Line>,
    bytes: usize,
}

impl Storage {
    /// This many zero bytes, or `None` when there is no memory for them.
    pub(super) fn zeroed(bytes: usize) -> Option<Self> {
        let count = bytes.div_ceil(64);
        let mut lines = Vec::new();
        lines.try_reserve_exact(count).ok()?;
        advise_huge_pages(lines.as_mut_ptr(), count);
        lines.resize(count, Line([0; 64]));
        Some(Self { lines, bytes })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: the lines are plain bytes without padding, and `bytes` is at most their total size.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.bytes) }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; the borrow of `self` is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.bytes) }
    }
}

/// Asks the system for huge pages under the lines. It may refuse; nothing depends on it but speed.
#[cfg(target_os = "linux")]
fn advise_huge_pages(lines: *mut Line, count: usize) {
    let start = (lines as usize).next_multiple_of(HUGE_PAGE);
    let end = (lines as usize + 64 * count) / HUGE_PAGE * HUGE_PAGE;
    if start < end {
        // SAFETY: the range lies inside one live allocation and the advice leaves its contents alone.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
fn advise_huge_pages(_lines: *mut Line, _count: usize) {}
