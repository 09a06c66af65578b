//! Google's Gemini API over its native protocol.
//!
//! Native rather than Google's OpenAI-compatible endpoint, because only this one tells a daily quota from a
//! minute's, carries thought signatures for certain, and takes JSON schemas and `top_k` as they are. The key
//! travels in the header `x-goog-api-key`, never in a URL, where logs and proxies would keep it.
//!
//! | file | what it does |
//! | --- | --- |
//! | `request` | a request of the domain as a body of `generateContent` |
//! | `turns` | the conversation in Gemini's turns |
//! | `thinking` | `reasoning_effort` as a budget or level of thought; families of models by name |
//! | `wire`, `answer` | answers and chunks as they are written, and as events |
//! | `stream` | the bytes of a streamed answer as chunks |
//! | `embed` | vectors of texts |
//! | `errors` | what Google's errors mean |
//! | `signatures` | thought signatures kept for clients that drop them |
//!
//! # Failure
//! As `errors` says. A stream that ends without a finish reason is `Truncated`; a blocked prompt is
//! `Refused`; an answer cut by a filter is an answer that finishes with `content_filter`.

mod answer;
mod embed;
mod errors;
mod list;
mod request;
mod signatures;
mod stream;
mod thinking;
mod turns;
mod wire;

use std::sync::Arc;
use std::time::SystemTime;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::HeaderName;
use opossum_core::class::FailureClass;
use opossum_core::embed::Embeddings;
use opossum_core::ids::ServiceName;
use opossum_core::needs::Needs;
use secrecy::SecretString;
use tokio::time::Instant;

use self::signatures::SignatureStore;
use self::stream::Decoder;
use self::thinking::Family;
use crate::http::{BadBaseUrl, Endpoint, EventBody, HttpClient, Response, retry_after};
use crate::{Backend, BackendError, Call, EmbedCall, Reply, UpstreamModel};

/// Where the Gemini API is unless configured otherwise.
pub const DEFAULT_BASE_URL: &str = "https://generativelanguage.googleapis.com";

/// What a Gemini backend needs to know.
#[derive(Clone, Debug)]
pub struct GeminiConfig {
    /// The service's name.
    pub service: ServiceName,
    /// The API's origin, without a version; usually [`DEFAULT_BASE_URL`].
    pub base_url: String,
    /// The API key.
    pub api_key: SecretString,
}

/// The Gemini API as a backend.
#[derive(Clone)]
pub struct GeminiBackend {
    shared: Arc<Shared>,
}

struct Shared {
    service: ServiceName,
    client: HttpClient,
    endpoint: Endpoint,
    signatures: SignatureStore,
}

impl GeminiBackend {
    /// A backend that talks through `client`; nothing is connected yet.
    ///
    /// # Errors
    /// When the base URL or the key cannot be used.
    pub fn new(config: GeminiConfig, client: HttpClient) -> Result<Self, BadBaseUrl> {
        let header = HeaderName::from_static("x-goog-api-key");
        let endpoint = Endpoint::new(&config.base_url, Some((header, "", &config.api_key)))?;
        let shared =
            Shared { service: config.service, client, endpoint, signatures: SignatureStore::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// What a model can do, as far as its name tells.
    ///
    /// Log probabilities are left out: only some models give them, and in another shape.
    pub fn can(model: &str) -> Needs {
        let all = Needs::CHAT
            | Needs::IMAGES
            | Needs::TOOLS
            | Needs::TOOL_CHOICE
            | Needs::JSON_OBJECT
            | Needs::JSON_SCHEMA
            | Needs::SEED
            | Needs::TOP_K
            | Needs::PENALTIES
            | Needs::STOP
            | Needs::MANY_CHOICES
            | Needs::REASONING;
        match Family::of(model) {
            Family::Embedding => embed::CAN,
            Family::EarlyGemma => Needs::CHAT | Needs::IMAGES | Needs::SEED | Needs::TOP_K | Needs::STOP,
            Family::Gemma | Family::Gemini2 => all.difference(Needs::REASONING),
            Family::Gemini25 | Family::Gemini3 => all,
        }
    }
}

impl Backend for GeminiBackend {
    fn service(&self) -> &ServiceName {
        &self.shared.service
    }

    fn generate(&self, call: Call) -> BoxFuture<'static, Result<Reply, BackendError>> {
        let shared = Arc::clone(&self.shared);
        async move { shared.generate(&call).await.map_err(|e| shared.endpoint.scrub(e)) }.boxed()
    }

    fn embed(&self, call: EmbedCall) -> BoxFuture<'static, Result<Embeddings, BackendError>> {
        let shared = Arc::clone(&self.shared);
        async move { shared.embed(&call).await.map_err(|e| shared.endpoint.scrub(e)) }.boxed()
    }

    fn models(&self) -> BoxFuture<'static, Result<Vec<UpstreamModel>, BackendError>> {
        let shared = Arc::clone(&self.shared);
        async move { shared.models().await.map_err(|e| shared.endpoint.scrub(e)) }.boxed()
    }

    fn probe(&self) -> BoxFuture<'static, Result<(), BackendError>> {
        let shared = Arc::clone(&self.shared);
        async move { shared.probe().await.map_err(|e| shared.endpoint.scrub(e)) }.boxed()
    }
}

impl Shared {
    async fn generate(self: &Arc<Self>, call: &Call) -> Result<Reply, BackendError> {
        let body = request::body(call, &self.signatures, Instant::now())?;
        let model = call.model.as_str();
        let stream = call.request.stream;
        let method = if stream { "streamGenerateContent?alt=sse" } else { "generateContent" };
        let uri = self.endpoint.uri(&format!("/v1beta/{}:{method}", model_path(model)))?;
        let response = self.client.send(self.endpoint.post(uri, call, body)).await?;
        let response = accepted(response).await?;
        if stream {
            return self.reply_stream(response, model);
        }
        let body = response.whole().await?;
        let answer = answer::whole(&body, model, &self.signatures, Instant::now())?;
        Ok(Reply::Whole(Box::new(answer)))
    }

    fn reply_stream(self: &Arc<Self>, response: Response, model: &str) -> Result<Reply, BackendError> {
        // JSON instead of events is read on: it may be an error that says what is wrong.
        let known = ["text/event-stream", "application/json"];
        if known.iter().all(|kind| response.is_type(kind) == Some(false)) {
            return Err(BackendError::new(FailureClass::BadResponse, "the answer is not an event stream"));
        }
        let decoder = Decoder::new(Arc::clone(self), model);
        Ok(Reply::Stream(Box::pin(EventBody::new(response, decoder)?)))
    }
}

/// The response, if its status is a success; else what its status and body mean.
async fn accepted(mut response: Response) -> Result<Response, BackendError> {
    if response.status.is_success() {
        return Ok(response);
    }
    let wait = retry_after(&response.headers, SystemTime::now());
    let body = response.error_body().await;
    Err(errors::classify(response.status.as_u16(), wait, &body))
}

/// A model's resource name as part of a path: `models/…` unless it is a tuned model.
fn model_path(model: &str) -> String {
    let (folder, name) = match model.split_once('/') {
        Some((folder @ ("models" | "tunedModels"), name)) => (folder, name),
        _ => ("models", model),
    };
    let mut path = format!("{folder}/");
    push_encoded(&mut path, name);
    path
}

/// Appends a text percent-encoded, so that it stays one segment or value whatever it holds (RFC 3986, 2.3).
fn push_encoded(path: &mut String, text: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => path.push(byte.into()),
            _ => path.extend(['%', HEX[usize::from(byte >> 4)].into(), HEX[usize::from(byte & 15)].into()]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_one_segment_of_the_path() {
        assert_eq!(model_path("gemini-2.5-flash"), "models/gemini-2.5-flash");
        assert_eq!(model_path("models/gemini-2.5-flash"), "models/gemini-2.5-flash");
        assert_eq!(model_path("tunedModels/my-1"), "tunedModels/my-1");
        assert_eq!(model_path("../a?b#c\r\n"), "models/..%2Fa%3Fb%23c%0D%0A");
    }

    #[test]
    fn abilities_follow_the_family() {
        assert!(GeminiBackend::can("gemini-2.5-pro").contains(Needs::REASONING | Needs::TOOLS));
        assert!(!GeminiBackend::can("gemini-2.0-flash").contains(Needs::REASONING));
        assert!(!GeminiBackend::can("gemma-3-4b-it").intersects(Needs::TOOLS | Needs::JSON_OBJECT));
        for model in ["gemini-embedding-001", "text-embedding-004"] {
            assert_eq!(GeminiBackend::can(model), Needs::EMBED | Needs::DIMENSIONS, "{model}");
        }
        for model in ["gemini-3-pro-preview", "gemma-3-4b-it"] {
            let can = GeminiBackend::can(model);
            assert!(
                !can.intersects(
                    Needs::COMPLETION | Needs::LOGPROBS | Needs::IMAGE_URLS | Needs::SERIAL_TOOLS
                )
            );
        }
    }
}
