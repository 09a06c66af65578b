//! How an engine is set up, and what it says about itself.

use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

use super::EngineObserver;
use crate::grammar::ToolSyntax;
use crate::model::{BLOCK_TOKENS, LoadOptions, LoadedModel};
use crate::{DeviceChoice, InferenceError, Precision, memory};

/// Bytes of keys and values that nobody has to ask for.
const MODEST: u64 = 512 << 20;

/// How to start an [`Engine`](crate::Engine).
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// The GGUF file. It is mapped while loading and must not be changed by another process meanwhile.
    pub model_path: PathBuf,
    /// SHA-256 the file must have, 64 hexadecimal digits; `None` loads whatever is there.
    pub model_sha256: Option<String>,
    /// Where to run.
    pub device: DeviceChoice,
    /// How wide weights are to be.
    pub precision: Precision,
    /// Whether [`Precision::Auto`] may take weights in blocks with a scale.
    pub quantized: bool,
    /// Sequences computed at the same time, at least 1.
    pub max_sequences: usize,
    /// Jobs that may wait beyond those, at least 1.
    pub queue_depth: usize,
    /// Most tokens of prompt and answer together; the model's own context length when that is less.
    pub max_context: usize,
    /// Most bytes of keys and values of all sequences together, those kept for later prompts included. `None`: what
    /// `max_sequences` of `max_context` tokens take, but at most half of the memory that is left, on the CPU at most
    /// 512 MiB too, and at least what one sequence takes.
    pub cache_bytes: Option<u64>,
    /// CPU threads for the tensor work; 0 means one a core.
    pub threads: usize,
    /// Who is told what the engine does.
    pub observer: Option<Arc<dyn EngineObserver>>,
    /// Called before each step, so that a test can make the tensor work panic.
    #[doc(hidden)]
    pub fault: Option<FaultHook>,
}

impl EngineConfig {
    /// Modest settings for this file: automatic device, 4 sequences, a queue of 16, 4096 tokens of context, all cores.
    #[must_use]
    pub fn new(model_path: impl Into<PathBuf>) -> Self {
        Self {
            model_path: model_path.into(),
            model_sha256: None,
            device: DeviceChoice::Auto,
            precision: Precision::Auto,
            quantized: true,
            max_sequences: 4,
            queue_depth: 16,
            max_context: 4096,
            cache_bytes: None,
            threads: 0,
            observer: None,
            fault: None,
        }
    }

    pub(super) fn validate(&self) -> Result<(), InferenceError> {
        let check = |holds: bool, name, least: usize| match holds {
            true => Ok(()),
            false => Err(InferenceError::BadParameter { name, reason: format!("must be at least {least}") }),
        };
        check(self.max_sequences >= 1, "max_sequences", 1)?;
        check(self.queue_depth >= 1, "queue_depth", 1)?;
        check(self.max_context >= 2, "max_context", 2)
    }

    pub(super) fn load_options(&self) -> LoadOptions {
        LoadOptions {
            path: self.model_path.clone(),
            sha256: self.model_sha256.clone(),
            device: self.device,
            max_context: self.max_context,
            // A cache for one has to fit; how much more there is to be had is found out afterwards.
            max_sequences: 1,
            precision: self.precision,
            quantized: self.quantized,
            threads: self.threads,
            reference: false,
        }
    }

    /// Blocks of the cache, at least 1.
    pub(super) fn cache_blocks(&self, model: &LoadedModel) -> usize {
        let one = model.info().context_length.div_ceil(BLOCK_TOKENS);
        let all = one.saturating_mul(self.max_sequences);
        let block = model.kv_bytes_per_block().max(1);
        let fitting = |bytes: u64| usize::try_from(bytes / block).unwrap_or(usize::MAX);
        match (self.cache_bytes, model.cache_room(), memory::available()) {
            (Some(bytes), ..) => fitting(bytes).clamp(1, all),
            (None, Some(room), _) => fitting(room).clamp(one, all),
            (None, None, free) => fitting(free.map_or(MODEST, |free| MODEST.min(free / 2))).clamp(one, all),
        }
    }
}

/// A function run before each step on the engine's thread.
#[doc(hidden)]
#[derive(Clone)]
pub struct FaultHook(pub Arc<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for FaultHook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FaultHook")
    }
}

/// Why a job was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SubmitError {
    /// As many jobs wait as may: try later.
    #[error("the inference queue is full")]
    QueueFull,
    /// The engine is stopped.
    #[error("the inference engine is stopped")]
    Stopped,
}

/// What a model says about itself, and where it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    /// `general.name` of the file, else the file's name.
    pub name: String,
    /// `general.architecture`, for example `llama`.
    pub architecture: String,
    /// Tokens of prompt and answer together that this engine accepts.
    pub context_length: usize,
    /// Number of weights.
    pub parameters: u64,
    /// The type most weights are stored in, for example `Q4_1`.
    pub quantization: String,
    /// `general.license`, when the file states one.
    pub license: Option<String>,
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// Entries in the vocabulary.
    pub vocab: usize,
    /// Whether the file has a chat template; without one the model only continues texts.
    pub chat: bool,
    /// How the model writes tool calls; `None` when its chat template has no place for tools.
    pub tools: Option<ToolSyntax>,
}

/// A momentary picture of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EngineStats {
    /// Sequences being computed.
    pub active: usize,
    /// Jobs that wait.
    pub queued: usize,
    /// Tokens generated since the start.
    pub tokens_generated: u64,
    /// Prompt tokens computed since the start.
    pub tokens_prefilled: u64,
    /// Prompt tokens that were not computed because the cache still held them, since the start.
    pub tokens_reused: u64,
    /// Steps computed since the start.
    pub steps: u64,
    /// Sequences that had to give their blocks to others, since the start.
    pub preemptions: u64,
    /// Steps that failed as a whole, by a panic for example, since the start.
    pub restarts: u64,
    /// Blocks of the KV cache.
    pub blocks: usize,
    /// Blocks that sequences hold.
    pub blocks_in_use: usize,
}
