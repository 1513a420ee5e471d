//! `edgepush vapid`: the key that an application server signs with.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lexopt::{Arg, Parser};

use super::{complain, fail, print};
use crate::io::{entropy, private_file};
use crate::protocol::vapid_key::VapidKey;

/// The answer to `--help`.
pub(super) const HELP: &str = "\
Makes the key that an application server signs with, or shows its public half.

Usage: edgepush vapid [FILE]

FILE is vapid.pem unless something else is said, and is never overwritten. The
public key is printed: the applicationServerKey of a web page, or --key of
edgepush listen.

Options:
  -h, --help          print this

Example:
  edgepush listen raspberrypi:8090 --key \"$(edgepush vapid)\"
";

/// Reads what stands behind `vapid`; `None` if help is asked for.
///
/// # Errors
///
/// The first argument that is not understood, by name.
pub(super) fn arguments(parser: &mut Parser) -> Result<Option<PathBuf>, lexopt::Error> {
    let mut path = None;
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            Arg::Value(value) if path.is_none() => path = Some(value.into()),
            Arg::Short(_) | Arg::Long(_) | Arg::Value(_) => return Err(argument.unexpected()),
        }
    }
    Ok(Some(path.unwrap_or_else(|| PathBuf::from("vapid.pem"))))
}

/// Makes or shows the key.
pub(super) fn run(path: &Path) -> ExitCode {
    let shown = path.display();
    let made = private_file::make(path, &VapidKey::generate(&entropy::source()));
    match made {
        Ok(()) => complain(format_args!(
            "edgepush: made the key {shown}; keep it secret"
        )),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return fail(format_args!("cannot make the key {shown}: {error}")),
    }
    match read(path) {
        Ok(key) => print(&format!("{}\n", key.public_text())),
        Err(message) => fail(message),
    }
}

/// The key of a file, or what to tell the person.
pub(super) fn read(path: &Path) -> Result<VapidKey, String> {
    let shown = path.display();
    let pem = fs::read_to_string(path)
        .map_err(|error| format!("cannot read the key {shown}: {error}"))?;
    let key = VapidKey::from_pem(&pem, &entropy::source())
        .map_err(|error| format!("cannot use the key {shown}: {error}"))?;
    if private_file::is_open_to_others(path) {
        complain(format_args!(
            "edgepush: the key {shown} can be read by others; run: chmod 600 {shown}"
        ));
    }
    Ok(key)
}
