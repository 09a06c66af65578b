//! Plain-text HTTP/1.1 connections that are driven by the request that uses them.
//!
//! The usual client gives each connection a task of its own and passes every piece of a body from that task
//! to the reader, one piece per round of the scheduler. A token stream is thousands of tiny pieces, and most
//! of what a gateway does with local upstreams is exactly that. Here the exchange polls its connection itself:
//! whatever has arrived is decoded in one go, a request costs no task, and dropping the exchange closes the
//! socket at once.
//!
//! The price is that nobody watches an idle connection, so it is polled once when it is taken from the pool;
//! one that the upstream has closed meanwhile is thrown away then.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderValue, Request, Uri, header};
use http_body_util::Full;
use hyper::body::{Body as _, Frame, Incoming};
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use opossum_core::class::FailureClass;
use tokio::net::TcpStream;
use tokio::runtime::{self, Handle};
use tower_service::Service;

use super::{HttpClient, READ_BUFFER_BYTES, exchange_error};
use crate::BackendError;

/// A connection used within this time is not suspected of having been closed.
const FRESH: Duration = Duration::from_millis(5);
/// How often connections that were idle for too long are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// One connection: the end that takes requests and the end that does the work when polled.
pub(super) struct Conn {
    authority: Authority,
    sender: SendRequest<Full<Bytes>>,
    driver: Connection<TokioIo<TcpStream>, Full<Bytes>>,
    /// The work has ended, well or not; the driver must not be polled again.
    over: bool,
    /// The runtime whose reactor watches the socket.
    runtime: Option<runtime::Id>,
    idle_since: Instant,
}

impl Conn {
    fn drive(&mut self, cx: &mut Context<'_>) {
        // How it ended is told to the exchange, too.
        self.over = self.over || Pin::new(&mut self.driver).poll(cx).is_ready();
    }

    /// Whether the connection can take a request; notices an end that the upstream has sent meanwhile.
    fn is_usable(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        !self.over && self.sender.is_ready()
    }

    async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<http::Response<Incoming>, TrySendError<Request<Full<Bytes>>>> {
        let mut answer = pin!(self.sender.try_send_request(request));
        let (driver, over) = (&mut self.driver, &mut self.over);
        poll_fn(|cx| {
            *over = *over || Pin::new(&mut *driver).poll(cx).is_ready();
            answer.as_mut().poll(cx)
        })
        .await
    }
}

/// The idle connections of one thread, the latest used last.
#[derive(Default)]
pub(super) struct Idle {
    #[expect(
        clippy::vec_box,
        reason = "a connection is some hundred bytes and moves twice for every request"
    )]
    conns: Vec<Box<Conn>>,
    swept: Option<Instant>,
}

impl Idle {
    /// The connection used last, if there is any.
    pub(super) fn take(&mut self, authority: &Authority) -> Option<Box<Conn>> {
        let runtime = current_runtime();
        let fits = |conn: &Conn| conn.authority == *authority && conn.runtime == runtime;
        Some(self.conns.remove(self.conns.iter().rposition(|conn| fits(conn))?))
    }

    /// Keeps a connection, at most `max_idle` for each upstream and each for at most about `max_age`.
    pub(super) fn put(&mut self, conn: Box<Conn>, max_idle: usize, max_age: Duration) {
        let now = conn.idle_since;
        if self.swept.is_none_or(|swept| now.duration_since(swept) >= SWEEP_EVERY) {
            self.swept = Some(now);
            self.conns.retain(|conn| now.duration_since(conn.idle_since) < max_age);
        }
        let same = |other: &Conn| other.authority == conn.authority;
        if self.conns.iter().filter(|other| same(other)).count() >= max_idle
            && let Some(oldest) = self.conns.iter().position(|other| same(other))
        {
            self.conns.remove(oldest);
        }
        self.conns.push(conn);
    }
}

/// Sends a request for an `http` address and resolves with the head of the answer.
pub(super) async fn send(
    client: HttpClient,
    request: Request<Bytes>,
) -> Result<(http::response::Parts, DirectBody), BackendError> {
    let (authority, target, mut request) = origin_form(request)?;
    while let Some(mut conn) = client.take_idle(&authority) {
        if conn.idle_since.elapsed() >= FRESH {
            // Lets the reactor look at its sockets first: a close that is known to the kernel only would not
            // be seen, and the request would be lost with the connection.
            tokio::task::yield_now().await;
        }
        if !conn.is_usable() {
            continue;
        }
        match exchange(client.clone(), conn, request).await {
            Ok(answer) => return Ok(answer),
            // The upstream closed the connection before anything of the request was written.
            Err((_, Some(unsent))) => request = unsent,
            Err((error, None)) => return Err(error),
        }
    }
    let conn = connect(&client, authority, target).await?;
    exchange(client, conn, request).await.map_err(|(error, _)| error)
}

type Unsent = (BackendError, Option<Request<Full<Bytes>>>);

async fn exchange(
    client: HttpClient,
    mut conn: Box<Conn>,
    request: Request<Full<Bytes>>,
) -> Result<(http::response::Parts, DirectBody), Unsent> {
    match conn.exchange(request).await {
        Ok(answer) => {
            let (head, incoming) = answer.into_parts();
            let mut body = DirectBody { client, incoming, conn: Some(conn) };
            if body.incoming.is_end_stream() {
                body.release();
            }
            Ok((head, body))
        }
        Err(mut error) => {
            let unsent = error.take_message();
            Err((exchange_error(error.error()), unsent))
        }
    }
}

async fn connect(client: &HttpClient, authority: Authority, target: Uri) -> Result<Box<Conn>, BackendError> {
    let io = client.0.tcp.clone().call(target).await.map_err(|error| exchange_error(&*error))?;
    let handshake = Builder::new().max_buf_size(READ_BUFFER_BYTES).handshake(io);
    let (sender, driver) = handshake.await.map_err(|error| exchange_error(&error))?;
    let runtime = current_runtime();
    Ok(Box::new(Conn { authority, sender, driver, over: false, runtime, idle_since: Instant::now() }))
}

fn current_runtime() -> Option<runtime::Id> {
    Handle::try_current().ok().map(|handle| handle.id())
}

/// The request as HTTP/1.1 wants it from a client: a bare path and a `Host`.
fn origin_form(request: Request<Bytes>) -> Result<(Authority, Uri, Request<Full<Bytes>>), BackendError> {
    let no_host = || BackendError::new(FailureClass::CallerError, "the address names no host");
    let target = request.uri().clone();
    let authority = target.authority().cloned().ok_or_else(no_host)?;
    let mut request = request.map(Full::new);
    let path = target.path_and_query().cloned().ok_or_else(no_host)?;
    *request.uri_mut() = Uri::from(path);
    let host = HeaderValue::from_str(authority.as_str()).map_err(|_| no_host())?;
    request.headers_mut().insert(header::HOST, host);
    Ok((authority, target, request))
}

/// A body together with the connection that brings it.
pub(super) struct DirectBody {
    client: HttpClient,
    incoming: Incoming,
    /// `None` once the body is complete: the connection is then in the pool again, or closed.
    conn: Option<Box<Conn>>,
}

impl DirectBody {
    pub(super) fn incoming(&self) -> &Incoming {
        &self.incoming
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut polled = Pin::new(&mut self.incoming).poll_frame(cx);
        if polled.is_pending()
            && let Some(conn) = &mut self.conn
        {
            conn.drive(cx);
            polled = Pin::new(&mut self.incoming).poll_frame(cx);
        }
        if matches!(polled, Poll::Ready(None)) || self.incoming.is_end_stream() {
            self.release();
        }
        polled
    }

    /// Puts the connection back, now that the body has come to its end.
    fn release(&mut self) {
        if let Some(mut conn) = self.conn.take()
            && conn.is_usable()
            // Another runtime's reactor would have to wake us across threads for every read.
            && conn.runtime == current_runtime()
        {
            conn.idle_since = Instant::now();
            self.client.put_idle(conn);
        }
    }
}
