//! Starting and ending the actors' thread together with its watch.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Registry;
use super::host::Host;
use super::watchdog::{Watch, Watchdog};
use crate::guardian::{ActorRef, BackoffPolicy, Worker};
use crate::telemetry::Telemetry;

/// The actors' thread, its watch and the list of actors. Usable from any thread and runtime; when
/// it is dropped the actors end.
pub struct ActorThreads {
    registry: Registry,
    host: Arc<Mutex<Host>>,
    backoff: BackoffPolicy,
    telemetry: Arc<dyn Telemetry>,
    /// Dropping it ends the watch.
    watch: Mutex<Option<oneshot::Sender<()>>>,
}

impl ActorThreads {
    /// Starts the thread `actors` and the thread `actors-watch`, without any actor yet.
    ///
    /// # Errors
    /// When a thread or its event loop cannot be made.
    pub fn start(watch: Watch, backoff: BackoffPolicy, telemetry: Arc<dyn Telemetry>) -> io::Result<Self> {
        let registry = Registry::default();
        let host = Arc::new(Mutex::new(Host::start()?));
        let watchdog = Watchdog::new(registry.clone(), Arc::clone(&host), watch);
        let stop = start_watch(watchdog)?;
        Ok(Self { registry, host, backoff, telemetry, watch: Mutex::new(Some(stop)) })
    }

    /// Actors on the thread of the test, without a watch.
    #[cfg(test)]
    pub(crate) fn on_this_thread(telemetry: Arc<dyn Telemetry>) -> Self {
        Self {
            registry: Registry::default(),
            host: Arc::new(Mutex::new(Host::this_thread())),
            backoff: BackoffPolicy::default(),
            telemetry,
            watch: Mutex::new(None),
        }
    }

    /// Starts a guarded actor. `factory` is called on the actors' thread, once now and once after
    /// each panic; it should be quick.
    pub fn spawn<W: Worker>(
        &self,
        name: impl Into<Arc<str>>,
        factory: impl Fn() -> W + Send + Sync + 'static,
    ) -> ActorRef<W> {
        let arbiter = self.host.lock().arbiter().clone();
        self.registry.spawn(&arbiter, name, self.backoff, Arc::clone(&self.telemetry), factory)
    }

    /// The list of all actors.
    #[must_use]
    pub fn registry(&self) -> Registry {
        self.registry.clone()
    }

    /// Ends the watch and the actors' thread and waits for it, blocking, at most `patience`; whether
    /// it ended. Messages still queued are dropped, so whatever must be saved is asked for before.
    pub fn stop(&self, patience: Duration) -> bool {
        *self.watch.lock() = None;
        let host = self.host.lock();
        host.stop();
        host.ended(patience)
    }

    /// Ends the actors' thread behind the watch's back, as its loss would.
    #[cfg(test)]
    pub(crate) fn lose_host(&self) -> bool {
        let host = self.host.lock();
        host.stop();
        host.ended(Duration::from_secs(10))
    }
}

impl Drop for ActorThreads {
    fn drop(&mut self) {
        *self.watch.get_mut() = None;
        self.host.lock().stop();
    }
}

/// Runs the watch on a thread of its own: what it watches must not be able to block it.
fn start_watch(watchdog: Watchdog) -> io::Result<oneshot::Sender<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let (stop, stopped) = oneshot::channel();
    thread::Builder::new()
        .name("actors-watch".to_owned())
        .spawn(move || runtime.block_on(watchdog.run(stopped)))?;
    Ok(stop)
}
