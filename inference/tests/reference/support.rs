//! Finds the real model for tests that need it.

use std::path::{Path, PathBuf};

/// SHA-256 of the model the fixtures were made with.
pub(crate) const MODEL_SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

/// The model file, from `OPOSSUM_TEST_MODEL` or `models/` in the workspace. `None`, with a line on the console, when it
/// is not there; with `OPOSSUM_REQUIRE_MODEL=1` that is a failure.
pub(crate) fn model_path() -> Option<PathBuf> {
    let in_workspace =
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/SmolLM2-135M-Instruct.Q4_1.gguf");
    let path = std::env::var_os("OPOSSUM_TEST_MODEL").map_or_else(in_workspace, PathBuf::from);
    if path.is_file() {
        return Some(path);
    }
    let required = std::env::var_os("OPOSSUM_REQUIRE_MODEL").is_some_and(|value| value == "1");
    assert!(!required, "the test model is required but {} does not exist", path.display());
    eprintln!("skipped: {} does not exist (set OPOSSUM_TEST_MODEL)", path.display());
    None
}
