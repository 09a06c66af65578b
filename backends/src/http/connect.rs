//! Connecting: TCP with or without TLS, under one deadline.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::pki_types::CertificateDer;
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
        .with_tls_config(tls_config(config)?)
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

/// TLS 1.2 and 1.3 against the roots of the operating system (`SSL_CERT_FILE` and `SSL_CERT_DIR` count) and
/// those of the configuration.
fn tls_config(config: &HttpConfig) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut roots = RootCertStore::empty();
    for root in &config.extra_roots {
        roots.add(CertificateDer::from(root.as_slice()))?;
    }
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "some root certificates cannot be read");
    }
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        // A machine without roots must still reach its plain-text neighbours, so this is no reason to stop:
        // each TLS connection will then fail by itself.
        tracing::warn!("no root certificates found: every https upstream will fail");
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
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
