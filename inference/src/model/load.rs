//! From a checked file to a model in memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use opossum_kernels::{KvShape, Pool};

use super::shape::{Keys, Shape};
use super::weights::Weights;
use super::{BLOCK_TOKENS, Language, LoadedModel, decoder};
use crate::device::Found;
use crate::gguf::{GgufFile, TensorInfo};
use crate::grammar::Grammars;
use crate::ops::Place;
use crate::template::ChatTemplate;
use crate::tokenizer::Tokenizer;
use crate::{DeviceChoice, InferenceError, ModelInfo, Precision, TemplateError, memory};

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
    /// How wide weights are to be.
    pub precision: Precision,
    /// Whether [`Precision::Auto`] may take weights in blocks with a scale.
    pub quantized: bool,
    /// CPU threads of the kernels; 0 means one a core.
    pub threads: usize,
    /// Computes with stock tensor operations, with `f32` weights unless others are asked for: slow, large, and what
    /// the kernels are held against.
    pub reference: bool,
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
            precision: Precision::Auto,
            quantized: true,
            threads: 0,
            reference: false,
        }
    }
}

pub(super) fn load(options: &LoadOptions) -> Result<LoadedModel, InferenceError> {
    let found = options.device.find()?;
    let file = GgufFile::open(&options.path)?;
    check_digest(&file, options.sha256.as_deref())?;
    let keys = Keys::new(&file.header().metadata);
    let build = decoder::of(keys.architecture())?;
    keys.refuse_unsupported()?;
    let shape = Shape::read(&file)?;
    let tokenizer = Tokenizer::from_metadata(&file.header().metadata)?;
    if tokenizer.vocab() != shape.vocab {
        return Err(InferenceError::invalid(format!(
            "the tokenizer has {} tokens, the model {}",
            tokenizer.vocab(),
            shape.vocab
        )));
    }
    let place = place(options, &found);
    let context_length = shape.context_length.min(options.max_context);
    let cache_bytes = cache_bytes(&shape, &place, context_length, options.max_sequences);
    let weight_bytes = weight_bytes(&file, &place);
    memory::preflight(weight_bytes.saturating_add(cache_bytes), found.memory)?;
    let mut info = describe(&file, &options.path, &shape, context_length, &place);
    info.device = found.name;
    let mut weights = Weights::new(&file, &shape, &place);
    let decoder = build(keys, &shape, &mut weights)?;
    weights.finish()?;
    // What converting took is given back before anything else wants memory.
    place.device.memory_cleanup();
    file.check_unchanged()?;
    let template = match file.header().metadata.string("tokenizer.chat_template") {
        Some(source) => ChatTemplate::new(source),
        None => Err(TemplateError::Missing),
    };
    info.chat = !matches!(template, Err(TemplateError::Missing));
    info.tools = template.as_ref().ok().and_then(|template| template.tool_syntax(&tokenizer));
    let tokenizer = Arc::new(tokenizer);
    let grammars = Arc::new(Grammars::new(Arc::clone(&tokenizer)));
    let language = Arc::new(Language { tokenizer, grammars, template, context_length });
    // Activations want memory too, and other processes may have some.
    let cache_room = found.memory.map(|memory| memory.saturating_sub(weight_bytes) / 2);
    Ok(LoadedModel { decoder, shape, language, info, place, cache_room })
}

/// The CPU computes with its kernels unless stock tensor operations are asked for.
fn place(options: &LoadOptions, found: &Found) -> Place {
    let device = found.device.clone();
    if device == Device::flex() && !options.reference {
        let kept = options.precision.on_kernels(options.quantized);
        return Place::new(device, kept, Some(Arc::new(Pool::new(options.threads))));
    }
    Place::new(device, options.precision.on_tensors(options.quantized, found.memory), None)
}

fn check_digest(file: &GgufFile, expected: Option<&str>) -> Result<(), InferenceError> {
    let Some(expected) = expected else { return Ok(()) };
    if expected.eq_ignore_ascii_case(&file.sha256()?) {
        return Ok(());
    }
    Err(InferenceError::invalid("the file's SHA-256 is not the expected one"))
}

/// Weights as they are kept, and what reading the largest tensor takes beside them.
fn weight_bytes(file: &GgufFile, place: &Place) -> u64 {
    let tensors = || file.header().tensors.values();
    match place.kernels {
        // Packed matrices keep the blocks; tiles that are not full and wider scales add less than an eighth.
        Some(_) => {
            let packed = |info: &TensorInfo| {
                let kind = place.kept.packed(info.kind, info.dims[0]);
                (info.elements / kind.block_len() * kind.block_bytes()) as u64
            };
            tensors().map(packed).sum::<u64>() / 8 * 9
        }
        None => {
            let largest = tensors().map(|info| info.elements as u64).max().unwrap_or(0);
            let kept = place.kept.bytes(file.parameters());
            kept.saturating_add(largest.saturating_mul(size_of::<f32>() as u64))
        }
    }
}

/// Full caches.
fn cache_bytes(shape: &Shape, place: &Place, context_length: usize, sequences: usize) -> u64 {
    let blocks = context_length.div_ceil(BLOCK_TOKENS) as u64;
    kv_bytes_per_block(shape, place).saturating_mul(blocks).saturating_mul(sequences as u64)
}

/// Bytes of keys and values of one block, all layers together.
pub(super) fn kv_bytes_per_block(shape: &Shape, place: &Place) -> u64 {
    let Shape { layers, kv_heads, head_dim, .. } = *shape;
    if place.kernels.is_some() {
        let bytes = KvShape { layers, kv_heads, dim: head_dim, blocks: 1 }.bytes_per_block();
        return bytes.map_or(u64::MAX, |bytes| bytes as u64);
    }
    let numbers = [2, BLOCK_TOKENS, layers, kv_heads, head_dim];
    let numbers = numbers.into_iter().fold(1_u64, |product, count| product.saturating_mul(count as u64));
    numbers.saturating_mul(place.storage.size() as u64)
}

fn describe(file: &GgufFile, path: &Path, shape: &Shape, context_length: usize, place: &Place) -> ModelInfo {
    let metadata = &file.header().metadata;
    let file_name = || path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    ModelInfo {
        name: metadata.string("general.name").map_or_else(file_name, ToOwned::to_owned),
        architecture: metadata.string("general.architecture").unwrap_or_default().to_owned(),
        context_length,
        parameters: file.parameters(),
        quantization: place.kept.name(file.prevailing_type()),
        license: metadata.string("general.license").map(ToOwned::to_owned),
        device: String::new(),
        vocab: shape.vocab,
        chat: false,
        tools: None,
    }
}
