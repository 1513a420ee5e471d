//! Room on the disk that is kept back, so that deleting is possible when there is none left.
//!
//! Only allocates and releases; when to do which is `store`'s.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use log::debug;
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

use super::FILE_NAME;

/// Name of the file within the data directory. It holds nothing.
const NAME: &str = "edgepush.reserve";

/// Room that must be there beside the reserve before the disk counts as no longer full: some commits'
/// worth, so that it is not full again with the next message.
const BESIDE_BYTES: u64 = 256 << 10;

/// A file system smaller than this many reserves gets a smaller one.
const FILE_SYSTEM_SHARE: u64 = 8;

/// A file of some size, in the way of everything else on its file system.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    bytes: u64,
    is_held: bool,
}

impl Reserve {
    /// A reserve of `bytes`, not taken yet; 0 for none.
    pub(super) fn new(directory: &Path, bytes: u64) -> Self {
        let path = directory.join(NAME);
        let share = file_system_bytes(directory).map(|all| all / FILE_SYSTEM_SHARE);
        Self {
            bytes: bytes.min(share.unwrap_or(bytes)),
            is_held: fs::metadata(&path).is_ok_and(|file| file.len() > 0),
            path,
        }
    }

    /// How large it is to be.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether there is to be one and there is none.
    pub(super) const fn is_spent(&self) -> bool {
        self.bytes > 0 && !self.is_held
    }

    /// Takes the reserve, if there is room for it.
    pub(super) fn take(&mut self) {
        if self.bytes == 0 {
            return;
        }
        match self.allocate(self.bytes) {
            Ok(()) => self.is_held = true,
            Err(error) => {
                debug!("reserve_not_taken error=\"{error}\"");
                if !self.is_held {
                    self.release();
                }
            }
        }
    }

    /// Gives the room back to the file system. `false` if there was nothing to give.
    pub(super) fn release(&mut self) -> bool {
        self.is_held = false;
        let held = fs::metadata(&self.path).is_ok_and(|file| file.len() > 0);
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            debug!("reserve_not_released error=\"{error}\"");
            return false;
        }
        held
    }

    /// Whether there is room for the reserve, which is then held, and for more beside it.
    pub(super) fn has_room_beside(&mut self) -> bool {
        self.take();
        if !self.is_held {
            return false;
        }
        let has_room = self
            .allocate(self.bytes.saturating_add(BESIDE_BYTES))
            .is_ok();
        let cut = OpenOptions::new()
            .write(true)
            .open(&self.path)
            .and_then(|file| file.set_len(self.bytes));
        has_room && cut.is_ok()
    }

    /// Whether there would be room for the reserve if the write-ahead log gave back its own.
    pub(super) fn fits_with_the_log(&self) -> bool {
        let log = self.path.with_file_name(format!("{FILE_NAME}-wal"));
        let log_bytes = log.metadata().map_or(0, |log| log.len());
        let free = self.path.parent().and_then(|directory| {
            let all = statvfs(directory).ok()?;
            all.f_bavail.checked_mul(all.f_frsize)
        });
        free.unwrap_or(0).saturating_add(log_bytes) >= self.bytes
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&self.path)?;
        match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => fill(&file, bytes),
            result => Ok(result?),
        }
    }
}

/// For a file system that gives room only to what is written (FAT, NFS).
fn fill(file: &File, bytes: u64) -> io::Result<()> {
    const PIECE: [u8; 4096] = [0; 4096];
    let mut written = file.metadata()?.len();
    while written < bytes {
        file.write_all_at(&PIECE, written)?;
        written = written.saturating_add(4096);
    }
    (&mut &*file).flush()?;
    file.sync_all()
}

fn file_system_bytes(directory: &Path) -> Option<u64> {
    let all = statvfs(directory).ok()?;
    all.f_blocks.checked_mul(all.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::testing::Folder;

    #[test]
    fn reserve_takes_real_blocks_and_gives_them_back() {
        use std::os::unix::fs::MetadataExt;
        let folder = Folder::new();
        let path = folder.path().join(NAME);
        let mut reserve = Reserve::new(folder.path(), 1 << 20);
        assert!(reserve.is_spent());
        reserve.take();
        assert!(!reserve.is_spent());
        assert!(path.metadata().unwrap().blocks() * 512 >= 1 << 20);
        assert!(reserve.has_room_beside());
        assert_eq!(path.metadata().unwrap().len(), 1 << 20);
        assert!(
            !Reserve::new(folder.path(), 1 << 20).is_spent(),
            "held before the start"
        );
        assert!(reserve.release());
        assert!(reserve.is_spent() && !path.exists());
        assert!(!reserve.release());
    }

    #[test]
    fn no_reserve_is_never_spent_and_makes_no_file() {
        let folder = Folder::new();
        let mut reserve = Reserve::new(folder.path(), 0);
        reserve.take();
        assert!(!reserve.is_spent());
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn file_that_must_be_written_to_take_room_is() {
        let folder = Folder::new();
        let file = File::create(folder.path().join("f")).unwrap();
        fill(&file, 10_000).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 12_288);
    }
}
