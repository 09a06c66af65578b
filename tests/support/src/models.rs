//! Where the model files of the embedded engine are.

use std::path::{Path, PathBuf};

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

fn candidates() -> Vec<PathBuf> {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
    let cache = std::env::var_os("OPOSSUM_MODEL_CACHE")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/opossum/models")));
    let given = std::env::var_os("QUANTIZED_MODEL_DIR").map(PathBuf::from);
    given.into_iter().chain([checkout]).chain(cache).collect()
}
