//! The models folder: what is in it, and out of it again.
//!
//! All functions block on the disk.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::catalogue::{self, CatalogueEntry, catalogue};
use super::error::StoreError;

/// A model file in the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstalledModel {
    /// The catalogue's name for it, else its file name without the ending.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// The catalogue's entry for this file name, if there is one. Whether the bytes are right, only
    /// [`verify`](super::verify) tells.
    pub entry: Option<&'static CatalogueEntry>,
}

/// The GGUF files of a folder, by name. A folder that does not exist holds none.
///
/// # Errors
/// When the folder cannot be read.
pub fn list(dir: &Path) -> Result<Vec<InstalledModel>, StoreError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(StoreError::disk(dir))?,
    };
    let mut models = Vec::new();
    for entry in entries {
        let entry = entry.map_err(StoreError::disk(dir))?;
        let path = entry.path();
        let Some(name) = model_name(&path) else { continue };
        // Follows links on purpose: a model may be kept elsewhere.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if metadata.is_file() {
            models.push(InstalledModel { entry: entry_of(&path), name, path, bytes: metadata.len() });
        }
    }
    models.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(models)
}

/// The file of a model in the folder, by the catalogue's name, the file's name, or that without its ending.
pub fn installed(name: &str, dir: &Path) -> Option<PathBuf> {
    let path = file_of(name, dir).ok()?;
    path.is_file().then_some(path)
}

/// Deletes a model and what an interrupted pull left of it; gives the path it had.
///
/// # Errors
/// When there is no such model, or it cannot be deleted.
pub fn remove(name: &str, dir: &Path) -> Result<PathBuf, StoreError> {
    let path = file_of(name, dir)?;
    let mut found = false;
    for suffix in ["", ".part", ".whl.part", ".tmp"] {
        let mut file = path.clone().into_os_string();
        file.push(suffix);
        match fs::remove_file(&file) {
            Ok(()) => found = true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::disk(Path::new(&file))(error)),
        }
    }
    if found { Ok(path) } else { Err(StoreError::NotFound(name.to_owned())) }
}

/// The path a name stands for, whether or not there is a file.
fn file_of(name: &str, dir: &Path) -> Result<PathBuf, StoreError> {
    if let Some(entry) = catalogue::find(name) {
        return Ok(dir.join(entry.file));
    }
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', '\0']) {
        return Err(StoreError::BadName(name.to_owned()));
    }
    let file = if name.ends_with(".gguf") { name.to_owned() } else { format!("{name}.gguf") };
    Ok(dir.join(file))
}

pub(super) fn entry_of(path: &Path) -> Option<&'static CatalogueEntry> {
    let file = path.file_name()?.to_str()?;
    catalogue().iter().find(|entry| entry.file == file)
}

fn model_name(path: &Path) -> Option<String> {
    let stem = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
    let plain = !stem.is_empty() && !stem.starts_with('.');
    plain.then(|| entry_of(path).map_or_else(|| stem.to_owned(), |entry| entry.name.to_owned()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::models::testing::TempDir;

    const FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

    #[test]
    fn a_folder_lists_its_models_by_name() {
        let dir = TempDir::new();
        assert_eq!(list(&dir.path().join("absent")).unwrap(), []);
        for file in ["b.gguf", "notes.txt", ".gguf", FILE, "c.gguf.part"] {
            fs::write(dir.path().join(file), b"xyz").unwrap();
        }
        fs::create_dir(dir.path().join("d.gguf")).unwrap();
        let models = list(dir.path()).unwrap();
        let names: Vec<_> = models.iter().map(|m| (m.name.as_str(), m.bytes, m.entry.is_some())).collect();
        assert_eq!(names, [("b", 3, false), ("smollm2-135m-instruct", 3, true)]);
        assert_eq!(installed("smollm2-135m-instruct", dir.path()), Some(dir.path().join(FILE)));
        assert_eq!(installed("b", dir.path()), installed("b.gguf", dir.path()));
        assert_eq!(installed("c", dir.path()), None);
    }

    #[test]
    fn removing_takes_the_parts_along_and_stays_in_the_folder() {
        let dir = TempDir::new();
        let inner = dir.path().join("models");
        fs::create_dir(&inner).unwrap();
        let (outside, model, part) =
            (dir.path().join("x.gguf"), inner.join("m.gguf"), inner.join("m.gguf.whl.part"));
        for file in [&outside, &model, &part] {
            fs::write(file, b"xyz").unwrap();
        }
        for name in ["../x", "../x.gguf", "", ".", "..", "a/b", "a\\b"] {
            assert!(matches!(remove(name, &inner), Err(StoreError::BadName(_))), "{name}");
        }
        assert_eq!(remove("m", &inner).unwrap(), model);
        assert!(!model.exists() && !part.exists() && outside.exists());
        assert!(matches!(remove("m", &inner), Err(StoreError::NotFound(_))));
    }
}
