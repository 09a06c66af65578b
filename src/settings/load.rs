//! Loading: sources in order, then checks. Pure over a folder and a map of variables.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use config::{Config, ConfigError, File, FileFormat, Source, Value, ValueKind};
use serde_json::Value as Json;

use super::backends::trim_url;
use super::error::SettingsError;
use super::provenance::{Entry, Provenance};
use super::table::{KEYS, Key, env_prefix};
use super::{Environment, LogLevel, Settings, tree};

/// What `config/default.toml` says where there is no such file.
const BUILT_IN: &str = include_str!("../../config/default.toml");

/// Names that a service may have without being declared.
const FIXED_SERVICES: [&str; 4] = ["gemini", "ollama", "transformers", "openai"];

/// Largest file that a `*_FILE` variable may name, in bytes: a secret, not a data set.
const MAX_VALUE_FILE: u64 = 64 * 1024;

/// Where settings come from.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// The folder of `default.toml` and `{ENV}.toml`. Files that are not there are passed over.
    pub config_dir: PathBuf,
    /// Whether the folder must exist, because somebody named it.
    pub config_dir_required: bool,
    /// The environment's variables.
    pub env: BTreeMap<String, String>,
}

impl LoadOptions {
    /// The folder `config` and the variables of this process.
    pub fn from_process() -> Self {
        let utf8 = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        };
        Self {
            config_dir: PathBuf::from("config"),
            config_dir_required: false,
            env: std::env::vars_os().filter_map(utf8).collect(),
        }
    }
}

impl Settings {
    /// Loads settings and says where each value came from.
    ///
    /// # Errors
    /// The first key that is unknown or whose value cannot be used, or the first file that cannot be read.
    pub fn load(options: &LoadOptions) -> Result<(Settings, Provenance), SettingsError> {
        let env = environment(options)?;
        let files = read_files(options, env)?;
        let services = declared_services(&files, &options.env)?;
        let variables = Variables::collect(&services, &options.env)?;
        let merged =
            Config::builder().add_source(files).add_source(variables).build().map_err(merge_error)?;

        let mut provenance = Provenance::default();
        let mut json = tree::read(&merged.cache, &mut provenance)?;
        drop_unaddressed_openai(&mut json, &mut provenance);
        let parsed: Result<Settings, _> = serde_json::from_value(json);
        // Every value has passed the table, so this cannot fail for a value; its text is not shown because it
        // might quote one.
        let mut settings = parsed.map_err(|_| SettingsError::new("", "the sections do not fit together"))?;
        settle(&mut settings, &mut provenance);
        settings.validate().map_err(|error| provenance.explain(error))?;
        Ok((settings, provenance))
    }
}

/// `ENV`, which selects a file and so must be known first.
fn environment(options: &LoadOptions) -> Result<Environment, SettingsError> {
    let Some((value, origin)) = lookup("ENV", "env", &options.env)? else {
        return Ok(Environment::default());
    };
    Environment::parse(&value).ok_or_else(|| SettingsError {
        key: "env".to_owned(),
        env: Some("ENV".to_owned()),
        origin: Some(origin),
        problem: format!("must be one of development, staging, production, not {value:?}"),
    })
}

/// Merges the files that are there.
fn read_files(options: &LoadOptions, env: Environment) -> Result<Config, SettingsError> {
    let dir = &options.config_dir;
    if options.config_dir_required && !dir.is_dir() {
        return Err(SettingsError::new("", format!("there is no folder {}", dir.display())));
    }
    let default = dir.join("default.toml");
    let mut builder = Config::builder();
    builder = if default.is_file() {
        builder.add_source(toml_file(&default))
    } else {
        builder.add_source(File::from_str(BUILT_IN, FileFormat::Toml))
    };
    let special = dir.join(format!("{}.toml", env.as_str()));
    if special.is_file() {
        builder = builder.add_source(toml_file(&special));
    }
    let files = builder.build().map_err(merge_error)?;
    let ValueKind::Table(table) = &files.cache.kind else { return Ok(files) };
    match table.get("env") {
        Some(value) => Err(SettingsError::new("env", "is given by the variable ENV only")
            .from(value.origin().unwrap_or("a file"))),
        None => Ok(files),
    }
}

fn toml_file(path: &Path) -> File<config::FileSourceFile, FileFormat> {
    File::new(&path.to_string_lossy(), FileFormat::Toml).required(true)
}

/// A file's error without the line of the file that it quotes, which might hold a secret.
fn merge_error(error: ConfigError) -> SettingsError {
    match error {
        ConfigError::FileParse { uri, cause } => {
            let problem = match cause.downcast_ref::<toml::de::Error>() {
                Some(error) => format!("is not TOML: {}", error.message()),
                None => "cannot be read as TOML".to_owned(),
            };
            SettingsError::new(uri.unwrap_or_else(|| "default.toml".to_owned()), problem)
        }
        ConfigError::Foreign(cause) => SettingsError::new("", format!("cannot be read: {cause}")),
        _ => SettingsError::new("", "the configuration files do not fit together"),
    }
}

/// Names of all services that may have variables of their own.
fn declared_services(
    files: &Config,
    env: &BTreeMap<String, String>,
) -> Result<BTreeSet<String>, SettingsError> {
    let mut names: BTreeSet<String> = FIXED_SERVICES.iter().map(|&name| name.to_owned()).collect();
    if let Ok(table) = files.get_table("services") {
        names.extend(table.into_keys());
    }
    names.extend(listed_services(env)?);
    let mut prefixes: HashMap<String, &str> = HashMap::new();
    for name in &names {
        if let Some(other) = prefixes.insert(env_prefix(name), name) {
            let problem = format!("shares the names of its variables with services.{other}");
            return Err(SettingsError::new(format!("services.{name}"), problem));
        }
        for key in KEYS.iter().filter(|key| key.is_named() && applies(key, name)) {
            let env = key.env_for(name);
            if KEYS.iter().any(|fixed| !fixed.is_named() && fixed.env == env.as_deref() && env.is_some()) {
                let problem = "this name would make a variable that has another meaning; choose another";
                return Err(SettingsError::new(format!("services.{name}"), problem));
            }
        }
    }
    Ok(names)
}

/// Names listed in `SERVICES`.
fn listed_services(env: &BTreeMap<String, String>) -> Result<Vec<String>, SettingsError> {
    let Some((list, _)) = lookup("SERVICES", "services", env)? else { return Ok(Vec::new()) };
    Ok(list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

/// The environment as a source of its own: names from the table, values as texts with their origin.
#[derive(Clone, Debug, Default)]
struct Variables(config::Map<String, Value>);

impl Source for Variables {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<config::Map<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }
}

impl Variables {
    fn collect(services: &BTreeSet<String>, env: &BTreeMap<String, String>) -> Result<Self, SettingsError> {
        let mut variables = Self::default();
        for key in KEYS.iter().filter(|key| key.path != "services") {
            if !key.is_named() {
                variables.take(key, "", env)?;
                continue;
            }
            for service in services.iter().filter(|name| applies(key, name)) {
                variables.take(key, service, env)?;
            }
        }
        for name in listed_services(env)? {
            let origin = "SERVICES in the environment".to_owned();
            variables.put(&format!("services.{name}.kind"), Value::new(Some(&origin), "openai"));
        }
        Ok(variables)
    }

    /// Takes a key's variable, where it is set.
    fn take(
        &mut self,
        key: &Key,
        service: &str,
        env: &BTreeMap<String, String>,
    ) -> Result<(), SettingsError> {
        let Some(name) = key.env_for(service) else { return Ok(()) };
        let path = key.path.replacen('*', service, 1);
        if let Some((value, origin)) = lookup(&name, &path, env)? {
            self.put(&path, Value::new(Some(&origin), value));
        }
        Ok(())
    }

    /// Puts a value at a path of tables.
    fn put(&mut self, path: &str, value: Value) {
        let mut table = &mut self.0;
        let (parents, field) = path.rsplit_once('.').unwrap_or(("", path));
        for name in parents.split('.').filter(|name| !name.is_empty()) {
            let empty = || Value::new(None, ValueKind::Table(config::Map::new()));
            let entry = table.entry(name.to_owned()).or_insert_with(empty);
            let ValueKind::Table(next) = &mut entry.kind else { return };
            table = next;
        }
        // The list of declared names gives a kind to a service that a variable may already have described.
        table.entry(field.to_owned()).or_insert(value);
    }
}

/// Whether a named key has a variable for this service: addresses and keys only where `[services]` holds them.
fn applies(key: &Key, service: &str) -> bool {
    let own_section = ["gemini", "ollama", "transformers"].contains(&service);
    key.path.starts_with("policy.") || (key.path.starts_with("services.") && !own_section)
}

/// A variable's value and where it came from: `NAME_FILE` wins over `NAME`. An empty one counts as unset, as
/// compose files make them.
fn lookup(
    name: &str,
    key: &str,
    env: &BTreeMap<String, String>,
) -> Result<Option<(String, String)>, SettingsError> {
    let by_file = format!("{name}_FILE");
    // `API_KEYS_FILE` is a key of its own, not the file of a key `API_KEYS`; names like it are not looked up.
    let is_key = KEYS.iter().any(|key| key.env == Some(by_file.as_str()));
    if let Some(path) = env.get(&by_file).filter(|path| !path.is_empty() && !is_key) {
        let value = read_value_file(Path::new(path)).map_err(|problem| SettingsError {
            key: key.to_owned(),
            env: Some(by_file.clone()),
            origin: None,
            problem: format!("{path}: {problem}"),
        })?;
        return Ok(Some((value, format!("the file {path} ({by_file})"))));
    }
    let value = env.get(name).filter(|value| !value.trim().is_empty());
    Ok(value.map(|value| (value.clone(), "the environment".to_owned())))
}

fn read_value_file(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > MAX_VALUE_FILE {
        return Err("is larger than 64 KiB".to_owned());
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    match text.trim() {
        "" => Err("is empty".to_owned()),
        value => Ok(value.to_owned()),
    }
}

/// A key for OpenAI without an address makes no service: many machines have one set for other programs.
fn drop_unaddressed_openai(json: &mut Json, provenance: &mut Provenance) {
    let Some(services) = json.get_mut("services").and_then(Json::as_object_mut) else { return };
    let Some(openai) = services.get("openai") else { return };
    if openai.get("base_url").is_some() || openai.get("kind").is_some_and(|kind| kind == "fake") {
        return;
    }
    services.remove("openai");
    provenance.entries.retain(|entry| !entry.key.starts_with("services.openai."));
    let note =
        "a service openai is described without its address and left out; set OPENAI_BASE_URL to use it";
    provenance.notes.push(note.to_owned());
}

/// What follows from several values together.
fn settle(settings: &mut Settings, provenance: &mut Provenance) {
    for service in settings.services.values_mut() {
        service.base_url = trim_url(&service.base_url);
    }
    if settings.debug && provenance.get("log.level").is_none() {
        settings.log.level = LogLevel::Debug;
        provenance.entries.push(Entry {
            key: "log.level".to_owned(),
            env: Some("LOG_LEVEL".to_owned()),
            value: "\"debug\"".to_owned(),
            plain: "debug".to_owned(),
            origin: "DEBUG".to_owned(),
        });
    }
    let server = &mut settings.server;
    if !server.auth_decided() && !server.host.is_loopback() {
        let note = format!(
            "no keys are configured, so the service answers on 127.0.0.1 only and not on {}; set AUTH=off or \
             API_KEYS_FILE to change this",
            server.host
        );
        server.host = IpAddr::from([127, 0, 0, 1]);
        provenance.notes.push(note);
    }
    provenance.notes.extend(super::unused::notes(settings));
}
