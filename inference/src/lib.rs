//! The embedded language model: a GGUF file in, tokens out.
//!
//! This crate exists so that an answer is possible when no other backend is. It is synchronous, knows nothing of
//! HTTP, actors or async runtimes, and may be used alone: [`Engine::start`] loads a model on its own OS thread,
//! [`Engine::submit`] hands it a [`Job`], and the job's [`TokenSink`] receives [`TokenEvent`]s.
//!
//! # Units
//! Lengths are tokens unless a name says bytes; tensors are row-major `f32` (or integer blocks on the way in).
//!
//! # Failure
//! Every fallible call answers an [`InferenceError`]; [`InferenceError::kind`] is the closed set to match on. A panic
//! inside the tensor library is caught at the step boundary, fails the sequences that were in flight, and leaves the
//! engine usable.

pub mod device;
pub mod encoder;
pub mod engine;
pub mod error;
pub mod gguf;
pub mod grammar;
mod memory;
pub mod model;
mod ops;
mod precision;
pub mod safetensors;
pub mod sampler;
pub mod template;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod tokenizer;

pub use device::DeviceChoice;
pub use encoder::{EncodeInput, EncodeJob, Encoded, Encoder, EncoderConfig, EncoderInfo};
pub use engine::{
    Engine, EngineConfig, EngineObserver, EngineStats, FinishReason, Job, ModelInfo, Prompt, PromptMessage,
    PromptTool, PromptToolCall, Readiness, StepReport, SubmitError, TokenEvent, TokenSink, TokenUsage,
};
pub use error::{ErrorKind, InferenceError, TemplateError};
pub use grammar::{Grammar, ToolRules, ToolSpec, ToolSyntax};
pub use model::{LoadOptions, LoadedModel};
pub use precision::Precision;
pub use sampler::{
    GenerationParams, MAX_STOP_BYTES, MAX_STOP_STRINGS, MAX_TOP_LOGPROBS, TokenLogprob, TopLogprob,
};
