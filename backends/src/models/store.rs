//! The models folder: what is in it, and out of it again.
//!
//! All functions block on the disk.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use opossum_inference::gguf::GgufFile;

use super::catalogue::{self, CatalogueEntry, catalogue};
use super::error::StoreError;

/// The file whose presence makes a folder a model.
pub(super) const WEIGHTS: &str = "model.safetensors";

/// A model in the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstalledModel {
    /// The catalogue's name for it, else the name of its file without the ending, or of its folder.
    pub name: String,
    /// The file, or the folder of a model of several files.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// The catalogue's entry for this place, if there is one. Whether the bytes are right, only
    /// [`verify`](super::verify) tells.
    pub entry: Option<&'static CatalogueEntry>,
}

/// The models of a folder, by name: GGUF files, and folders with a `model.safetensors`. A folder that does not
/// exist holds none.
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
        let Some(bytes) = size(&path) else { continue };
        models.push(InstalledModel { entry: entry_of(&path), name, path, bytes });
    }
    models.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(models)
}

/// The licence that a GGUF file itself states, in one short line; `None` where it states none or cannot be read.
pub fn stated_licence(path: &Path) -> Option<String> {
    const MOST: usize = 40;
    let file = GgufFile::open(path).ok()?;
    let stated = file.header().metadata.string("general.license")?;
    // The file is anyone's, and this goes to a terminal.
    let plain: String = stated.chars().filter(|c| !c.is_control()).take(MOST).collect();
    Some(plain).filter(|licence| !licence.trim().is_empty())
}

/// The file or folder of a model in the folder, by the catalogue's name, the file's name, or that without its
/// ending.
pub fn installed(name: &str, dir: &Path) -> Option<PathBuf> {
    if let Some(entry) = catalogue::find(name) {
        return entry.is_in(dir).then(|| dir.join(entry.place));
    }
    place_of(name, dir).ok().filter(|path| size(path).is_some())
}

/// Deletes a model and what an interrupted pull left of it; gives the path it had.
///
/// # Errors
/// When there is no such model, or it cannot be deleted.
pub fn remove(name: &str, dir: &Path) -> Result<PathBuf, StoreError> {
    let path = place_of(name, dir)?;
    let mut found = false;
    let files = catalogue::find(name).map_or(&[][..], |entry| entry.files);
    // What the name stands for comes first: files behind a link to a folder are not ours to delete.
    for file in [path.clone()].into_iter().chain(files.iter().map(|file| dir.join(file.name))) {
        for suffix in ["", ".part", ".whl.part", ".tmp"] {
            let mut file = file.clone().into_os_string();
            file.push(suffix);
            found |= remove_one(Path::new(&file))?;
        }
    }
    if found { Ok(path) } else { Err(StoreError::NotFound(name.to_owned())) }
}

/// Deletes a file, a link, or a folder that holds a model; whether there was one.
fn remove_one(path: &Path) -> Result<bool, StoreError> {
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(false);
        }
        Err(error) => return Err(StoreError::disk(path)(error)),
    };
    let removed = if kind.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.map_err(StoreError::disk(path)).map(|()| true)
}

/// The path a name stands for, whether or not there is anything.
fn place_of(name: &str, dir: &Path) -> Result<PathBuf, StoreError> {
    if let Some(entry) = catalogue::find(name) {
        return Ok(dir.join(entry.place));
    }
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', '\0']) {
        return Err(StoreError::BadName(name.to_owned()));
    }
    let folder = dir.join(name);
    if name.ends_with(".gguf") || folder.join(WEIGHTS).is_file() {
        return Ok(folder);
    }
    Ok(dir.join(format!("{name}.gguf")))
}

/// The catalogue's entry that is kept under this name.
pub(super) fn entry_of(path: &Path) -> Option<&'static CatalogueEntry> {
    let place = path.file_name()?.to_str()?;
    catalogue().iter().find(|entry| entry.place == place)
}

/// Bytes of a GGUF file, or of all files in a folder that holds a model. Follows links on purpose: a model may
/// be kept elsewhere.
fn size(path: &Path) -> Option<u64> {
    let metadata = fs::metadata(path).ok()?;
    if metadata.is_file() {
        return Some(metadata.len());
    }
    path.join(WEIGHTS).is_file().then(|| {
        let files = fs::read_dir(path).into_iter().flatten().flatten();
        files
            .filter_map(|file| fs::metadata(file.path()).ok())
            .filter(fs::Metadata::is_file)
            .map(|m| m.len())
            .sum()
    })
}

/// The name of a model at this path; `None` where there is none.
fn model_name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let stem = match file.strip_suffix(".gguf") {
        Some(stem) if path.is_file() => stem,
        _ if path.join(WEIGHTS).is_file() => file,
        _ => return None,
    };
    let plain = !stem.is_empty() && !stem.starts_with('.');
    plain.then(|| entry_of(path).map_or_else(|| stem.to_owned(), |entry| entry.name.to_owned()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use opossum_inference::testing::TinyLlama;

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
    fn a_file_tells_its_licence() {
        let dir = TempDir::new();
        let (own, broken) = (dir.path().join("own.gguf"), dir.path().join("broken.gguf"));
        TinyLlama::default().write(&own).unwrap();
        fs::write(&broken, b"GGUF but not really").unwrap();
        assert_eq!(stated_licence(&own).as_deref(), Some("apache-2.0"));
        assert_eq!((stated_licence(&broken), stated_licence(&dir.path().join("absent"))), (None, None));
    }

    #[test]
    fn a_folder_with_weights_is_a_model_once_all_its_files_are_there() {
        let dir = TempDir::new();
        let own = dir.path().join("own");
        for folder in ["all-minilm-l6-v2", "own", "notes"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        fs::write(own.join(WEIGHTS), b"xyz").unwrap();
        fs::write(own.join("config.json"), b"{}").unwrap();
        let found = list(dir.path()).unwrap();
        assert_eq!(found.iter().map(|m| (m.name.as_str(), m.bytes)).collect::<Vec<_>>(), [("own", 5)]);
        assert_eq!(installed("own", dir.path()), Some(own.clone()));
        let minilm = catalogue::find("all-minilm-l6-v2").unwrap();
        for (file, is_last) in minilm.files.iter().zip([false, false, true]) {
            fs::write(dir.path().join(file.name), b"xyz").unwrap();
            assert_eq!(installed(minilm.name, dir.path()).is_some(), is_last, "{}", file.name);
        }
        assert_eq!(list(dir.path()).unwrap()[0].entry, Some(minilm));
        assert_eq!(remove("own", dir.path()).unwrap(), own);
        remove(minilm.name, dir.path()).unwrap();
        assert_eq!(dir.files(), ["notes"]);
        assert!(matches!(remove("notes", dir.path()), Err(StoreError::NotFound(_))));
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
