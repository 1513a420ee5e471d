//! The commands of the `edgepush` binary: what a person types and what they read back.
//!
//! What the daemon does with it belongs to `daemon`.

mod arguments;
mod boards;
mod database;
mod listen;
#[cfg(feature = "load")]
mod load;
mod send;
mod text;
mod vapid;

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::iter;
use std::path::Path;
use std::process::ExitCode;

use crate::config::boards::Machine;
use crate::config::{Config, Flags};
use crate::daemon;
use crate::io::{board, entropy};
use crate::protocol::encryption::PrivateKey;

use self::arguments::{Command, HELP};

/// What a shell and systemd understand as "called or configured wrongly: trying again is no use".
const EXIT_USAGE: u8 = 2;

/// Runs the command that `args` spell; the first of them is the name of the program.
///
/// The exit code is 0 when it did what was asked, 2 when the arguments or the configuration are
/// wrong, and 1 for everything else that went wrong.
pub fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    match arguments::read(args) {
        Ok(Command::Help) => print(HELP),
        Ok(Command::Version) => print(concat!("edgepush ", env!("CARGO_PKG_VERSION"), "\n")),
        Ok(Command::Serve { file, flags }) => serve(file.as_deref(), &flags),
        Ok(Command::Listen(options)) => listen::run(&options),
        Ok(Command::Send(options)) => send::run(&options),
        #[cfg(feature = "load")]
        Ok(Command::Load(options)) => load::run(*options),
        Ok(Command::Vapid(path)) => vapid::run(&path),
        Ok(Command::Boards(name)) => boards::run(name.as_deref()),
        Ok(Command::Database(task, options)) => database::run(task, &options),
        Ok(Command::HelpOf(help)) => print(help),
        Ok(Command::Misused(command, error)) => refuse(format_args!(
            "edgepush: {error}; see edgepush {command} --help"
        )),
        Err(error) => refuse(format_args!("edgepush: {error}; see edgepush --help")),
    }
}

fn serve(file: Option<&Path>, flags: &Flags) -> ExitCode {
    let config = match configuration(file, flags) {
        Ok(config) => config,
        Err(message) => return refuse(format_args!("{message}")),
    };
    match daemon::serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error),
    }
}

/// Ends a command that could not do what it should.
fn fail(why: impl fmt::Display) -> ExitCode {
    complain(format_args!("edgepush: {why}"));
    ExitCode::FAILURE
}

/// A fresh key of a receiver, or of one message.
fn private_key() -> PrivateKey {
    iter::repeat_with(entropy::random)
        .find_map(|bytes| PrivateKey::new(&bytes))
        .expect("nearly all random bytes are a key")
}

/// The configuration from the file and the flags, or what to tell the person who wrote them.
fn configuration(file: Option<&Path>, flags: &Flags) -> Result<Config, String> {
    let model = board::model();
    let machine = machine(model.as_deref());
    let Some(path) = file else {
        return Config::load(None, flags, &machine).map_err(|faults| faults.to_string());
    };
    let text = fs::read_to_string(path).map_err(|error| {
        let path = path.display();
        format!("edgepush: cannot read the configuration {path}: {error}")
    })?;
    Config::load(Some((path, &text)), flags, &machine).map_err(|faults| faults.to_string())
}

/// This machine, which has that name for itself.
const fn machine(model: Option<&str>) -> Machine<'_> {
    Machine {
        model,
        target: env!("EDGEPUSH_TARGET"),
    }
}

/// Ends a command that only prints. Output that nobody reads, as in `edgepush --help | true`, is
/// no reason to panic.
fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn refuse(message: fmt::Arguments<'_>) -> ExitCode {
    complain(message);
    ExitCode::from(EXIT_USAGE)
}

/// Writes to standard error. If that is closed there is nobody left to tell.
fn complain(message: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{message}");
}
