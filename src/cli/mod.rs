//! The command line: `opossum`.
//!
//! Results go to standard output, everything else to standard error. Exit codes: 0 good, 1 failed, 2 wrong
//! usage, 78 bad configuration with the key named.

mod args;
mod chat;
mod config;
mod embedded;
mod jobs;
mod models;
mod progress;
mod remote;
mod serve;
mod term;
mod version;

use std::ffi::OsString;
use std::fmt::Display;
use std::future::Future;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::settings::{LoadOptions, Provenance, Settings, SettingsError};

use self::args::{Args, Command};

/// Bad configuration, as `sysexits.h` numbers it.
const EX_CONFIG: u8 = 78;

/// Why a command ended without success.
#[derive(Debug)]
enum Failure {
    /// The configuration cannot be used.
    Config(SettingsError),
    /// Anything else, in one line.
    Failed(String),
    /// Whoever read our output went away; nothing is left to be said, and nothing failed.
    NobodyReads,
}

impl Failure {
    /// A failure in one line, with its cause.
    fn of(what: &str, why: impl Display) -> Self {
        Failure::Failed(format!("{what}: {why}"))
    }
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        Failure::Config(error)
    }
}

type Outcome = Result<(), Failure>;

/// Runs the command line and gives the process's exit code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => {
            // Help and version come this way too, with code 0. That nobody reads them is no failure.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match dispatch(args) {
        Ok(()) | Err(Failure::NobodyReads) => ExitCode::SUCCESS,
        Err(Failure::Failed(why)) => {
            term::note(&format!("error: {why}"));
            ExitCode::FAILURE
        }
        Err(Failure::Config(error)) => {
            term::note(&format!("configuration error: {error}"));
            ExitCode::from(EX_CONFIG)
        }
    }
}

fn dispatch(args: Args) -> Outcome {
    let sources = args.sources();
    match args.command.unwrap_or_default() {
        Command::Serve(serve) => serve::run(sources, &serve),
        Command::Models { action } => models::run(&load(&sources)?.0, action),
        Command::Chat(chat) => chat::run(&load(&sources)?.0, chat),
        Command::Jobs { action } => jobs::run(&load(&sources)?.0, action),
        Command::Config { action } => config::run(&sources, &action),
        Command::Openapi => term::print(crate::http::openapi::document()),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "opossum", &mut script);
            term::print(&String::from_utf8_lossy(&script))
        }
    }
}

/// Loads settings and says what the operator should know about them.
fn load(sources: &LoadOptions) -> Result<(Settings, Provenance), Failure> {
    let loaded = Settings::load(sources)?;
    for note in &loaded.1.notes {
        term::note(&format!("note: {note}"));
    }
    Ok(loaded)
}

/// Runs a command that waits for other things than itself.
fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::of("no event loop", error))?.block_on(work)
}
