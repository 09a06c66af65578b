//! Where the model files of the embedded engine are.

use std::fs;
use std::path::{Path, PathBuf};

use crate::temp::TempDir;

/// The folder that holds the file, looked for in `QUANTIZED_MODEL_DIR`, in `models/` of the checkout and in
/// the cache shared between checkouts (`OPOSSUM_MODEL_CACHE`, else `~/.cache/opossum/models`).
///
/// `None` when it is nowhere, so that a test can say that it did not run; with `OPOSSUM_REQUIRE_MODEL=1`,
/// as in continuous integration, that is a failure instead.
pub fn folder_with(file: &str) -> Option<PathBuf> {
    let found = candidates().into_iter().find(|dir| dir.join(file).is_file());
    if found.is_none() && std::env::var("OPOSSUM_REQUIRE_MODEL").is_ok_and(|v| v == "1") {
        panic!("{file} is in none of {:?}, and OPOSSUM_REQUIRE_MODEL=1", candidates());
    }
    found
}

/// The file of the model that answers by default.
pub const DEFAULT_MODEL_FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

/// The weights of the model that embeds by default.
pub const DEFAULT_ENCODER_FILE: &str = "all-minilm-l6-v2/model.safetensors";

/// A copy of the default model with something changed, in a folder of its own under a name of its own.
#[derive(Debug)]
pub struct ChangedModel {
    dir: TempDir,
}

impl ChangedModel {
    /// An unchanged copy; `None` where the default model is not on this machine.
    pub fn copy() -> Option<Self> {
        let original = folder_with(DEFAULT_MODEL_FILE)?.join(DEFAULT_MODEL_FILE);
        let model = Self { dir: TempDir::new("model") };
        fs::copy(original, model.path()).expect("a copy of the model");
        Some(model)
    }

    /// The file.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("changed.gguf")
    }

    /// The same with another chat template.
    #[must_use]
    pub fn with_template(self, template: &str) -> Self {
        let bytes = fs::read(self.path()).expect("a readable model");
        fs::write(self.path(), with_template(&bytes, template)).expect("a writable model");
        self
    }

    /// The same with another last number of the last tensor, which scales one of the numbers that make the logits.
    #[must_use]
    pub fn with_last_number(self, number: f32) -> Self {
        let mut bytes = fs::read(self.path()).expect("a readable model");
        let at = bytes.len() - size_of::<f32>();
        bytes[at..].copy_from_slice(&number.to_le_bytes());
        fs::write(self.path(), bytes).expect("a writable model");
        self
    }

    /// Cuts the file to this share of its length, whoever has it open.
    pub fn cut_to(&self, share: f64) {
        let file = fs::OpenOptions::new().write(true).open(self.path()).expect("a writable model");
        let length = file.metadata().expect("a model with a length").len();
        file.set_len((length as f64 * share) as u64).expect("a model that can be cut");
    }
}

/// Puts another chat template into a GGUF file. A comment fills it up, so that the header grows by a multiple of the
/// alignment and the tensors' offsets stay right.
fn with_template(file: &[u8], template: &str) -> Vec<u8> {
    const KEY: &[u8] = b"tokenizer.chat_template";
    const ALIGNMENT: usize = 32;
    // Behind the key: the type's number, the length, the text.
    let key = file.windows(KEY.len()).position(|window| window == KEY).expect("a model with a chat template");
    let length_at = key + KEY.len() + 4;
    let text_at = length_at + 8;
    let length = u64::from_le_bytes(file[length_at..text_at].try_into().expect("eight bytes")) as usize;
    let mut text = format!("{template}{{#");
    while (text.len() + 2) % ALIGNMENT != length % ALIGNMENT {
        text.push(' ');
    }
    text.push_str("#}");
    let new_length = (text.len() as u64).to_le_bytes();
    [&file[..length_at], &new_length, text.as_bytes(), &file[text_at + length..]].concat()
}

fn candidates() -> Vec<PathBuf> {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
    let cache = std::env::var_os("OPOSSUM_MODEL_CACHE")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/opossum/models")));
    let given = std::env::var_os("QUANTIZED_MODEL_DIR").map(PathBuf::from);
    given.into_iter().chain([checkout]).chain(cache).collect()
}
