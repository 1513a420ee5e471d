//! `edgepush backup`, `check` and `restore`: what is kept, copied, looked through and put back.

mod backup;
mod check;
mod restore;

use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::{Arg, Parser, ValueExt};

use super::{configuration, refuse};
use crate::config::Flags;
use crate::storage::Totals;

/// Which of the three.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Task {
    /// Copy the database.
    Backup,
    /// Look through it.
    Check,
    /// Put a copy in its place.
    Restore,
}

impl Task {
    /// All of them.
    pub(super) const ALL: [Self; 3] = [Self::Backup, Self::Check, Self::Restore];

    /// What a person types.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Check => "check",
            Self::Restore => "restore",
        }
    }

    /// The answer to `--help`.
    pub(super) const fn help(self) -> &'static str {
        match self {
            Self::Backup => backup::HELP,
            Self::Check => check::HELP,
            Self::Restore => restore::HELP,
        }
    }
}

/// What stands behind the name of the command.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Options {
    file: Option<PathBuf>,
    config: Option<PathBuf>,
    data: Option<String>,
    without_key: bool,
}

/// Reads it; `None` if help is asked for.
///
/// # Errors
///
/// The first argument that is not understood, by name; or that the file is missing.
pub(super) fn arguments(task: Task, parser: &mut Parser) -> Result<Option<Options>, lexopt::Error> {
    let mut options = Options::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            Arg::Long("data") => options.data = Some(parser.value()?.string()?),
            Arg::Long("config") => options.config = Some(parser.value()?.into()),
            Arg::Long("without-key") if task == Task::Backup => options.without_key = true,
            Arg::Value(file) if options.file.is_none() => options.file = Some(file.into()),
            Arg::Short(_) | Arg::Long(_) | Arg::Value(_) => return Err(argument.unexpected()),
        }
    }
    if options.file.is_none() && task != Task::Check {
        return Err("missing argument FILE".into());
    }
    Ok(Some(options))
}

/// Does it.
pub(super) fn run(task: Task, options: &Options) -> ExitCode {
    let flags = Flags {
        data: options.data.clone(),
        ..Flags::default()
    };
    let config = match configuration(options.config.as_deref(), &flags) {
        Ok(config) => config,
        Err(message) => return refuse(format_args!("{message}")),
    };
    let done = match (task, &options.file) {
        (Task::Check, file) => return check::run(&config.data, file.as_deref()),
        (Task::Backup, Some(file)) => backup::run(&config.data, file, !options.without_key),
        (Task::Restore, Some(file)) => restore::run(&config.data, file),
        (Task::Backup | Task::Restore, None) => Err("missing argument FILE".to_owned()),
    };
    match done {
        Ok(text) => super::print(&text),
        Err(message) => super::fail(message),
    }
}

/// Such as `2 subscriptions, 1 message`.
fn contents(totals: &Totals) -> String {
    let counted =
        |number: u64, what| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    format!(
        "{}, {}",
        counted(totals.subscriptions, "subscription"),
        counted(totals.messages, "message")
    )
}
