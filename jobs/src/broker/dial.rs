//! Connecting, plain or by TLS.
//!
//! The AMQP library brings TLS of its own only together with key stores, and with them ciphers that nobody
//! should have on board any more. So it is given streams that are encrypted already: by the same rustls, with
//! the same roots, as everywhere in this service.

use std::future::Future;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_compat::Compat;
use async_rs::traits::{Executor, Reactor, RuntimeKit};
use async_rs::util::Task;
use async_rs::{Runtime, Tokio};
use futures::Stream;
use futures::io::{AsyncRead, AsyncWrite};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{AsyncTcpStream, Connection, ConnectionProperties};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::BrokerUri;

/// Makes connections to one broker.
pub(crate) struct Dialer {
    uri: BrokerUri,
    /// Present when the address says `amqps`.
    tls: Option<TlsConnector>,
}

impl Dialer {
    /// A dialer that trusts the roots of the operating system (`SSL_CERT_FILE` and `SSL_CERT_DIR` count) and
    /// these, in DER.
    ///
    /// # Errors
    /// A root is no certificate.
    pub(crate) fn new(uri: BrokerUri, roots: &[Vec<u8>]) -> io::Result<Self> {
        let encrypted = uri.inner().scheme == AMQPScheme::AMQPS;
        let tls = if encrypted { Some(connector(roots).map_err(io::Error::other)?) } else { None };
        Ok(Self { uri, tls })
    }

    pub(crate) async fn dial(&self, name: &str) -> lapin::Result<Connection> {
        let properties =
            ConnectionProperties::default().with_connection_name(format!("opossum {name}").into());
        let tls = self.tls.clone();
        let connect =
            async move |uri: AMQPUri, _| match open(&uri.authority.host, uri.authority.port, &tls).await {
                Ok(stream) => Ok(AsyncTcpStream::Plain(Compat::new(stream))),
                Err(error) => Err(lapin::ErrorKind::IOError(Arc::new(error)).into()),
            };
        let runtime = Runtime::new(Kit(Tokio::current()));
        Connection::connector(self.uri.inner(), runtime, connect, properties).await
    }
}

/// TLS 1.2 and 1.3.
fn connector(more: &[Vec<u8>]) -> Result<TlsConnector, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut roots = RootCertStore::empty();
    for root in more {
        roots.add(CertificateDer::from(root.as_slice()))?;
    }
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "some root certificates cannot be read");
    }
    roots.add_parsable_certificates(found.certs);
    Ok(TlsConnector::from(Arc::new(builder.with_root_certificates(roots).with_no_client_auth())))
}

async fn open(host: &str, port: u16, tls: &Option<TlsConnector>) -> io::Result<Box<dyn Wire>> {
    // An IPv6 address stands in brackets in an address.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    let Some(tls) = tls else { return Ok(Box::new(stream)) };
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    Ok(Box::new(tls.connect(name, stream).await?))
}

/// A stream to the broker.
trait Wire: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}

impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Wire for T {}

/// tokio, with streams that may be encrypted.
#[derive(Clone, Debug)]
struct Kit(Tokio);

impl RuntimeKit for Kit {}

impl Executor for Kit {
    type Task<T: Send + 'static> = <Tokio as Executor>::Task<T>;

    fn block_on<T, F: Future<Output = T>>(&self, work: F) -> T {
        self.0.block_on(work)
    }

    fn spawn<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        work: F,
    ) -> Task<Self::Task<T>> {
        self.0.spawn(work)
    }

    fn spawn_blocking<T: Send + 'static, F: FnOnce() -> T + Send + 'static>(
        &self,
        work: F,
    ) -> Task<Self::Task<T>> {
        self.0.spawn_blocking(work)
    }
}

impl Reactor for Kit {
    type TcpStream = Compat<Box<dyn Wire>>;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.0.register(socket)
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, period: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(period)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        plain(address)
    }
}

async fn plain(address: SocketAddr) -> io::Result<Compat<Box<dyn Wire>>> {
    let stream: Box<dyn Wire> = Box::new(TcpStream::connect(address).await?);
    Ok(Compat::new(stream))
}
