//! The backends: where they are and what they may be asked.

use std::path::PathBuf;
use std::time::Duration;

use opossum_core::needs::Needs;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::codec::{seconds, secret, secret_opt};
use super::error::{SettingsError, ensure};
use super::policy::ParamSettings;

/// `[gemini]`: Google's Gemini API. There is such a backend once a key is given.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeminiSettings {
    /// Bare origin, without a trailing slash.
    pub base_url: String,
    /// The API key.
    #[serde(with = "secret")]
    pub api_key: SecretString,
    /// The models to offer, best known name first.
    pub models: Vec<String>,
}

impl GeminiSettings {
    /// The public origin and the default models, with this key.
    pub fn with_key(api_key: SecretString) -> Self {
        Self {
            base_url: "https://generativelanguage.googleapis.com".to_owned(),
            api_key,
            models: ["gemini-2.5-flash", "gemini-2.5-pro", "gemini-embedding-001"].map(str::to_owned).into(),
        }
    }

    pub(super) fn validate(&self) -> Result<(), SettingsError> {
        check_url("gemini.base_url", &self.base_url)?;
        check_models("gemini.models", &self.models)?;
        ensure(!self.models.is_empty(), "gemini.models", "must name at least one model")
    }
}

/// The section as it is written: without a key there is no backend.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGemini {
    base_url: Option<String>,
    #[serde(default, with = "secret_opt")]
    api_key: Option<SecretString>,
    models: Option<Vec<String>>,
}

pub(super) fn gemini<'de, D: Deserializer<'de>>(d: D) -> Result<Option<GeminiSettings>, D::Error> {
    let Some(raw) = Option::<RawGemini>::deserialize(d)? else { return Ok(None) };
    let Some(key) = raw.api_key else { return Ok(None) };
    let defaults = GeminiSettings::with_key(key);
    Ok(Some(GeminiSettings {
        base_url: raw.base_url.map_or(defaults.base_url, |url| trim_url(&url)),
        models: raw.models.unwrap_or(defaults.models),
        api_key: defaults.api_key,
    }))
}

/// `[ollama]`: an Ollama server. There is such a backend once its address is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OllamaSettings {
    /// Bare origin, without a trailing slash.
    pub base_url: String,
    /// The URL whose 200 means that the server lives. Unset: the server's own list of models.
    pub health_url: Option<String>,
}

impl OllamaSettings {
    pub(super) fn validate(&self) -> Result<(), SettingsError> {
        check_url("ollama.base_url", &self.base_url)?;
        self.health_url.as_deref().map_or(Ok(()), |url| check_url("ollama.health_url", url))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOllama {
    base_url: Option<String>,
    health_url: Option<String>,
}

pub(super) fn ollama<'de, D: Deserializer<'de>>(d: D) -> Result<Option<OllamaSettings>, D::Error> {
    let Some(raw) = Option::<RawOllama>::deserialize(d)? else { return Ok(None) };
    let Some(base_url) = raw.base_url else { return Ok(None) };
    Ok(Some(OllamaSettings { base_url: trim_url(&base_url), health_url: raw.health_url }))
}

/// What a named service speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceKind {
    /// The OpenAI protocol: OpenAI itself, vLLM, SGLang, llama-server and many more.
    #[default]
    OpenAi,
    /// A scripted backend inside this process, for trying out and for tests.
    Fake,
}

/// `[services.NAME]`: any number of further backends, each by its own name. `OPENAI_BASE_URL` makes one named
/// `openai`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceSettings {
    /// What it speaks.
    pub kind: ServiceKind,
    /// Where it is, ending in `/v1` as in the SDKs and without a trailing slash; empty for `fake` only.
    pub base_url: String,
    /// Its API key.
    #[serde(with = "secret_opt")]
    pub api_key: Option<SecretString>,
    /// The models to offer. Empty: what it lists itself.
    pub models: Vec<String>,
    /// What it can do, where that is less than its protocol can carry.
    pub supports: Option<Vec<Feature>>,
    /// The script of a `fake` service.
    pub script: Option<serde_json::Value>,
}

impl ServiceSettings {
    /// What it can do, where the operator says; `None` means all that its protocol can carry.
    pub fn needs(&self) -> Option<Needs> {
        let features = self.supports.as_ref()?;
        let named = features.iter().fold(Needs::empty(), |needs, feature| needs | feature.0);
        // Whoever does anything but embed can chat; there is nothing else to do it with.
        let only_embeds = named.contains(Needs::EMBED) && Needs::EMBEDDING.contains(named);
        Some(if only_embeds { named } else { named | Needs::CHAT })
    }

    pub(super) fn validate(&self, name: &str) -> Result<(), SettingsError> {
        let key = |field: &str| format!("services.{name}.{field}");
        check_service_name(name)?;
        check_models(&key("models"), &self.models)?;
        if self.kind == ServiceKind::Fake {
            return Ok(());
        }
        ensure(!self.base_url.is_empty(), &key("base_url"), "is required for a service of kind \"openai\"")?;
        ensure(self.script.is_none(), &key("script"), "is only for a service of kind \"fake\"")?;
        check_url(&key("base_url"), &self.base_url)
    }
}

/// One ability of a backend, by the name of the flag in lower case, such as `tools` or `image_urls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature(pub Needs);

impl Feature {
    /// Reads a feature's name.
    pub fn parse(name: &str) -> Option<Self> {
        Needs::from_name(&name.trim().to_ascii_uppercase()).map(Feature)
    }

    /// The names of all features, for messages.
    pub fn names() -> String {
        let names: Vec<_> = Needs::all().iter_names().map(|(name, _)| name.to_ascii_lowercase()).collect();
        names.join(", ")
    }
}

impl Serialize for Feature {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let name = self.0.iter_names().next().map_or("", |(name, _)| name);
        s.serialize_str(&name.to_ascii_lowercase())
    }
}

impl<'de> Deserialize<'de> for Feature {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let name = String::deserialize(d)?;
        Feature::parse(&name).ok_or_else(|| de::Error::custom(format!("unknown feature {name:?}")))
    }
}

/// `[transformers]`: models embedded in this process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransformersSettings {
    /// Whether there is an embedded model at all.
    pub enabled: bool,
    /// The model: a name of the catalogue, or the path of a GGUF file.
    pub model: String,
    /// The model that embeds: a name of the catalogue, or the path of a folder; `none` for none.
    pub embedding_model: String,
    /// Where models are pulled to and read from.
    pub model_dir: PathBuf,
    /// Where the tensors are computed.
    pub device: DeviceSetting,
    /// The width of the weights.
    pub precision: Precision,
    /// Whether quantized weights may be used where `precision` asks for none in particular.
    pub use_quantized: bool,
    /// Answers computed at the same time.
    pub workers: usize,
    /// Requests that may wait for the embedded model beyond those.
    pub queue: usize,
    /// CPU threads for the tensor work; 0 means one a core.
    pub threads: usize,
    /// Most tokens of prompt and answer together; the model's own limit where that is less.
    pub max_context: usize,
    /// Memory for keys and values of all answers together, in bytes; what suits the others where there is none.
    pub kv_cache: Option<usize>,
    /// When the model is loaded.
    pub load: LoadWhen,
    /// Temperature for what neither a request, its alias nor `[params]` says.
    pub temperature: Option<f32>,
    /// Nucleus mass for what neither a request, its alias nor `[params]` says.
    pub top_p: Option<f32>,
}

impl Default for TransformersSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            model: "smollm2-135m-instruct".to_owned(),
            embedding_model: "all-minilm-l6-v2".to_owned(),
            model_dir: PathBuf::from("models"),
            device: DeviceSetting::Auto,
            precision: Precision::Auto,
            use_quantized: true,
            workers: 8,
            // As many as are admitted at the door: the last resort turns nobody away who is willing to wait.
            queue: 512,
            threads: 0,
            max_context: 4096,
            kv_cache: None,
            load: LoadWhen::Eager,
            // What the makers of the default model recommend: at 1.0 a model this small loses the thread.
            temperature: Some(0.2),
            top_p: Some(0.9),
        }
    }
}

impl TransformersSettings {
    /// The model that embeds, if there is to be one.
    pub fn encoder(&self) -> Option<&str> {
        Some(self.embedding_model.as_str()).filter(|name| self.enabled && *name != "none")
    }

    /// Refuses a device that this binary cannot use on any machine.
    pub(super) fn check_device(&self) -> Result<(), SettingsError> {
        let usable =
            cfg!(feature = "cuda") || !self.enabled || !matches!(self.device, DeviceSetting::Cuda(_));
        let problem = "names a CUDA device, and this binary was built without CUDA: build one with it (make cuda), \
                       or say \"auto\" or \"cpu\"";
        ensure(usable, "transformers.device", problem)
    }

    pub(super) fn validate(&self) -> Result<(), SettingsError> {
        ensure(!self.model.is_empty(), "transformers.model", "must name a model or a file")?;
        let named = !self.embedding_model.is_empty();
        ensure(named, "transformers.embedding_model", "must name a model or a folder, or be \"none\"")?;
        ensure((1..=256).contains(&self.workers), "transformers.workers", "must be from 1 to 256")?;
        ensure(self.queue >= 1, "transformers.queue", "must be at least 1")?;
        ensure(self.kv_cache != Some(0), "transformers.kv_cache", "must be more than 0 bytes; leave it out")?;
        ensure(self.max_context >= 16, "transformers.max_context", "must be at least 16 tokens")?;
        let sampling =
            ParamSettings { temperature: self.temperature, top_p: self.top_p, ..ParamSettings::default() };
        sampling.validate("transformers")?;
        let quantized = matches!(self.precision, Precision::Q8 | Precision::Q4);
        ensure(
            self.use_quantized || !quantized,
            "transformers.precision",
            "asks for quantized weights while transformers.use_quantized is false",
        )
    }
}

/// When the embedded model is loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LoadWhen {
    /// In the background as soon as the service starts.
    #[default]
    Eager,
    /// With the first request for it.
    Lazy,
}

/// The width of the embedded model's weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// What suits the device.
    #[default]
    Auto,
    /// 32-bit floating point.
    F32,
    /// 16-bit, range of 32-bit.
    Bf16,
    /// 16-bit.
    F16,
    /// 8-bit blocks.
    Q8,
    /// 4-bit blocks.
    Q4,
}

/// Where the embedded model is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceSetting {
    /// The first CUDA device where there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device with this index.
    Cuda(usize),
}

impl DeviceSetting {
    /// Reads `auto`, `cpu`, `cuda` (the first) or `cuda:N`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "auto" => Some(DeviceSetting::Auto),
            "cpu" => Some(DeviceSetting::Cpu),
            "cuda" => Some(DeviceSetting::Cuda(0)),
            other => other.strip_prefix("cuda:")?.parse().ok().map(DeviceSetting::Cuda),
        }
    }
}

impl Serialize for DeviceSetting {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            DeviceSetting::Auto => s.serialize_str("auto"),
            DeviceSetting::Cpu => s.serialize_str("cpu"),
            DeviceSetting::Cuda(index) => s.collect_str(&format_args!("cuda:{index}")),
        }
    }
}

impl<'de> Deserialize<'de> for DeviceSetting {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        DeviceSetting::parse(&text).ok_or_else(|| de::Error::custom("must be auto, cpu or cuda:N"))
    }
}

/// `[upstream]`: how long an upstream may take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamSettings {
    /// To accept a connection.
    #[serde(with = "seconds")]
    pub connect: Duration,
    /// To send the first token.
    #[serde(with = "seconds")]
    pub first_token: Duration,
    /// Between two tokens.
    #[serde(with = "seconds")]
    pub token_idle: Duration,
    /// For everything.
    #[serde(with = "seconds")]
    pub total: Duration,
    /// To send the first token when it must load the model first, or reasons before it speaks.
    #[serde(with = "seconds")]
    pub cold_load: Duration,
    /// A first token later than this counts as slow: the answer is good, but the breaker and the router hear of it.
    #[serde(with = "seconds")]
    pub slow_first_token: Duration,
    /// Fewer tokens a second than this count as slow.
    pub slow_tokens_per_second: f64,
    /// An unstreamed answer later than this counts as slow.
    #[serde(with = "seconds")]
    pub slow_whole: Duration,
}

impl Default for UpstreamSettings {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            first_token: Duration::from_secs(20),
            token_idle: Duration::from_secs(20),
            total: Duration::from_secs(300),
            cold_load: Duration::from_secs(120),
            slow_first_token: Duration::from_secs(10),
            slow_tokens_per_second: 2.0,
            slow_whole: Duration::from_secs(60),
        }
    }
}

impl UpstreamSettings {
    pub(super) fn validate(&self) -> Result<(), SettingsError> {
        let all = [
            ("upstream.connect", self.connect),
            ("upstream.first_token", self.first_token),
            ("upstream.token_idle", self.token_idle),
            ("upstream.total", self.total),
            ("upstream.cold_load", self.cold_load),
            ("upstream.slow_first_token", self.slow_first_token),
            ("upstream.slow_whole", self.slow_whole),
        ];
        all.iter()
            .try_for_each(|(key, span)| ensure(!span.is_zero(), key, "must be longer than 0 seconds"))?;
        let rate = self.slow_tokens_per_second;
        ensure(rate.is_finite() && rate >= 0.0, "upstream.slow_tokens_per_second", "must be at least 0")
    }
}

/// A service's name: it is part of metrics, of `service/model` and, in upper case, of variables' names.
fn check_service_name(name: &str) -> Result<(), SettingsError> {
    let key = format!("services.{name}");
    let mut chars = name.chars();
    let good = chars.next().is_some_and(|c| c.is_ascii_lowercase())
        && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_')
        && name.len() <= 40;
    ensure(good, &key, "a service's name is up to 40 of a-z, 0-9, - and _, beginning with a letter")?;
    let taken = ["gemini", "ollama", "transformers", "auto"].contains(&name);
    ensure(!taken, &key, "this name has a meaning of its own; choose another")
}

fn check_models(key: &str, models: &[String]) -> Result<(), SettingsError> {
    let good = models.iter().all(|m| !m.is_empty() && !m.chars().any(|c| c.is_control() || c == ' '));
    ensure(good, key, "a model's name is neither empty nor has spaces")
}

/// An http or https address without credentials, query or fragment.
pub(super) fn check_url(key: &str, url: &str) -> Result<(), SettingsError> {
    let parsed: Option<http::Uri> = url.parse().ok();
    let Some(uri) = parsed else { return Err(SettingsError::new(key, "is not a URL")) };
    let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
    ensure(scheme, key, "must begin with http:// or https://")?;
    let authority = uri.authority().map_or("", http::uri::Authority::as_str);
    ensure(!authority.is_empty(), key, "names no host")?;
    ensure(!authority.contains('@'), key, "must not carry a user or a password")?;
    ensure(uri.query().is_none() && !url.contains('#'), key, "must not have a query or a fragment")
}

/// Without the trailing slash, so that paths can be appended.
pub(super) fn trim_url(url: &str) -> String {
    url.trim().trim_end_matches('/').to_owned()
}
