//! A tiny model in a temporary file.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::TinyLlama;

/// A model file that is removed when this value is dropped.
#[derive(Debug)]
pub struct TempModel {
    path: PathBuf,
}

impl TempModel {
    /// Writes the model to a new file in the system's temporary folder.
    ///
    /// # Panics
    /// When it cannot be made or written: a test can do nothing else.
    #[must_use]
    pub fn new(model: &TinyLlama) -> Self {
        let bytes = model.to_bytes();
        assert!(bytes.is_ok(), "the model cannot be made: {bytes:?}");
        Self::from_bytes(&bytes.unwrap_or_default())
    }

    /// Writes these bytes to a new file in the system's temporary folder.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tiny-llama-{}-{number}.gguf", std::process::id());
        let path = std::env::temp_dir().join(name);
        let written = std::fs::write(&path, bytes);
        assert!(written.is_ok(), "cannot write {}: {written:?}", path.display());
        Self { path }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TempModel {
    fn drop(&mut self) {
        // A file that is already gone is what was wanted.
        let _ = std::fs::remove_file(&self.path);
    }
}
