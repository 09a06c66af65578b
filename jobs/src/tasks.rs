//! Tasks of the door's thread, with names.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;

/// Starts a task on the current thread. A panic in it is logged, not lost.
pub(crate) fn local(name: &'static str, work: impl Future<Output = ()> + 'static) {
    tokio::task::spawn_local(async move {
        if AssertUnwindSafe(work).catch_unwind().await.is_err() {
            tracing::error!(task = name, "a task of the job door panicked");
        }
    });
}

/// Now, in milliseconds since the Unix epoch.
pub(crate) fn unix_millis() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// How long a time lies back, both in milliseconds since the Unix epoch.
pub(crate) fn since(then: i64, now: i64) -> Duration {
    Duration::from_millis(now.saturating_sub(then).max(0).unsigned_abs())
}
