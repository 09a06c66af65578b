//! An Ollama server, over its native protocol.
//!
//! The native protocol is used rather than Ollama's OpenAI-compatible one because only it reports the model's
//! abilities, takes raw prompts and says so when a prompt does not fit: asked over the other, the server cuts
//! the prompt in silence.
//!
//! A model that is not in memory is loaded first, which may take a minute without a byte; the caller's budget
//! for the first token must allow for that.

mod answer;
mod embed;
mod models;
mod request;
mod wire;

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Uri, header};
use opossum_core::class::FailureClass;
use opossum_core::embed::Embeddings;
use opossum_core::ids::ServiceName;
use opossum_core::needs::Needs;
use opossum_core::request::Prompt;
use secrecy::SecretString;

use self::answer::Decoder;
use crate::http::classify::{Quirks, classify_status};
use crate::http::{BadBaseUrl, Endpoint, EventBody, HttpClient, Response};
use crate::{Backend, BackendError, Call, EmbedCall, Reply, UpstreamModel, json};

/// A full queue is answered with 503, which is no sign of a broken server.
const QUIRKS: Quirks = Quirks { busy_503: true };

/// How a server is reached.
#[derive(Clone, Debug)]
pub struct OllamaConfig {
    /// The name of the service.
    pub service: ServiceName,
    /// The bare origin, such as `http://localhost:11434`.
    pub base_url: String,
    /// Sent as a bearer token, for a server behind a proxy that wants one.
    pub api_key: Option<SecretString>,
    /// The URL whose success means that the server lives, where it is not the server's own (a sidecar, a load
    /// balancer). It is asked without the key.
    pub health_url: Option<String>,
    /// Context length to load models with, in tokens; the server's own default where `None`.
    pub num_ctx: Option<u32>,
    /// How long a model stays in memory after a request, in Ollama's notation (`5m`); the server's own
    /// default where `None`.
    pub keep_alive: Option<String>,
}

impl OllamaConfig {
    /// A server with its own defaults.
    pub fn new(service: impl Into<ServiceName>, base_url: impl Into<String>) -> Self {
        Self {
            service: service.into(),
            base_url: base_url.into(),
            api_key: None,
            health_url: None,
            num_ctx: None,
            keep_alive: None,
        }
    }
}

/// What the protocol can carry to a model that generates; what a model can do is asked of the server.
///
/// Images must be inline: the server fetches none.
pub const PROTOCOL_CAN: Needs = Needs::CHAT
    .union(Needs::COMPLETION)
    .union(Needs::SUFFIX)
    .union(Needs::IMAGES)
    .union(Needs::TOOLS)
    .union(Needs::JSON_OBJECT)
    .union(Needs::JSON_SCHEMA)
    .union(Needs::SEED)
    .union(Needs::TOP_K)
    .union(Needs::PENALTIES)
    .union(Needs::REASONING)
    .union(Needs::STOP);

/// What the protocol can carry to a model that embeds: texts only, no token ids.
pub const EMBED_CAN: Needs = Needs::EMBED.union(Needs::DIMENSIONS);

/// An Ollama server.
#[derive(Clone)]
pub struct OllamaBackend(Arc<Inner>);

struct Inner {
    config: OllamaConfig,
    client: HttpClient,
    endpoint: Endpoint,
    chat: Uri,
    generate: Uri,
    embed: Uri,
    tags: Uri,
    show: Uri,
    version: Uri,
    health: Option<Uri>,
}

impl OllamaBackend {
    /// A backend; nothing is connected yet.
    ///
    /// # Errors
    /// When the base URL, the health URL or the key cannot be used.
    pub fn new(config: OllamaConfig, client: HttpClient) -> Result<Self, BadBaseUrl> {
        let health = config.health_url.as_deref().map(str::parse).transpose();
        let health = health.map_err(|_| BadBaseUrl("has a health URL that is none"))?;
        let credential = config.api_key.as_ref().map(|key| (header::AUTHORIZATION, "Bearer ", key));
        let endpoint = Endpoint::new(&config.base_url, credential)?;
        Ok(Self(Arc::new(Inner {
            chat: endpoint.fixed("/api/chat")?,
            generate: endpoint.fixed("/api/generate")?,
            embed: endpoint.fixed("/api/embed")?,
            tags: endpoint.fixed("/api/tags")?,
            show: endpoint.fixed("/api/show")?,
            version: endpoint.fixed("/api/version")?,
            health,
            endpoint,
            config,
            client,
        })))
    }
}

impl Backend for OllamaBackend {
    fn service(&self) -> &ServiceName {
        &self.0.config.service
    }

    fn generate(&self, call: Call) -> BoxFuture<'static, Result<Reply, BackendError>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.generate(call).await.map_err(|error| inner.endpoint.scrub(error)) })
    }

    fn embed(&self, call: EmbedCall) -> BoxFuture<'static, Result<Embeddings, BackendError>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.embed(&call).await.map_err(|error| inner.endpoint.scrub(error)) })
    }

    fn models(&self) -> BoxFuture<'static, Result<Vec<UpstreamModel>, BackendError>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.models().await.map_err(|error| inner.endpoint.scrub(error)) })
    }

    fn probe(&self) -> BoxFuture<'static, Result<(), BackendError>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { inner.probe().await.map_err(|error| inner.endpoint.scrub(error)) })
    }
}

impl Inner {
    async fn generate(&self, call: Call) -> Result<Reply, BackendError> {
        let uri = match call.request.prompt {
            Prompt::Chat(_) => &self.chat,
            Prompt::Text { .. } => &self.generate,
        };
        let body = request::body(&call, &self.config)?;
        let response = self.exchange(self.endpoint.post(uri.clone(), &call, body)).await?;
        if !call.request.stream {
            return Ok(Reply::Whole(Box::new(answer::whole(&response.whole().await?, &call.model)?)));
        }
        if response.is_type("text/html") == Some(true) {
            return Err(BackendError::new(FailureClass::BadResponse, "the answer is a web page"));
        }
        let decoder = Decoder::new(call.model, self.endpoint.clone());
        Ok(Reply::Stream(Box::pin(EventBody::new(response, decoder)?)))
    }

    async fn embed(&self, call: &EmbedCall) -> Result<Embeddings, BackendError> {
        let body = embed::body(call, &self.config)?;
        let response = self.exchange(self.endpoint.post(self.embed.clone(), call, body)).await?;
        embed::read(&response.whole().await?, call)
    }

    async fn probe(&self) -> Result<(), BackendError> {
        if let Some(health) = &self.health {
            let mut request = Request::new(Bytes::new());
            request.uri_mut().clone_from(health);
            return self.exchange(request).await.map(drop);
        }
        let response = self.exchange(self.endpoint.get(self.version.clone())).await?;
        json::read::<wire::Version<'_>>(&response.whole().await?).map(drop)
    }

    /// Sends and resolves with an answer of status 2xx; every other is an error.
    async fn exchange(&self, request: Request<Bytes>) -> Result<Response, BackendError> {
        let mut response = self.client.send(request).await?;
        if response.status.is_success() {
            return Ok(response);
        }
        let body = response.error_body().await;
        Err(classify_status(response.status, &response.headers, &body, QUIRKS, SystemTime::now()))
    }
}
