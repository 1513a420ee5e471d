//! `edgepush boards`: which boards are known, what the profile of one holds, and which one this is.

use std::process::ExitCode;

use lexopt::{Arg, Parser, ValueExt};

use super::{configuration, fail, print, refuse, text};
use crate::config::Flags;
use crate::config::boards::{self, BOARDS, Board, Chosen, ChosenBy};
use crate::io::board;

/// The answer to `--help`.
pub(super) const HELP: &str = "\
Lists the boards that have a profile, or shows one: each value with its reason.

Usage: edgepush boards [NAME]

The profile gives what neither the configuration nor an option sets. The lines
of one can be copied into the configuration file and changed there.

Options:
  -h, --help          print this

Example:
  edgepush boards raspberry-pi-zero
";

/// Reads what stands behind `boards`; `None` if help is asked for.
///
/// # Errors
///
/// The first argument that is not understood, by name.
pub(super) fn arguments(parser: &mut Parser) -> Result<Option<Option<String>>, lexopt::Error> {
    let mut name = None;
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            Arg::Value(value) if name.is_none() => name = Some(value.string()?),
            Arg::Short(_) | Arg::Long(_) | Arg::Value(_) => return Err(argument.unexpected()),
        }
    }
    Ok(Some(name))
}

/// Prints the list, or one profile.
pub(super) fn run(name: Option<&str>) -> ExitCode {
    let Some(name) = name else {
        return print(&format!("{}\n{}", list(), this_machine()));
    };
    let Some(board) = boards::find(name) else {
        return refuse(format_args!(
            "edgepush: no board of this name; see edgepush boards"
        ));
    };
    match worst_case_mib(board) {
        Ok(worst) => print(&format!(
            "{}\n# With every limit reached at once it takes {worst} MiB of memory, of {} MiB.\n# {}",
            board.profile,
            board.fact("memory_mib"),
            this_machine(),
        )),
        Err(message) => fail(message),
    }
}

fn list() -> String {
    let row = |name: &str, target: &str, memory: &str, cpu: &str| {
        format!("{name:<20}  {target:<32}  {memory:>8}  {cpu}\n")
    };
    let mut list = row("board", "target", "memory", "processor");
    for board in &BOARDS {
        let memory = format!("{} MiB", board.fact("memory_mib"));
        list += &row(board.name, board.fact("target"), &memory, board.fact("cpu"));
    }
    list
}

fn this_machine() -> String {
    let model = board::model();
    let Chosen { board, by } = super::machine(model.as_deref()).board();
    let says = model.map_or_else(
        || "does not say what it is".to_owned(),
        |model| format!("says that it is a {}", text::one_line(&model)),
    );
    let name = board.name;
    match by {
        ChosenBy::Model | ChosenBy::Configuration => format!("This machine {says}: {name}.\n"),
        ChosenBy::Target => format!("This machine {says}, so it counts as {name}.\n"),
    }
}

fn worst_case_mib(board: &Board) -> Result<u64, String> {
    let flags = Flags {
        board: Some(board.name.to_owned()),
        ..Flags::default()
    };
    Ok(configuration(None, &flags)?.memory_bytes_max() >> 20)
}
