//! A tiny random model for tests: real GGUF, real tokenizer, real chat template, a fraction of a millisecond a token.
//!
//! Its weights are noise, so its words mean nothing, but they are deterministic for a seed and always printable ASCII:
//! only those tokens have a row in the output matrix, every other logit is zero. With greedy decoding it therefore
//! never ends by itself; it ends at `max_tokens`, at a stop string, or at the end of its context.

pub mod hostile;
mod random;
mod temp;
mod writer;

use std::io;
use std::path::Path;

pub use random::RandomLlama;
pub use temp::TempModel;
pub use writer::GgufWriter;

use crate::gguf::{Array, TensorType, Value};

/// ChatML, with the rule that the first message may not be the assistant's.
pub const CHAT_TEMPLATE: &str = "{% if messages and messages[0]['role'] == 'assistant' %}\
{{ raise_exception('a conversation starts with the user') }}{% endif %}\
{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}\
{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// ChatML with tools, in the manner of Hermes and Qwen.
pub const TOOL_TEMPLATE: &str = "{% if tools %}{{ '<|im_start|>system\nTools:' }}\
{% for tool in tools %}{{ '\n' + (tool | tojson) }}{% endfor %}{{ '<|im_end|>\n' }}{% endif %}\
{% for message in messages %}\
{% if message.role == 'tool' %}\
{{ '<|im_start|>user\n<tool_response>\n' + message.content + '\n</tool_response><|im_end|>\n' }}\
{% else %}{{ '<|im_start|>' + message.role + '\n' + (message.content or '') }}\
{% for tool_call in message.tool_calls or [] %}\
{{ '\n<tool_call>\n{\"name\": \"' + tool_call.function.name + '\", \"arguments\": ' }}\
{{ (tool_call.function.arguments | tojson) + '}\n</tool_call>' }}{% endfor %}{{ '<|im_end|>\n' }}{% endif %}\
{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// Control tokens, in the order of their ids from 0. The last one ends a turn.
pub const CONTROL_TOKENS: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

/// Pairs the vocabulary merges, in order of priority.
const MERGES: [(&str, &str); 5] = [("t", "h"), ("th", "e"), ("i", "n"), ("Ġ", "the"), ("e", "r")];

/// The shape of a tiny model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TinyLlama {
    /// Seed of the weights.
    pub seed: u64,
    /// Tokens of context the file promises.
    pub context_length: usize,
    /// Storage type of the matrices; rows are 32 long, so any type with blocks of at most 32 will do.
    pub kind: TensorType,
    /// The chat template, such as [`CHAT_TEMPLATE`] or [`TOOL_TEMPLATE`].
    pub chat_template: &'static str,
}

impl Default for TinyLlama {
    fn default() -> Self {
        Self { seed: 1, context_length: 512, kind: TensorType::F32, chat_template: CHAT_TEMPLATE }
    }
}

/// Width of the residual stream.
const WIDTH: usize = 32;
/// Query heads, of 8 dimensions each.
const HEADS: usize = 4;
/// Key and value heads.
const KV_HEADS: usize = 2;
/// Width of the feed-forward layer.
const FEED_FORWARD: usize = 64;
/// Decoder layers.
const LAYERS: usize = 2;

impl TinyLlama {
    /// Writes the model to `path`.
    ///
    /// # Errors
    /// What the file system answers, and [`io::ErrorKind::InvalidInput`] for a storage type with longer blocks.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        std::fs::write(path, self.to_bytes()?)
    }

    /// The model's file content.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for a storage type this writer cannot produce.
    pub fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let mut writer = GgufWriter::default();
        self.describe(&mut writer);
        let tokens = vocabulary();
        describe_tokenizer(&mut writer, &tokens, self.chat_template);
        self.tensors(&mut writer, &tokens)?;
        Ok(writer.finish())
    }

    fn describe(&self, writer: &mut GgufWriter) {
        writer.set("general.architecture", Value::String("llama".into()));
        writer.set("general.name", Value::String("tiny".into()));
        writer.set("general.license", Value::String("apache-2.0".into()));
        let numbers = [
            ("block_count", LAYERS),
            ("context_length", self.context_length),
            ("embedding_length", WIDTH),
            ("feed_forward_length", FEED_FORWARD),
            ("attention.head_count", HEADS),
            ("attention.head_count_kv", KV_HEADS),
            ("rope.dimension_count", WIDTH / HEADS),
        ];
        for (key, number) in numbers {
            writer.set(&format!("llama.{key}"), Value::Unsigned(number as u64));
        }
        writer.set("llama.rope.freq_base", Value::Float(10_000.0));
        writer.set("llama.attention.layer_norm_rms_epsilon", Value::Float(1e-5));
    }

    fn tensors(&self, writer: &mut GgufWriter, tokens: &[String]) -> io::Result<()> {
        let mut random = Noise(self.seed);
        let vocab = tokens.len();
        let kv_width = WIDTH / HEADS * KV_HEADS;
        writer.tensor("token_embd.weight", &[WIDTH, vocab], self.kind, &random.take(WIDTH * vocab, 1.0))?;
        writer.tensor("output_norm.weight", &[WIDTH], TensorType::F32, &[1.0; WIDTH])?;
        let mut head = random.take(WIDTH * vocab, 1.0);
        for (row, token) in head.chunks_exact_mut(WIDTH).zip(tokens) {
            if !is_printable(token) {
                row.fill(0.0);
            }
        }
        writer.tensor("output.weight", &[WIDTH, vocab], self.kind, &head)?;
        for layer in 0..LAYERS {
            for (name, input, output) in [
                ("attn_q", WIDTH, WIDTH),
                ("attn_k", WIDTH, kv_width),
                ("attn_v", WIDTH, kv_width),
                ("attn_output", WIDTH, WIDTH),
                ("ffn_gate", WIDTH, FEED_FORWARD),
                ("ffn_up", WIDTH, FEED_FORWARD),
                ("ffn_down", FEED_FORWARD, WIDTH),
            ] {
                let numbers = random.take(input * output, 0.3);
                writer.tensor(
                    &format!("blk.{layer}.{name}.weight"),
                    &[input, output],
                    self.kind,
                    &numbers,
                )?;
            }
            for name in ["attn_norm", "ffn_norm"] {
                writer.tensor(
                    &format!("blk.{layer}.{name}.weight"),
                    &[WIDTH],
                    TensorType::F32,
                    &[1.0; WIDTH],
                )?;
            }
        }
        Ok(())
    }
}

fn is_printable(token: &str) -> bool {
    matches!(token.as_bytes(), [0x21..=0x7e]) || token == "Ġ"
}

/// Control tokens, then the 256 bytes, then the merged tokens.
fn vocabulary() -> Vec<String> {
    let controls = CONTROL_TOKENS.iter().map(ToString::to_string);
    let bytes = (0..=255).map(|byte| crate::tokenizer::byte_to_char(byte).to_string());
    let merged = MERGES.iter().map(|(left, right)| format!("{left}{right}"));
    controls.chain(bytes).chain(merged).collect()
}

fn describe_tokenizer(writer: &mut GgufWriter, tokens: &[String], chat_template: &str) {
    let merges = MERGES.iter().map(|(left, right)| format!("{left} {right}"));
    let kinds = (0..tokens.len()).map(|id| if id < CONTROL_TOKENS.len() { 3 } else { 1 }).collect();
    writer.set("tokenizer.ggml.model", Value::String("gpt2".into()));
    writer.set("tokenizer.ggml.pre", Value::String("smollm".into()));
    writer.set("tokenizer.ggml.tokens", Value::Array(Array::Strings(tokens.to_vec())));
    writer.set("tokenizer.ggml.token_type", Value::Array(Array::Integers(kinds)));
    writer.set("tokenizer.ggml.merges", Value::Array(Array::Strings(merges.collect())));
    writer.set("tokenizer.ggml.bos_token_id", Value::Unsigned(1));
    writer.set("tokenizer.ggml.eos_token_id", Value::Unsigned(2));
    writer.set("tokenizer.ggml.add_bos_token", Value::Bool(false));
    writer.set("tokenizer.chat_template", Value::String(chat_template.into()));
}

/// Uniform noise from the SplitMix64 generator.
struct Noise(u64);

impl Noise {
    fn take(&mut self, count: usize, scale: f32) -> Vec<f32> {
        (0..count).map(|_| (crate::sampler::split_mix_64(&mut self.0) * 2.0 - 1.0) as f32 * scale).collect()
    }
}
