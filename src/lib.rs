//! Opossum Search: one service that answers LLM requests when everything around it fails.
//!
//! This crate holds the edges and the wiring: settings, admission, the HTTP front, the one path behind every
//! door, telemetry. Policy lives in `opossum-core`, state in `opossum-actors`, upstream protocols in
//! `opossum-backends`. `docs/architecture.md` is the map.

pub mod admission;
pub mod batches;
pub mod cli;
pub mod http;
pub mod jobs;
mod memory;
pub mod server;
pub mod service;
pub mod settings;
mod tasks;
pub mod telemetry;
pub mod wiring;

/// The running version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
