//! A running service, as the command line finds and asks it.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use opossum_backends::BackendError;
use opossum_backends::http::{Endpoint, HttpClient, HttpConfig};
use secrecy::SecretString;
use serde_json::Value;

use crate::settings::Settings;

use super::Failure;
use super::args::At;

/// How long an answer may take; the service says within 5 s whether a job is queued.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the service is, with the version that its paths begin with: what was said, else the one that these
/// settings describe.
pub(super) fn base_url(settings: &Settings, at: &At) -> String {
    with_version(&at.url.clone().unwrap_or_else(|| local_url(settings)))
}

fn local_url(settings: &Settings) -> String {
    let server = &settings.server;
    match server.host {
        host if host.is_unspecified() => format!("http://127.0.0.1:{}", server.port),
        std::net::IpAddr::V4(host) => format!("http://{host}:{}", server.port),
        std::net::IpAddr::V6(host) => format!("http://[{host}]:{}", server.port),
    }
}

/// An address with the version that the protocol's paths begin with.
fn with_version(url: &str) -> String {
    let bare = url.trim_end_matches('/');
    if bare.ends_with("/v1") { bare.to_owned() } else { format!("{bare}/v1") }
}

/// A service that answers in JSON.
pub(super) struct Remote {
    url: String,
    endpoint: Endpoint,
    client: HttpClient,
}

/// What is asked of it.
pub(super) struct Wish<'a> {
    pub(super) method: Method,
    /// Below the version.
    pub(super) path: &'a str,
    pub(super) body: Vec<u8>,
    /// How much time what is asked for has, in milliseconds.
    pub(super) timeout_ms: Option<u64>,
}

impl Remote {
    /// The service that is meant.
    pub(super) fn new(settings: &Settings, at: At) -> Result<Self, Failure> {
        let url = base_url(settings, &at);
        let key = at.key.map(SecretString::from);
        let credential = key.as_ref().map(|key| (header::AUTHORIZATION, "Bearer ", key));
        let endpoint = Endpoint::new(&url, credential).map_err(|error| Failure::of(&url, error))?;
        let client = HttpClient::new(HttpConfig::default()).map_err(|error| Failure::of("TLS", error))?;
        Ok(Self { url, endpoint, client })
    }

    /// Asks, and reads the answer.
    ///
    /// # Errors
    /// Nobody answers, or what is answered is an error: its message, and the field at fault.
    pub(super) async fn ask(&self, wish: Wish<'_>) -> Result<Value, Failure> {
        let told = |error: BackendError| Failure::of(&self.url, self.endpoint.scrub(error));
        let uri = self.endpoint.uri(wish.path).map_err(told)?;
        let mut request: Request<Bytes> = match wish.method {
            Method::GET => self.endpoint.get(uri),
            _ => self.endpoint.post_json(uri, wish.body),
        };
        *request.method_mut() = wish.method;
        if let Some(ms) = wish.timeout_ms {
            request.headers_mut().insert("x-opossum-timeout-ms", HeaderValue::from(ms));
        }
        let exchange = async {
            let answer = self.client.send(request).await?;
            let status = answer.status;
            Ok((status, answer.whole().await?))
        };
        let silent = || Failure::of(&self.url, format!("no answer within {} s", PATIENCE.as_secs()));
        let (status, body) =
            tokio::time::timeout(PATIENCE, exchange).await.map_err(|_| silent())?.map_err(told)?;
        let body: Option<Value> = serde_json::from_slice(&body).ok();
        match body {
            Some(body) if status.is_success() => Ok(body),
            None if status.is_success() => Err(Failure::of(&self.url, STRANGER)),
            body => Err(refusal(status.as_u16(), &body.unwrap_or_default())),
        }
    }
}

/// Of one that answers, but not as this service does.
const STRANGER: &str = "this is no service of this kind";

/// An error of the service in one line.
fn refusal(status: u16, body: &Value) -> Failure {
    let error = &body["error"];
    let message = error["message"].as_str().unwrap_or(STRANGER);
    let code = error["code"].as_str().unwrap_or("no code");
    match error["param"].as_str() {
        Some(param) => Failure::Failed(format!("{status} {code} ({param}): {message}")),
        None => Failure::Failed(format!("{status} {code}: {message}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_added_once() {
        for url in ["http://h:8000", "http://h:8000/", "http://h:8000/v1", "http://h:8000/v1/"] {
            assert_eq!(with_version(url), "http://h:8000/v1");
        }
    }

    #[test]
    fn the_settings_tell_where_the_service_is() {
        let mut settings = Settings::default();
        assert_eq!(local_url(&settings), "http://127.0.0.1:8000");
        settings.server.host = std::net::Ipv6Addr::LOCALHOST.into();
        assert_eq!(local_url(&settings), "http://[::1]:8000");
        settings.server.host = std::net::Ipv4Addr::UNSPECIFIED.into();
        assert_eq!(local_url(&settings), "http://127.0.0.1:8000");
    }
}
