//! Folders that a test leaves nothing of.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A folder of its own, removed when dropped unless the test is failing.
#[derive(Debug)]
pub struct TempDir {
    path: PathBuf,
}

impl TempDir {
    /// A fresh folder under the system's folder for temporary files.
    pub fn new(label: &str) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("opossum-{label}-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder for temporary files");
        Self { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // Left-over files of a test that passed are of no use to anyone.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
