//! The `opossum` binary; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    opossum::cli::run(std::env::args_os())
}
