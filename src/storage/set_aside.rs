//! Files that are moved out of the way under names that say why. None of them is ever overwritten or
//! removed by this program.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::FILE_NAME;

/// Why a database is moved away: a part of its new name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reason {
    /// It is damaged.
    Damaged,
    /// A copy takes its place.
    Replaced,
}

impl Reason {
    const fn word(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::Replaced => "replaced",
        }
    }
}

/// Moves the database in `directory`, and its write-ahead log, to the next free name such as
/// `edgepush.db.damaged-1`, and returns that. `None` if neither is there.
///
/// The log goes first. If the power was cut in between, which the caller knows to be possible when the
/// last attempt was `interrupted`, the database follows it to where it is.
///
/// # Errors
///
/// Those of the file system.
pub fn set_aside(
    directory: &Path,
    reason: Reason,
    interrupted: bool,
) -> io::Result<Option<PathBuf>> {
    let database = directory.join(FILE_NAME);
    let log = with_suffix(&database, "-wal");
    if !exists(&database) && !exists(&log) {
        return Ok(None);
    }
    let target = next_name(directory, reason, |target| {
        let follows_its_log = interrupted && !exists(&log);
        !exists(target) && (follows_its_log || !exists(&with_suffix(target, "-wal")))
    })?;
    if exists(&log) {
        fs::rename(&log, with_suffix(&target, "-wal"))?;
    }
    if exists(&database) {
        fs::rename(&database, &target)?;
    } else {
        // So that there is always one file that says it.
        fs::File::create(&target)?;
    }
    let _ = fs::remove_file(with_suffix(&database, "-shm"));
    fs::File::open(directory)?.sync_all()?;
    Ok(Some(target))
}

/// Moves a write-ahead log away that lies beside a copy which was never opened: it belongs to the
/// database that was there before, and would be mixed into the copy.
pub(super) fn set_log_aside(database: &Path) -> io::Result<Option<PathBuf>> {
    let log = with_suffix(database, "-wal");
    let Some(directory) = database.parent() else {
        return Ok(None);
    };
    if !exists(&log) {
        return Ok(None);
    }
    let target = next_name(directory, Reason::Replaced, |target| {
        !exists(target) && !exists(&with_suffix(target, "-wal"))
    })?;
    let target = with_suffix(&target, "-wal");
    fs::rename(log, &target)?;
    let _ = fs::remove_file(with_suffix(database, "-shm"));
    fs::File::open(directory)?.sync_all()?;
    Ok(Some(target))
}

fn next_name(
    directory: &Path,
    reason: Reason,
    is_free: impl Fn(&Path) -> bool,
) -> io::Result<PathBuf> {
    (1_u32..)
        .map(|number| directory.join(format!("{FILE_NAME}.{}-{number}", reason.word())))
        .find(|target| is_free(target))
        .ok_or_else(|| io::ErrorKind::AlreadyExists.into())
}

/// Names of the damaged databases that lie in `directory`, oldest first, without their logs.
pub fn damaged(directory: &Path) -> Vec<String> {
    let start = format!("{FILE_NAME}.{}-", Reason::Damaged.word());
    let mut numbers: Vec<u32> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            name.strip_prefix(&start)?.parse().ok()
        })
        .collect();
    numbers.sort_unstable();
    numbers
        .into_iter()
        .map(|number| format!("{start}{number}"))
        .collect()
}

/// The path of a file that goes with another one, such as SQLite's beside a database.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Whether there is anything of this name, a link to nowhere included.
fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::testing::Folder;

    fn write(folder: &Folder, name: &str, text: &str) {
        fs::write(folder.path().join(name), text).unwrap();
    }

    fn read(folder: &Folder, name: &str) -> Option<String> {
        fs::read_to_string(folder.path().join(name)).ok()
    }

    #[test]
    fn each_damaged_database_keeps_its_log_and_a_name_of_its_own() {
        let folder = Folder::new();
        for round in ["first", "second"] {
            write(&folder, "edgepush.db", round);
            write(&folder, "edgepush.db-wal", round);
            write(&folder, "edgepush.db-shm", round);
            set_aside(folder.path(), Reason::Damaged, false)
                .unwrap()
                .unwrap();
        }
        for (number, round) in [(1, "first"), (2, "second")] {
            let name = format!("edgepush.db.damaged-{number}");
            assert_eq!(read(&folder, &name).as_deref(), Some(round));
            assert_eq!(
                read(&folder, &format!("{name}-wal")).as_deref(),
                Some(round)
            );
        }
        assert_eq!(read(&folder, "edgepush.db-shm"), None);
        let names = ["edgepush.db.damaged-1", "edgepush.db.damaged-2"];
        assert_eq!(damaged(folder.path()), names);
        assert_eq!(
            set_aside(folder.path(), Reason::Damaged, false).unwrap(),
            None
        );
    }

    #[test]
    fn database_finds_its_log_again_after_a_power_cut_between_the_two() {
        let folder = Folder::new();
        write(&folder, "edgepush.db", "database");
        write(&folder, "edgepush.db.damaged-1-wal", "log");
        set_aside(folder.path(), Reason::Damaged, true).unwrap();
        assert_eq!(
            read(&folder, "edgepush.db.damaged-1").as_deref(),
            Some("database")
        );
        assert_eq!(
            read(&folder, "edgepush.db.damaged-1-wal").as_deref(),
            Some("log")
        );
    }

    #[test]
    fn log_without_a_database_and_a_folder_in_its_place_are_moved_as_well() {
        let folder = Folder::new();
        write(&folder, "edgepush.db-wal", "log");
        set_aside(folder.path(), Reason::Damaged, false).unwrap();
        assert_eq!(damaged(folder.path()), ["edgepush.db.damaged-1"]);
        fs::create_dir(folder.path().join("edgepush.db")).unwrap();
        let moved = set_aside(folder.path(), Reason::Replaced, false).unwrap();
        assert!(moved.unwrap().ends_with("edgepush.db.replaced-1"));
        assert_eq!(damaged(folder.path()), ["edgepush.db.damaged-1"]);
    }
}
