//! Finds the real model for tests that need it.

use std::path::{Path, PathBuf};

/// SHA-256 of the model the fixtures were made with.
pub(crate) const MODEL_SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

/// SHA-256 of the Gemma model that some fixtures were made with.
pub(crate) const GEMMA_SHA256: &str = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818";

/// The model file, from `OPOSSUM_TEST_MODEL` or `models/` in the workspace. `None`, with a line on the console, when it
/// is not there; with `OPOSSUM_REQUIRE_MODEL=1` that is a failure.
pub(crate) fn model_path() -> Option<PathBuf> {
    let required = std::env::var_os("OPOSSUM_REQUIRE_MODEL").is_some_and(|value| value == "1");
    find("OPOSSUM_TEST_MODEL", "SmolLM2-135M-Instruct.Q4_1.gguf", required)
}

/// The folder of MiniLM, from `OPOSSUM_TEST_ENCODER` or `models/`; as [`model_path`] otherwise.
pub(crate) fn encoder_path() -> Option<PathBuf> {
    let required = std::env::var_os("OPOSSUM_REQUIRE_MODEL").is_some_and(|value| value == "1");
    find("OPOSSUM_TEST_ENCODER", "all-minilm-l6-v2", required)
}

/// The Gemma file, from `OPOSSUM_TEST_GEMMA` or `models/`. Its terms forbid fetching it unasked, so no test requires it.
pub(crate) fn gemma_path() -> Option<PathBuf> {
    find("OPOSSUM_TEST_GEMMA", "gemma-3-270m-q4_k_m.gguf", false)
}

fn find(variable: &str, file: &str, required: bool) -> Option<PathBuf> {
    let in_workspace = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../models").join(file);
    let path = std::env::var_os(variable).map_or_else(in_workspace, PathBuf::from);
    if path.exists() {
        return Some(path);
    }
    assert!(!required, "the test model is required but {} does not exist", path.display());
    eprintln!("skipped: {} does not exist (set {variable})", path.display());
    None
}
