//! `edgepush check`: looks through a database, also while the gateway runs.

use std::path::Path;
use std::process::ExitCode;

use super::contents;
use crate::cli::{fail, print};
use crate::storage::{self, check};

/// The answer to `--help`.
pub(super) const HELP: &str = "\
Looks through the database, also while the gateway runs. Nothing is changed.

Usage: edgepush check [FILE] [options]

FILE is a backup; without it the database of the data directory is looked
through. Exit code 0: all is well. 1: each fault is named on a line.

Options:
  --data DIR          where the database is (default edgepush-data)
  --config FILE       a configuration file that says where that is
  -h, --help          print this
";

/// Looks through `file`, or through the database in `data`.
pub(super) fn run(data: &Path, file: Option<&Path>) -> ExitCode {
    let path = file.map_or_else(|| data.join(storage::FILE_NAME), Path::to_owned);
    let shown = path.display();
    let findings = match check::thorough(&path) {
        Ok(findings) => findings,
        Err(error) => return fail(format_args!("cannot check {shown}: {error}")),
    };
    if findings.faults.is_empty() {
        let contents = findings.totals.as_ref().map(contents).unwrap_or_default();
        return print(&format!("{shown}: {contents}; all is well\n"));
    }
    let lines: String = findings
        .faults
        .iter()
        .map(|fault| format!("{shown}: {fault}\n"))
        .collect();
    print(&lines);
    ExitCode::FAILURE
}
