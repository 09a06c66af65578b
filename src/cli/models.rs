//! `opossum models`: the folder of the embedded backend's models.

use std::path::Path;

use indicatif::HumanBytes;
use opossum_backends::models::{self, InstalledModel};

use crate::settings::Settings;

use super::args::Models;
use super::progress::Meter;
use super::{Failure, Outcome, block_on, term};

pub(super) fn run(settings: &Settings, action: Models) -> Outcome {
    let dir = &settings.transformers.model_dir;
    match action {
        Models::List => list(dir),
        Models::Pull { names } => names.iter().try_for_each(|name| pull(name, dir)),
        Models::Remove { name } => {
            let path = models::remove(&name, dir).map_err(|error| Failure::Failed(error.to_string()))?;
            term::line(&format!("removed {}", path.display()))
        }
        Models::Verify { path: Some(path) } => verify(&path, dir),
        Models::Verify { path: None } => verify_all(dir),
    }
}

fn installed(dir: &Path) -> Result<Vec<InstalledModel>, Failure> {
    models::list(dir).map_err(|error| Failure::Failed(error.to_string()))
}

fn list(dir: &Path) -> Outcome {
    let here = installed(dir)?;
    term::line(&row("NAME", "SIZE", "STATE", "LICENCE", "FILE"))?;
    for entry in models::catalogue() {
        let found = here.iter().find(|model| model.name == entry.name);
        let state = match found {
            Some(_) if entry.is_in(dir) => "installed",
            Some(_) => "incomplete",
            None => "not pulled",
        };
        let file = dir.join(entry.place);
        let size = HumanBytes(found.map_or_else(|| entry.bytes(), |model| model.bytes)).to_string();
        term::line(&row(entry.name, &size, state, entry.licence, &file.to_string_lossy()))?;
    }
    for model in here.iter().filter(|model| model.entry.is_none()) {
        let size = HumanBytes(model.bytes).to_string();
        let licence = models::stated_licence(&model.path).unwrap_or_else(|| "-".to_owned());
        term::line(&row(&model.name, &size, "installed", &licence, &model.path.to_string_lossy()))?;
    }
    for (name, terms) in models::catalogue().iter().filter_map(|entry| Some((entry.name, entry.terms?))) {
        term::line(&format!("{name} is given under terms of use: {terms}"))?;
    }
    Ok(())
}

fn row(name: &str, size: &str, state: &str, licence: &str, file: &str) -> String {
    format!("{name:<28} {size:>12}  {state:<10}  {licence:<16} {file}")
}

fn pull(name: &str, dir: &Path) -> Outcome {
    if let Some(terms) = models::find(name).and_then(|entry| entry.terms) {
        term::note(&format!("{name} is given under terms of use: {terms}"));
    }
    let mut meter = Meter::new(name);
    let pulled = block_on(async {
        let pulled = models::pull(name, dir, &mut |progress| meter.show(progress)).await;
        pulled.map_err(|error| Failure::Failed(error.to_string()))
    });
    meter.finish();
    term::line(&pulled?.to_string_lossy())
}

fn verify(path: &str, dir: &Path) -> Outcome {
    let model = models::verify(path, dir).map_err(|error| Failure::Failed(format!("refused: {error}")))?;
    let known = model.entry.map_or("not of the catalogue", |entry| entry.name);
    term::line(&format!(
        "good: {} ({known}, {}, {} tensors, sha256 {})",
        model.path.display(),
        HumanBytes(model.bytes),
        model.tensors,
        model.sha256
    ))
}

/// Verifies every model that is here and fails after the last one if any was refused.
fn verify_all(dir: &Path) -> Outcome {
    let here = installed(dir)?;
    if here.is_empty() {
        return term::line(&format!("there are no models in {}", dir.display()));
    }
    let mut refused = 0;
    for model in &here {
        match verify(&model.path.to_string_lossy(), dir) {
            Err(Failure::Failed(why)) => {
                refused += 1;
                term::note(&why);
            }
            other => other?,
        }
    }
    match refused {
        0 => Ok(()),
        n => Err(Failure::Failed(format!("{n} of {} models refused", here.len()))),
    }
}
