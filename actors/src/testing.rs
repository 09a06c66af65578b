//! What the tests of this crate share.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::cell::Cell;
use std::future::Future;
use std::sync::{Arc, Once};
use std::time::Duration;

use actix::System;

use crate::guardian::quiet_hook;
use crate::registry::ActorThreads;
use crate::telemetry::NoTelemetry;

/// Runs a test and its actors on one thread with paused time: a sleep costs nothing, and what happens
/// between two awaits is the same in every run.
pub(crate) fn on_paused_time<F: Future<Output = ()>>(test: F) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    System::with_tokio_rt(|| runtime).block_on(test);
}

/// Actors on the test's own thread.
pub(crate) fn threads() -> ActorThreads {
    ActorThreads::on_this_thread(Arc::new(NoTelemetry))
}

/// Lets paused time pass.
pub(crate) async fn pass(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

thread_local!(static HEARD: Cell<usize> = const { Cell::new(0) });

/// Installs the quiet hook, once for all tests of the process. What it is not quiet about goes on to the hook
/// that was there, and is counted by thread.
pub(crate) fn quiet_panics() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let process_hook = std::panic::take_hook();
        std::panic::set_hook(quiet_hook(Box::new(move |info| {
            HEARD.set(HEARD.get() + 1);
            process_hook(info);
        })));
    });
}

/// Panics of this thread that the quiet hook was not quiet about.
pub(crate) fn heard_panics() -> usize {
    HEARD.get()
}
