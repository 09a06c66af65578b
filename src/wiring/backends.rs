//! Backends out of settings.

use std::sync::Arc;

use opossum_actors::{ActorError, BackendPlan, BreakerHandle, InferencePlan};
use opossum_backends::fake::{FakeBackend, FakeScript};
use opossum_backends::gemini::{GeminiBackend, GeminiConfig};
use opossum_backends::http::{BadBaseUrl, HttpClient, HttpConfig};
use opossum_backends::ollama::{OllamaBackend, OllamaConfig};
use opossum_backends::openai::{OpenAiBackend, OpenAiConfig};
use opossum_backends::transformers::{LocalEncoder, TransformersBackend};
use opossum_backends::{Backend, UpstreamModel};
use opossum_core::breaker::{BreakerConfig, QuotaRenewal};
use opossum_core::ids::ServiceName;
use opossum_core::needs::Needs;
use opossum_jobs::UriError;
use opossum_ledger::AddressError;

use crate::service::catalogue::ServiceEntry;
use crate::settings::{ServiceKind, ServiceSettings, Settings};

/// Why a service cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum WiringError {
    /// An address that cannot be used.
    #[error("{key}: {source}")]
    BadUrl {
        /// The setting.
        key: String,
        /// What is wrong with it.
        source: BadBaseUrl,
    },
    /// A script of a `fake` service that cannot be read.
    #[error("{key}: {source}")]
    BadScript {
        /// The setting.
        key: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// An address that no broker can be at.
    #[error("amqp.url {0}")]
    BadBroker(#[from] UriError),
    /// The job queue's thread did not start.
    #[error("job queue: {0}")]
    Door(std::io::Error),
    /// An address that no ledger can be at.
    #[error("database.url: {0}")]
    BadDatabase(#[from] AddressError),
    /// TLS could not be set up.
    #[error("TLS: {0}")]
    Tls(String),
    /// Two metrics of one name.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The actors did not start.
    #[error("actors: {0}")]
    Actors(#[from] ActorError),
}

/// What is believed of a kind of backend until the operator or experience says otherwise.
#[derive(Clone, Copy)]
struct Kind {
    /// How good its answers are thought to be: hosted models over self-hosted ones over the embedded one.
    capability: f32,
    /// Whether its first token may have to wait for a model to load.
    cold_load: bool,
}

const GEMINI: Kind = Kind { capability: 0.9, cold_load: false };
const OPENAI: Kind = Kind { capability: 0.8, cold_load: false };
const OLLAMA: Kind = Kind { capability: 0.6, cold_load: true };
const FAKE: Kind = Kind { capability: 0.5, cold_load: false };
const EMBEDDED: Kind = Kind { capability: 0.2, cold_load: true };

/// What a service's model can do, by its name.
type Abilities = Box<dyn Fn(&str) -> Needs + Send + Sync>;

/// A configured backend.
pub(super) struct BackendSpec {
    /// Its name.
    pub name: ServiceName,
    /// Its models by configuration; empty where it lists them itself.
    pub models: Vec<String>,
    backend: Arc<dyn Backend>,
    /// What a model can do that the upstream does not describe.
    can: Abilities,
    kind: Kind,
    breaker: BreakerConfig,
}

impl BackendSpec {
    /// What one of its models can do.
    pub(super) fn can(&self, model: &str, listed: Option<&UpstreamModel>) -> Needs {
        listed.map_or_else(|| (self.can)(model), |m| m.can)
    }

    /// The service as the path knows it.
    pub(super) fn entry(
        &self,
        breaker: BreakerHandle,
        models_known: bool,
        settings: &Settings,
    ) -> ServiceEntry {
        let policy = settings.service_policy(self.name.as_str());
        let upstream = &settings.upstream;
        ServiceEntry {
            name: self.name.clone(),
            backend: Arc::clone(&self.backend),
            breaker,
            max_retries: policy.max_retries,
            retry_delay: policy.retry_delay,
            first_token: upstream.first_token,
            cold_load: self.kind.cold_load.then_some(upstream.cold_load),
            last_resort: policy.last_resort,
            capability: self.kind.capability,
            models_known: models_known || !self.models.is_empty(),
        }
    }

    /// The backend as the actors know it.
    pub(super) fn for_actors(&self) -> BackendPlan {
        BackendPlan { backend: Arc::clone(&self.backend), breaker: self.breaker }
    }
}

/// Every configured backend.
pub(super) fn build(
    settings: &Settings,
    inference: Option<&InferencePlan>,
    encoder: Option<&InferencePlan<dyn LocalEncoder>>,
) -> Result<Vec<BackendSpec>, WiringError> {
    let config = HttpConfig { connect_timeout: settings.upstream.connect, ..HttpConfig::default() };
    let client = HttpClient::new(config).map_err(|e| WiringError::Tls(e.to_string()))?;
    let mut specs = Vec::new();
    specs.extend(gemini(settings, &client)?);
    for (name, service) in &settings.services {
        specs.push(named(name, service, settings, &client)?);
    }
    specs.extend(ollama(settings, &client)?);
    specs.extend(inference.map(|plan| embedded(settings, plan, encoder)));
    Ok(specs)
}

fn spec(settings: &Settings, name: ServiceName, backend: Arc<dyn Backend>, kind: Kind) -> BackendSpec {
    let policy = settings.service_policy(name.as_str());
    let breaker = BreakerConfig {
        enabled: policy.breaker_enabled,
        failure_threshold: policy.failure_threshold,
        open_base: policy.reset_timeout,
        open_max: policy.max_reset_timeout,
        ..BreakerConfig::default()
    };
    BackendSpec { name, backend, models: Vec::new(), can: Box::new(|_| Needs::CHAT), kind, breaker }
}

fn gemini(settings: &Settings, client: &HttpClient) -> Result<Option<BackendSpec>, WiringError> {
    let Some(gemini) = &settings.gemini else { return Ok(None) };
    let name = ServiceName::from("gemini");
    let config = GeminiConfig {
        service: name.clone(),
        base_url: gemini.base_url.clone(),
        api_key: gemini.api_key.clone(),
    };
    let backend = GeminiBackend::new(config, client.clone()).map_err(|e| bad_url("gemini.base_url", e))?;
    let spec = spec(settings, name, Arc::new(backend), GEMINI);
    Ok(Some(BackendSpec {
        models: gemini.models.clone(),
        can: Box::new(GeminiBackend::can),
        // A spent day comes back by Google's calendar, whatever wait was named beside it.
        breaker: BreakerConfig { quota: QuotaRenewal::PacificMidnight, ..spec.breaker },
        ..spec
    }))
}

fn ollama(settings: &Settings, client: &HttpClient) -> Result<Option<BackendSpec>, WiringError> {
    let Some(ollama) = &settings.ollama else { return Ok(None) };
    let name = ServiceName::from("ollama");
    let mut config = OllamaConfig::new(name.clone(), ollama.base_url.clone());
    config.health_url.clone_from(&ollama.health_url);
    let backend = OllamaBackend::new(config, client.clone()).map_err(|e| bad_url("ollama.base_url", e))?;
    Ok(Some(spec(settings, name, Arc::new(backend), OLLAMA)))
}

fn embedded(
    settings: &Settings,
    plan: &InferencePlan,
    encoder: Option<&InferencePlan<dyn LocalEncoder>>,
) -> BackendSpec {
    let name = ServiceName::from("transformers");
    let mut backend = TransformersBackend::new(name.clone(), Arc::new(plan.handle()));
    if let Some(encoder) = encoder {
        backend = backend.with_encoder(Arc::new(encoder.handle()));
    }
    spec(settings, name, Arc::new(backend), EMBEDDED)
}

fn named(
    name: &str,
    service: &ServiceSettings,
    settings: &Settings,
    client: &HttpClient,
) -> Result<BackendSpec, WiringError> {
    let id = ServiceName::from(name);
    let all = service.needs().unwrap_or(Needs::all());
    let mut can: Abilities = Box::new(move |_| all);
    let (backend, kind): (Arc<dyn Backend>, Kind) = match service.kind {
        ServiceKind::OpenAi => {
            let mut config = OpenAiConfig::new(id.clone(), service.base_url.clone());
            config.api_key.clone_from(&service.api_key);
            config.can = service.needs().unwrap_or(config.can);
            let named = config.clone();
            can = Box::new(move |model| named.can_of(model));
            let key = format!("services.{name}.base_url");
            let backend = OpenAiBackend::new(config, client.clone()).map_err(|e| bad_url(&key, e))?;
            (Arc::new(backend), OPENAI)
        }
        ServiceKind::Fake => {
            let script = service.script.clone().unwrap_or_else(|| serde_json::json!({}));
            let script: FakeScript = serde_json::from_value(script).map_err(|source| {
                WiringError::BadScript { key: format!("services.{name}.script"), source }
            })?;
            (Arc::new(FakeBackend::new(id.clone(), script)), FAKE)
        }
    };
    let spec = spec(settings, id, backend, kind);
    Ok(BackendSpec { models: service.models.clone(), can, ..spec })
}

fn bad_url(key: &str, source: BadBaseUrl) -> WiringError {
    WiringError::BadUrl { key: key.to_owned(), source }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::settings::GeminiSettings;

    #[test]
    fn only_geminis_allowance_is_renewed_by_the_calendar() {
        let named = ServiceSettings { base_url: "http://127.0.0.1:9/v1".to_owned(), ..Default::default() };
        let settings = Settings {
            gemini: Some(GeminiSettings::with_key("key".into())),
            services: [("named".to_owned(), named)].into(),
            ..Settings::default()
        };
        let specs = build(&settings, None, None).unwrap();
        let quotas: Vec<_> = specs.iter().map(|s| (s.name.as_str(), s.breaker.quota)).collect();
        let expected = [("gemini", QuotaRenewal::PacificMidnight), ("named", QuotaRenewal::AfterWait)];
        assert_eq!(quotas, expected);
    }
}
