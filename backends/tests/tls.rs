//! Upstreams behind TLS: both versions of HTTP, and certificates that must not be accepted.
#![expect(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

#[expect(dead_code, reason = "this suite needs a part of it")]
mod common;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{ABORT_LIMIT, stream, whole};
use futures::StreamExt as _;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opossum_backends::http::{HttpClient, HttpConfig};
use opossum_backends::openai::{OpenAiBackend, OpenAiConfig};
use opossum_core::class::FailureClass;
use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const WHOLE: &str = r#"{"choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}]}"#;
const PIECE: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n";

/// What the server saw.
#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    http2: AtomicUsize,
    /// Bodies that were dropped before their end.
    aborted: AtomicUsize,
}

struct Server {
    addr: SocketAddr,
    certificate: Vec<u8>,
    seen: Arc<Seen>,
}

/// Dropped with the body that it belongs to.
struct Body(Arc<Seen>);

impl Drop for Body {
    fn drop(&mut self) {
        self.0.aborted.fetch_add(1, Ordering::SeqCst);
    }
}

type Answer = Response<http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>>;

/// Whole answers are `WHOLE`; a stream is pieces without end.
async fn answer(request: Request<Incoming>, seen: Arc<Seen>) -> Result<Answer, hyper::Error> {
    if request.version() == Version::HTTP_2 {
        seen.http2.fetch_add(1, Ordering::SeqCst);
    }
    let asked = request.into_body().collect().await?.to_bytes();
    if !asked.windows(13).any(|window| window == b"\"stream\":true") {
        return Ok(Response::new(Full::new(Bytes::from(WHOLE)).boxed_unsync()));
    }
    let pieces = futures::stream::unfold(Body(seen), |body| async {
        tokio::time::sleep(Duration::from_millis(2)).await;
        Some((Ok::<_, Infallible>(Frame::data(Bytes::from(PIECE))), body))
    });
    let answer = Response::builder().header("content-type", "text/event-stream");
    Ok(answer.body(StreamBody::new(pieces).boxed_unsync()).unwrap())
}

/// Starts a server for `names` that offers these protocols, on the current runtime.
async fn serve(params: CertificateParams, protocols: &[&[u8]]) -> Server {
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let seen = Arc::new(Seen::default());
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let shared = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            shared.connections.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(connection(tcp, acceptor.clone(), Arc::clone(&shared)));
        }
    });
    Server { addr, certificate: certificate.der().to_vec(), seen }
}

async fn connection(tcp: tokio::net::TcpStream, acceptor: TlsAcceptor, seen: Arc<Seen>) {
    let Ok(tls) = acceptor.accept(tcp).await else { return };
    let is_http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    let service = service_fn(move |request| answer(request, Arc::clone(&seen)));
    let io = TokioIo::new(tls);
    // How a connection ends is told by what the client saw.
    if is_http2 {
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(io, service)
            .await;
    } else {
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
    }
}

fn localhost() -> CertificateParams {
    CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap()
}

fn backend(server: &Server, trusted: bool) -> OpenAiBackend {
    let extra_roots = if trusted { vec![server.certificate.clone()] } else { Vec::new() };
    let client = HttpClient::new(HttpConfig { extra_roots, ..HttpConfig::default() }).unwrap();
    let base = format!("https://localhost:{}/v1", server.addr.port());
    OpenAiBackend::new(OpenAiConfig::new("openai", base), client).unwrap()
}

async fn refused(server: &Server, trusted: bool) {
    let error = whole(&backend(server, trusted)).await.unwrap_err();
    assert_eq!(error.class, FailureClass::Transport);
    assert!(error.detail.contains("certificate"), "{error}");
}

#[tokio::test]
async fn both_versions_of_http_are_spoken_over_one_connection() {
    for (protocols, http2) in [(&[b"h2".as_slice(), b"http/1.1"][..], 5), (&[b"http/1.1".as_slice()][..], 0)]
    {
        let server = serve(localhost(), protocols).await;
        let backend = backend(&server, true);
        for _ in 0..5 {
            assert_eq!(whole(&backend).await.unwrap().choices[0].text.as_deref(), Some("hi"));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(server.seen.http2.load(Ordering::SeqCst), http2);
        assert_eq!(server.seen.connections.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn leaving_a_stream_stops_it_under_both_versions() {
    for protocols in [&[b"h2".as_slice()][..], &[b"http/1.1".as_slice()][..]] {
        let server = serve(localhost(), protocols).await;
        let mut events = stream(&backend(&server, true)).await.unwrap();
        for _ in 0..3 {
            assert!(!events.next().await.unwrap().unwrap().is_empty());
        }
        assert_eq!(server.seen.aborted.load(Ordering::SeqCst), 0);
        drop(events);
        let left = Instant::now();
        while server.seen.aborted.load(Ordering::SeqCst) == 0 {
            assert!(left.elapsed() < ABORT_LIMIT, "the upstream still answers");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

#[tokio::test]
async fn fault_s10_certificates_that_prove_nothing_are_refused() {
    // Signed by itself and not trusted.
    refused(&serve(localhost(), &[b"h2"]).await, false).await;
    // Of another host.
    let other = CertificateParams::new(vec!["other.example".to_owned()]).unwrap();
    refused(&serve(other, &[b"h2"]).await, true).await;
    // Expired.
    let mut expired = localhost();
    expired.not_after = rcgen::date_time_ymd(2020, 1, 1);
    refused(&serve(expired, &[b"h2"]).await, true).await;
}
