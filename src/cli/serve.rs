//! `opossum serve`.

use crate::server::{self, ServeError};
use crate::settings::{LoadOptions, LogFormat, Settings, SettingsError};
use crate::telemetry::logs;
use crate::wiring::WiringError;

use super::args::Serve;
use super::{Failure, Outcome};

pub(super) fn run(mut sources: LoadOptions, flags: &Serve) -> Outcome {
    for (name, value) in [("HOST", &flags.host), ("PORT", &flags.port)] {
        if let Some(value) = value {
            sources.env.remove(&format!("{name}_FILE"));
            sources.env.insert(name.to_owned(), value.clone());
        }
    }
    let (settings, provenance) = Settings::load(&sources)?;
    settings.validate_serving()?;
    refuse_unchecked_keys(&settings)?;
    let format = match settings.log.format {
        LogFormat::Text => logs::Format::Text,
        LogFormat::Json => logs::Format::Json,
    };
    logs::start(settings.log.level.as_str(), format);
    for note in &provenance.notes {
        tracing::warn!("{note}");
    }
    server::run(settings).map_err(failure)
}

/// Keys that nobody checks would be worse than none: rather than serve everybody, do not serve.
pub(super) fn refuse_unchecked_keys(settings: &Settings) -> Outcome {
    if !settings.server.keys_required() {
        return Ok(());
    }
    let problem = "this version cannot check keys; take the setting back, or say AUTH=off and guard the address otherwise";
    Err(SettingsError { env: Some("AUTH".to_owned()), ..SettingsError::new("server.auth", problem) }.into())
}

/// A setting that only shows its fault when used is bad configuration too.
fn failure(error: ServeError) -> Failure {
    match error {
        ServeError::Wiring(WiringError::BadUrl { key, source }) => {
            SettingsError::new(key, source.to_string()).into()
        }
        ServeError::Wiring(WiringError::BadScript { key, source }) => {
            SettingsError::new(key, source.to_string()).into()
        }
        ServeError::Wiring(WiringError::BadBroker(problem)) => {
            SettingsError::new("amqp.url", problem.to_string()).into()
        }
        ServeError::Wiring(WiringError::BadDatabase(source)) => {
            SettingsError::new("database.url", source.to_string()).into()
        }
        other => Failure::Failed(other.to_string()),
    }
}
