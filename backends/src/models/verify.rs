//! Whether a model file is sound.
//!
//! It blocks on the disk and reads the whole file.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

use opossum_inference::gguf::GgufFile;

use super::catalogue::{CatalogueEntry, catalogue};
use super::error::StoreError;
use super::store::{entry_of, installed};
use super::unpack;

/// A model file found sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedModel {
    /// The file.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its SHA-256, lower-case hexadecimal.
    pub sha256: String,
    /// Number of tensors.
    pub tensors: usize,
    /// The catalogue's entry whose bytes these are, if any.
    pub entry: Option<&'static CatalogueEntry>,
}

/// Checks a model file, given by path or by a name in the folder: its structure must be sound, and a file
/// that bears a catalogue model's name must have that model's hash.
///
/// # Errors
/// Why it is refused.
pub fn verify(path_or_name: &str, dir: &Path) -> Result<VerifiedModel, StoreError> {
    let given = Path::new(path_or_name);
    let path = match installed(path_or_name, dir) {
        Some(path) => path,
        None if given.is_file() => given.to_owned(),
        None => return Err(StoreError::NotFound(path_or_name.to_owned())),
    };
    let file = GgufFile::open(&path).map_err(|source| StoreError::Invalid { path: path.clone(), source })?;
    let sha256 = unpack::sha256_of(&path, &AtomicU64::new(0)).map_err(StoreError::disk(&path))?;
    if let Some(entry) = entry_of(&path)
        && entry.sha256 != sha256
    {
        return Err(StoreError::Hash { path, expected: entry.sha256, found: sha256 });
    }
    Ok(VerifiedModel {
        bytes: file.len_bytes() as u64,
        tensors: file.header().tensors.len(),
        entry: catalogue().iter().find(|entry| entry.sha256 == sha256),
        path,
        sha256,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use opossum_inference::testing::{TempModel, TinyLlama};

    use super::*;
    use crate::models::testing::{TempDir, sha256_hex};

    #[test]
    fn a_sound_model_of_any_name_is_accepted() {
        let model = TempModel::new(&TinyLlama::default());
        let path = model.path().to_str().unwrap();
        let verified = verify(path, Path::new("elsewhere")).unwrap();
        assert_eq!(verified.bytes, std::fs::metadata(model.path()).unwrap().len());
        assert!(verified.tensors > 10 && verified.entry.is_none());
        assert_eq!(verified.sha256, sha256_hex(&std::fs::read(model.path()).unwrap()));
    }

    #[test]
    fn another_model_under_a_catalogue_name_is_refused() {
        let (dir, entry) = (TempDir::new(), &catalogue()[0]);
        TinyLlama::default().write(&dir.path().join(entry.file)).unwrap();
        assert!(matches!(verify(entry.name, dir.path()), Err(StoreError::Hash { .. })));
    }

    #[test]
    fn what_is_no_model_is_refused_with_the_reason() {
        let dir = TempDir::new();
        let path = dir.path().join("m.gguf");
        std::fs::write(&path, b"GGUF but not really").unwrap();
        assert!(matches!(verify("m", dir.path()), Err(StoreError::Invalid { .. })));
        let by_path = verify(path.to_str().unwrap(), Path::new("elsewhere"));
        assert!(matches!(by_path, Err(StoreError::Invalid { .. })));
        assert!(matches!(verify("absent", dir.path()), Err(StoreError::NotFound(_))));
    }
}
