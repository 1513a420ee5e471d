//! Opening the database: refuse what is not ours to touch, set up, migrate, count the run.

use std::fmt;
use std::fs::File;
use std::path::Path;

use log::warn;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior};

use super::reserve::Reserve;
use super::settings::Settings;
use super::store::{Store, reuse_log};
use super::{FILE_NAME, copy, fault, messages, schema, set_aside, upstream};
use crate::model::ids::{DatabaseId, MessageId};
use crate::model::store::{Opened, StoreError};
use crate::model::time::ServiceTime;
use crate::model::version::Version;

/// What a database is given when it is made. Not looked at if there is one already.
#[derive(Clone, Copy, Debug)]
pub struct FreshDatabase {
    /// Its name: random bytes.
    pub id: DatabaseId,
    /// The token key was made in this same start: no earlier database can have existed under it,
    /// so this one never needs a tombstone.
    pub key_is_new: bool,
}

/// Why the database was not opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OpenError {
    /// A newer edgepush has written it. It was not touched.
    NewerSchema {
        /// The file's schema.
        found: u32,
        /// The newest schema that this program knows.
        known: u32,
    },
    /// It is damaged, no database at all, or that of another program.
    Corrupt,
    /// The file system cannot hold SQLite's write-ahead log.
    NoWriteAheadLog,
    /// The disk, as in [`StoreError`]; never [`StoreError::Corrupt`].
    Unavailable(StoreError),
}

impl Store {
    /// Opens or makes the database in `directory`, brings it to the present schema and starts a new
    /// run, which is counted durably before this returns.
    ///
    /// A copy that [`copy`](super::copy) has made becomes a database of its own here, under the fresh
    /// name: what was subscribed after it was made is then taken back in when it is used, as it is
    /// after a database was lost.
    ///
    /// # Errors
    ///
    /// [`OpenError`]. After [`OpenError::NewerSchema`] the database is byte for byte as it was.
    pub fn open(
        directory: &Path,
        settings: &Settings,
        fresh: FreshDatabase,
    ) -> Result<(Self, Opened), OpenError> {
        let mut reserve = Reserve::new(directory, settings.reserve_bytes);
        let settings = &settings.with_log_for(&reserve);
        let mut opened = open_file(directory, settings, fresh);
        if let Err(OpenError::Unavailable(StoreError::DiskFull)) = opened
            && reserve.release()
        {
            opened = open_file(directory, settings, fresh);
        }
        let (connection, opened) = opened?;
        sync_directory(directory)?;
        reserve.take();
        // The file's own, which may not be the one in `settings`.
        let page_bytes = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let page_bytes = messages::unsigned(page_bytes);
        let store = Self::new(connection, page_bytes, opened.lost_before, reserve);
        Ok((store, opened))
    }
}

fn open_file(
    directory: &Path,
    settings: &Settings,
    fresh: FreshDatabase,
) -> Result<(Connection, Opened), OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let path = directory.join(FILE_NAME);
    refuse_lost(&path)?;
    part_from_older_log(&path)?;
    let mut connection = Connection::open_with_flags(path, flags)?;
    let found = look(&connection)?;
    if !settings.apply(&connection)? {
        return Err(OpenError::NoWriteAheadLog);
    }
    let mut started = start_run(&mut connection, found, fresh);
    if started.as_ref().is_err_and(fault::is_disk_full) {
        // A full disk must not keep the gateway from starting, if there is a way.
        reuse_log(&connection);
        started = start_run(&mut connection, found, fresh);
    }
    Ok((connection, started?))
}

/// What SQLite would take for a new database, and remove its write-ahead log.
fn refuse_lost(path: &Path) -> Result<(), OpenError> {
    let length = |path: &Path| path.metadata().map_or(0, |file| file.len());
    let log = set_aside::with_suffix(path, "-wal");
    if path.is_dir() || (length(path) == 0 && length(&log) > 0) {
        return Err(OpenError::Corrupt);
    }
    Ok(())
}

/// A copy that a person has put in the place of a database whose log was left there. It is a copy
/// still as long as it was never opened, which has the file say that it has a log.
fn part_from_older_log(path: &Path) -> Result<(), OpenError> {
    if !copy::is_untouched(path) {
        return Ok(());
    }
    match set_aside::set_log_aside(path) {
        Ok(None) => Ok(()),
        Ok(Some(log)) => {
            warn!(
                "log_set_aside path={} reason=\"it is older than the backup\"",
                log.display()
            );
            Ok(())
        }
        Err(_) => Err(OpenError::Unavailable(StoreError::Io)),
    }
}

/// What is in a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    /// Its schema; 0 for nothing.
    pub(super) version: u32,
    application: i32,
}

/// What the file is, if this program may touch it.
pub(super) fn look(connection: &Connection) -> Result<Found, OpenError> {
    // Without this, closing the refused file would copy its write-ahead log into it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let version = schema::version(connection)?;
    let application = schema::application(connection)?;
    if ![0, schema::DATABASE, schema::COPY].contains(&application) {
        return Err(OpenError::Corrupt);
    }
    if version > schema::VERSION {
        return Err(OpenError::NewerSchema {
            found: version,
            known: schema::VERSION,
        });
    }
    let has_tables =
        connection.query_row("SELECT EXISTS (SELECT 1 FROM sqlite_schema)", (), |row| {
            row.get::<_, bool>(0)
        })?;
    if version == 0 && has_tables {
        return Err(OpenError::Corrupt);
    }
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    Ok(Found {
        version,
        application,
    })
}

/// Makes the tables and the one row of a new database.
pub(super) fn make(
    connection: &Connection,
    id: DatabaseId,
    lost_before: bool,
) -> rusqlite::Result<()> {
    schema::migrate(connection, 0)?;
    schema::set_application(connection, schema::DATABASE)?;
    connection.execute(
        "INSERT INTO meta (only, database, runs, service_secs, lost_before) VALUES (1, ?1, 0, 0, ?2)",
        (id.0, lost_before),
    )?;
    Ok(())
}

/// Migrates and counts the run in one commit: a new file exists whole or not at all.
fn start_run(
    connection: &mut Connection,
    found: Found,
    fresh: FreshDatabase,
) -> rusqlite::Result<Opened> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if found.version == 0 {
        make(&transaction, fresh.id, !fresh.key_is_new)?;
    } else {
        schema::migrate(&transaction, found.version)?;
        if found.application != schema::DATABASE {
            schema::set_application(&transaction, schema::DATABASE)?;
        }
        if found.application == schema::COPY {
            let lost = "UPDATE meta SET database = ?1, lost_before = 1";
            transaction.execute(lost, [fresh.id.0])?;
        }
    }
    // The newest message may be younger than the time that was last written down, and, where it was
    // taken over from a damaged database, than its runs.
    let newest = "SELECT id, received_at FROM message ORDER BY id DESC LIMIT 1";
    let (newest, received_at) = transaction
        .query_row(newest, (), |row| {
            let id: i64 = row.get(0)?;
            Ok((MessageId::from_i64(id), row.get::<_, i64>(1)?))
        })
        .optional()?
        .unwrap_or((MessageId::ZERO, 0));
    let started = transaction.query_row(
        "UPDATE meta SET runs = max(runs, ?1) + 1
         RETURNING runs, database, lost_before, max(service_secs, ?2), version_clock",
        (newest.run(), received_at),
        |row| {
            let opened = Opened {
                run: row.get(0)?,
                database: DatabaseId(row.get(1)?),
                service_time: ServiceTime::from_secs(messages::unsigned(row.get(3)?)),
                version_clock: Version::from_secs(messages::unsigned(row.get(4)?)),
                lost_before: row.get(2)?,
                has_links: upstream::is_anything_kept(&transaction)?,
            };
            Ok(opened)
        },
    )?;
    transaction.commit()?;
    Ok(started)
}

/// A new file is only there after a power cut if its directory was flushed as well.
///
/// Done at every start: the start that made the file may have ended before this.
pub(super) fn sync_directory(directory: &Path) -> Result<(), OpenError> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|_| OpenError::Unavailable(StoreError::Io))
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        if fault::is_not_ours(&error) {
            return Self::Corrupt;
        }
        match fault::store_error(&error) {
            StoreError::Corrupt => Self::Corrupt,
            kind @ (StoreError::DiskFull | StoreError::ReadOnly | StoreError::Io) => {
                Self::Unavailable(kind)
            }
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NewerSchema { found, known } => write!(
                f,
                "{FILE_NAME} was written by a newer edgepush (schema {found}, this program knows up to \
                 {known}); install that version again, or restore the backup made before the \
                 update; nothing was changed"
            ),
            Self::Corrupt => write!(
                f,
                "{FILE_NAME} is damaged or not a database of edgepush; move it away"
            ),
            Self::NoWriteAheadLog => f.write_str(
                "the file system cannot hold a write-ahead log; put the data directory on a local disk",
            ),
            Self::Unavailable(error) => write!(f, "{FILE_NAME}: {error}"),
        }
    }
}

impl std::error::Error for OpenError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::message::PushMessage;
    use crate::model::store::StoreReply;
    use crate::storage::testing::{self, Folder, at, enqueue, message, one, subscribe};

    #[test]
    fn each_start_is_a_new_run_of_the_same_database() {
        let folder = Folder::new();
        for run in 1..=3 {
            let fresh = FreshDatabase {
                id: DatabaseId([run as u8; 8]),
                key_is_new: false,
            };
            let (_, opened) = Store::open(folder.path(), &Settings::default(), fresh).unwrap();
            assert_eq!(opened.run, run);
            assert_eq!(opened.database, DatabaseId([1; 8]));
            assert_eq!(opened.service_time, ServiceTime::default());
        }
    }

    #[test]
    fn service_time_goes_on_from_the_later_of_what_was_saved_and_the_newest_message() {
        let folder = Folder::new();
        let (mut store, _) = folder.open();
        store.apply(vec![
            subscribe(1, 1),
            enqueue(1, message(10, 1)),
            testing::save_time(50),
        ]);
        drop(store);
        let (mut store, opened) = folder.open();
        assert_eq!(opened.service_time, at(100));
        store.apply(vec![testing::save_time(200), testing::save_time(150)]);
        drop(store);
        assert_eq!(folder.open().1.service_time, at(200));
    }

    #[test]
    fn closing_saves_the_time_and_empties_the_write_ahead_log() {
        let folder = Folder::new();
        let (store, _) = folder.open();
        store.close(at(300)).unwrap();
        assert!(!folder.path().join(format!("{FILE_NAME}-wal")).exists());
        assert_eq!(folder.open().1.service_time, at(300));
    }

    #[test]
    fn newer_database_is_refused_with_advice_and_not_touched() {
        let folder = Folder::new();
        let (mut store, _) = folder.open();
        store.apply(vec![subscribe(1, 1)]);
        store
            .connection
            .pragma_update(None, "user_version", schema::VERSION + 1)
            .unwrap();
        // As a killed process leaves it: some of it only in the write-ahead log.
        let killed = copy(&folder);
        let before = bytes(&killed);
        let error = killed.try_open().unwrap_err();
        assert_eq!(
            error,
            OpenError::NewerSchema {
                found: schema::VERSION + 1,
                known: schema::VERSION
            }
        );
        assert!(error.to_string().contains("install that version again"));
        assert_eq!(bytes(&killed), before);
    }

    #[test]
    fn file_that_is_no_database_is_refused_and_not_touched() {
        let folder = Folder::new();
        let path = folder.path().join(FILE_NAME);
        std::fs::write(&path, "dear diary, ".repeat(1000)).unwrap();
        let error = folder.try_open().unwrap_err();
        assert_eq!(error, OpenError::Corrupt);
        assert!(error.to_string().contains("move it away"));
        assert_eq!(
            std::fs::read(&path).unwrap(),
            "dear diary, ".repeat(1000).into_bytes()
        );
    }

    #[test]
    fn damaged_schema_is_refused() {
        let folder = Folder::new();
        folder.open().0.close(at(0)).unwrap();
        let path = folder.path().join(FILE_NAME);
        let mut file = std::fs::read(&path).unwrap();
        file[100..4096].fill(0xff);
        std::fs::write(&path, file).unwrap();
        assert_eq!(folder.try_open().unwrap_err(), OpenError::Corrupt);
    }

    #[test]
    fn missing_directory_is_refused_with_advice() {
        let folder = Folder::new();
        let missing = folder.path().join("missing");
        let error = Store::open(&missing, &Settings::default(), testing::FRESH).unwrap_err();
        assert_eq!(error, OpenError::Unavailable(StoreError::ReadOnly));
        assert!(error.to_string().contains("permissions"));
    }

    #[test]
    fn what_was_answered_survives_a_kill() {
        let folder = Folder::new();
        let (mut store, _) = folder.open();
        store.apply(vec![subscribe(1, 1)]);
        let large = PushMessage {
            ttl: crate::model::message::Ttl::from_secs_lowered(u64::MAX),
            ..message(10, 1)
        };
        store.apply(vec![enqueue(1, large.clone())]);
        let (mut after, opened) = copy(&folder).open();
        assert_eq!(opened.run, 2);
        assert_eq!(
            one(&mut after, testing::fetch(1)),
            StoreReply::Page {
                messages: vec![large],
                more: false
            }
        );
    }

    /// The files as they are now, elsewhere: what a kill at this moment would leave.
    fn copy(folder: &Folder) -> Folder {
        let copy = Folder::new();
        for (name, bytes) in bytes(folder) {
            std::fs::write(copy.path().join(name), bytes).unwrap();
        }
        copy
    }

    fn bytes(folder: &Folder) -> Vec<(String, Vec<u8>)> {
        let names = [FILE_NAME.to_owned(), format!("{FILE_NAME}-wal")];
        names
            .into_iter()
            .map(|name| {
                let bytes = std::fs::read(folder.path().join(&name)).unwrap();
                (name, bytes)
            })
            .collect()
    }
}
