//! Giving memory back after a peak.
//!
//! The allocator keeps what a burst of connections needed in case it comes again, spread over its arenas. A
//! replica that idles after a peak would hold that memory for good and count against its limit.

use std::time::Duration;

use tokio::time::Instant;

use crate::admission::Admission;

/// How often the load is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// The least time between two calls of the allocator, which takes its locks for a millisecond or so.
const PAUSE: Duration = Duration::from_secs(5);
/// A peak of fewer requests leaves nothing worth giving back.
const PEAK: u32 = 16;

/// Watches the load for as long as the service runs.
pub(crate) async fn give_back(admission: Admission) {
    let (mut peak, mut last) = (0, Instant::now());
    loop {
        tokio::time::sleep(LOOK).await;
        let running = admission.counts().running();
        peak = peak.max(running);
        if peak >= PEAK && running <= peak / 2 && last.elapsed() >= PAUSE {
            // A task that cannot be run is a process that ends.
            let _ = tokio::task::spawn_blocking(trim).await;
            (peak, last) = (running, Instant::now());
        }
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn trim() {
    // SAFETY: it takes no pointer, may be called at any time from any thread, and frees only what nobody holds.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim() {}
