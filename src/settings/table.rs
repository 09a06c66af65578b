//! The one table of everything that can be configured.
//!
//! The loader takes variables' names and spellings from it, refuses keys that are not in it, and
//! `docs/configuration.md` is printed from it. Its defaults are texts, held against the structs' own by a
//! test.

use super::kind::Kind;

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its path; `*` stands for a name of the operator's choice, or a place in a list.
    pub path: &'static str,
    /// Its environment variable; a leading `X_` stands for the name in `path`, in upper case.
    pub env: Option<&'static str>,
    /// Its default as it would be written in TOML; empty when there is none.
    pub default: &'static str,
    /// The kind of its value.
    pub kind: Kind,
    /// What it means, in one sentence.
    pub meaning: &'static str,
}

/// The same section in documentation: a path prefix, a heading and an introduction.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// The keys whose path begins with this.
    pub prefix: &'static str,
    /// The heading.
    pub title: &'static str,
    /// What it is about.
    pub about: &'static str,
}

const fn key(
    path: &'static str,
    env: &'static str,
    default: &'static str,
    kind: Kind,
    meaning: &'static str,
) -> Key {
    Key { path, env: if env.is_empty() { None } else { Some(env) }, default, kind, meaning }
}

/// All sections, in the order of the documentation. The first one that fits a key is its section.
#[rustfmt::skip]
pub const SECTIONS: &[Section] = &[
    Section { prefix: "log.", title: "Logging", about: "" },
    Section { prefix: "server.", title: "Server", about: "Without keys the service answers on loopback only: an address in `HOST` that others can reach is replaced by 127.0.0.1, and the service says so, unless `AUTH=off` says that this is meant. Production does not start until `AUTH` or `API_KEYS_FILE` decides." },
    Section { prefix: "gemini.", title: "Gemini", about: "There is a backend `gemini` once a key is given." },
    Section { prefix: "ollama.", title: "Ollama", about: "There is a backend `ollama` once its address is given." },
    Section { prefix: "services.", title: "Services that speak the OpenAI protocol", about: "Any number, each by a name of up to 40 of `a-z`, `0-9`, `-` and `_` that begins with a letter. `OPENAI_BASE_URL` makes one named `openai`; others are declared as `[services.NAME]` or listed in `SERVICES`. In the names of variables, `X` stands for the name in upper case with `_` for `-`: a service `my-vllm` has `MY_VLLM_BASE_URL`." },
    Section { prefix: "transformers.", title: "Embedded model", about: "The model in this process, which answers when nothing else can." },
    Section { prefix: "breaker.", title: "Circuit breakers", about: "Defaults of all services." },
    Section { prefix: "retry.", title: "Retries", about: "Defaults of all services. Only repetitions of the same backend count; failing over to another is immediate and no retry." },
    Section { prefix: "policy.", title: "Per service", about: "`X` is `GEMINI`, `OLLAMA`, `TRANSFORMERS`, `OPENAI` or the name of any other service in upper case with `_` for `-`; in TOML the section is `[policy.NAME]`." },
    Section { prefix: "params.", title: "Generation parameters", about: "Values for what neither a request nor its alias says." },
    Section { prefix: "models.", title: "Aliases", about: "Names that a request may give as its `model`, as `[models.ALIAS]` with `[[models.ALIAS.targets]]`. `config/default.toml` ships `gemini-thinking`, `gemma` and `transformers`; a list in a later file replaces the list before it." },
    Section { prefix: "upstream.", title: "Upstream time limits", about: "" },
    Section { prefix: "cache.", title: "Cache", about: "" },
    Section { prefix: "monitor.", title: "Monitoring of backends", about: "" },
    Section { prefix: "routing.", title: "Routing", about: "What the router believes before it has learned anything, as `[routing.arms.\"SERVICE\"]` or, stronger, `[routing.arms.\"SERVICE/MODEL\"]`." },
    Section { prefix: "redis.", title: "Redis", about: "Shared state; off until a host, a URL or sentinels are given." },
    Section { prefix: "amqp.", title: "Job queue", about: "" },
    Section { prefix: "database.", title: "Ledger", about: "" },
    Section { prefix: "telemetry.", title: "OpenTelemetry", about: "" },
    Section { prefix: "", title: "General", about: "" },
];

const ENVIRONMENTS: Kind = Kind::OneOf(&["development", "staging", "production"]);
const PRECISIONS: Kind = Kind::OneOf(&["auto", "f32", "bf16", "f16", "q8", "q4"]);

/// All keys.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    key("env", "ENV", "\"development\"", ENVIRONMENTS, "Where the service runs; selects `config/{ENV}.toml`. Only as a variable."),
    key("debug", "DEBUG", "false", Kind::Bool, "Logs at level `debug` unless `LOG_LEVEL` says otherwise."),
    key("state_dir", "STATE_DIR", "\"state\"", Kind::Text, "The state folder: ledger, learned weights, backups, kernel caches."),
    key("secret_key", "SECRET_KEY", "", Kind::Secret, "Signs and seals. Production does not start without it."),

    key("log.level", "LOG_LEVEL", "\"info\"", Kind::Level, "The least important events that are logged: trace, debug, info, warn or error."),
    key("log.format", "LOG_FORMAT", "\"text\"", Kind::OneOf(&["text", "json"]), "Lines for people (`text`) or one JSON object a line (`json`)."),

    key("server.host", "HOST", "\"127.0.0.1\"", Kind::Address, "The address to listen on."),
    key("server.port", "PORT", "8000", Kind::Port, "The TCP port; 0 takes a free one."),
    key("server.auth", "AUTH", "", Kind::OneOf(&["off", "keys"]), "`keys`: every caller must show a key of `API_KEYS_FILE`. `off`: nobody is asked, on any address. Unset: `keys` when `API_KEYS_FILE` is set, else nobody is asked and only loopback is served."),
    key("server.api_keys_file", "API_KEYS_FILE", "", Kind::Text, "The file that holds the hashed keys of callers."),
    key("server.request_timeout", "REQUEST_TIMEOUT", "300", Kind::Seconds, "The longest a request may take over queue, retries and stream, when it names no deadline itself."),
    key("server.max_in_flight", "MAX_IN_FLIGHT", "512", Kind::Count, "Requests worked on at the same time."),
    key("server.queue", "MAX_QUEUE", "", Kind::Count, "Requests that may wait beyond those. Unset: twice `MAX_IN_FLIGHT`."),
    key("server.queue_wait", "QUEUE_WAIT", "10", Kind::Seconds, "The longest a request waits for its turn before it is answered 503."),
    key("server.body_limit", "BODY_LIMIT", "\"4 MiB\"", Kind::Bytes, "Largest request body, after decompression."),
    key("server.body_limit_images", "BODY_LIMIT_IMAGES", "\"20 MiB\"", Kind::Bytes, "Largest request body that may carry images."),
    key("server.file_limit", "FILE_LIMIT", "\"200 MiB\"", Kind::Bytes, "Largest file that may be uploaded to `/v1/files`."),
    key("server.head_timeout", "HEAD_TIMEOUT", "5", Kind::Seconds, "The longest a request head may take to arrive."),
    key("server.body_timeout", "BODY_TIMEOUT", "30", Kind::Seconds, "The longest a request body may take to arrive."),
    key("server.write_idle", "WRITE_IDLE_TIMEOUT", "30", Kind::Seconds, "The longest an answer waits for a caller that does not read."),
    key("server.keep_alive", "KEEP_ALIVE", "15", Kind::Seconds, "The longest an idle connection is kept."),
    key("server.drain_delay", "DRAIN_DELAY", "5", Kind::Seconds, "On shutdown: time between \"not ready\" and the end of accepting, for load balancers to notice."),
    key("server.drain_timeout", "DRAIN_TIMEOUT", "25", Kind::Seconds, "On shutdown: time that running requests get to finish."),
    key("server.workers", "HTTP_WORKERS", "", Kind::Count, "Event loops. Unset: one a core."),
    key("server.test_hooks", "OPOSSUM_TEST_HOOKS", "false", Kind::Bool, "Opens routes that break parts of the service on purpose, for tests; refused in production."),

    key("gemini.api_key", "GEMINI_API_KEY", "", Kind::Secret, "The API key. It alone is enough for `auto` to reach a default Gemini model."),
    key("gemini.base_url", "GEMINI_BASE_URL", "\"https://generativelanguage.googleapis.com\"", Kind::Text, "Bare origin."),
    key("gemini.models", "GEMINI_MODELS", "[\"gemini-2.5-flash\", \"gemini-2.5-pro\", \"gemini-embedding-001\"]", Kind::List, "The models to offer."),

    key("ollama.base_url", "OLLAMA_BASE_URL", "", Kind::Text, "Bare origin, such as `http://127.0.0.1:11434`."),
    key("ollama.health_url", "OLLAMA_HEALTH_URL", "", Kind::Text, "The URL whose 200 means that the server lives. Unset: its list of models."),

    key("services", "SERVICES", "", Kind::List, "Names of further services, separated by commas, where no file declares them."),
    key("services.*.kind", "", "\"openai\"", Kind::OneOf(&["openai", "fake"]), "`openai`: the OpenAI protocol. `fake`: a scripted backend in this process, for trying out."),
    key("services.*.base_url", "X_BASE_URL", "", Kind::Text, "Where it is, ending in `/v1` as in the SDKs."),
    key("services.*.api_key", "X_API_KEY", "", Kind::Secret, "Its API key."),
    key("services.*.models", "X_MODELS", "[]", Kind::List, "The models to offer. Empty: what it lists itself."),
    key("services.*.supports", "X_SUPPORTS", "", Kind::Features, "What it can do, where that is less than its protocol can carry: a list of completion, images, image_urls, tools, json_object, json_schema, logprobs, many_choices, seed, top_k, penalties, logit_bias, reasoning, stop, tool_choice, serial_tools, suffix, echo, embed, dimensions, token_input. With embed and its like alone it embeds and does nothing else; beside others, the models whose names say so embed. Unset: all of it."),
    key("services.*.script", "", "", Kind::Any, "The script of a `fake` service."),

    key("transformers.enabled", "TRANSFORMERS_ENABLED", "true", Kind::Bool, "Whether there is an embedded model at all."),
    key("transformers.model", "TRANSFORMERS_MODEL", "\"smollm2-135m-instruct\"", Kind::Text, "A name that `opossum models list` shows, or the path of a GGUF file."),
    key("transformers.embedding_model", "TRANSFORMERS_EMBEDDING_MODEL", "\"all-minilm-l6-v2\"", Kind::Text, "The model that embeds: a name that `opossum models list` shows, or the path of a folder with `model.safetensors`, `tokenizer.json` and `config.json`. It is loaded at start where it is there, else with the first request for it. `none`: no embedded model embeds."),
    key("transformers.model_dir", "QUANTIZED_MODEL_DIR", "\"models\"", Kind::Text, "Where `opossum models pull` writes and the service reads."),
    key("transformers.device", "TRANSFORMERS_DEVICE", "\"auto\"", Kind::Device, "`auto` (the first CUDA device where binary and machine have one, else the CPU), `cpu` or `cuda:N`, which a binary built without CUDA refuses."),
    key("transformers.precision", "MODEL_PRECISION", "\"auto\"", PRECISIONS, "The width of the language model's weights: auto, f32, bf16, f16, q8 or q4. `auto`: on the CPU as the file has them, on a GPU with more than 8 GiB bf16, on a smaller one q8. With any other, matrices are converted while the model is loaded; `q4` loses the most."),
    key("transformers.use_quantized", "USE_QUANTIZED_MODELS", "true", Kind::Bool, "Whether `MODEL_PRECISION=auto` may keep weights quantized. `false`: on the CPU quantized matrices become f32 (they take several times the memory and time), on a GPU bf16."),
    key("transformers.workers", "TRANSFORMERS_WORKERS", "8", Kind::Count, "Answers computed at the same time, 1 to 256."),
    key("transformers.queue", "TRANSFORMERS_QUEUE", "512", Kind::Count, "Requests that may wait for the embedded model beyond those."),
    key("transformers.threads", "TRANSFORMERS_THREADS", "0", Kind::Count, "CPU threads for the tensor work; 0 means one a core."),
    key("transformers.max_context", "TRANSFORMERS_MAX_CONTEXT", "4096", Kind::Count, "Most tokens of prompt and answer together; the model's own limit where that is less."),
    key("transformers.kv_cache", "TRANSFORMERS_KV_CACHE", "", Kind::Bytes, "Memory for the keys and values of all answers together, those kept for later prompts included. Unset: what that many answers of that length take, at most 512 MiB and at most half of what is free, but enough for one."),
    key("transformers.load", "TRANSFORMERS_LOAD", "\"eager\"", Kind::OneOf(&["eager", "lazy"]), "`eager`: load in the background at start. `lazy`: load with the first request for it."),
    key("transformers.temperature", "TRANSFORMERS_TEMPERATURE", "0.2", Kind::Number, "Temperature for what neither a request, its alias nor `TEMPERATURE` says; as the makers of the default model recommend."),
    key("transformers.top_p", "TRANSFORMERS_TOP_P", "0.9", Kind::Number, "Nucleus mass for what neither a request, its alias nor `TOP_P` says."),

    key("breaker.failure_threshold", "CIRCUIT_BREAKER_FAILURE_THRESHOLD", "5", Kind::Count, "Failures in a row that open a breaker."),
    key("breaker.reset_timeout", "CIRCUIT_BREAKER_RESET_TIMEOUT", "60", Kind::Seconds, "The first open interval, with up to +50 % of jitter; it doubles while trials fail."),
    key("breaker.max_reset_timeout", "CIRCUIT_BREAKER_MAX_RESET_TIMEOUT", "300", Kind::Seconds, "The longest open interval."),

    key("retry.max_retries", "DEFAULT_MAX_RETRIES", "3", Kind::Count, "Times that the same backend is asked again, at most 20."),
    key("retry.delay", "DEFAULT_RETRY_DELAY", "1.0", Kind::Seconds, "The base of the delay before that, with full jitter."),

    key("policy.*.circuit_breaker_enabled", "X_CIRCUIT_BREAKER_ENABLED", "", Kind::Bool, "Whether the breaker may open. Unset: true; false for `transformers`."),
    key("policy.*.failure_threshold", "X_FAILURE_THRESHOLD", "", Kind::Count, "Unset: `CIRCUIT_BREAKER_FAILURE_THRESHOLD`."),
    key("policy.*.reset_timeout", "X_RESET_TIMEOUT", "", Kind::Seconds, "Unset: `CIRCUIT_BREAKER_RESET_TIMEOUT`."),
    key("policy.*.max_retries", "X_MAX_RETRIES", "", Kind::Count, "Unset: `DEFAULT_MAX_RETRIES`; 0 for `transformers`."),
    key("policy.*.retry_delay", "X_RETRY_DELAY", "", Kind::Seconds, "Unset: `DEFAULT_RETRY_DELAY`."),
    key("policy.*.rpm_limit", "X_RPM_LIMIT", "", Kind::Count, "Requests a minute that are sent to it at most. Unset: no limit."),
    key("policy.*.tpm_limit", "X_TPM_LIMIT", "", Kind::Count, "Tokens a minute that are used of it at most. Unset: no limit."),
    key("policy.*.daily_limit", "X_DAILY_LIMIT", "", Kind::Count, "Requests a day that are sent to it at most. Unset: no limit."),
    key("policy.*.weight", "X_WEIGHT", "", Kind::Number, "Multiplies the service's score in routing, 0 to 1000. Unset: 1."),
    key("policy.*.last_resort", "X_LAST_RESORT", "", Kind::Bool, "Whether it is asked only when all others are out. Unset: false; true for `transformers`."),

    key("params.max_tokens", "MAX_TOKENS", "", Kind::Count, "Tokens to generate at most. Unset: the backend's own limit."),
    key("params.temperature", "TEMPERATURE", "", Kind::Number, "0 to 2."),
    key("params.top_p", "TOP_P", "", Kind::Number, "Above 0 to 1."),
    key("params.top_k", "TOP_K", "", Kind::Count, "At least 1; left out for a backend that does not know it."),

    key("models.*.reroute", "", "false", Kind::Bool, "Whether other backends may answer when no target can; such an answer is marked as degraded."),
    key("models.*.targets.*.service", "", "", Kind::Text, "The service's name. Required."),
    key("models.*.targets.*.api_name", "", "", Kind::Text, "The model's name as that service knows it. Required."),
    key("models.*.targets.*.max_tokens", "", "", Kind::Count, "Tokens to generate at most, unless the request says otherwise."),
    key("models.*.targets.*.temperature", "", "", Kind::Number, "0 to 2, unless the request says otherwise."),
    key("models.*.targets.*.top_p", "", "", Kind::Number, "Above 0 to 1, unless the request says otherwise."),
    key("models.*.targets.*.top_k", "", "", Kind::Count, "At least 1, unless the request says otherwise."),
    key("models.*.targets.*.response_format", "", "", Kind::Format, "`text` or `json_object`, unless the request says otherwise."),
    key("models.*.targets.*.weight", "", "", Kind::Number, "Multiplies the score of this target in routing, 0 to 1000. Unset: 1."),

    key("upstream.connect", "UPSTREAM_CONNECT_TIMEOUT", "2", Kind::Seconds, "To accept a connection."),
    key("upstream.first_token", "UPSTREAM_FIRST_TOKEN_TIMEOUT", "20", Kind::Seconds, "To send the first token."),
    key("upstream.token_idle", "UPSTREAM_TOKEN_IDLE_TIMEOUT", "20", Kind::Seconds, "Between two tokens."),
    key("upstream.total", "UPSTREAM_TOTAL_TIMEOUT", "300", Kind::Seconds, "For everything."),
    key("upstream.cold_load", "UPSTREAM_COLD_LOAD_TIMEOUT", "120", Kind::Seconds, "To send the first token when a model must be loaded first, or reasons before it speaks."),
    key("upstream.slow_first_token", "UPSTREAM_SLOW_FIRST_TOKEN", "10", Kind::Seconds, "A first token later than this counts as slow: the answer is good, but breaker and router hear of it."),
    key("upstream.slow_tokens_per_second", "UPSTREAM_SLOW_TOKENS_PER_SECOND", "2.0", Kind::Number, "Fewer tokens a second than this count as slow; 0 never does."),
    key("upstream.slow_whole", "UPSTREAM_SLOW_WHOLE", "60", Kind::Seconds, "An unstreamed answer later than this counts as slow."),

    key("cache.enabled", "CACHE_ENABLED", "true", Kind::Bool, "Whether answers are kept at all."),
    key("cache.ttl", "CACHE_TTL", "3600", Kind::Seconds, "How long an answer may be given again."),
    key("cache.max_bytes", "CACHE_MAX_BYTES", "\"64 MiB\"", Kind::Bytes, "Memory for answers."),

    key("monitor.interval", "AVAILABILITY_CHECK_INTERVAL", "30", Kind::Seconds, "Time between two probes of a backend."),
    key("monitor.timeout", "AVAILABILITY_CHECK_TIMEOUT", "2", Kind::Seconds, "The longest a probe may take."),

    key("routing.arms.*.capability", "", "", Kind::Number, "How good its answers are thought to be, 0 to 1; only the order among backends matters. Unset: hosted models over self-hosted ones over the embedded one."),
    key("routing.arms.*.price_in", "", "", Kind::Number, "US dollars for a million tokens of prompt."),
    key("routing.arms.*.price_out", "", "", Kind::Number, "US dollars for a million tokens of answer."),
    key("routing.arms.*.context_tokens", "", "", Kind::Count, "Longest context in tokens."),

    key("redis.host", "REDIS_HOST", "", Kind::Text, "Host name or address."),
    key("redis.port", "REDIS_PORT", "6379", Kind::Port, "TCP port."),
    key("redis.password", "REDIS_PASSWORD", "", Kind::Secret, "Password."),
    key("redis.url", "REDIS_URL", "", Kind::SecretUrl, "`redis://` or `rediss://`, in place of host, port and password."),
    key("redis.sentinels", "REDIS_SENTINELS", "[]", Kind::List, "Sentinels as `host:port`, separated by commas."),
    key("redis.sentinel_master", "REDIS_SENTINEL_MASTER", "\"mymaster\"", Kind::Text, "The name of the group that the sentinels watch."),

    key("amqp.url", "AMQP_URL", "", Kind::SecretUrl, "`amqp://` or `amqps://`. Unset: no queue."),

    key("database.url", "DATABASE_URL", "", Kind::SecretUrl, "`postgres://` or `sqlite://`: the usage and job ledger. Unset: an embedded database in the state folder."),

    key("telemetry.enabled", "OTEL_ENABLED", "false", Kind::Bool, "Whether traces are sent."),
    key("telemetry.service_name", "OTEL_SERVICE_NAME", "\"opossum-search\"", Kind::Text, "The name under which they are sent."),
    key("telemetry.endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT", "", Kind::Text, "The collector: a bare origin for gRPC, a full `/v1/traces` URL for HTTP."),
];

impl Key {
    /// The key that a concrete path belongs to.
    pub(super) fn find(path: &[&str]) -> Option<&'static Key> {
        KEYS.iter().find(|key| key.matches(path))
    }

    fn matches(&self, path: &[&str]) -> bool {
        let mut parts = self.path.split('.');
        path.iter().all(|segment| parts.next().is_some_and(|part| part == "*" || part == *segment))
            && parts.next().is_none()
    }

    /// Whether the path holds a name of the operator's choice.
    pub fn is_named(&self) -> bool {
        self.path.contains('*')
    }

    /// Its variable for a service of this name; for a key without a name, simply its variable.
    pub fn env_for(&self, service: &str) -> Option<String> {
        let env = self.env?;
        if !self.is_named() {
            return Some(env.to_owned());
        }
        let rest = env.strip_prefix("X_")?;
        Some(format!("{}_{rest}", env_prefix(service)))
    }

    /// Its section in documentation.
    pub fn section(&self) -> &'static Section {
        let named = SECTIONS.iter().find(|s| !s.prefix.is_empty() && self.belongs(s.prefix));
        named.unwrap_or(&SECTIONS[SECTIONS.len() - 1])
    }

    fn belongs(&self, prefix: &str) -> bool {
        self.path.starts_with(prefix) || self.path == prefix.trim_end_matches('.')
    }
}

/// A service's name as it begins variables' names.
pub fn env_prefix(service: &str) -> String {
    service.to_ascii_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn paths_and_variables_are_unique() {
        let paths: BTreeSet<_> = KEYS.iter().map(|key| key.path).collect();
        assert_eq!(paths.len(), KEYS.len());
        let with_env: Vec<_> = KEYS.iter().filter_map(|key| key.env).collect();
        assert_eq!(with_env.iter().collect::<BTreeSet<_>>().len(), with_env.len());
    }

    #[test]
    fn a_concrete_path_finds_its_key() {
        let find = |path: &[&str]| Key::find(path).map(|key| key.path);
        assert_eq!(find(&["server", "port"]), Some("server.port"));
        assert_eq!(find(&["policy", "my-vllm", "rpm_limit"]), Some("policy.*.rpm_limit"));
        assert_eq!(find(&["models", "a", "targets", "0", "service"]), Some("models.*.targets.*.service"));
        assert_eq!(find(&["server"]), None);
        assert_eq!(find(&["server", "port", "x"]), None);
    }

    #[test]
    fn names_become_prefixes_of_variables() {
        let key = Key::find(&["policy", "my-vllm", "rpm_limit"]).and_then(|key| key.env_for("my-vllm"));
        assert_eq!(key.as_deref(), Some("MY_VLLM_RPM_LIMIT"));
    }
}
