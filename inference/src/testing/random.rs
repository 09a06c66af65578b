//! Llama models of any size with random weights: for measuring, where only the shape matters.

use std::io;
use std::path::Path;

use super::{CHAT_TEMPLATE, GgufWriter, Noise, describe_tokenizer, vocabulary};
use crate::gguf::{TensorType, Value};

/// The shape of a model whose output matrix is its embedding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RandomLlama {
    /// `general.name` of the file.
    pub name: &'static str,
    /// Decoder layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of the feed-forward layer.
    pub feed_forward: usize,
    /// Entries in the vocabulary, at least 300.
    pub vocab: usize,
    /// Storage type of the matrices.
    pub kind: TensorType,
}

impl RandomLlama {
    /// The sizes of Llama 3.2 1B: 1.24 billion weights.
    pub const ONE_BILLION: Self = Self {
        name: "random-1b",
        layers: 16,
        width: 2048,
        heads: 32,
        kv_heads: 8,
        feed_forward: 8192,
        vocab: 128_256,
        kind: TensorType::F16,
    };

    /// As many layers as the 1B model with a hundredth of its weights: what programs that measure are tried out with.
    pub const SMALL: Self = Self {
        name: "random-small",
        layers: 16,
        width: 256,
        heads: 8,
        kv_heads: 2,
        feed_forward: 512,
        vocab: 4096,
        kind: TensorType::F16,
    };

    /// Writes the model to `path`. Takes twice the file's size in memory meanwhile.
    ///
    /// # Errors
    /// What the file system answers, and [`io::ErrorKind::InvalidInput`] for a storage type that cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut writer = GgufWriter::default();
        self.describe(&mut writer);
        let mut tokens = vocabulary();
        tokens.extend((tokens.len()..self.vocab).map(|id| format!("<spare {id}>")));
        describe_tokenizer(&mut writer, &tokens, CHAT_TEMPLATE);
        self.tensors(&mut writer)?;
        std::fs::write(path, writer.finish())
    }

    fn describe(&self, writer: &mut GgufWriter) {
        writer.set("general.architecture", Value::String("llama".into()));
        writer.set("general.name", Value::String(self.name.into()));
        for (key, number) in [
            ("block_count", self.layers),
            ("context_length", 4096),
            ("embedding_length", self.width),
            ("feed_forward_length", self.feed_forward),
            ("attention.head_count", self.heads),
            ("attention.head_count_kv", self.kv_heads),
            ("rope.dimension_count", self.width / self.heads),
        ] {
            writer.set(&format!("llama.{key}"), Value::Unsigned(number as u64));
        }
        writer.set("llama.rope.freq_base", Value::Float(500_000.0));
        writer.set("llama.attention.layer_norm_rms_epsilon", Value::Float(1e-5));
    }

    fn tensors(&self, writer: &mut GgufWriter) -> io::Result<()> {
        let (width, hidden) = (self.width, self.feed_forward);
        let kv_width = width / self.heads * self.kv_heads;
        let mut random = Noise(1);
        // Uniform noise of this size keeps the variance of what a matrix is multiplied with.
        let mut matrix = |writer: &mut GgufWriter, name: &str, inputs: usize, outputs: usize| {
            let numbers = random.take(inputs * outputs, (3.0 / inputs as f32).sqrt());
            writer.tensor(name, &[inputs, outputs], self.kind, &numbers)
        };
        let norm = |writer: &mut GgufWriter, name: &str| {
            writer.tensor(name, &[width], TensorType::F32, &vec![1.0; width])
        };
        matrix(writer, "token_embd.weight", width, self.vocab)?;
        norm(writer, "output_norm.weight")?;
        for layer in 0..self.layers {
            for (name, inputs, outputs) in [
                ("attn_q", width, width),
                ("attn_k", width, kv_width),
                ("attn_v", width, kv_width),
                ("attn_output", width, width),
                ("ffn_gate", width, hidden),
                ("ffn_up", width, hidden),
                ("ffn_down", hidden, width),
            ] {
                matrix(writer, &format!("blk.{layer}.{name}.weight"), inputs, outputs)?;
            }
            norm(writer, &format!("blk.{layer}.attn_norm.weight"))?;
            norm(writer, &format!("blk.{layer}.ffn_norm.weight"))?;
        }
        Ok(())
    }
}
