//! The embedded model out of settings.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use opossum_actors::InferencePlan;
use opossum_backends::transformers::{
    DeviceChoice, EngineConfig, EngineObserver, LocalEngine, LocalInference, LocalModelInfo,
};
use opossum_backends::{BackendError, models};
use opossum_core::class::FailureClass;
use opossum_core::ids::ModelName;

use crate::settings::{DeviceSetting, LoadWhen, Settings, TransformersSettings};

/// How the embedded model is to be loaded; `None` when there is to be none. `observer` is told what its engine does.
pub(super) fn plan(settings: &Settings, observer: Arc<dyn EngineObserver>) -> Option<InferencePlan> {
    let transformers = settings.transformers.clone();
    if !transformers.enabled {
        return None;
    }
    let name = model_name(&transformers.model);
    let known = LocalModelInfo {
        name: name.clone(),
        architecture: models::find(&transformers.model)
            .map_or_else(String::new, |m| m.architecture.to_owned()),
        context_tokens: 0,
        parameters: 0,
        quantization: String::new(),
        licence: models::find(&transformers.model).map(|m| m.licence.to_owned()),
        device: "cpu".to_owned(),
        tools: None,
    };
    let lazy = transformers.load == LoadWhen::Lazy;
    let load = move || -> Result<Arc<dyn LocalInference>, BackendError> {
        let mut config = engine_config(&transformers, &transformers.model)
            .map_err(|why| BackendError::new(FailureClass::ModelMissing, why))?;
        config.observer = Some(Arc::clone(&observer));
        Ok(Arc::new(LocalEngine::load(name.clone(), config)?))
    };
    Some(InferencePlan::new(vec![known], lazy, Arc::new(load)))
}

/// The name a model is asked for by: a file goes by its name without the ending.
fn model_name(model: &str) -> ModelName {
    let path = Path::new(model);
    let stem = path
        .file_stem()
        .and_then(|stem| stem.to_str())
        .filter(|_| path.extension().is_some_and(|e| e == "gguf"));
    ModelName::from(stem.unwrap_or(model))
}

/// The engine's settings for a model, by its name in the catalogue or by its file.
///
/// # Errors
/// There is no such file; with what to do about it.
pub fn engine_config(transformers: &TransformersSettings, model: &str) -> Result<EngineConfig, String> {
    let mut config = EngineConfig::new(file_of(model, &transformers.model_dir)?);
    config.model_sha256 = models::find(model).and_then(|entry| entry.sha256()).map(str::to_owned);
    config.device = match transformers.device {
        DeviceSetting::Auto => DeviceChoice::Auto,
        DeviceSetting::Cpu => DeviceChoice::Cpu,
        DeviceSetting::Cuda(index) => DeviceChoice::Cuda(index),
    };
    config.max_sequences = transformers.workers;
    config.queue_depth = transformers.queue;
    config.max_context = transformers.max_context;
    config.cache_bytes = transformers.kv_cache.map(|bytes| bytes as u64);
    config.threads = transformers.threads;
    Ok(config)
}

fn file_of(model: &str, dir: &Path) -> Result<PathBuf, String> {
    if let Some(path) = models::installed(model, dir) {
        return Ok(path);
    }
    let path = PathBuf::from(model);
    if path.is_file() {
        return Ok(path);
    }
    let hint = models::find(model)
        .map_or_else(String::new, |_| format!("; fetch it with: opossum models pull {model}"));
    Err(format!("there is no model {model} in {}{hint}", dir.display()))
}
