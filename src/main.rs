//! The `edgepush` binary: hands its arguments to the commands.

use std::process::ExitCode;

fn main() -> ExitCode {
    edgepush::cli::run(std::env::args_os())
}
