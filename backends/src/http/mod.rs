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
mod direct;
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
use http::uri::{Authority, Scheme};
use http_body_util::Full;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, ResponseFuture};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use opossum_core::class::FailureClass;

use self::connect::Deadlined;
use self::direct::{Conn, Idle};
pub use self::endpoint::{BadBaseUrl, Endpoint};
pub use self::events::{Decode, EventBody};
use self::response::Body;
pub use self::response::Response;
pub use self::retry_after::retry_after;
use crate::BackendError;

/// The size of the read buffer, in bytes. A head that does not fit into it is refused; one that ends within
/// the read that overfills it still passes, so the limit for heads lies between this and twice this.
const READ_BUFFER_BYTES: usize = 64 * 1024;

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
    /// Root certificates trusted besides those of the operating system, in DER.
    pub extra_roots: Vec<Vec<u8>>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            pool_idle_timeout: Duration::from_secs(30),
            pool_max_idle: 32,
            tcp_keepalive: Duration::from_secs(30),
            max_answer_bytes: 16 * 1024 * 1024,
            extra_roots: Vec::new(),
        }
    }
}

type SecurePool = Client<Deadlined<HttpsConnector<HttpConnector>>, Full<Bytes>>;

/// A cheap handle to one configured client; clones share it.
///
/// Connections are pooled **per thread**: the service runs several single-threaded event loops, and a pool
/// shared between them would hand a request's connection to another loop's reactor, which costs a wake-up
/// across threads (and often across cores) for every read. The price is that each loop opens its own
/// connections, bounded by [`HttpConfig::pool_max_idle`].
///
/// Plain-text connections are driven by their requests (see the module `direct`); those with TLS, which may
/// be multiplexed by HTTP/2, by tasks of their own.
#[derive(Clone)]
pub struct HttpClient(Arc<Shared>);

struct Shared {
    config: HttpConfig,
    tcp: Deadlined<HttpConnector>,
    secure: Deadlined<HttpsConnector<HttpConnector>>,
}

/// What a thread keeps for one client.
struct Local {
    /// The client. A `Weak` keeps the allocation, hence its address, from being used again, so that
    /// comparing addresses is enough.
    owner: Weak<Shared>,
    idle: Idle,
    secure: Option<SecurePool>,
}

thread_local! {
    static LOCALS: RefCell<Vec<Local>> = const { RefCell::new(Vec::new()) };
}

impl HttpClient {
    /// A client; nothing is connected before the first request.
    ///
    /// # Errors
    /// When an extra root is no certificate, or the TLS library offers no usable protocol version.
    pub fn new(config: HttpConfig) -> Result<Self, rustls::Error> {
        let tcp = connect::tcp(&config);
        let secure = connect::secure(&config)?;
        Ok(Self(Arc::new(Shared { config, tcp, secure })))
    }

    /// Sends a request and resolves with the head of its answer, whatever its status.
    ///
    /// A connection from the pool that turns out to be closed before the request was written is replaced by
    /// a fresh one.
    ///
    /// # Errors
    /// `Transport` when no answer came, `BadResponse` when what came is not an HTTP head of sensible size.
    pub fn send(
        &self,
        request: Request<Bytes>,
    ) -> impl Future<Output = Result<Response, BackendError>> + Send + 'static + use<> {
        let client = self.clone();
        async move {
            let cap = client.0.config.max_answer_bytes;
            if request.uri().scheme() == Some(&Scheme::HTTPS) {
                let answer = client.send_secure(request)?.await.map_err(|error| exchange_error(&error))?;
                let (head, body) = answer.into_parts();
                return Ok(Response::new(head, Body::Pooled(body), cap));
            }
            let (head, body) = direct::send(client, request).await?;
            Ok(Response::new(head, Body::Direct(body), cap))
        }
    }

    fn send_secure(&self, request: Request<Bytes>) -> Result<ResponseFuture, BackendError> {
        let ending = || BackendError::new(FailureClass::Local, "the calling thread is ending");
        let send = |local: &mut Local| {
            let pool = local.secure.get_or_insert_with(|| self.secure_pool());
            pool.request(request.map(Full::new))
        };
        self.with_local(send).ok_or_else(ending)
    }

    fn take_idle(&self, authority: &Authority) -> Option<Box<Conn>> {
        self.with_local(|local| local.idle.take(authority)).flatten()
    }

    fn put_idle(&self, conn: Box<Conn>) {
        let config = &self.0.config;
        self.with_local(|local| local.idle.put(conn, config.pool_max_idle, config.pool_idle_timeout));
    }

    /// Lends what this thread keeps for this client; `None` when the thread's storage is already gone.
    fn with_local<T>(&self, lend: impl FnOnce(&mut Local) -> T) -> Option<T> {
        let lent = LOCALS.try_with(|locals| {
            // Nothing below comes back here while it is borrowed; if it did, the connection would be lost,
            // not the request.
            let mut locals = locals.try_borrow_mut().ok()?;
            let mine = Arc::as_ptr(&self.0);
            let place = match locals.iter().position(|local| local.owner.as_ptr() == mine) {
                Some(place) => place,
                None => {
                    // A configuration that was replaced takes its connections with it.
                    locals.retain(|local| local.owner.strong_count() > 0);
                    let owner = Arc::downgrade(&self.0);
                    locals.push(Local { owner, idle: Idle::default(), secure: None });
                    locals.len() - 1
                }
            };
            Some(lend(&mut locals[place]))
        });
        lent.ok().flatten()
    }

    fn secure_pool(&self) -> SecurePool {
        let config = &self.0.config;
        Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(config.pool_idle_timeout)
            .pool_max_idle_per_host(config.pool_max_idle)
            .http1_max_buf_size(READ_BUFFER_BYTES)
            .http2_max_header_list_size(READ_BUFFER_BYTES as u32)
            .http2_adaptive_window(true)
            // Finds out within seconds that a multiplexed connection is dead, before more requests join it.
            .http2_keep_alive_interval(Duration::from_secs(15))
            .http2_keep_alive_timeout(Duration::from_secs(5))
            .build(self.0.secure.clone())
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
