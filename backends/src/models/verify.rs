//! Whether a model is sound: a GGUF file, or a folder with `model.safetensors`.
//!
//! It blocks on the disk and reads the whole file.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

use opossum_inference::gguf::GgufFile;
use opossum_inference::safetensors::SafeTensors;

use super::catalogue::{CatalogueEntry, catalogue};
use super::error::StoreError;
use super::store::{WEIGHTS, entry_of, installed};
use super::unpack;

/// A model found sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedModel {
    /// The file or folder.
    pub path: PathBuf,
    /// The size of its weights' file in bytes.
    pub bytes: u64,
    /// The SHA-256 of its weights, lower-case hexadecimal.
    pub sha256: String,
    /// Number of tensors.
    pub tensors: usize,
    /// The catalogue's entry whose bytes these are, if any.
    pub entry: Option<&'static CatalogueEntry>,
}

/// Checks a model, given by path or by a name in the folder: its structure must be sound, and one that is kept
/// where a model of the catalogue belongs must have that model's hashes.
///
/// # Errors
/// Why it is refused.
pub fn verify(path_or_name: &str, dir: &Path) -> Result<VerifiedModel, StoreError> {
    let given = Path::new(path_or_name);
    let path = match installed(path_or_name, dir) {
        Some(path) => path,
        None if given.is_file() || given.join(WEIGHTS).is_file() => given.to_owned(),
        None => return Err(StoreError::NotFound(path_or_name.to_owned())),
    };
    if path.is_dir() { folder(&path) } else { file(&path) }
}

fn file(path: &Path) -> Result<VerifiedModel, StoreError> {
    let invalid = |source| StoreError::Invalid { path: path.to_owned(), source };
    let file = GgufFile::open(path).map_err(invalid)?;
    let (bytes, tensors) = (file.len_bytes(), file.header().tensors.len());
    let sha256 = hash_of(path)?;
    match entry_of(path).map(|entry| entry.files[0].sha256) {
        Some(expected) if expected != sha256 => {
            Err(StoreError::Hash { path: path.to_owned(), expected, found: sha256 })
        }
        _ => {
            let entry = entry_by_hash(&sha256);
            Ok(VerifiedModel { path: path.to_owned(), bytes, sha256, tensors, entry })
        }
    }
}

fn folder(path: &Path) -> Result<VerifiedModel, StoreError> {
    let weights = path.join(WEIGHTS);
    let invalid = |source| StoreError::Invalid { path: weights.clone(), source };
    let file = SafeTensors::open(&weights).map_err(invalid)?;
    let sha256 = hash_of(&weights)?;
    let entry = entry_of(path).or_else(|| entry_by_hash(&sha256));
    entry.map_or(Ok(()), |entry| check_hashes(entry, path))?;
    let (bytes, tensors) = (file.len_bytes(), file.tensors().len());
    Ok(VerifiedModel { path: path.to_owned(), bytes, sha256, tensors, entry })
}

fn entry_by_hash(sha256: &str) -> Option<&'static CatalogueEntry> {
    catalogue().iter().find(|entry| entry.files.iter().any(|file| file.sha256 == sha256))
}

/// Every file of an entry must have its hash in the folder.
fn check_hashes(entry: &CatalogueEntry, folder: &Path) -> Result<(), StoreError> {
    for file in entry.files {
        let path = folder.join(file.name.rsplit('/').next().unwrap_or_default());
        let found = hash_of(&path)?;
        if found != file.sha256 {
            return Err(StoreError::Hash { path, expected: file.sha256, found });
        }
    }
    Ok(())
}

fn hash_of(path: &Path) -> Result<String, StoreError> {
    unpack::sha256_of(path, &AtomicU64::new(0)).map_err(StoreError::disk(path))
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
        TinyLlama::default().write(&dir.path().join(entry.place)).unwrap();
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
    #[test]
    fn a_folder_is_sound_and_a_catalogue_name_is_known_by_its_hashes() {
        /// Eight bytes of length, a header, and the bytes of one tensor.
        fn weights() -> Vec<u8> {
            let header = br#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
            let length = (header.len() as u64).to_le_bytes();
            [&length[..], header, &[0; 4]].concat()
        }
        let dir = TempDir::new();
        for (name, content) in [("all-minilm-l6-v2", weights()), ("own", weights()), ("odd", vec![9; 40])] {
            let folder = dir.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            for (file, content) in
                [(WEIGHTS, &content[..]), ("tokenizer.json", b"{}"), ("config.json", b"{}")]
            {
                std::fs::write(folder.join(file), content).unwrap();
            }
        }
        assert!(matches!(verify("all-minilm-l6-v2", dir.path()), Err(StoreError::Hash { .. })));
        let own = verify("own", dir.path()).unwrap();
        assert_eq!((own.tensors, own.entry, own.sha256), (1, None, sha256_hex(&weights())));
        let by_path = verify(dir.path().join("odd").to_str().unwrap(), Path::new("elsewhere"));
        assert!(matches!(by_path, Err(StoreError::Invalid { .. })), "{by_path:?}");
    }
}
