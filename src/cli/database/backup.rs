//! `edgepush backup`: the database and the key, copied while the gateway runs.

use std::fs;
use std::path::Path;

use super::contents;
use crate::io::data_directory::key_file_in;
use crate::io::private_file;
use crate::storage;
use crate::storage::set_aside::with_suffix;

/// The answer to `--help`.
pub(super) const HELP: &str = "\
Copies the database and the key file while the gateway runs.

Usage: edgepush backup FILE [options]

FILE is the database as it is at this moment, looked through from end to end;
FILE.key is the key file: keep both, and keep them secret. Neither is ever
overwritten. Put them back with edgepush restore FILE.

Options:
  --without-key       leave the key file out
  --data DIR          what is copied (default edgepush-data)
  --config FILE       a configuration file that says where that is
  -h, --help          print this

Example:
  edgepush backup /media/usb/edgepush-$(date +%F) --data /var/lib/edgepush
";

/// Makes the backup; returns what to tell.
pub(super) fn run(data: &Path, file: &Path, with_key: bool) -> Result<String, String> {
    let key = with_suffix(file, ".key");
    for taken in [Some(file), with_key.then_some(&*key)]
        .into_iter()
        .flatten()
    {
        if taken.symlink_metadata().is_ok() {
            return Err(format!(
                "{} is there already; choose another name",
                taken.display()
            ));
        }
    }
    let unfinished = with_suffix(file, ".unfinished");
    // Of a backup that did not come to its end.
    let _ = fs::remove_file(&unfinished);
    let made = make(data, file, &unfinished, with_key.then_some(&*key));
    if made.is_err() {
        let _ = fs::remove_file(&unfinished);
        let _ = fs::remove_file(with_suffix(&unfinished, "-journal"));
    }
    made
}

fn make(data: &Path, file: &Path, unfinished: &Path, key: Option<&Path>) -> Result<String, String> {
    let database = data.join(storage::FILE_NAME);
    let writing = |path: &Path| {
        let path = path.display().to_string();
        move |error| format!("cannot write {path}: {error}")
    };
    private_file::make(unfinished, "").map_err(writing(unfinished))?;
    let totals = storage::copy(&database, unfinished).map_err(|error| {
        format!(
            "cannot copy {} to {}: {error}",
            database.display(),
            file.display()
        )
    })?;
    let mut told = format!(
        "{}: {}, looked through\n",
        file.display(),
        contents(&totals)
    );
    if let Some(key) = key {
        let source = key_file_in(data);
        let text = fs::read_to_string(&source)
            .map_err(|error| format!("cannot read {}: {error}", source.display()))?;
        private_file::make(key, &text).map_err(writing(key))?;
        told.push_str(&format!("{}: the key; keep it secret\n", key.display()));
    }
    private_file::put_in_place(unfinished, file).map_err(writing(file))?;
    Ok(told)
}
