//! The `opossum` binary; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    // A panic that a supervisor catches is logged by it, once; printing it here as well would take longer than
    // bringing the actor back.
    std::panic::set_hook(opossum_actors::quiet_hook(std::panic::take_hook()));
    opossum::cli::run(std::env::args_os())
}
