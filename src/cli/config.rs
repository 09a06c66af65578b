//! `opossum config`.

use crate::settings::{LoadOptions, markdown};

use super::args::Config;
use super::{Failure, Outcome, load, term};

pub(super) fn run(sources: &LoadOptions, action: &Config) -> Outcome {
    match action {
        Config::Show { json } => {
            let (_, provenance) = load(sources)?;
            if !*json {
                return term::print(&provenance.to_toml());
            }
            let text = serde_json::to_string_pretty(&provenance.all());
            term::line(&text.map_err(|error| Failure::of("JSON", error))?)
        }
        Config::Check => {
            let (settings, _) = load(sources)?;
            settings.validate_serving()?;
            super::serve::refuse_unchecked_keys(&settings)?;
            term::line(&format!("the configuration for {} is good", settings.env.as_str()))
        }
        Config::Docs => term::print(&markdown()),
    }
}
