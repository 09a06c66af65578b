//! What this binary is: version, commit, and what the embedded model can run on.

#[cfg(feature = "cuda")]
macro_rules! devices {
    () => {
        "cpu, cuda"
    };
}

#[cfg(not(feature = "cuda"))]
macro_rules! devices {
    () => {
        "cpu"
    };
}

/// `0.1.0 (0123abcd; devices: cpu)`
pub(super) const SHORT: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (", env!("OPOSSUM_COMMIT"), "; devices: ", devices!(), ")");
