//! The models that the API lists, and the sign of life.

use opossum_core::class::FailureClass;
use opossum_core::ids::ModelName;
use opossum_core::needs::Needs;
use serde::Deserialize;

use super::{GeminiBackend, Shared, accepted, push_encoded};
use crate::{BackendError, UpstreamModel};

/// Pages asked for at most; each holds up to 1000 models.
const MAX_PAGES: usize = 10;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    #[serde(default)]
    models: Vec<Model>,
    next_page_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Model {
    name: String,
    input_token_limit: Option<u32>,
    thinking: Option<bool>,
    supported_generation_methods: Option<Vec<String>>,
}

impl Shared {
    /// All models that generate content or embed it.
    pub(super) async fn models(&self) -> Result<Vec<UpstreamModel>, BackendError> {
        let mut models = Vec::new();
        let mut token = String::new();
        for _ in 0..MAX_PAGES {
            let page = self.page(1000, &token).await?;
            models.extend(page.models.into_iter().filter(Model::is_served).map(Model::into_upstream));
            match page.next_page_token {
                Some(next) if !next.is_empty() => token = next,
                _ => break,
            }
        }
        Ok(models)
    }

    /// Asks for one model of the list: proves address, key and service, and costs nothing.
    pub(super) async fn probe(&self) -> Result<(), BackendError> {
        self.page(1, "").await.map(drop)
    }

    async fn page(&self, size: u32, token: &str) -> Result<Page, BackendError> {
        let mut path = format!("/v1beta/models?pageSize={size}");
        if !token.is_empty() {
            path.push_str("&pageToken=");
            push_encoded(&mut path, token);
        }
        let uri = self.endpoint.uri(&path)?;
        let response = accepted(self.client.send(self.endpoint.get(uri)).await?).await?;
        let body = response.whole().await?;
        serde_json::from_slice(&body)
            .map_err(|e| BackendError::new(FailureClass::BadResponse, format!("not a list of models: {e}")))
    }
}

impl Model {
    fn is_served(&self) -> bool {
        match &self.supported_generation_methods {
            Some(methods) => methods.iter().any(|m| m == "generateContent" || m == "embedContent"),
            // An emulator that does not say serves what it lists.
            None => true,
        }
    }

    fn into_upstream(self) -> UpstreamModel {
        let name = self.name.strip_prefix("models/").unwrap_or(&self.name);
        let mut can = GeminiBackend::can(name);
        if let Some(thinks) = self.thinking {
            can.set(Needs::REASONING, thinks);
        }
        UpstreamModel { can, context_tokens: self.input_token_limit, name: ModelName::from(name) }
    }
}
