//! The HTTP client that every remote backend shares.
//!
//! It follows no redirect, asks for no compression, caps what it reads, and keeps no deadline but the one for
//! connecting: whoever sends owns the others, and dropping a future or a body aborts the exchange at once.
//!
//! # Failure
//! No answer at all is [`FailureClass::Transport`]; an answer that is not HTTP, too large or compressed is
//! [`FailureClass::BadResponse`]; one that breaks off is [`FailureClass::Truncated`]. What a status other than
//! 2xx means is decided by [`classify::classify_status`].

pub mod classify;
mod connect;
mod endpoint;
mod events;
mod response;
mod retry_after;

use std::cell::RefCell;
use std::error::Error as StdError;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use opossum_core::class::FailureClass;

use self::connect::Deadlined;
pub use self::endpoint::{BadBaseUrl, Endpoint};
pub use self::events::{Decode, EventBody};
pub use self::response::Response;
pub use self::retry_after::retry_after;
use crate::BackendError;

/// The largest head of an answer, in bytes.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// How the client connects and how much it reads.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Limit for name resolution, TCP and TLS together.
    pub connect_timeout: Duration,
    /// How long an unused connection is kept.
    pub pool_idle_timeout: Duration,
    /// Most unused connections kept for one upstream, per thread.
    pub pool_max_idle: usize,
    /// Silence on a TCP connection before the kernel asks whether the peer is still there.
    pub tcp_keepalive: Duration,
    /// Largest whole answer, in bytes.
    pub max_answer_bytes: usize,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            pool_idle_timeout: Duration::from_secs(30),
            pool_max_idle: 64,
            tcp_keepalive: Duration::from_secs(30),
            max_answer_bytes: 16 * 1024 * 1024,
        }
    }
}

type Connector = Deadlined<HttpsConnector<HttpConnector>>;
type Pool = Client<Connector, Full<Bytes>>;

/// A cheap handle to one configured client; clones share it.
///
/// Connections are pooled **per thread**: the service runs several single-threaded event loops, and a pool
/// shared between them would hand a request's connection to another loop's reactor, which costs a wake-up
/// across threads (and often across cores) for every read. The price is that each loop opens its own
/// connections, bounded by [`HttpConfig::pool_max_idle`].
#[derive(Clone)]
pub struct HttpClient(Arc<Shared>);

struct Shared {
    config: HttpConfig,
    connector: Connector,
}

thread_local! {
    /// The pools of this thread, by the client they belong to. A `Weak` keeps the allocation, hence its
    /// address, from being reused, so that comparing addresses is enough.
    static POOLS: RefCell<Vec<(Weak<Shared>, Pool)>> = const { RefCell::new(Vec::new()) };
}

impl HttpClient {
    /// A client; nothing is connected before the first request.
    ///
    /// # Errors
    /// Only when the TLS library offers no usable protocol version.
    pub fn new(config: HttpConfig) -> Result<Self, rustls::Error> {
        let connector = connect::connector(&config)?;
        Ok(Self(Arc::new(Shared { config, connector })))
    }

    /// Sends a request and resolves with the head of its answer, whatever its status.
    ///
    /// A connection from the pool that turns out to be closed before the request was written is replaced by
    /// a fresh one.
    ///
    /// # Errors
    /// `Transport` when no answer came, `BadResponse` when what came is not an HTTP head of at most 64 KiB.
    pub fn send(
        &self,
        request: Request<Bytes>,
    ) -> impl Future<Output = Result<Response, BackendError>> + Send + 'static + use<> {
        let answer = self.with_pool(|pool| pool.request(request.map(Full::new)));
        let cap = self.0.config.max_answer_bytes;
        async move {
            let Some(answer) = answer else {
                return Err(BackendError::new(FailureClass::Local, "the calling thread is ending"));
            };
            match answer.await {
                Ok(answer) => Ok(Response::new(answer, cap)),
                Err(error) => Err(exchange_error(&error)),
            }
        }
    }

    /// Lends this thread's pool, made on first use; `None` when the thread's storage is already gone.
    fn with_pool<T>(&self, lend: impl FnOnce(&Pool) -> T) -> Option<T> {
        let mut lend = Some(lend);
        let lent = POOLS.try_with(|pools| {
            let lend = lend.take()?;
            let mut pools = pools.borrow_mut();
            let mine = Arc::as_ptr(&self.0);
            if let Some((_, pool)) = pools.iter().find(|(owner, _)| owner.as_ptr() == mine) {
                return Some(lend(pool));
            }
            // A configuration that was replaced takes its connections with it.
            pools.retain(|(owner, _)| owner.strong_count() > 0);
            let pool = self.new_pool();
            let result = lend(&pool);
            pools.push((Arc::downgrade(&self.0), pool));
            Some(result)
        });
        lent.ok().flatten()
    }

    fn new_pool(&self) -> Pool {
        let config = &self.0.config;
        Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(config.pool_idle_timeout)
            .pool_max_idle_per_host(config.pool_max_idle)
            .http1_max_buf_size(MAX_HEAD_BYTES)
            .http2_max_header_list_size(MAX_HEAD_BYTES as u32)
            .http2_adaptive_window(true)
            // Finds out within seconds that a multiplexed connection is dead, before more requests join it.
            .http2_keep_alive_interval(Duration::from_secs(15))
            .http2_keep_alive_timeout(Duration::from_secs(5))
            .build(self.0.connector.clone())
    }
}

/// The class of an exchange that gave no head.
fn exchange_error(error: &(dyn StdError + 'static)) -> BackendError {
    let mut class = FailureClass::Transport;
    let mut detail = String::new();
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) {
            class = FailureClass::BadResponse;
        }
        if !detail.is_empty() {
            detail.push_str(": ");
        }
        detail.push_str(&error.to_string());
        cause = error.source();
    }
    BackendError::new(class, detail)
}
