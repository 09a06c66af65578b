//! Settings: one documented struct a section, from files and the environment.
//!
//! Later sources win: built-in defaults, `config/default.toml`, `config/{ENV}.toml`, environment variables,
//! and `*_FILE` variables that name a file whose content is the value. Loading is a pure function of a folder
//! and a map of variables, so a reload is a second load, and a test needs no process environment. A wrong
//! value is an error that names its key; it never quotes a secret, and secrets print as `[redacted]`.

mod alias;
mod backends;
pub mod codec;
mod docs;
mod error;
mod external;
pub mod kind;
mod load;
mod policy;
mod provenance;
mod server;
pub mod table;
mod tree;
mod unused;

use std::collections::BTreeMap;
use std::path::PathBuf;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

pub use alias::{AliasSettings, AnswerFormat, TargetSettings};
pub use backends::{
    DeviceSetting, Feature, GeminiSettings, LoadWhen, OllamaSettings, Precision, ServiceKind,
    ServiceSettings, TransformersSettings, UpstreamSettings,
};
pub use docs::markdown;
pub use error::SettingsError;
pub use external::{AmqpSettings, DatabaseSettings, RedisSettings, TelemetrySettings};
pub use load::LoadOptions;
pub use policy::{
    ArmSettings, BreakerSettings, CacheSettings, MonitorSettings, ParamSettings, PolicySettings,
    RetrySettings, RoutingSettings, ServicePolicy,
};
pub use provenance::{Entry, Provenance};
pub use server::{Auth, Environment, LogFormat, LogLevel, LogSettings, ServerSettings};

/// Everything that can be configured.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where the service runs.
    pub env: Environment,
    /// Whether more is logged and told than production should.
    pub debug: bool,
    /// Logging.
    pub log: LogSettings,
    /// The HTTP server.
    pub server: ServerSettings,
    /// The state folder: ledger, weights, backups, kernel caches.
    pub state_dir: PathBuf,
    /// Signs and seals; required in production.
    #[serde(with = "codec::secret_opt")]
    pub secret_key: Option<SecretString>,
    /// Google's Gemini API, once a key is given.
    #[serde(deserialize_with = "backends::gemini")]
    pub gemini: Option<GeminiSettings>,
    /// An Ollama server, once its address is given.
    #[serde(deserialize_with = "backends::ollama")]
    pub ollama: Option<OllamaSettings>,
    /// Further services by name, `openai` among them once its address is given.
    pub services: BTreeMap<String, ServiceSettings>,
    /// The embedded model.
    pub transformers: TransformersSettings,
    /// The breakers' defaults.
    pub breaker: BreakerSettings,
    /// The retries' defaults.
    pub retry: RetrySettings,
    /// What differs for one service, by its name; read it through [`Settings::service_policy`].
    pub policy: BTreeMap<String, PolicySettings>,
    /// Values for what neither a request nor its alias says.
    pub params: ParamSettings,
    /// Aliases by name.
    pub models: BTreeMap<String, AliasSettings>,
    /// How long an upstream may take.
    pub upstream: UpstreamSettings,
    /// The exact cache.
    pub cache: CacheSettings,
    /// How backends are watched.
    pub monitor: MonitorSettings,
    /// What the router believes before it has learned anything.
    pub routing: RoutingSettings,
    /// Shared state.
    pub redis: RedisSettings,
    /// The job queue.
    pub amqp: AmqpSettings,
    /// The ledger.
    pub database: DatabaseSettings,
    /// Traces.
    pub telemetry: TelemetrySettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            env: Environment::default(),
            debug: false,
            log: LogSettings::default(),
            server: ServerSettings::default(),
            state_dir: PathBuf::from("state"),
            secret_key: None,
            gemini: None,
            ollama: None,
            services: BTreeMap::new(),
            transformers: TransformersSettings::default(),
            breaker: BreakerSettings::default(),
            retry: RetrySettings::default(),
            policy: BTreeMap::new(),
            params: ParamSettings::default(),
            models: BTreeMap::new(),
            upstream: UpstreamSettings::default(),
            cache: CacheSettings::default(),
            monitor: MonitorSettings::default(),
            routing: RoutingSettings::default(),
            redis: RedisSettings::default(),
            amqp: AmqpSettings::default(),
            database: DatabaseSettings::default(),
            telemetry: TelemetrySettings::default(),
        }
    }
}

impl Settings {
    /// What holds for a service once all defaults are in.
    pub fn service_policy(&self, service: &str) -> ServicePolicy {
        let none = PolicySettings::default();
        let own = self.policy.get(service).unwrap_or(&none);
        ServicePolicy::join(service, own, &self.breaker, &self.retry)
    }

    /// Parameters for what neither a request nor its alias says, for one service.
    pub fn params_for(&self, service: &str) -> ParamSettings {
        let all = &self.params;
        match service {
            "transformers" => ParamSettings {
                temperature: all.temperature.or(self.transformers.temperature),
                top_p: all.top_p.or(self.transformers.top_p),
                ..all.clone()
            },
            _ => all.clone(),
        }
    }

    /// Names that a service may have here, whether or not it is configured now.
    fn service_names(&self) -> Vec<&str> {
        let fixed = ["gemini", "ollama", "transformers", "openai"];
        let named = self.services.keys().map(String::as_str).filter(|name| *name != "openai");
        fixed.into_iter().chain(named).collect()
    }

    /// Checks what the types alone cannot, section by section.
    ///
    /// # Errors
    /// The first key whose value cannot be used.
    pub fn validate(&self) -> Result<(), SettingsError> {
        self.server.validate()?;
        self.gemini.as_ref().map_or(Ok(()), GeminiSettings::validate)?;
        self.ollama.as_ref().map_or(Ok(()), OllamaSettings::validate)?;
        self.services.iter().try_for_each(|(name, service)| service.validate(name))?;
        self.transformers.validate()?;
        self.breaker.validate()?;
        self.retry.validate()?;
        let names = self.service_names();
        for (name, policy) in &self.policy {
            policy.validate(name)?;
            error::ensure(
                names.contains(&name.as_str()),
                &format!("policy.{name}"),
                "is not the name of a service",
            )?;
        }
        self.params.validate("params")?;
        self.models.iter().try_for_each(|(alias, model)| model.validate(alias, &names))?;
        self.upstream.validate()?;
        self.cache.validate()?;
        self.monitor.validate()?;
        self.routing.validate()?;
        self.redis.validate()?;
        self.amqp.validate()?;
        self.database.validate()?;
        self.telemetry.validate()
    }

    /// Checks what only a service that answers callers needs.
    ///
    /// # Errors
    /// In production: a missing `SECRET_KEY`, undecided authentication, or opened test hooks.
    pub fn validate_serving(&self) -> Result<(), SettingsError> {
        let with_env = |mut error: SettingsError, env: &str| {
            error.env = Some(env.to_owned());
            error
        };
        self.transformers.check_device().map_err(|e| with_env(e, "TRANSFORMERS_DEVICE"))?;
        if self.env != Environment::Production {
            return Ok(());
        }
        error::ensure(self.secret_key.is_some(), "secret_key", "is required in production")
            .map_err(|e| with_env(e, "SECRET_KEY"))?;
        let undecided = "production needs a decision: \"keys\" with API_KEYS_FILE, or \"off\"";
        error::ensure(self.server.auth_decided(), "server.auth", undecided)
            .map_err(|e| with_env(e, "AUTH"))?;
        error::ensure(!self.server.test_hooks, "server.test_hooks", "must not be on in production")
            .map_err(|e| with_env(e, "OPOSSUM_TEST_HOOKS"))
    }
}
