//! The HTTP server: sockets, limits, and its manner of stopping.

use std::any::Any;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use actix_web::dev::{Extensions, Server, ServerHandle};
use actix_web::http::KeepAlive;
#[cfg(target_os = "linux")]
use actix_web::rt::net::TcpStream;
use actix_web::{App as Actix, HttpServer, web};
use opossum_jobs::Door;
#[cfg(target_os = "linux")]
use socket2::SockRef;

use super::routes::{App, Hooks, configure, configure_hooks};
use crate::admission::Admission;
use crate::settings::ServerSettings;

/// Binds and prepares the server; it serves once the returned future is polled.
///
/// # Errors
/// The address cannot be bound.
pub fn bind(
    app: web::Data<App>,
    settings: &ServerSettings,
    hooks: Hooks,
) -> io::Result<(Server, SocketAddr)> {
    let workers =
        settings.workers.or_else(|| std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(2);
    let hooks = settings.test_hooks.then_some(hooks);
    let routes = move |config: &mut web::ServiceConfig| {
        if let Some(hooks) = &hooks {
            configure_hooks(config, hooks);
        }
        configure(config);
    };
    let server =
        HttpServer::new(move || Actix::new().app_data(web::Data::clone(&app)).configure(routes.clone()))
            .workers(workers)
            .tcp_nodelay(true)
            // A caller who closed its side has left: without this, handlers and streams go on for nobody.
            .h1_allow_half_closed(false)
            .client_request_timeout(settings.head_timeout)
            .client_disconnect_timeout(Duration::from_secs(1))
            .keep_alive(KeepAlive::Timeout(settings.keep_alive))
            .shutdown_timeout(settings.drain_timeout.as_secs().max(1))
            .backlog(4096)
            .on_connect(bound_silence(settings.write_idle))
            .disable_signals()
            .bind((settings.host, settings.port))?;
    let address =
        server.addrs().first().copied().unwrap_or_else(|| SocketAddr::new(settings.host, settings.port));
    Ok((server.run(), address))
}

/// Makes the kernel break a connection whose caller has taken nothing for so long.
///
/// While a caller does not read, the server does not poll the answer's body (that is its back-pressure), so
/// nothing up here can notice. The kernel can: it counts the time in which sent data stays unacknowledged and
/// in which the caller's window stays shut, and then fails the socket, which drops the body, its permit and
/// the upstream's work.
fn bound_silence(limit: Duration) -> impl Fn(&dyn Any, &mut Extensions) + Send + Sync + Clone + 'static {
    move |connection, _| {
        #[cfg(target_os = "linux")]
        if let Some(stream) = connection.downcast_ref::<TcpStream>()
            && let Err(error) = SockRef::from(stream).set_tcp_user_timeout(Some(limit))
        {
            tracing::warn!(%error, "a caller that reads nothing will be waited for");
        }
        #[cfg(not(target_os = "linux"))]
        let _ = (connection, limit);
    }
}

/// Why the service stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    /// An orchestrator: load balancers must notice first.
    Terminate,
    /// A person at the keyboard, who does not want to wait.
    Interrupt,
}

/// Waits for a signal, then stops the server so that no request under way is cut: not ready at once, accepting
/// until `drain_delay` is over, then only finishing.
///
/// The door of the job queue need not wait until others have noticed: the broker gives what this process does
/// not take to another.
pub async fn drain_on_signal(
    handle: ServerHandle,
    admission: Admission,
    door: Option<Door>,
    settings: ServerSettings,
) {
    let Some(signal) = signalled().await else { return };
    tracing::info!(?signal, in_flight = admission.counts().running(), "draining");
    admission.drain();
    let delay = if signal == Signal::Terminate { settings.drain_delay } else { Duration::ZERO };
    let http = async {
        tokio::time::sleep(delay).await;
        handle.stop(true).await;
    };
    let jobs = async {
        if let Some(door) = door {
            door.leave(delay + settings.drain_timeout).await;
        }
    };
    tokio::join!(http, jobs);
}

/// Answers hang-ups, so that one does not end the process as it does by default.
pub async fn heed_hang_ups() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut hang_ups) = signal(SignalKind::hangup()) else { return };
    while hang_ups.recv().await.is_some() {
        tracing::warn!("SIGHUP: this version reads its configuration at start only; restart to change it");
    }
}

async fn signalled() -> Option<Signal> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) =
        match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
            (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
            (Err(error), _) | (_, Err(error)) => {
                tracing::error!(%error, "signals cannot be received; the service will not drain");
                return None;
            }
        };
    tokio::select! {
        got = terminate.recv() => got.map(|()| Signal::Terminate),
        got = interrupt.recv() => got.map(|()| Signal::Interrupt),
    }
}
