//! Any server that speaks the OpenAI dialect: OpenAI itself, vLLM, SGLang, llama-server and many more.
//!
//! They agree on the outline and differ in the details, so answers are read with tolerance (unknown, missing
//! and null fields) but never completed by guessing: a stream counts as whole only when every choice in it
//! got its finish reason.

mod answer;
mod embed;
mod request;
mod stream;
mod template;
mod wire;

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Uri, header};
use opossum_core::class::FailureClass;
use opossum_core::embed::Embeddings;
use opossum_core::ids::{ModelName, ServiceName};
use opossum_core::needs::Needs;
use opossum_core::request::Prompt;
use secrecy::SecretString;

use crate::http::classify::{Quirks, classify_status};
use crate::http::{BadBaseUrl, Endpoint, EventBody, HttpClient, Response};
use crate::{Backend, BackendError, Call, EmbedCall, Reply, UpstreamModel, json};

use self::stream::Decoder;

/// The field that carries the token limit of a chat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MaxTokensField {
    /// `max_tokens`, which every compatible server knows.
    #[default]
    MaxTokens,
    /// `max_completion_tokens`, which OpenAI's own newer models insist on.
    MaxCompletionTokens,
}

/// How one server is reached and what it can do.
#[derive(Clone, Debug)]
pub struct OpenAiConfig {
    /// The name of the service.
    pub service: ServiceName,
    /// The base URL, which ends in `/v1`.
    pub base_url: String,
    /// Sent as a bearer token.
    pub api_key: Option<SecretString>,
    /// What the server's models can do: the protocol does not tell.
    pub can: Needs,
    /// How it takes the token limit.
    pub max_tokens_field: MaxTokensField,
    /// Whether a stream asks for usage (`stream_options`); false for servers that refuse the field.
    pub stream_usage: bool,
    /// Whether tool calls carry thought signatures (`extra_content.google`), as Google's compatible endpoint
    /// wants; others may refuse the field.
    pub signatures: bool,
}

impl OpenAiConfig {
    /// The configuration that suits an address: OpenAI's own API lacks what open servers add (`top_k`, raw
    /// completions) and wants the newer field for the token limit.
    pub fn new(service: impl Into<ServiceName>, base_url: impl Into<String>) -> Self {
        let base_url = base_url.into();
        let host = base_url.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_ascii_lowercase));
        let is_openai = host.is_some_and(|host| host == "openai.com" || host.ends_with(".openai.com"));
        let open_only = Needs::TOP_K | Needs::COMPLETION | Needs::SUFFIX | Needs::ECHO;
        Self {
            service: service.into(),
            base_url,
            api_key: None,
            can: if is_openai { Needs::all().difference(open_only) } else { Needs::all() },
            max_tokens_field: if is_openai {
                MaxTokensField::MaxCompletionTokens
            } else {
                MaxTokensField::MaxTokens
            },
            stream_usage: true,
            signatures: false,
        }
    }

    /// What one of the server's models can do, as far as its name tells.
    pub fn can_of(&self, model: &str) -> Needs {
        embed::abilities(model, self.can)
    }
}

/// A server that speaks the OpenAI dialect.
#[derive(Clone)]
pub struct OpenAiBackend(Arc<Inner>);

struct Inner {
    config: OpenAiConfig,
    client: HttpClient,
    endpoint: Endpoint,
    chat: Uri,
    completions: Uri,
    embeddings: Uri,
    models: Uri,
}

impl OpenAiBackend {
    /// A backend; nothing is connected yet.
    ///
    /// # Errors
    /// When the base URL or the key cannot be used.
    pub fn new(config: OpenAiConfig, client: HttpClient) -> Result<Self, BadBaseUrl> {
        let credential = config.api_key.as_ref().map(|key| (header::AUTHORIZATION, "Bearer ", key));
        let endpoint = Endpoint::new(&config.base_url, credential)?;
        Ok(Self(Arc::new(Inner {
            chat: endpoint.fixed("/chat/completions")?,
            completions: endpoint.fixed("/completions")?,
            embeddings: endpoint.fixed("/embeddings")?,
            models: endpoint.fixed("/models")?,
            endpoint,
            config,
            client,
        })))
    }
}

impl Backend for OpenAiBackend {
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
        // The dialect has no cheaper call that every server answers and that checks the credential too.
        let models = self.models();
        Box::pin(async move { models.await.map(drop) })
    }
}

impl Inner {
    async fn generate(&self, call: Call) -> Result<Reply, BackendError> {
        let uri = match call.request.prompt {
            Prompt::Chat(_) => &self.chat,
            Prompt::Text { .. } => &self.completions,
        };
        let body = request::body(&call, &self.config)?;
        let response = self.exchange(self.endpoint.post(uri.clone(), &call, body)).await?;
        if !call.request.stream {
            return Ok(Reply::Whole(Box::new(answer::whole(&response.whole().await?, &call.model)?)));
        }
        match response.is_type("text/event-stream") {
            Some(true) | None => {
                let decoder = Decoder::new(call.model, self.endpoint.clone());
                Ok(Reply::Stream(Box::pin(EventBody::new(response, decoder)?)))
            }
            // Some servers answer whole whatever is asked, or report an error this way.
            Some(false) if response.is_type("application/json") == Some(true) => {
                let answer = answer::whole(&response.whole().await?, &call.model)?;
                let events = answer::events(answer, &call.model);
                Ok(Reply::Stream(Box::pin(futures::stream::once(std::future::ready(Ok(events))))))
            }
            Some(false) => {
                Err(BackendError::new(FailureClass::BadResponse, "the answer is not an event stream")
                    .with_status(response.status.as_u16()))
            }
        }
    }

    async fn embed(&self, call: &EmbedCall) -> Result<Embeddings, BackendError> {
        let request = self.endpoint.post(self.embeddings.clone(), call, embed::body(call)?);
        let response = self.exchange(request).await?;
        embed::read(&response.whole().await?, call)
    }

    async fn models(&self) -> Result<Vec<UpstreamModel>, BackendError> {
        let response = self.exchange(self.endpoint.get(self.models.clone())).await?;
        let body = response.whole().await?;
        let list: wire::Models<'_> = json::read(&body)?;
        let models = list.data.into_iter().map(|model| UpstreamModel {
            context_tokens: model.context_tokens(),
            name: ModelName::new(&*model.id),
            can: self.config.can_of(&model.id),
        });
        Ok(models.collect())
    }

    /// Sends and resolves with an answer of status 2xx; every other is an error.
    async fn exchange(&self, request: Request<Bytes>) -> Result<Response, BackendError> {
        let mut response = self.client.send(request).await?;
        if response.status.is_success() {
            return Ok(response);
        }
        let body = response.error_body().await;
        let now = SystemTime::now();
        Err(classify_status(response.status, &response.headers, &body, Quirks::default(), now))
    }
}
