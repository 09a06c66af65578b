//! From settings to a running service: which parts there are and how they hold together.

mod arms;
mod backends;
mod embedded;
mod jobs;
mod ledger;
mod report;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use opossum_actors::{ActorSystem, Actors, ActorsConfig, DependencyPlan, MonitorHandle};
use opossum_backends::transformers::EngineObserver;
use opossum_core::cache::CacheConfig;
use opossum_core::router::RouterConfig;
use opossum_jobs::Door;
use opossum_ledger::Ledger;
use tokio::sync::Notify;

use crate::admission::{Admission, AdmissionConfig};
use crate::batches::Batches;
use crate::service::{Parts, Service, SlowLimits, Timeouts};
use crate::settings::Settings;
use crate::telemetry::Metrics;

use arms::Blueprint;
use backends::BackendSpec;
pub use backends::WiringError;
pub use embedded::{engine_config, keep_kernels};

/// The longest start-up waits for the first look at the backends.
const FIRST_LOOK: Duration = Duration::from_secs(1);

/// A running service without a door.
pub struct Wired {
    /// The path.
    pub service: Service,
    /// The door of the job queue, where there is one.
    pub door: Option<Door>,
    /// The work on batches, where there is such a door.
    pub batches: Option<Batches>,
    /// Metrics of the process.
    pub metrics: Arc<Metrics>,
    /// The ledger, to be closed once the last answer is out.
    pub ledger: Ledger,
    /// The owners of all state.
    pub actors: Actors,
    /// Makes the next step of the embedded engine panic, where the test hooks are switched on.
    pub engine_fault: Arc<AtomicBool>,
}

/// Puts a service together and starts its actors. Must run inside a tokio runtime.
///
/// # Errors
/// A setting that cannot be used, with its key.
pub async fn wire(settings: &Settings) -> Result<Wired, WiringError> {
    let metrics = Arc::new(Metrics::new(crate::VERSION)?);
    let engine_changed = Arc::new(Notify::new());
    let doorway = jobs::Doorway::default();
    keep_kernels(settings);
    let ledger = ledger::start(settings, &metrics)?;
    let engine_fault = Arc::new(AtomicBool::new(false));
    let observer = Arc::clone(&metrics.engine) as Arc<dyn EngineObserver>;
    let inference = embedded::plan(settings, observer, &engine_fault);
    let encoder = embedded::encoder_plan(settings);
    let specs = backends::build(settings, inference.as_ref(), encoder.as_ref())?;
    let actors = ActorSystem::start(ActorsConfig {
        backends: specs.iter().map(BackendSpec::for_actors).collect(),
        router: RouterConfig::default(),
        cache: CacheConfig {
            ttl: settings.cache.ttl,
            max_bytes: settings.cache.max_bytes,
            ..CacheConfig::default()
        },
        probe_interval: settings.monitor.interval,
        probe_timeout: settings.monitor.timeout,
        dependencies: dependencies(settings, &doorway, &ledger),
        inference,
        encoder,
        telemetry: Arc::new(report::Bridge::new(Arc::clone(&metrics), Arc::clone(&engine_changed))),
    })?;
    follow("engine", engine_changed, actors.monitor.clone());
    follow("broker", metrics.jobs.changed(), actors.monitor.clone());
    let _ = tokio::time::timeout(FIRST_LOOK, actors.monitor.refresh()).await;
    let news = actors.monitor.models_changed();
    let blueprint = Blueprint::new(settings, specs, &actors, Arc::clone(&metrics));
    let catalogue = Arc::new(ArcSwap::from_pointee(blueprint.draw(&actors.monitor.snapshot())));
    actors.router.set_arms(blueprint.arm_specs(&catalogue.load()));
    arms::follow_discovery(blueprint, Arc::clone(&catalogue), news, &actors);
    let server = &settings.server;
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let admission = Admission::new(AdmissionConfig {
        max_in_flight: count(server.max_in_flight),
        queue: count(server.queue_limit()),
        max_wait: server.queue_wait,
        ..AdmissionConfig::default()
    });
    let service = Service::new(Parts {
        catalogue,
        admission,
        cache: settings.cache.enabled.then(|| actors.cache.clone()),
        router: actors.router.clone(),
        monitor: actors.monitor.clone(),
        inference: actors.inference().cloned(),
        ledger: ledger.clone(),
        metrics: Arc::clone(&metrics),
        timeouts: timeouts(settings),
    });
    let door = jobs::open(settings, &service, &metrics, &ledger, &doorway)?;
    let start = |door: &Door| Batches::start(ledger.clone(), door.clone());
    let batches = door.as_ref().map(start).transpose().map_err(WiringError::Door)?;
    Ok(Wired { service, door, batches, metrics, ledger, actors, engine_fault })
}

/// Looks at everything anew when a part says that it became ready or failed: health need not wait for the next
/// round to say so.
fn follow(name: &'static str, changed: Arc<Notify>, monitor: MonitorHandle) {
    crate::tasks::background(name, async move {
        loop {
            changed.notified().await;
            monitor.refresh().await;
        }
    });
}

/// What `/health` names besides the backends. Redis cannot be configured yet.
fn dependencies(settings: &Settings, doorway: &jobs::Doorway, ledger: &Ledger) -> Vec<DependencyPlan> {
    let redis = DependencyPlan { name: "redis".to_owned(), probe: None };
    // Sooner than the monitor gives up, which knows less about why.
    let patience = settings.monitor.timeout * 3 / 4;
    vec![redis, jobs::plan(settings, doorway), ledger::plan(ledger, patience)]
}

fn timeouts(settings: &Settings) -> Timeouts {
    let upstream = &settings.upstream;
    let slow = SlowLimits {
        first_token: upstream.slow_first_token,
        tokens_per_second: upstream.slow_tokens_per_second,
        whole: upstream.slow_whole,
    };
    Timeouts { token_idle: upstream.token_idle, total: upstream.total, slow }
}
