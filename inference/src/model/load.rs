//! From a checked file to a model in memory.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};

use super::linear::Linear;
use super::llama::{Layer, Llama, RmsNorm};
use super::rope::Rope;
use super::{LlamaConfig, LoadedModel};
use crate::gguf::GgufFile;
use crate::template::ChatTemplate;
use crate::tokenizer::Tokenizer;
use crate::{DeviceChoice, InferenceError, ModelInfo, TemplateError, memory};

/// How to load a model.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The GGUF file.
    pub path: PathBuf,
    /// SHA-256 the file must have, in hexadecimal.
    pub sha256: Option<String>,
    /// Where to run.
    pub device: DeviceChoice,
    /// Most tokens of prompt and answer together; the model's own context length when that is less.
    pub max_context: usize,
    /// Sequences whose KV caches must fit in memory beside the weights.
    pub max_sequences: usize,
}

impl LoadOptions {
    /// This file on the CPU, one sequence of at most 4096 tokens.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            sha256: None,
            device: DeviceChoice::Cpu,
            max_context: 4096,
            max_sequences: 1,
        }
    }
}

pub(super) fn load(options: &LoadOptions) -> Result<LoadedModel, InferenceError> {
    let (device, device_name) = options.device.resolve()?;
    let file = GgufFile::open(&options.path)?;
    check_digest(&file, options.sha256.as_deref())?;
    let config = LlamaConfig::read(&file)?;
    let tokenizer = Tokenizer::from_metadata(&file.header().metadata)?;
    if tokenizer.vocab() != config.vocab {
        return Err(InferenceError::invalid(format!(
            "the tokenizer has {} tokens, the model {}",
            tokenizer.vocab(),
            config.vocab
        )));
    }
    refuse_unknown_tensors(&file, &config)?;
    let context_length = config.context_length.min(options.max_context);
    memory::preflight(needed_bytes(&file, &config, context_length, options.max_sequences))?;
    let info = describe(&file, &options.path, &config, context_length, device_name);
    let decoder = Weights { file: &file, config: &config, device: &device }.decoder(context_length)?;
    let template = match file.header().metadata.string("tokenizer.chat_template") {
        Some(source) => ChatTemplate::new(source),
        None => Err(TemplateError::Missing),
    };
    Ok(LoadedModel { decoder, tokenizer, template, info, device })
}

fn check_digest(file: &GgufFile, expected: Option<&str>) -> Result<(), InferenceError> {
    match expected {
        Some(expected) if !expected.eq_ignore_ascii_case(&file.sha256()) => {
            Err(InferenceError::invalid("the file's SHA-256 is not the expected one"))
        }
        _ => Ok(()),
    }
}

/// Weights as `f32`, the largest tensor once more while it is converted, and full caches.
fn needed_bytes(file: &GgufFile, config: &LlamaConfig, context_length: usize, sequences: usize) -> u64 {
    let number = size_of::<f32>() as u64;
    let largest = file.header().tensors.values().map(|info| info.elements as u64).max().unwrap_or(0);
    let weights = file.parameters().saturating_add(largest).saturating_mul(number);
    let caches =
        config.cache_bytes_per_token().saturating_mul(context_length as u64).saturating_mul(sequences as u64);
    weights.saturating_add(caches)
}

fn describe(
    file: &GgufFile,
    path: &Path,
    config: &LlamaConfig,
    context_length: usize,
    device: String,
) -> ModelInfo {
    let metadata = &file.header().metadata;
    let file_name = || path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    ModelInfo {
        name: metadata.string("general.name").map_or_else(file_name, ToOwned::to_owned),
        architecture: metadata.string("general.architecture").unwrap_or_default().to_owned(),
        context_length,
        parameters: file.parameters(),
        quantization: file.prevailing_type().to_string(),
        license: metadata.string("general.license").map(ToOwned::to_owned),
        device,
        vocab: config.vocab,
    }
}

/// Names of the tensors of one layer.
const LAYER_TENSORS: [&str; 9] =
    ["attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down"];

/// A tensor nobody reads is a part of the model nobody computes (a bias, say): the answers would be wrong.
fn refuse_unknown_tensors(file: &GgufFile, config: &LlamaConfig) -> Result<(), InferenceError> {
    // Before names are made up for as many layers as the file claims.
    if config.layers > file.header().tensors.len() {
        return Err(InferenceError::invalid(format!("there are no tensors for {} layers", config.layers)));
    }
    let shared = ["token_embd.weight", "output_norm.weight", "output.weight", "rope_freqs.weight"];
    let layered =
        (0..config.layers).flat_map(|layer| LAYER_TENSORS.iter().map(move |name| tensor_name(layer, name)));
    let known: HashSet<String> = layered.chain(shared.map(str::to_owned)).collect();
    match file.header().tensors.keys().find(|name| !known.contains(*name)) {
        Some(name) => Err(InferenceError::invalid(format!("tensor {name:?} is not supported"))),
        None => Ok(()),
    }
}

fn tensor_name(layer: usize, name: &str) -> String {
    format!("blk.{layer}.{name}.weight")
}

/// Reads tensors of one model onto one device.
struct Weights<'a> {
    file: &'a GgufFile,
    config: &'a LlamaConfig,
    device: &'a Device,
}

impl Weights<'_> {
    fn decoder(&self, context_length: usize) -> Result<Llama, InferenceError> {
        let config = self.config;
        let (width, vocab) = (config.width, config.vocab);
        let rows = self.file.load("token_embd.weight", &[width, vocab])?;
        let embedding: Tensor<2> = Tensor::from_data(TensorData::new(rows, [vocab, width]), self.device);
        let head = match self.file.header().tensors.contains_key("output.weight") {
            true => self.linear("output.weight", width, vocab)?,
            false => Linear::from_rows(embedding.clone()),
        };
        let layers = (0..config.layers).map(|layer| self.layer(layer)).collect::<Result<_, _>>()?;
        Ok(Llama {
            embedding,
            layers,
            norm: self.norm("output_norm.weight")?,
            head,
            rope: self.rope(context_length)?,
            config: config.clone(),
            device: self.device.clone(),
        })
    }

    fn layer(&self, layer: usize) -> Result<Layer, InferenceError> {
        let config = self.config;
        let (width, hidden) = (config.width, config.feed_forward);
        let (query_width, kv_width) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let matrix = |name: &str, inputs, outputs| self.linear(&tensor_name(layer, name), inputs, outputs);
        Ok(Layer {
            attention_norm: self.norm(&tensor_name(layer, "attn_norm"))?,
            query: self.rotated(&tensor_name(layer, "attn_q"), query_width)?,
            key: self.rotated(&tensor_name(layer, "attn_k"), kv_width)?,
            value: matrix("attn_v", width, kv_width)?,
            output: matrix("attn_output", query_width, width)?,
            feed_forward_norm: self.norm(&tensor_name(layer, "ffn_norm"))?,
            gate: matrix("ffn_gate", width, hidden)?,
            up: matrix("ffn_up", width, hidden)?,
            down: matrix("ffn_down", hidden, width)?,
        })
    }

    fn linear(&self, name: &str, inputs: usize, outputs: usize) -> Result<Linear, InferenceError> {
        Ok(Linear::new(self.file.load(name, &[inputs, outputs])?, outputs, inputs, self.device))
    }

    /// A query or key matrix, its rows put into rotate-half order.
    fn rotated(&self, name: &str, outputs: usize) -> Result<Linear, InferenceError> {
        let inputs = self.config.width;
        let stored = self.file.load(name, &[inputs, outputs])?;
        let rows = rotate_half_order(&stored, inputs, self.config.head_dim);
        Ok(Linear::new(rows, outputs, inputs, self.device))
    }

    fn norm(&self, name: &str) -> Result<RmsNorm, InferenceError> {
        let width = self.config.width;
        let scale = TensorData::new(self.file.load(name, &[width])?, [1, width]);
        Ok(RmsNorm { scale: Tensor::from_data(scale, self.device), epsilon: self.config.norm_epsilon })
    }

    fn rope(&self, positions: usize) -> Result<Rope, InferenceError> {
        let name = "rope_freqs.weight";
        let factors = match self.file.header().tensors.contains_key(name) {
            true => Some(self.file.load(name, &[self.config.head_dim / 2])?),
            false => None,
        };
        Ok(Rope::new(self.config, positions, factors.as_deref(), self.device))
    }
}

/// Undoes the row order of GGUF query and key matrices.
///
/// The converter to GGUF interleaves the halves of each head (row `2 i + h` of a head was row `h * dim / 2 + i`), for
/// the convention that rotates neighbouring dimensions. This is the inverse, for the convention in `rope`.
pub(super) fn rotate_half_order(stored: &[f32], inputs: usize, head_dim: usize) -> Vec<f32> {
    let half = head_dim / 2;
    let mut rows = Vec::with_capacity(stored.len());
    for head in stored.chunks_exact(head_dim * inputs) {
        for row in 0..head_dim {
            let source = 2 * (row % half) + row / half;
            rows.extend_from_slice(&head[source * inputs..(source + 1) * inputs]);
        }
    }
    rows
}
