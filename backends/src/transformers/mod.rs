//! The embedded model as a backend: the last resort that needs nobody else.
//!
//! The backend stands over [`LocalInference`], a seam with two sides: [`LocalEngine`] is the engine itself,
//! and whoever manages engines (loads them, watches them, replaces a dead one) implements the same trait and
//! hands jobs through. Tokens do not pass through the manager: a submitted job answers with a bounded
//! [`LocalStream`] that the engine writes into, and dropping that stream frees the sequence between two tokens.
//!
//! Text only: no images, one choice, tools where the model's chat template has a place for them. Answers in JSON and tool
//! calls are made by constrained decoding: whatever the model, what is not cut by its token limit follows the schema.
//! Each keyword of a schema is enforced or refused by name. Vectors come from a [`LocalEncoder`], in the same way.
//!
//! # Failure
//! A full queue is `RateLimited` with a second's wait, so that another backend is asked at once; a prompt too
//! long is `ContextLength`; a panic or a broken number is `ServerError`, and the engine goes on; a model that
//! cannot be loaded is `ModelMissing`.

mod calls;
mod encoder;
mod engine;
mod errors;
mod events;
mod job;
mod local_encoder;
mod logprobs;
mod sink;

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use opossum_core::class::FailureClass;
use opossum_core::embed::Embeddings;
use opossum_core::ids::{ModelName, ServiceName};
use opossum_core::needs::Needs;
pub use opossum_inference::device::keep_kernels_in;
pub use opossum_inference::encoder::EncoderConfig;
#[doc(hidden)]
pub use opossum_inference::engine::FaultHook;
pub use opossum_inference::{
    DeviceChoice, EngineConfig, EngineObserver, EngineStats as LocalLoad, FinishReason, GenerationParams,
    Precision, Prompt, PromptMessage, Readiness, StepReport, TokenEvent, TokenSink, TokenUsage, ToolSyntax,
};

pub use self::encoder::{ENCODER_CAN, EncodeOrder, LocalEncoder, LocalVectors, VectorSink, Waiting};
pub use self::engine::LocalEngine;
pub use self::errors::backend_error;
pub use self::local_encoder::EncoderEngine;
pub use self::sink::{LocalSink, LocalStream};
use crate::{Backend, BackendError, Call, EmbedCall, Reply, UpstreamModel};

/// Something that runs models in this process.
pub trait LocalInference: Send + Sync + 'static {
    /// Hands over a job; resolves when it is queued.
    ///
    /// Dropping the future takes the job back, dropping the stream cancels it.
    ///
    /// # Errors
    /// `RateLimited` when the queue is full, `ModelMissing` for a model that is not here or cannot be loaded,
    /// `ServerError` when the engine is gone.
    fn submit(&self, job: LocalJob) -> BoxFuture<'static, Result<LocalStream, BackendError>>;

    /// The models that can be asked for, loaded or not.
    fn models(&self) -> Vec<LocalModelInfo>;

    /// How it is. Never blocks.
    fn status(&self) -> LocalStatus;
}

/// One generation to run here.
#[derive(Clone)]
pub struct LocalJob {
    /// The model, as [`LocalModelInfo::name`] has it.
    pub model: ModelName,
    /// What to continue.
    pub prompt: Prompt,
    /// How to continue it.
    pub params: GenerationParams,
}

impl std::fmt::Debug for LocalJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The prompt is a caller's private text: logs must not carry it.
        f.debug_struct("LocalJob")
            .field("model", &self.model)
            .field("params", &self.params)
            .finish_non_exhaustive()
    }
}

/// A model that runs here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalModelInfo {
    /// The name it is asked for by.
    pub name: ModelName,
    /// The architecture its file declares, such as `llama`.
    pub architecture: String,
    /// Tokens of prompt and answer together; 0 until it is loaded.
    pub context_tokens: u32,
    /// Number of weights; 0 until it is loaded.
    pub parameters: u64,
    /// How most weights are stored, such as `Q4_1`.
    pub quantization: String,
    /// The licence its file states.
    pub licence: Option<String>,
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// Whether it was taught to chat: its file has a chat template. True until it is loaded.
    pub chat: bool,
    /// How it writes tool calls; `None` when its chat template has no place for tools, and until it is loaded.
    pub tools: Option<ToolSyntax>,
}

/// How local inference is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalStatus {
    /// Whether it can take jobs.
    pub state: LocalState,
    /// What it is doing; zeros while nothing is loaded.
    pub load: LocalLoad,
}

/// Whether local inference can take jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LocalState {
    /// No model is configured.
    #[default]
    Absent,
    /// The model is being loaded; jobs wait.
    Loading,
    /// Jobs are taken.
    Ready,
    /// The model could not be loaded, or its engine died; why.
    Failed(String),
}

/// How long a caller is asked to wait for a place in the queue or for a model that is being loaded.
const BUSY_WAIT: Duration = Duration::from_secs(1);

/// Local inference as a backend.
#[derive(Clone)]
pub struct TransformersBackend {
    service: ServiceName,
    inference: Arc<dyn LocalInference>,
    encoder: Option<Arc<dyn LocalEncoder>>,
}

impl TransformersBackend {
    /// What every model here can do, but for those that were never taught to chat; some can call tools besides.
    pub const CAN: Needs = Needs::CHAT
        .union(Needs::COMPLETION)
        .union(Needs::SEED)
        .union(Needs::TOP_K)
        .union(Needs::PENALTIES)
        .union(Needs::STOP)
        .union(Needs::LOGPROBS)
        .union(Needs::JSON_OBJECT)
        .union(Needs::JSON_SCHEMA);

    /// A backend over whoever runs the models.
    pub fn new(service: ServiceName, inference: Arc<dyn LocalInference>) -> Self {
        Self { service, inference, encoder: None }
    }

    /// The same with whoever runs the encoder.
    #[must_use]
    pub fn with_encoder(self, encoder: Arc<dyn LocalEncoder>) -> Self {
        Self { encoder: Some(encoder), ..self }
    }

    fn describe(model: LocalModelInfo, can: Needs) -> UpstreamModel {
        let context_tokens = (model.context_tokens > 0).then_some(model.context_tokens);
        UpstreamModel { name: model.name, can, context_tokens }
    }
}

/// What a model can do; all that any could where it is not known.
fn abilities(model: Option<&LocalModelInfo>) -> Needs {
    let tool_use = Needs::TOOLS.union(Needs::TOOL_CHOICE).union(Needs::SERIAL_TOOLS);
    let mut can = TransformersBackend::CAN;
    can.set(Needs::CHAT, model.is_none_or(|model| model.chat));
    can.set(tool_use, model.is_some_and(|model| model.tools.is_some()));
    can
}

impl Backend for TransformersBackend {
    fn service(&self) -> &ServiceName {
        &self.service
    }

    fn generate(&self, call: Call) -> BoxFuture<'static, Result<Reply, BackendError>> {
        let inference = Arc::clone(&self.inference);
        async move {
            let shape = logprobs::Shape::of(&call.request.prompt);
            let known = inference.models().into_iter().find(|model| model.name == call.model);
            let translated = job::translate(&call, known.as_ref())?;
            let mut stream = inference.submit(translated.job).await?;
            // A refusal (a prompt too long, say) comes before anything else and belongs in the head.
            let first = stream.recv().await;
            let reader = events::Reader::new(shape, translated.calls);
            if call.request.stream {
                let events = events::EventsOf::start(stream, reader, first)?;
                return Ok(Reply::Stream(Box::pin(events)));
            }
            let answer = events::whole(stream, reader, first, call.model.as_str()).await?;
            Ok(Reply::Whole(Box::new(answer)))
        }
        .boxed()
    }

    fn embed(&self, call: EmbedCall) -> BoxFuture<'static, Result<Embeddings, BackendError>> {
        let encoder = self.encoder.clone();
        async move {
            let encoder = encoder.ok_or_else(|| {
                BackendError::new(FailureClass::ModelMissing, "no embedding model is configured")
            })?;
            let order = EncodeOrder { model: call.model.clone(), request: Arc::clone(&call.request) };
            encoder.submit(order).await?.await
        }
        .boxed()
    }

    fn models(&self) -> BoxFuture<'static, Result<Vec<UpstreamModel>, BackendError>> {
        let generate = self.inference.models().into_iter().map(|model| {
            let can = abilities(Some(&model));
            Self::describe(model, can)
        });
        let embed = self.encoder.iter().flat_map(|encoder| encoder.models());
        let models = generate.chain(embed.map(|model| Self::describe(model, ENCODER_CAN))).collect();
        futures::future::ready(Ok(models)).boxed()
    }

    fn probe(&self) -> BoxFuture<'static, Result<(), BackendError>> {
        let life = match self.inference.status().state {
            // While it is being loaded, or not wanted yet, jobs are taken and wait: that is no fault.
            LocalState::Ready | LocalState::Loading => Ok(()),
            LocalState::Absent if !self.inference.models().is_empty() => Ok(()),
            LocalState::Absent => {
                Err(BackendError::new(FailureClass::ModelMissing, "no model is configured"))
            }
            LocalState::Failed(why) => Err(BackendError::new(FailureClass::NotLoaded, why)),
        };
        futures::future::ready(life).boxed()
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tools_tests;
