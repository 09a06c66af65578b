//! Connecting: TCP with or without TLS, under one deadline.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::Uri;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::{ClientConfig, RootCertStore};
use tower_service::Service;

use super::HttpConfig;

type BoxError = Box<dyn StdError + Send + Sync>;

/// A connector for plain TCP.
pub(super) fn tcp(config: &HttpConfig) -> Deadlined<HttpConnector> {
    Deadlined { inner: tcp_only(config), limit: config.connect_timeout }
}

/// A connector for TLS over TCP that offers HTTP/2 and HTTP/1.1.
pub(super) fn secure(config: &HttpConfig) -> Result<Deadlined<HttpsConnector<HttpConnector>>, rustls::Error> {
    let inner = HttpsConnectorBuilder::new()
        .with_tls_config(tls_config()?)
        .https_only()
        .enable_all_versions()
        .wrap_connector(tcp_only(config));
    Ok(Deadlined { inner, limit: config.connect_timeout })
}

fn tcp_only(config: &HttpConfig) -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(config.tcp_keepalive));
    tcp.set_keepalive_interval(Some(Duration::from_secs(5)));
    tcp.set_keepalive_retries(Some(3));
    tcp
}

/// TLS 1.2 and 1.3 against the roots of the operating system (`SSL_CERT_FILE` and `SSL_CERT_DIR` count).
fn tls_config() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = match builder.clone().with_native_roots() {
        Ok(builder) => builder.with_no_client_auth(),
        // A machine without roots must still reach its plain-text neighbours, so this is no reason to stop:
        // each TLS connection will then fail by itself.
        Err(error) => {
            tracing::warn!(%error, "no root certificates found: every https upstream will fail");
            builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth()
        }
    };
    Ok(config)
}

/// A connector whose every connection must be ready within a limit.
///
/// The limit covers name resolution and the TLS handshake too, which the TCP connector's own does not: an
/// upstream that accepts and then keeps silent during the handshake is as dead as one that drops packets.
#[derive(Clone)]
pub(super) struct Deadlined<C> {
    inner: C,
    limit: Duration,
}

impl<C> Service<Uri> for Deadlined<C>
where
    C: Service<Uri>,
    C::Future: Send + 'static,
    C::Response: 'static,
    C::Error: Into<BoxError>,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<C::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.inner.call(uri);
        let limit = self.limit;
        Box::pin(async move {
            match tokio::time::timeout(limit, connecting).await {
                Ok(connected) => connected.map_err(Into::into),
                Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no connection in time").into()),
            }
        })
    }
}
