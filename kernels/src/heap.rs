//! What the allocator does with memory that the layers of a model give back and ask for again.

use std::sync::Once;

/// Blocks up to this size come from the heap: the activations of a prompt. The greatest that the C library allows.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const FROM_HEAP: libc::c_int = 32 << 20;

/// Free memory that the heap keeps.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT: libc::c_int = 128 << 20;

/// Makes the heap of this process keep what is freed. Without it each activation of a long prompt is memory fresh from the
/// system, which clears it page by page; a third of the time of a prompt of 512 tokens went there. An explicit trim gives
/// all of it back still.
pub(crate) fn keep_freed() {
    static ONCE: Once = Once::new();
    ONCE.call_once(set_limits);
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn set_limits() {
    // SAFETY: the call sets numbers of the allocator, under its lock. What it refuses stays as it was.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, FROM_HEAP);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn set_limits() {}
