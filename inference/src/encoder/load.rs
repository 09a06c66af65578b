//! Reads an encoder from its folder: `config.json`, `tokenizer.json`, `model.safetensors`.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use opossum_kernels::attention::Full;
use opossum_kernels::matrix::Format;
use opossum_kernels::{Matrix, Pool};
use serde::Deserialize;

use super::bert::{Bert, Layer};
use super::ops::{Affine, LayerNorm};
use super::text::TextTokens;
use super::{EncoderConfig, EncoderInfo};
use crate::ops::{Linear, Place, Weight};
use crate::precision::Kept;
use crate::safetensors::SafeTensors;
use crate::{InferenceError, memory};

/// Most bytes of a JSON file beside the weights.
const MAX_JSON_BYTES: u64 = 32 << 20;
/// Tensors that other heads on the same encoder use, and that have no part in its vectors.
const UNUSED: [&str; 3] = ["embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias"];

/// What `config.json` says.
#[derive(Debug, Deserialize)]
struct Config {
    model_type: String,
    hidden_act: String,
    #[serde(default = "absolute")]
    position_embedding_type: String,
    hidden_size: usize,
    intermediate_size: usize,
    num_attention_heads: usize,
    num_hidden_layers: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    type_vocab_size: usize,
    layer_norm_eps: f32,
}

fn absolute() -> String {
    "absolute".to_owned()
}

/// What `sentence_bert_config.json` says, where there is one.
#[derive(Deserialize)]
struct SentenceConfig {
    max_seq_length: usize,
}

/// A model with its tokenizer.
#[derive(Debug)]
pub(super) struct LoadedEncoder {
    pub(super) bert: Bert,
    pub(super) tokens: TextTokens,
    pub(super) info: EncoderInfo,
}

pub(super) fn load(options: &EncoderConfig) -> Result<LoadedEncoder, InferenceError> {
    load_on(options, true)
}

/// With or without the kernels of the CPU: stock tensor operations are what these are held against.
pub(super) fn load_on(options: &EncoderConfig, use_kernels: bool) -> Result<LoadedEncoder, InferenceError> {
    let found = options.device.find()?;
    let folder = &options.model_path;
    let config: Config = json(&folder.join("config.json"))?;
    config.check()?;
    let file = SafeTensors::open(&folder.join("model.safetensors"))?;
    if let Some(expected) = &options.model_sha256
        && !expected.eq_ignore_ascii_case(&file.sha256()?)
    {
        return Err(InferenceError::invalid("the file's SHA-256 is not the expected one"));
    }
    let parameters = file.parameters();
    memory::preflight(parameters.saturating_mul(4), found.memory)?;
    let limit = sentence_limit(folder)?.min(config.max_position_embeddings);
    let tokens = TextTokens::new(&read(&folder.join("tokenizer.json"))?, config.vocab_size, limit)?;
    let on_cpu = found.device == Device::flex();
    let kernels = (on_cpu && use_kernels).then(|| Arc::new(Pool::new(options.threads)));
    let place = Place::new(found.device, Kept::F32, kernels);
    let bert = Weights { file: &file, config: &config, place: &place, read: HashSet::new() }.bert()?;
    let name = folder.file_name().map_or_else(|| "encoder".into(), |name| name.to_string_lossy());
    let info = EncoderInfo {
        name: name.into_owned(),
        architecture: config.model_type,
        dimensions: config.hidden_size,
        context_length: limit,
        parameters,
        device: found.name,
    };
    Ok(LoadedEncoder { bert, tokens, info })
}

/// Tokens of an input that the model was made for; no limit where the folder does not say.
fn sentence_limit(folder: &Path) -> Result<usize, InferenceError> {
    let path = folder.join("sentence_bert_config.json");
    if !path.exists() {
        return Ok(usize::MAX);
    }
    json(&path).map(|config: SentenceConfig| config.max_seq_length)
}

fn json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, InferenceError> {
    serde_json::from_slice(&read(path)?)
        .map_err(|error| InferenceError::invalid(format!("{}: {error}", path.display())))
}

/// A small file, of which no more than the limit is read however long it is or grows.
fn read(path: &Path) -> Result<Vec<u8>, InferenceError> {
    let cannot = |error| InferenceError::unavailable(format!("cannot read {}: {error}", path.display()));
    if !path.metadata().map_err(cannot)?.is_file() {
        return Err(InferenceError::unavailable(format!("{} is not a file", path.display())));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(cannot)?;
    file.take(MAX_JSON_BYTES + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > MAX_JSON_BYTES {
        return Err(InferenceError::invalid(format!("{} is too long", path.display())));
    }
    Ok(bytes)
}

impl Config {
    fn check(&self) -> Result<(), InferenceError> {
        let known = [
            ("model_type", &self.model_type, "bert"),
            ("hidden_act", &self.hidden_act, "gelu"),
            ("position_embedding_type", &self.position_embedding_type, "absolute"),
        ];
        for (key, found, supported) in known {
            if found != supported {
                return Err(InferenceError::invalid(format!("{key} {found:?} is not supported")));
            }
        }
        let heads = self.num_attention_heads;
        let whole = heads > 0 && self.hidden_size > 0 && self.hidden_size.is_multiple_of(heads);
        if !whole
            || self.num_hidden_layers == 0
            || self.max_position_embeddings < 3
            || self.type_vocab_size == 0
        {
            return Err(InferenceError::invalid("config.json has impossible sizes"));
        }
        Ok(())
    }
}

/// The tensors of a file on their way into a model.
struct Weights<'a> {
    file: &'a SafeTensors,
    config: &'a Config,
    place: &'a Place,
    read: HashSet<String>,
}

impl Weights<'_> {
    fn bert(mut self) -> Result<Bert, InferenceError> {
        let Config { hidden_size: width, vocab_size, max_position_embeddings, num_attention_heads, .. } =
            *self.config;
        let words = self.numbers("embeddings.word_embeddings.weight", &[vocab_size, width])?;
        let mut positions =
            self.numbers("embeddings.position_embeddings.weight", &[max_position_embeddings, width])?;
        let segments =
            self.numbers("embeddings.token_type_embeddings.weight", &[self.config.type_vocab_size, width])?;
        // All tokens are of the first segment.
        for position in positions.chunks_exact_mut(width) {
            position.iter_mut().zip(&segments).for_each(|(number, add)| *number += add);
        }
        let norm = self.norm("embeddings.LayerNorm")?;
        let layers =
            (0..self.config.num_hidden_layers).map(|index| self.layer(index)).collect::<Result<_, _>>()?;
        self.finish()?;
        let dim = width / num_attention_heads;
        let attention = Full { heads: num_attention_heads, dim, scale: 1.0 / (dim as f32).sqrt() };
        let tensor = |numbers, rows| self.tensor(numbers, rows, width);
        let (words, positions) = (tensor(words, vocab_size), tensor(positions, max_position_embeddings));
        Ok(Bert { words, positions, norm, layers, attention, place: self.place.clone() })
    }

    fn layer(&mut self, index: usize) -> Result<Layer, InferenceError> {
        let (width, inner) = (self.config.hidden_size, self.config.intermediate_size);
        let name = |part: &str| format!("encoder.layer.{index}.{part}");
        Ok(Layer {
            queries: self.affine(&name("attention.self.query"), width, width)?,
            keys: self.affine(&name("attention.self.key"), width, width)?,
            values: self.affine(&name("attention.self.value"), width, width)?,
            attended: self.affine(&name("attention.output.dense"), width, width)?,
            attended_norm: self.norm(&name("attention.output.LayerNorm"))?,
            up: self.affine(&name("intermediate.dense"), width, inner)?,
            down: self.affine(&name("output.dense"), inner, width)?,
            down_norm: self.norm(&name("output.LayerNorm"))?,
        })
    }

    fn affine(&mut self, name: &str, inputs: usize, outputs: usize) -> Result<Affine, InferenceError> {
        let rows = self.numbers(&format!("{name}.weight"), &[outputs, inputs])?;
        let bias = self.numbers(&format!("{name}.bias"), &[outputs])?;
        let weight = match &self.place.kernels {
            Some(pool) => Weight::Packed(Arc::new(pack(pool, &rows, outputs, inputs)?), Arc::clone(pool)),
            None => Weight::Dense(Box::new(self.tensor(rows, outputs, inputs))),
        };
        Ok(Affine { matrix: Linear::new(weight), bias: self.tensor(bias, 1, outputs) })
    }

    fn norm(&mut self, name: &str) -> Result<LayerNorm, InferenceError> {
        let width = self.config.hidden_size;
        Ok(LayerNorm {
            scale: self.numbers(&format!("{name}.weight"), &[width])?,
            bias: self.numbers(&format!("{name}.bias"), &[width])?,
            epsilon: self.config.layer_norm_eps,
        })
    }

    /// A tensor under its name, or under the one it has where the encoder is a part of a larger model.
    fn numbers(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, InferenceError> {
        let inside = format!("bert.{name}");
        let name = if self.file.tensors().contains_key(&inside) { inside } else { name.to_owned() };
        let numbers = self.file.load(&name, shape)?;
        self.read.insert(name);
        Ok(numbers)
    }

    fn tensor(&self, numbers: Vec<f32>, rows: usize, width: usize) -> Tensor<2> {
        Tensor::from_data(TensorData::new(numbers, [rows, width]), &self.place.device)
    }

    /// Refuses a file with a tensor that nobody computes with: its vectors would be wrong.
    fn finish(&self) -> Result<(), InferenceError> {
        let unused = |name: &str| UNUSED.contains(&name.strip_prefix("bert.").unwrap_or(name));
        match self.file.tensors().keys().find(|name| !self.read.contains(*name) && !unused(name)) {
            Some(name) => Err(InferenceError::invalid(format!("tensor {name:?} is not supported"))),
            None => Ok(()),
        }
    }
}

fn pack(pool: &Pool, rows: &[f32], outputs: usize, inputs: usize) -> Result<Matrix, InferenceError> {
    let mut read = |first: usize, bytes: &mut [u8]| {
        for (bytes, number) in bytes.chunks_exact_mut(4).zip(&rows[first * inputs..]) {
            bytes.copy_from_slice(&number.to_le_bytes());
        }
        Ok(())
    };
    Matrix::pack(pool.isa(), Format::F32, outputs, inputs, &mut read, None)
        .map_err(|error| InferenceError::unavailable(error.to_string()))
}
