//! Where an upstream is and how it is addressed: its base URL, its credential and the headers of every request.

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Uri, header};
use secrecy::{ExposeSecret, SecretString};

use opossum_core::class::FailureClass;

use crate::{BackendError, Call};

/// Why a base URL cannot be used. It does not quote the URL, which may hold a credential.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("base URL {0}")]
pub struct BadBaseUrl(pub(crate) &'static str);

/// One upstream's address and the headers that all its requests share.
#[derive(Clone)]
pub struct Endpoint {
    base: Uri,
    headers: HeaderMap,
    credential: Option<SecretString>,
}

impl Endpoint {
    /// An upstream at a base URL, with a header that carries its credential.
    ///
    /// `credential` is the header's name, what stands before the secret (such as `"Bearer "`), and the secret.
    ///
    /// # Errors
    /// When the URL is not absolute `http` or `https`, holds a user name, a query or a fragment, or when the
    /// secret cannot be a header's value.
    pub fn new(
        base_url: &str,
        credential: Option<(HeaderName, &str, &SecretString)>,
    ) -> Result<Self, BadBaseUrl> {
        if base_url.contains(['#', '?']) {
            return Err(BadBaseUrl("must have neither query nor fragment"));
        }
        let base: Uri = base_url.trim_end_matches('/').parse().map_err(|_| BadBaseUrl("is not a URL"))?;
        if !matches!(base.scheme_str(), Some("http" | "https")) {
            return Err(BadBaseUrl("must begin with http:// or https://"));
        }
        if base.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(BadBaseUrl("must not hold a user name or password"));
        }
        if base.host().is_none_or(str::is_empty) {
            return Err(BadBaseUrl("must name a host"));
        }
        let mut headers = HeaderMap::new();
        headers.insert(
            header::USER_AGENT,
            HeaderValue::from_static(concat!("opossum/", env!("CARGO_PKG_VERSION"))),
        );
        if let Some((name, prefix, secret)) = &credential {
            let mut value = HeaderValue::try_from(format!("{prefix}{}", secret.expose_secret()))
                .map_err(|_| BadBaseUrl("has a credential that cannot be sent in a header"))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(Self { base, headers, credential: credential.map(|(_, _, secret)| secret.clone()) })
    }

    /// The address of a path below the base; `path` begins with a slash and is already percent-encoded.
    ///
    /// # Errors
    /// `CallerError` when the path cannot be part of a URL.
    pub fn uri(&self, path: &str) -> Result<Uri, BackendError> {
        let mut parts = self.base.clone().into_parts();
        let whole = format!("{}{path}", self.base.path().trim_end_matches('/'));
        parts.path_and_query = Some(whole.parse().map_err(|_| bad_path())?);
        Uri::from_parts(parts).map_err(|_| bad_path())
    }

    /// The same for a path that is part of the protocol, when a backend is built.
    ///
    /// # Errors
    /// When base and path together are no URL.
    pub fn fixed(&self, path: &'static str) -> Result<Uri, BadBaseUrl> {
        self.uri(path).map_err(|_| BadBaseUrl("is not a URL with the protocol's paths below it"))
    }

    /// A `GET`.
    pub fn get(&self, uri: Uri) -> Request<Bytes> {
        self.request(Method::GET, uri, Bytes::new())
    }

    /// A `POST` of JSON on behalf of a call, whose request id and trace context go along.
    pub fn post<R>(&self, uri: Uri, call: &Call<R>, body: Vec<u8>) -> Request<Bytes> {
        let mut request = self.post_json(uri, body);
        let headers = request.headers_mut();
        // An id or trace context that cannot be a header's value is no reason to fail the call.
        if let Ok(id) = HeaderValue::from_str(&call.request_id) {
            headers.insert(HeaderName::from_static("x-request-id"), id);
        }
        if let Some(Ok(context)) = call.traceparent.as_deref().map(HeaderValue::from_str) {
            headers.insert(HeaderName::from_static("traceparent"), context);
        }
        request
    }

    /// A `POST` of JSON on nobody's behalf.
    pub fn post_json(&self, uri: Uri, body: Vec<u8>) -> Request<Bytes> {
        let mut request = self.request(Method::POST, uri, body.into());
        let value = HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::CONTENT_TYPE, value);
        request
    }

    /// An error whose detail no longer holds this upstream's credential, should the upstream have quoted it.
    pub fn scrub(&self, mut error: BackendError) -> BackendError {
        if let Some(secret) = self.credential.as_ref().map(ExposeSecret::expose_secret)
            && !secret.is_empty()
            && error.detail.contains(secret)
        {
            error.detail = error.detail.replace(secret, "[redacted]");
        }
        error
    }

    fn request(&self, method: Method, uri: Uri, body: Bytes) -> Request<Bytes> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = self.headers.clone();
        request
    }
}

fn bad_path() -> BackendError {
    BackendError::new(FailureClass::CallerError, "the model's name cannot be part of an address")
}
