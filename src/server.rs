//! Running the service: from settings to the last answer.

use std::io;
use std::time::Duration;

use actix_web::web;
use tokio::sync::oneshot;

use crate::http::body::BodyLimits;
use crate::http::routes::{App, AppOptions, Hooks};
use crate::http::server;
use crate::settings::Settings;
use crate::wiring::{self, WiringError};

/// How long the end may take to write what the last requests have used: longer than a call to the database may,
/// so that what cannot be written is counted and said.
const LAST_ROWS: Duration = Duration::from_secs(6);

/// Why the service did not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A setting that only shows its fault when used.
    #[error(transparent)]
    Wiring(#[from] WiringError),
    /// The address cannot be bound.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address asked for.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The server failed while running.
    #[error("the server failed: {0}")]
    Server(#[from] io::Error),
}

/// Runs the service until a signal has ended it and the last answer is out.
///
/// # Errors
/// See [`ServeError`].
pub fn run(settings: Settings) -> Result<(), ServeError> {
    actix_web::rt::System::new().block_on(serve(settings))
}

async fn serve(settings: Settings) -> Result<(), ServeError> {
    let wired = wiring::wire(&settings).await?;
    let options = AppOptions {
        body: BodyLimits { bytes: settings.server.body_limit_images, time: settings.server.body_timeout },
        body_without_images: settings.server.body_limit,
        file_limit: u64::try_from(settings.server.file_limit).unwrap_or(u64::MAX),
        request_timeout: settings.server.request_timeout,
        version: crate::VERSION,
    };
    let admission = wired.service.admission().clone();
    let app = web::Data::new(App::new(
        wired.service,
        wired.door.clone(),
        wired.batches.clone(),
        wired.ledger.clone(),
        wired.metrics,
        options,
    ));
    let hooks = Hooks { registry: wired.actors.registry(), engine: wired.engine_fault };
    let asked = format!("{}:{}", settings.server.host, settings.server.port);
    let (running, address) = server::bind(app, &settings.server, hooks)
        .map_err(|source| ServeError::Bind { address: asked, source })?;
    tracing::info!(%address, version = crate::VERSION, "listening");
    crate::tasks::background("memory", crate::memory::give_back(admission.clone()));
    let drain = server::drain_on_signal(running.handle(), admission, wired.door, settings.server.clone());
    let (drained, all_out) = oneshot::channel();
    crate::tasks::background("drain", async move {
        drain.await;
        drained.send(()).ok();
    });
    crate::tasks::background("hang-ups", server::heed_hang_ups());
    running.await?;
    // The server ends with its last answer; jobs may be under way for longer.
    all_out.await.ok();
    if let Some(batches) = wired.batches {
        batches.leave().await;
    }
    wired.ledger.close(LAST_ROWS).await;
    wired.actors.shutdown();
    tracing::info!("stopped");
    Ok(())
}
