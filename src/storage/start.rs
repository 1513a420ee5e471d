//! Starting in any case: a damaged database is set aside, and a new one takes over what can still be
//! read of it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use log::{error, info, warn};

use super::check;
use super::open::{FreshDatabase, OpenError, sync_directory};
use super::reserve::Reserve;
use super::salvage::{Salvaged, salvage};
use super::set_aside::{self, Reason, set_aside, with_suffix};
use super::{FILE_NAME, Settings, Store, fault};
use crate::model::store::{Opened, StoreError};

/// The new database before it is whole. That it is there says that a start was interrupted.
const UNFINISHED_NAME: &str = "edgepush.db.new";

impl Store {
    /// Opens the database in `directory` as [`open`](Self::open) does. One that is damaged, or no
    /// database, is set aside first and a new one made; `suspected` has it looked through for that.
    ///
    /// The key file keeps every subscription alive: what cannot be read any more is taken back in when
    /// it is used. Only messages can be lost, and they stay in the file that was set aside.
    ///
    /// # Errors
    ///
    /// [`OpenError`], but [`OpenError::Corrupt`] only if it cannot even be moved.
    pub fn start(
        directory: &Path,
        settings: &Settings,
        fresh: FreshDatabase,
        suspected: bool,
    ) -> Result<(Self, Opened), OpenError> {
        let replacing = Replacing {
            directory,
            settings,
            fresh,
        };
        replacing.finish_interrupted()?;
        if suspected {
            let faults = check::damage(&directory.join(FILE_NAME));
            if faults.is_empty() {
                warn!(
                    "database_not_damaged advice=\"look at the memory and the card of this machine\""
                );
            } else {
                error!("database_damaged faults=\"{}\"", faults.join("; "));
                replacing.replace(false)?;
            }
        }
        let opened = Self::open(directory, settings, fresh);
        if !matches!(opened, Err(OpenError::Corrupt)) {
            return opened;
        }
        replacing.replace(false)?;
        Self::open(directory, settings, fresh)
    }
}

/// A damaged database and what it is replaced with.
#[derive(Clone, Copy)]
struct Replacing<'a> {
    directory: &'a Path,
    settings: &'a Settings,
    fresh: FreshDatabase,
}

impl Replacing<'_> {
    fn unfinished(self) -> PathBuf {
        self.directory.join(UNFINISHED_NAME)
    }

    /// Goes on where a power cut has ended the last attempt.
    fn finish_interrupted(self) -> Result<(), OpenError> {
        if !self.unfinished().exists() {
            return Ok(());
        }
        if self.directory.join(FILE_NAME).exists() {
            // It had been found to be damaged.
            return self.replace(true);
        }
        let last = set_aside::damaged(self.directory).pop();
        self.fill_from(last.map(|name| self.directory.join(name)))
    }

    /// The order: the unfinished file, so that the next start knows; the damaged database out of the
    /// way; everything into the unfinished one; that in its place.
    fn replace(self, interrupted: bool) -> Result<(), OpenError> {
        // The next open takes it again; until then both databases need the room.
        Reserve::new(self.directory, self.settings.reserve_bytes).release();
        File::create(self.unfinished()).map_err(unavailable)?;
        sync_directory(self.directory)?;
        let aside = set_aside(self.directory, Reason::Damaged, interrupted);
        let aside = aside.map_err(unavailable)?;
        self.fill_from(aside)
    }

    fn fill_from(self, aside: Option<PathBuf>) -> Result<(), OpenError> {
        let unfinished = self.unfinished();
        // Emptied, but never gone: it must tell the next start.
        self.empty_unfinished().map_err(unavailable)?;
        if let Some(aside) = aside {
            let salvaged = salvage(&aside, &unfinished, self.settings, self.fresh.id);
            let is_usable = salvaged.is_ok();
            self.tell(&aside, salvaged);
            if !is_usable {
                self.empty_unfinished().map_err(unavailable)?;
            }
        }
        File::open(&unfinished)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(&unfinished, self.directory.join(FILE_NAME)))
            .map_err(unavailable)?;
        sync_directory(self.directory)
    }

    fn empty_unfinished(self) -> io::Result<()> {
        let unfinished = self.unfinished();
        for suffix in ["-wal", "-shm", "-journal"] {
            let _ = fs::remove_file(with_suffix(&unfinished, suffix));
        }
        File::create(unfinished)?.sync_all()
    }

    fn tell(self, aside: &Path, salvaged: rusqlite::Result<Salvaged>) {
        let path = aside.display();
        error!(
            "database_set_aside path={path} advice=\"subscriptions are kept by the key file; remove the \
             file when it is of no more use\""
        );
        match salvaged {
            Ok(Salvaged {
                messages,
                subscriptions,
                is_whole,
            }) => info!(
                "database_salvaged messages={messages} subscriptions={subscriptions} whole={is_whole}"
            ),
            Err(error) => error!(
                "database_not_salvaged reason=\"{}\" cause=\"{error}\"",
                fault::store_error(&error)
            ),
        }
    }
}

fn unavailable(error: io::Error) -> OpenError {
    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem, StorageFull};
    let kind = error.kind();
    OpenError::Unavailable(if kind == StorageFull {
        StoreError::DiskFull
    } else if kind == ReadOnlyFilesystem || kind == PermissionDenied {
        StoreError::ReadOnly
    } else {
        StoreError::Io
    })
}
