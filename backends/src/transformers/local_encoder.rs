//! One encoder, loaded from one folder.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt;
use futures::future::BoxFuture;
use opossum_core::answer::Usage;
use opossum_core::class::FailureClass;
use opossum_core::embed::{EmbedInputs, Embeddings};
use opossum_core::ids::ModelName;
use opossum_inference::encoder::{EncodeInput, EncodeJob, Encoded, Encoder, EncoderConfig};
use opossum_inference::{InferenceError, SubmitError};

use super::encoder::{EncodeOrder, LocalEncoder, LocalVectors};
use super::errors::{backend_error, not_taken};
use super::{LocalLoad, LocalModelInfo, LocalState, LocalStatus};
use crate::{BackendError, models};

/// A loaded encoder under the name it is asked for by; clones share it.
#[derive(Clone)]
pub struct EncoderEngine {
    inner: Arc<Inner>,
}

struct Inner {
    name: ModelName,
    encoder: Encoder,
    /// The encoder's thread was found gone; it does not come back.
    dead: AtomicBool,
}

impl EncoderEngine {
    /// Loads a model; blocks until it can take jobs, so call it where blocking is allowed.
    ///
    /// # Errors
    /// `ModelMissing` when the folder cannot be loaded here and now, `CallerError` for a setting out of range.
    pub fn load(name: ModelName, config: EncoderConfig) -> Result<Self, BackendError> {
        let encoder = Encoder::start(config).map_err(|error| backend_error(&error))?;
        Ok(Self { inner: Arc::new(Inner { name, encoder, dead: AtomicBool::new(false) }) })
    }

    fn submit_now(&self, order: &EncodeOrder) -> Result<LocalVectors, BackendError> {
        if order.model != self.inner.name {
            return Err(BackendError::new(FailureClass::ModelMissing, "this encoder runs another model"));
        }
        let (sink, vectors) = LocalVectors::channel();
        let waiting = sink.waiting();
        let model = self.inner.name.clone();
        let job = EncodeJob {
            inputs: inputs(&order.request.inputs),
            // An input that is too long is the caller's to shorten; a vector of its beginning would be a guess.
            truncate: false,
            reply: Box::new(move |outcome| sink.put(answer(&model, outcome))),
            cancelled: Box::new(move || waiting.is_over()),
        };
        match self.inner.encoder.submit(job) {
            Ok(()) => Ok(vectors),
            Err(error) => {
                self.inner.dead.fetch_or(error == SubmitError::Stopped, Ordering::Relaxed);
                Err(not_taken(error))
            }
        }
    }
}

fn inputs(inputs: &EmbedInputs) -> Vec<EncodeInput> {
    match inputs {
        EmbedInputs::Texts(texts) => texts.iter().cloned().map(EncodeInput::Text).collect(),
        EmbedInputs::Tokens(tokens) => tokens.iter().cloned().map(EncodeInput::Tokens).collect(),
    }
}

fn answer(model: &ModelName, outcome: Result<Encoded, InferenceError>) -> Result<Embeddings, BackendError> {
    let encoded = outcome.map_err(|error| backend_error(&error))?;
    let dimensions = encoded.vectors.first().map_or(0, Vec::len);
    let mut found = Embeddings::with_capacity(model.as_str(), encoded.vectors.len(), dimensions);
    for vector in encoded.vectors {
        found.push(vector).map_err(|flaw| BackendError::new(FailureClass::ServerError, flaw.to_string()))?;
    }
    found.usage = Some(Usage { prompt: encoded.prompt_tokens as u64, ..Usage::default() });
    Ok(found)
}

impl LocalEncoder for EncoderEngine {
    fn submit(&self, order: EncodeOrder) -> BoxFuture<'static, Result<LocalVectors, BackendError>> {
        // Not before the future is polled: one that is dropped unpolled must not have queued anything.
        let engine = self.clone();
        async move { engine.submit_now(&order) }.boxed()
    }

    fn models(&self) -> Vec<LocalModelInfo> {
        let info = self.inner.encoder.info();
        vec![LocalModelInfo {
            name: self.inner.name.clone(),
            architecture: info.architecture.clone(),
            context_tokens: u32::try_from(info.context_length).unwrap_or(u32::MAX),
            parameters: info.parameters,
            quantization: "F32".to_owned(),
            // The files of a folder state none.
            licence: models::find(self.inner.name.as_str()).map(|entry| entry.licence.to_owned()),
            device: info.device.clone(),
            chat: false,
            tools: None,
        }]
    }

    fn status(&self) -> LocalStatus {
        let state = match self.inner.dead.load(Ordering::Relaxed) {
            true => LocalState::Failed(SubmitError::Stopped.to_string()),
            false => LocalState::Ready,
        };
        LocalStatus { state, load: LocalLoad::default() }
    }
}
