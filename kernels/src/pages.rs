//! Huge pages: with small ones the processor has to look up another address every few lines of what it streams.

/// Bytes of a huge page.
pub(crate) const HUGE_PAGE: usize = 2 << 20;

/// Asks the system for huge pages for as much of a live allocation as whole ones fit into. It may refuse; nothing depends
/// on it but speed.
#[cfg(target_os = "linux")]
pub(crate) fn advise_huge(start: *mut u8, bytes: usize) {
    let before = start.align_offset(HUGE_PAGE);
    let bytes = bytes.saturating_sub(before) / HUGE_PAGE * HUGE_PAGE;
    if bytes > 0 {
        // SAFETY: the range lies inside one live allocation and the advice leaves its contents alone.
        unsafe { libc::madvise(start.add(before).cast(), bytes, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn advise_huge(_start: *mut u8, _bytes: usize) {}
