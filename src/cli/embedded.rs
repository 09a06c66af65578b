//! The embedded model in this process, for `opossum chat --embedded`.

use std::sync::Arc;

use opossum_backends::transformers::{LocalEngine, TransformersBackend};
use opossum_backends::{Backend, ParamDefaults};
use opossum_core::ids::{ModelName, ServiceName};

use crate::settings::Settings;
use crate::wiring::{engine_config, keep_kernels};

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
    let mut config = engine_config(&settings.transformers, asked).map_err(Failure::Failed)?;
    // One answer at a time: nobody else asks in this process.
    (config.max_sequences, config.queue_depth) = (1, 1);
    keep_kernels(settings);
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

/// The parameters that the service would use.
pub(super) fn defaults(settings: &Settings) -> ParamDefaults {
    let params = settings.params_for("transformers");
    ParamDefaults {
        temperature: params.temperature,
        top_p: params.top_p,
        top_k: params.top_k,
        max_tokens: params.max_tokens,
        json_object: false,
    }
}
