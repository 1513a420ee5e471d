//! The folder that everything is kept in: one process at a time.

use std::fmt;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::path::{Path, PathBuf};

use super::private_file;

/// A data directory that this process holds until it ends.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    /// Locked for as long as it is open; the kernel unlocks it also after a kill.
    _lock: File,
}

impl DataDirectory {
    /// Makes the folder if it is missing (mode 0700) and locks it.
    ///
    /// # Errors
    ///
    /// [`DataDirectoryError`] when it cannot be made or written, or when another edgepush has it.
    pub fn open(path: &Path) -> Result<Self, DataDirectoryError> {
        let fail = |fault| DataDirectoryError {
            path: path.to_owned(),
            fault,
        };
        make(path).map_err(|error| fail(Fault::Make(error)))?;
        // Shown in the log and on the console, where "edgepush-data" alone would say little.
        let path = fs::canonicalize(path).map_err(|error| fail(Fault::Make(error)))?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("edgepush.lock"))
            .map_err(|error| fail(Fault::Write(error)))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(fail(Fault::InUse)),
            Err(TryLockError::Error(error)) => Err(fail(Fault::Write(error))),
        }
    }

    /// The absolute path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the keys are.
    pub fn key_file(&self) -> PathBuf {
        key_file_in(&self.path)
    }

    /// Gives a file in the folder to whoever owns the folder: root may put things there for a gateway
    /// that is not root. Without the right to do so it stays as it is.
    pub fn hand_over(&self, file: &Path) {
        if let Ok(owner) = fs::metadata(&self.path) {
            let _ = chown(file, Some(owner.uid()), Some(owner.gid()));
        }
    }
}

/// Where the keys are in a data directory that is another process's.
pub fn key_file_in(data: &Path) -> PathBuf {
    data.join("edgepush.key")
}

/// Makes the folder and those above it, as far as they are missing, so that a power cut takes none of
/// them back: what is kept in a folder is kept if the folder's own name is.
fn make(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|path| !path.exists()).collect();
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700).create(path)?;
    missing
        .into_iter()
        .try_for_each(private_file::sync_directory_of)
}

/// A data directory that cannot be used.
#[derive(Debug)]
pub struct DataDirectoryError {
    path: PathBuf,
    fault: Fault,
}

#[derive(Debug)]
enum Fault {
    Make(io::Error),
    Write(io::Error),
    InUse,
}

impl fmt::Display for DataDirectoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.fault {
            Fault::Make(error) => write!(f, "cannot make the data directory {path}: {error}"),
            Fault::Write(error) => write!(f, "cannot write in the data directory {path}: {error}"),
            Fault::InUse => write!(
                f,
                "another edgepush is using the data directory {path}; stop it, or give --data"
            ),
        }
    }
}

impl std::error::Error for DataDirectoryError {}
