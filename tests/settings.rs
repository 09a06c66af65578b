//! Settings promise: later sources win, a mistake names its key, and no secret is ever printed.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use opossum::settings::table::KEYS;
use opossum::settings::{
    AnswerFormat, Auth, DeviceSetting, Environment, LoadOptions, LogLevel, Precision, Provenance,
    ServiceKind, Settings, SettingsError, markdown,
};
use secrecy::ExposeSecret;

/// A folder of its own for one test, removed when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("opossum-settings-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn options(dir: &Path, env: &[(&str, &str)]) -> LoadOptions {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    LoadOptions { config_dir: dir.to_owned(), config_dir_required: false, env }
}

fn load(dir: &Path, env: &[(&str, &str)]) -> Result<(Settings, Provenance), SettingsError> {
    Settings::load(&options(dir, env))
}

/// Loads from a folder that does not exist: built-in defaults and the environment only.
fn from_env(env: &[(&str, &str)]) -> Result<(Settings, Provenance), SettingsError> {
    load(Path::new("/nonexistent/opossum"), env)
}

fn error(env: &[(&str, &str)]) -> SettingsError {
    match from_env(env) {
        Ok(_) => panic!("{env:?} was taken"),
        Err(error) => error,
    }
}

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config")
}

#[test]
fn without_anything_the_built_in_defaults_hold() {
    let (settings, _) = from_env(&[]).unwrap();
    assert_eq!(settings.server.host.to_string(), "127.0.0.1");
    assert_eq!(settings.server.port, 8000);
    assert_eq!(settings.server.request_timeout, Duration::from_secs(300));
    assert_eq!(settings.server.queue_limit(), 1024);
    assert_eq!(settings.env, Environment::Development);
    assert!(settings.gemini.is_none() && settings.ollama.is_none() && settings.services.is_empty());
    assert!(settings.models.contains_key("gemini-thinking"));
}

#[test]
fn the_shipped_files_load_in_every_environment() {
    for env in ["development", "staging", "production"] {
        let (settings, provenance) = load(&shipped(), &[("ENV", env)]).unwrap();
        assert_eq!(settings.env.as_str(), env);
        assert!(provenance.notes.is_empty(), "{:?}", provenance.notes);
    }
}

#[test]
fn later_sources_win() {
    let folder = Folder::new("later");
    folder.write("default.toml", "[server]\nport = 1\nmax_in_flight = 1\nkeep_alive = 1\nworkers = 1\n");
    folder.write("staging.toml", "[server]\nmax_in_flight = 2\nkeep_alive = 2\nworkers = 2\n");
    let file = folder.write("workers", "4\n");
    let env = [
        ("ENV", "staging"),
        ("KEEP_ALIVE", "3"),
        ("HTTP_WORKERS", "3"),
        ("HTTP_WORKERS_FILE", file.to_str().unwrap()),
    ];
    let (settings, provenance) = load(&folder.0, &env).unwrap();
    let server = &settings.server;
    assert_eq!((server.port, server.max_in_flight, server.workers), (1, 2, Some(4)));
    assert_eq!(server.keep_alive, Duration::from_secs(3));
    assert!(provenance.get("server.port").unwrap().origin.ends_with("default.toml"));
    assert!(provenance.get("server.max_in_flight").unwrap().origin.ends_with("staging.toml"));
    assert_eq!(provenance.get("server.keep_alive").unwrap().origin, "the environment");
    assert!(provenance.get("server.workers").unwrap().origin.contains("HTTP_WORKERS_FILE"));
}

#[test]
fn a_file_of_another_environment_is_not_read() {
    let folder = Folder::new("other");
    folder.write("production.toml", "[server]\nport = 7\n");
    assert_eq!(load(&folder.0, &[]).unwrap().0.server.port, 8000);
}

#[test]
fn secrets_come_from_files_without_their_line_end() {
    let folder = Folder::new("secret");
    let key = folder.write("key", "canary-key\n");
    let (settings, _) = from_env(&[("GEMINI_API_KEY_FILE", key.to_str().unwrap())]).unwrap();
    assert_eq!(settings.gemini.unwrap().api_key.expose_secret(), "canary-key");

    let empty = folder.write("empty", "\n");
    for path in [empty.to_str().unwrap(), "/nonexistent/key"] {
        let error = error(&[("SECRET_KEY_FILE", path)]).to_string();
        assert!(error.contains("SECRET_KEY_FILE") && error.contains(path), "{error}");
    }
}

#[test]
fn every_spelling_of_the_environment_is_taken() {
    let (settings, _) = from_env(&[
        ("DEBUG", "True"),
        ("REQUEST_TIMEOUT", "5m"),
        ("BODY_LIMIT", "1MiB"),
        ("TRANSFORMERS_ENABLED", "no"),
        ("TRANSFORMERS_DEVICE", "cuda:1"),
        ("MODEL_PRECISION", "Q8"),
        ("TEMPERATURE", "0.5"),
        ("REDIS_SENTINELS", "a:1, b:2"),
        ("OLLAMA_BASE_URL", "http://127.0.0.1:11434/"),
        ("GEMINI_API_KEY", ""),
    ])
    .unwrap();
    assert!(settings.debug && !settings.transformers.enabled);
    assert_eq!(settings.log.level, LogLevel::Debug);
    assert_eq!(settings.server.request_timeout, Duration::from_secs(300));
    assert_eq!(settings.server.body_limit, 1 << 20);
    assert_eq!(settings.transformers.device, DeviceSetting::Cuda(1));
    assert_eq!(settings.transformers.precision, Precision::Q8);
    assert_eq!(settings.params.temperature, Some(0.5));
    assert_eq!(settings.redis.sentinels, ["a:1", "b:2"]);
    assert_eq!(settings.ollama.unwrap().base_url, "http://127.0.0.1:11434");
    assert!(settings.gemini.is_none(), "an empty variable counts as unset");
}

#[test]
fn a_wrong_value_names_its_key_its_variable_and_its_source() {
    for (name, value, key) in [
        ("PORT", "eighty", "server.port"),
        ("PORT", "65536", "server.port"),
        ("ENV", "prod", "env"),
        ("DEBUG", "maybe", "debug"),
        ("LOG_LEVEL", "loud", "log.level"),
        ("REQUEST_TIMEOUT", "soon", "server.request_timeout"),
        ("REQUEST_TIMEOUT", "0", "server.request_timeout"),
        ("TEMPERATURE", "3", "params.temperature"),
        ("OLLAMA_BASE_URL", "127.0.0.1:11434", "ollama.base_url"),
        ("OPENAI_BASE_URL", "http://user:pass@host/v1", "services.openai.base_url"),
        ("OLLAMA_MAX_RETRIES", "-1", "policy.ollama.max_retries"),
        ("GEMINI_RPM_LIMIT", "0", "policy.gemini.rpm_limit"),
        ("TRANSFORMERS_DEVICE", "gpu", "transformers.device"),
        ("DATABASE_URL", "mysql://host/db", "database.url"),
        ("AUTH", "keys", "server.api_keys_file"),
    ] {
        let error = error(&[(name, value)]);
        assert_eq!(error.key, key, "{error}");
        let text = error.to_string();
        assert!(text.contains(name) || key == "server.api_keys_file", "{text}");
    }
}

#[test]
fn an_unknown_key_is_refused_with_a_hint() {
    let folder = Folder::new("unknown");
    folder.write("default.toml", "[server]\nprot = 1\n");
    let error = load(&folder.0, &[]).unwrap_err();
    assert_eq!(error.key, "server.prot");
    assert!(error.to_string().contains("did you mean port"), "{error}");
    assert!(error.to_string().contains("default.toml"), "{error}");

    for text in
        ["nonsense = 1", "[nonsense]\nx = 1", "[server.port]\nx = 1", "server = 1", "env = \"staging\""]
    {
        folder.write("default.toml", text);
        assert!(load(&folder.0, &[]).is_err(), "{text}");
    }
}

#[test]
fn a_broken_file_is_named_and_not_quoted() {
    let folder = Folder::new("broken");
    folder.write("default.toml", "[gemini]\napi_key = \"canary\n");
    let text = load(&folder.0, &[]).unwrap_err().to_string();
    assert!(text.contains("default.toml") && text.contains("not TOML"), "{text}");
    assert!(!text.contains("canary"), "{text}");
}

#[test]
fn a_folder_that_somebody_named_must_be_there() {
    let mut options = options(Path::new("/nonexistent/opossum"), &[]);
    options.config_dir_required = true;
    assert!(Settings::load(&options).unwrap_err().to_string().contains("/nonexistent/opossum"));
}

#[test]
fn no_secret_is_ever_printed() {
    const SECRETS: [&str; 7] = [
        "SECRET_KEY",
        "GEMINI_API_KEY",
        "OPENAI_API_KEY",
        "REDIS_PASSWORD",
        "REDIS_URL",
        "AMQP_URL",
        "DATABASE_URL",
    ];
    let value = |name: &str| match name {
        "REDIS_URL" => "redis://:canary@host:6379".to_owned(),
        "AMQP_URL" => "amqp://user:canary@host/".to_owned(),
        "DATABASE_URL" => "postgres://user:canary@host/db?password=canary".to_owned(),
        _ => "canary".to_owned(),
    };
    let mut env: BTreeMap<String, String> =
        SECRETS.iter().map(|&name| (name.to_owned(), value(name))).collect();
    env.insert("OPENAI_BASE_URL".to_owned(), "http://host/v1".to_owned());
    let mut options = options(&shipped(), &[]);
    options.env = env.clone();
    let (settings, provenance) = Settings::load(&options).unwrap();
    assert_eq!(settings.secret_key.as_ref().unwrap().expose_secret(), "canary");
    let printed = [
        format!("{settings:?}"),
        serde_json::to_string(&settings).unwrap(),
        provenance.to_toml(),
        format!("{provenance:?}"),
        serde_json::to_string(&provenance.all()).unwrap(),
    ];
    for text in printed {
        assert!(!text.contains("canary"), "{text}");
    }
    for name in SECRETS {
        assert!(provenance.to_toml().contains(&format!("{name}=")), "{name} is shown, redacted");
    }
    // Wrong values of secret keys, or secrets in the wrong place, are not quoted either.
    for (name, bad) in
        [("REDIS_URL", "canary"), ("AMQP_URL", "http://canary"), ("OPENAI_BASE_URL", "http://u:canary@h/v1")]
    {
        options.env = env.clone();
        options.env.insert(name.to_owned(), bad.to_owned());
        let text = Settings::load(&options).unwrap_err().to_string();
        assert!(text.contains(name) && !text.contains("canary"), "{text}");
    }
}

#[test]
fn every_service_has_a_policy_with_the_promised_defaults() {
    let (settings, _) = from_env(&[
        ("CIRCUIT_BREAKER_FAILURE_THRESHOLD", "7"),
        ("OLLAMA_FAILURE_THRESHOLD", "2"),
        ("OLLAMA_RESET_TIMEOUT", "0.5"),
        ("OLLAMA_CIRCUIT_BREAKER_ENABLED", "0"),
        ("GEMINI_RPM_LIMIT", "60"),
        ("GEMINI_TPM_LIMIT", "1000"),
        ("GEMINI_DAILY_LIMIT", "1500"),
        ("DEFAULT_RETRY_DELAY", "0.2"),
        ("OPENAI_MAX_RETRIES", "1"),
    ])
    .unwrap();
    let gemini = settings.service_policy("gemini");
    assert_eq!((gemini.failure_threshold, gemini.max_retries, gemini.breaker_enabled), (7, 3, true));
    assert_eq!((gemini.rpm, gemini.tpm, gemini.daily), (Some(60), Some(1000), Some(1500)));
    assert_eq!(gemini.reset_timeout, Duration::from_secs(60));
    let ollama = settings.service_policy("ollama");
    assert_eq!((ollama.failure_threshold, ollama.breaker_enabled), (2, false));
    assert_eq!(ollama.reset_timeout, Duration::from_millis(500));
    assert_eq!(ollama.retry_delay, Duration::from_millis(200));
    let embedded = settings.service_policy("transformers");
    assert_eq!((embedded.breaker_enabled, embedded.max_retries, embedded.last_resort), (false, 0, true));
    assert_eq!(settings.service_policy("openai").max_retries, 1);
}

#[test]
fn the_embedded_model_has_sampling_of_its_own_below_the_one_of_all() {
    let (settings, _) = from_env(&[("TOP_P", "0.5"), ("TOP_K", "7")]).unwrap();
    let embedded = settings.params_for("transformers");
    assert_eq!((embedded.temperature, embedded.top_p, embedded.top_k), (Some(0.2), Some(0.5), Some(7)));
    assert_eq!(settings.params_for("gemini"), settings.params);
    assert_eq!(error(&[("TRANSFORMERS_TOP_P", "0")]).key, "transformers.top_p");
}

#[test]
fn named_services_have_variables_of_their_own() {
    let folder = Folder::new("named");
    folder.write("default.toml", "[services.my-vllm]\nbase_url = \"http://a/v1\"\nsupports = [\"tools\"]\n");
    let env = [
        ("MY_VLLM_BASE_URL", "http://b/v1/"),
        ("MY_VLLM_API_KEY", "k"),
        ("MY_VLLM_RPM_LIMIT", "9"),
        ("SERVICES", "sglang"),
        ("SGLANG_BASE_URL", "http://c/v1"),
        ("SGLANG_MODELS", "qwen3,llama"),
        ("OPENAI_BASE_URL", "https://api.openai.com/v1"),
    ];
    let (settings, _) = load(&folder.0, &env).unwrap();
    let vllm = &settings.services["my-vllm"];
    assert_eq!((vllm.base_url.as_str(), vllm.kind), ("http://b/v1", ServiceKind::OpenAi));
    assert_eq!(vllm.api_key.as_ref().unwrap().expose_secret(), "k");
    assert_eq!(vllm.needs().unwrap().first_missing(opossum_core::needs::Needs::CHAT), Some("tools"));
    assert_eq!(settings.service_policy("my-vllm").rpm, Some(9));
    assert_eq!(settings.services["sglang"].models, ["qwen3", "llama"]);
    assert!(settings.services.contains_key("openai"));
}

#[test]
fn names_that_would_confuse_are_refused() {
    for name in ["gemini2,gemini2_", "a-b,a_b", "default", "circuit-breaker", "auto", "Upper", "-x", "a b"] {
        let error = error(&[("SERVICES", name)]);
        assert!(error.key.starts_with("services."), "{name}: {error}");
    }
}

#[test]
fn an_openai_key_alone_makes_no_service() {
    let (settings, provenance) = from_env(&[("OPENAI_API_KEY", "k")]).unwrap();
    assert!(settings.services.is_empty());
    assert!(provenance.notes[0].contains("OPENAI_BASE_URL"));
}

#[test]
fn aliases_carry_their_targets_and_parameters() {
    let (settings, _) = load(&shipped(), &[]).unwrap();
    let thinking = &settings.models["gemini-thinking"];
    assert_eq!(
        (thinking.targets[0].service.as_str(), thinking.targets[0].temperature),
        ("gemini", Some(0.7))
    );
    let gemma = &settings.models["gemma"].targets[0];
    assert_eq!((gemma.top_k, gemma.response_format), (Some(40), Some(AnswerFormat::Text)));
    assert!(!settings.models["transformers"].reroute);
    let params = gemma.params(&settings.params);
    assert_eq!((params.temperature, params.top_k, params.max_tokens), (Some(0.8), Some(40), None));
}

#[test]
fn an_alias_names_what_is_wrong_in_it() {
    let folder = Folder::new("alias");
    for (text, key) in [
        ("[models.a]\ntargets = []", "models.a.targets"),
        ("[[models.a.targets]]\nservice = \"gemini\"", "models.a.targets[0].api_name"),
        ("[[models.a.targets]]\nservice = \"x\"\napi_name = \"m\"", "models.a.targets[0].service"),
        (
            "[[models.a.targets]]\nservice = \"gemini\"\napi_name = \"m\"\ntop_p = 0",
            "models.a.targets[0].top_p",
        ),
        ("[[models.auto.targets]]\nservice = \"gemini\"\napi_name = \"m\"", "models.auto"),
        ("[[models.\"a/b\".targets]]\nservice = \"gemini\"\napi_name = \"m\"", "models.a/b"),
    ] {
        folder.write("default.toml", text);
        assert_eq!(load(&folder.0, &[]).unwrap_err().key, key, "{text}");
    }
}

#[test]
fn without_keys_only_loopback_is_served_and_it_is_said() {
    let (settings, provenance) = from_env(&[("HOST", "0.0.0.0")]).unwrap();
    assert!(settings.server.host.is_loopback());
    assert!(provenance.notes[0].contains("0.0.0.0"), "{:?}", provenance.notes);
    assert!(provenance.to_toml().contains("HOST=0.0.0.0"), "shown as it was given");

    for env in [[("HOST", "0.0.0.0"), ("AUTH", "off")], [("HOST", "0.0.0.0"), ("API_KEYS_FILE", "keys.json")]]
    {
        let (settings, provenance) = from_env(&env).unwrap();
        assert!(!settings.server.host.is_loopback());
        assert!(provenance.notes.is_empty());
    }
}

#[test]
fn production_wants_a_signing_key_and_a_decision_about_keys() {
    let serving = |env: &[(&str, &str)]| from_env(env).unwrap().0.validate_serving();
    assert!(serving(&[]).is_ok());
    let missing = serving(&[("ENV", "production")]).unwrap_err();
    assert_eq!(missing.env.as_deref(), Some("SECRET_KEY"));
    let undecided = serving(&[("ENV", "production"), ("SECRET_KEY", "s")]).unwrap_err();
    assert_eq!(undecided.env.as_deref(), Some("AUTH"));
    let off = [("ENV", "production"), ("SECRET_KEY", "s"), ("AUTH", "off")];
    assert!(serving(&off).is_ok());
    assert_eq!(from_env(&off).unwrap().0.server.auth, Some(Auth::Off));
    let hooks = [off[0], off[1], off[2], ("OPOSSUM_TEST_HOOKS", "1")];
    assert_eq!(serving(&hooks).unwrap_err().env.as_deref(), Some("OPOSSUM_TEST_HOOKS"));
}

#[test]
#[cfg(not(feature = "cuda"))]
fn a_cuda_device_needs_a_binary_with_cuda() {
    let serving = |device| from_env(&[("TRANSFORMERS_DEVICE", device)]).unwrap().0.validate_serving();
    let refused = serving("cuda:0").unwrap_err();
    assert_eq!(
        (refused.key.as_str(), refused.env.as_deref()),
        ("transformers.device", Some("TRANSFORMERS_DEVICE"))
    );
    assert!(refused.problem.contains("make cuda"), "{refused}");
    assert!(serving("auto").is_ok() && serving("cpu").is_ok());
    let off = from_env(&[("TRANSFORMERS_DEVICE", "cuda:0"), ("TRANSFORMERS_ENABLED", "false")]).unwrap().0;
    assert!(off.validate_serving().is_ok());
}

#[test]
fn what_is_shown_as_toml_can_be_loaded_again() {
    let env =
        [("PORT", "9001"), ("REQUEST_TIMEOUT", "45s"), ("DEBUG", "True"), ("OLLAMA_BASE_URL", "http://o")];
    let (before, provenance) = load(&shipped(), &env).unwrap();
    let shown = provenance.to_toml();
    for given in ["PORT=9001", "REQUEST_TIMEOUT=45s", "DEBUG=True", "MAX_IN_FLIGHT=512"] {
        assert!(shown.contains(given), "{given} in\n{shown}");
    }
    let folder = Folder::new("again");
    let without_env = shown.lines().filter(|line| !line.starts_with("env =")).collect::<Vec<_>>().join("\n");
    folder.write("default.toml", &without_env);
    let (after, _) = load(&folder.0, &[]).unwrap();
    assert_eq!(serde_json::to_value(&before).unwrap(), serde_json::to_value(&after).unwrap());
}

/// The defaults that the table states, as a file, make the settings that the structs make.
#[test]
fn the_tables_defaults_are_the_structs_defaults() {
    let folder = Folder::new("defaults");
    let stated = KEYS.iter().filter(|key| !key.is_named() && !key.default.is_empty() && key.path != "env");
    let file: String = stated.map(|key| format!("{} = {}\n", key.path, key.default)).collect();
    folder.write("default.toml", &file);
    let (stated, _) = load(&folder.0, &[("GEMINI_API_KEY", "k")]).unwrap();
    folder.write("default.toml", "");
    let (built_in, _) = load(&folder.0, &[("GEMINI_API_KEY", "k")]).unwrap();
    assert_eq!(serde_json::to_value(&stated).unwrap(), serde_json::to_value(&built_in).unwrap());
}

/// No field of the structs is missing in the table.
#[test]
fn the_table_knows_every_field() {
    let env = [
        ("GEMINI_API_KEY", "k"),
        ("OLLAMA_BASE_URL", "http://o"),
        ("OPENAI_BASE_URL", "http://a/v1"),
        ("OPENAI_RPM_LIMIT", "1"),
    ];
    let (settings, _) = load(&shipped(), &env).unwrap();
    let mut paths = Vec::new();
    walk(&serde_json::to_value(&settings).unwrap(), String::new(), &mut paths);
    for path in paths {
        assert!(KEYS.iter().any(|key| fits(key.path, &path)), "{path} is not in the table");
    }
}

fn walk(value: &serde_json::Value, path: String, out: &mut Vec<String>) {
    let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}\u{1f}{name}") };
    match value {
        serde_json::Value::Object(object) => object.iter().for_each(|(name, v)| walk(v, join(name), out)),
        serde_json::Value::Array(items) if items.iter().any(serde_json::Value::is_object) => {
            items.iter().for_each(|item| walk(item, join("0"), out));
        }
        _ => out.push(path),
    }
}

fn fits(pattern: &str, path: &str) -> bool {
    let (pattern, path): (Vec<_>, Vec<_>) = (pattern.split('.').collect(), path.split('\u{1f}').collect());
    pattern.len() == path.len() && pattern.iter().zip(&path).all(|(part, name)| *part == "*" || part == name)
}

#[test]
fn the_documentation_is_the_tables() {
    let page =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md")).unwrap();
    assert!(page == markdown(), "run: cargo run -- config docs > docs/configuration.md");
}

#[test]
fn every_variable_of_the_example_file_is_known() {
    let example =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(".env.example")).unwrap();
    let names =
        example.lines().filter_map(|line| line.trim_start_matches("# ").split_once('=')).map(|(n, _)| n);
    let mut seen = 0;
    for name in names.filter(|n| n.chars().all(|c| c.is_ascii_uppercase() || c == '_')) {
        seen += 1;
        let fixed = KEYS.iter().any(|key| key.env == Some(name));
        let services = ["gemini", "ollama", "transformers", "openai"];
        let named = KEYS.iter().any(|key| services.iter().any(|s| key.env_for(s).as_deref() == Some(name)));
        assert!(fixed || named, "{name} is not a variable of ours");
    }
    assert!(seen > 20, "{seen} variables found");
}
