//! The embedded model out of settings.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use opossum_actors::InferencePlan;
use opossum_backends::transformers::{
    DeviceChoice, EncoderConfig, EncoderEngine, EngineConfig, EngineObserver, FaultHook, LocalEncoder,
    LocalEngine, LocalInference, LocalModelInfo, Precision, keep_kernels_in,
};
use opossum_backends::{BackendError, models};
use opossum_core::class::FailureClass;
use opossum_core::ids::ModelName;

use crate::settings::{self, DeviceSetting, LoadWhen, Settings, TransformersSettings};

/// How the embedded model is to be loaded; `None` when there is to be none. `observer` is told what its engine does;
/// with the test hooks switched on, a step that finds `fault` set clears it and panics.
pub(super) fn plan(
    settings: &Settings,
    observer: Arc<dyn EngineObserver>,
    fault: &Arc<AtomicBool>,
) -> Option<InferencePlan> {
    let transformers = settings.transformers.clone();
    if !transformers.enabled {
        return None;
    }
    let known = known(&transformers.model);
    let name = known.name.clone();
    let lazy = transformers.load == LoadWhen::Lazy;
    let fault = settings.server.test_hooks.then(|| fault_hook(Arc::clone(fault)));
    let load = move || -> Result<Arc<dyn LocalInference>, BackendError> {
        let mut config = engine_config(&transformers, &transformers.model).map_err(missing)?;
        config.observer = Some(Arc::clone(&observer));
        config.fault.clone_from(&fault);
        Ok(Arc::new(LocalEngine::load(name.clone(), config)?))
    };
    Some(InferencePlan::new(vec![known], lazy, Arc::new(load)))
}

fn fault_hook(fault: Arc<AtomicBool>) -> FaultHook {
    FaultHook(Arc::new(move || assert!(!fault.swap(false, Ordering::AcqRel), "poisoned on purpose")))
}

/// How the embedded encoder is to be loaded; `None` when there is to be none.
pub(super) fn encoder_plan(settings: &Settings) -> Option<InferencePlan<dyn LocalEncoder>> {
    let transformers = settings.transformers.clone();
    let model = transformers.encoder()?.to_owned();
    let known = known(&model);
    let name = known.name.clone();
    // One that is not there yet may be pulled later; until someone wants it, that is no failure.
    let is_here = path_of(&model, &transformers.model_dir).is_ok();
    let lazy = transformers.load == LoadWhen::Lazy || !is_here;
    let load = move || -> Result<Arc<dyn LocalEncoder>, BackendError> {
        let config = encoder_config(&transformers, &model).map_err(missing)?;
        Ok(Arc::new(EncoderEngine::load(name.clone(), config)?))
    };
    Some(InferencePlan::new(vec![known], lazy, Arc::new(load)))
}

fn missing(why: String) -> BackendError {
    BackendError::new(FailureClass::ModelMissing, why)
}

/// What is known of a model before it is loaded.
fn known(model: &str) -> LocalModelInfo {
    let entry = models::find(model);
    LocalModelInfo {
        name: model_name(model),
        architecture: entry.map_or_else(String::new, |m| m.architecture.to_owned()),
        context_tokens: 0,
        parameters: 0,
        quantization: String::new(),
        licence: entry.map(|m| m.licence.to_owned()),
        device: "cpu".to_owned(),
        chat: true,
        tools: None,
    }
}

/// The name a model is asked for by: a file goes by its name without the ending, a folder by its name.
fn model_name(model: &str) -> ModelName {
    let path = Path::new(model);
    let is_file = path.extension().is_some_and(|e| e == "gguf");
    let last = if is_file { path.file_stem() } else { path.file_name() };
    ModelName::from(last.and_then(|name| name.to_str()).unwrap_or(model))
}

/// The engine's settings for a model, by its name in the catalogue or by its file.
///
/// # Errors
/// There is no such file; with what to do about it.
pub fn engine_config(transformers: &TransformersSettings, model: &str) -> Result<EngineConfig, String> {
    let mut config = EngineConfig::new(path_of(model, &transformers.model_dir)?);
    config.model_sha256 = models::find(model).and_then(|entry| entry.sha256()).map(str::to_owned);
    config.device = device(transformers.device);
    config.precision = precision(transformers.precision);
    config.quantized = transformers.use_quantized;
    config.max_sequences = transformers.workers;
    config.queue_depth = transformers.queue;
    config.max_context = transformers.max_context;
    config.cache_bytes = transformers.kv_cache.map(|bytes| bytes as u64);
    config.threads = transformers.threads;
    Ok(config)
}

/// The encoder's settings for a model, by its name in the catalogue or by its folder.
fn encoder_config(transformers: &TransformersSettings, model: &str) -> Result<EncoderConfig, String> {
    let mut config = EncoderConfig::new(path_of(model, &transformers.model_dir)?);
    config.model_sha256 = models::find(model).map(|entry| entry.files[0].sha256.to_owned());
    config.device = device(transformers.device);
    config.queue_depth = transformers.queue;
    config.threads = transformers.threads;
    Ok(config)
}

fn device(setting: DeviceSetting) -> DeviceChoice {
    match setting {
        DeviceSetting::Auto => DeviceChoice::Auto,
        DeviceSetting::Cpu => DeviceChoice::Cpu,
        DeviceSetting::Cuda(index) => DeviceChoice::Cuda(index),
    }
}

fn precision(setting: settings::Precision) -> Precision {
    match setting {
        settings::Precision::Auto => Precision::Auto,
        settings::Precision::F32 => Precision::F32,
        settings::Precision::Bf16 => Precision::Bf16,
        settings::Precision::F16 => Precision::F16,
        settings::Precision::Q8 => Precision::Q8,
        settings::Precision::Q4 => Precision::Q4,
    }
}

/// Keeps what a GPU's kernels are compiled and tuned to in the state folder. Before any model is loaded.
pub fn keep_kernels(settings: &Settings) {
    keep_kernels_in(&settings.state_dir.join("kernels"));
}

/// The file or folder of a model.
fn path_of(model: &str, dir: &Path) -> Result<PathBuf, String> {
    if let Some(path) = models::installed(model, dir) {
        return Ok(path);
    }
    let path = PathBuf::from(model);
    if path.is_file() || (path.is_dir() && model.contains(std::path::MAIN_SEPARATOR)) {
        return Ok(path);
    }
    let hint = models::find(model)
        .map_or_else(String::new, |_| format!("; fetch it with: opossum models pull {model}"));
    Err(format!("there is no model {model} in {}{hint}", dir.display()))
}
