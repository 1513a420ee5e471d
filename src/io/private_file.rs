//! Files that hold a secret: readable by their owner only, whole or not there at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

const MODE: u32 = 0o600;

/// Puts `text` at `path` in place of what is there. The file is returned locked: another
/// process that tries to lock it learns that it is in use.
///
/// Written under the name `unfinished` and moved into place, so that a power cut leaves no half of it.
///
/// # Errors
///
/// Those of the file system; what was at `path` is then still there.
pub fn replace(path: &Path, unfinished: &Path, text: &str) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(MODE)
        .open(unfinished)?;
    file.try_lock()?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(unfinished, path)?;
    sync_directory_of(path)?;
    Ok(file)
}

/// Makes a file that is not there yet.
///
/// # Errors
///
/// Those of the file system; `AlreadyExists` if it is there, and it is left alone.
pub fn make(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(path)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all());
    if let Err(error) = written {
        // Half of a secret is of no use and would be in the way of the next attempt.
        let _ = fs::remove_file(path);
        return Err(error);
    }
    sync_directory_of(path)
}

/// Gives a finished file its name, and has both on disk.
///
/// # Errors
///
/// Those of the file system.
pub fn put_in_place(unfinished: &Path, path: &Path) -> io::Result<()> {
    File::open(unfinished)?.sync_all()?;
    fs::rename(unfinished, path)?;
    sync_directory_of(path)
}

/// Whether anybody but its owner may read the file.
pub fn is_open_to_others(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0)
}

/// A new name in a folder is on disk when the folder is.
///
/// # Errors
///
/// Those of the file system; the name may be gone after a power cut.
pub(super) fn sync_directory_of(path: &Path) -> io::Result<()> {
    let Some(directory) = path.parent() else {
        return Ok(());
    };
    let here = directory.as_os_str().is_empty();
    File::open(if here { Path::new(".") } else { directory })?.sync_all()
}
