//! The embedded model in this process, for `opossum chat --embedded`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use opossum_backends::transformers::{DeviceChoice, EngineConfig, LocalEngine, TransformersBackend};
use opossum_backends::{Backend, models};
use opossum_core::ids::{ModelName, ServiceName};

use crate::settings::{DeviceSetting, Settings, TransformersSettings};

use super::{Failure, term};

/// Loads a model, by name or by file, else the configured one.
///
/// # Errors
/// It is not here, or cannot be loaded.
pub(super) async fn backend(
    settings: &Settings,
    model: Option<&str>,
) -> Result<(Arc<dyn Backend>, ModelName), Failure> {
    let asked = model.unwrap_or(&settings.transformers.model);
    let config = engine_config(&settings.transformers, asked)?;
    let name = ModelName::from(asked);
    term::aside(&format!("loading {asked}\n"));
    let loading = {
        let name = name.clone();
        tokio::task::spawn_blocking(move || LocalEngine::load(name, config))
    };
    let loaded = loading.await.map_err(|error| Failure::of("loading", error))?;
    let engine = loaded.map_err(|error| Failure::Failed(error.to_string()))?;
    Ok((Arc::new(TransformersBackend::new(ServiceName::from("transformers"), Arc::new(engine))), name))
}

/// One answer at a time: nobody else asks in this process.
fn engine_config(transformers: &TransformersSettings, model: &str) -> Result<EngineConfig, Failure> {
    let path = file_of(model, &transformers.model_dir)?;
    let mut config = EngineConfig::new(path);
    config.model_sha256 = models::find(model).map(|entry| entry.sha256.to_owned());
    config.device = match transformers.device {
        DeviceSetting::Auto => DeviceChoice::Auto,
        DeviceSetting::Cpu => DeviceChoice::Cpu,
        DeviceSetting::Cuda(index) => DeviceChoice::Cuda(index),
    };
    config.max_sequences = 1;
    config.queue_depth = 1;
    config.max_context = transformers.max_context;
    config.threads = transformers.threads;
    Ok(config)
}

fn file_of(model: &str, dir: &Path) -> Result<PathBuf, Failure> {
    if let Some(path) = models::installed(model, dir) {
        return Ok(path);
    }
    let path = PathBuf::from(model);
    if path.is_file() {
        return Ok(path);
    }
    let hint = match models::find(model) {
        Some(_) => format!("; fetch it with: opossum models pull {model}"),
        None => String::new(),
    };
    Err(Failure::Failed(format!("there is no model {model} in {}{hint}", dir.display())))
}
