//! Tasks with names.
//!
//! No task is started without one: the log tells which one ended how, and whoever starts it says whether
//! shutdown waits for it.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures::FutureExt;

/// Starts a task that shutdown does not wait for. A panic in it is logged, not lost.
pub(crate) fn background(name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(async move {
        match AssertUnwindSafe(work).catch_unwind().await {
            Ok(()) => tracing::debug!(task = name, "a background task ended"),
            Err(_) => tracing::error!(task = name, "a background task panicked"),
        }
    });
}
