//! `edgepush restore`: a backup takes the place of the database of a gateway that is stopped.

use std::fs;
use std::path::Path;

use super::contents;
use crate::io::data_directory::DataDirectory;
use crate::io::{key_file, private_file};
use crate::storage::set_aside::{Reason, set_aside, with_suffix};
use crate::storage::{self, FILE_NAME};

/// The answer to `--help`.
pub(super) const HELP: &str = "\
Puts a backup in the place of the database. Stop the gateway first.

Usage: edgepush restore FILE [options]

FILE is what edgepush backup has made, or any other copy of a database. The
database that is there is kept as edgepush.db.replaced-1 (or -2, ...). The keys
of FILE.key are added to those that are there, so that every endpoint stays
good: also those that were handed out after the backup was made.

Messages of the backup are delivered again if they were acknowledged since;
messages that came since then are lost.

Options:
  --data DIR          where the database goes (default edgepush-data)
  --config FILE       a configuration file that says where that is
  -h, --help          print this
";

/// Puts `file` in place; returns what to tell.
pub(super) fn run(data: &Path, file: &Path) -> Result<String, String> {
    let directory = DataDirectory::open(data).map_err(|error| error.to_string())?;
    let (backup_key, key) = (with_suffix(file, ".key"), directory.key_file());
    let has_key = backup_key.exists();
    if !has_key && !key.exists() {
        return Err(format!(
            "there is no {} and no {}; without the key no endpoint is good",
            backup_key.display(),
            key.display()
        ));
    }
    let unfinished = directory.path().join(format!("{FILE_NAME}.restoring"));
    let _ = fs::remove_file(&unfinished);
    let placed = place(
        &directory,
        file,
        &unfinished,
        has_key.then_some(&*backup_key),
    );
    if placed.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    placed
}

/// The order: the copy first, which may turn out to be bad; the keys, of which more do no harm; then
/// the two renames.
fn place(
    directory: &DataDirectory,
    file: &Path,
    unfinished: &Path,
    backup_key: Option<&Path>,
) -> Result<String, String> {
    let writing = |error| format!("cannot write in {}: {error}", directory.path().display());
    private_file::make(unfinished, "").map_err(writing)?;
    let totals = storage::copy(file, unfinished)
        .map_err(|error| format!("cannot restore {}: {error}", file.display()))?;
    if let Some(backup_key) = backup_key {
        key_file::add(&directory.key_file(), backup_key).map_err(|error| error.to_string())?;
        directory.hand_over(&directory.key_file());
    }
    let database = directory.path().join(FILE_NAME);
    let replaced = set_aside(directory.path(), Reason::Replaced, false).map_err(writing)?;
    private_file::put_in_place(unfinished, &database).map_err(writing)?;
    directory.hand_over(&database);
    let mut told = format!("{}: {}\n", database.display(), contents(&totals));
    if let Some(replaced) = replaced {
        told.push_str(&format!("{}: what was there before\n", replaced.display()));
    }
    Ok(told)
}
