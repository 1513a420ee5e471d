//! What the operator's console reads, beside the storage thread and without holding it up.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::set_aside::with_suffix;
use super::{FILE_NAME, fault, messages, settings};
use crate::model::store::StoreError;

/// A connection that can only read, for use on another thread than the [`Store`](super::Store)'s.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    directory: PathBuf,
}

/// What is kept, in all.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Totals {
    /// Subscriptions.
    pub subscriptions: u64,
    /// User agents that have a subscription.
    pub user_agents: u64,
    /// Push messages, expired ones that are not yet swept included.
    pub messages: u64,
    /// Size of the database and its write-ahead log on disk.
    pub file_bytes: u64,
}

/// `DISTINCT` in a query of its own goes along the primary key; `count(DISTINCT ..)` would sort.
const TOTALS: &str = "
    SELECT (SELECT count(*) FROM subscription),
           (SELECT count(*) FROM (SELECT DISTINCT uaid FROM subscription)),
           (SELECT count(*) FROM message)";

/// Page cache of a reader: it is seldom used and reads each page once.
const CACHE_BYTES: u32 = 128 << 10;

/// A reader waits for nobody but a recovery after a crash.
const BUSY_TIMEOUT: Duration = Duration::from_millis(250);

impl Reader {
    /// Opens the database that a [`Store`](super::Store) has opened in `directory`.
    ///
    /// # Errors
    ///
    /// [`StoreError::ReadOnly`] if there is none or it may not be read; else as the disk is.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let connection = open_read_only(&directory.join(FILE_NAME));
        Ok(Self {
            connection: connection.map_err(|error| fault::store_error(&error))?,
            directory: directory.to_path_buf(),
        })
    }

    /// Counts what is kept. It goes through every subscription, so it is for people, not for polling.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the disk cannot be read.
    pub fn totals(&self) -> Result<Totals, StoreError> {
        count(&self.connection, &self.directory.join(FILE_NAME))
            .map_err(|error| fault::store_error(&error))
    }
}

/// A connection to a database of any name that can only read.
pub(super) fn open_read_only(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    settings::set_cache(&connection, CACHE_BYTES)?;
    Ok(connection)
}

/// Counts what is kept in the database at `path`.
pub(super) fn count(connection: &Connection, path: &Path) -> rusqlite::Result<Totals> {
    connection.prepare_cached(TOTALS)?.query_row((), |row| {
        Ok(Totals {
            subscriptions: messages::unsigned(row.get(0)?),
            user_agents: messages::unsigned(row.get(1)?),
            messages: messages::unsigned(row.get(2)?),
            file_bytes: file_bytes(path),
        })
    })
}

/// A file that is not there has no bytes.
fn file_bytes(database: &Path) -> u64 {
    ["", "-wal"]
        .iter()
        .filter_map(|suffix| {
            let metadata = with_suffix(database, suffix).metadata();
            metadata.ok().map(|metadata| metadata.len())
        })
        .fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::store::StoreReply;
    use crate::storage::testing::{self, Folder};

    #[test]
    fn totals_are_read_on_another_thread_while_the_store_is_open() {
        let folder = Folder::new();
        let (mut store, _) = folder.open();
        store.apply(vec![
            testing::subscribe(1, 1),
            testing::subscribe(1, 2),
            testing::subscribe(2, 1),
            testing::enqueue(1, testing::message(10, 1)),
        ]);
        let reader = Reader::open(folder.path()).unwrap();
        let totals = std::thread::spawn(move || reader.totals())
            .join()
            .unwrap()
            .unwrap();
        assert_eq!(
            (totals.subscriptions, totals.user_agents, totals.messages),
            (3, 2, 1)
        );
        assert!(totals.file_bytes > 0);
    }

    #[test]
    fn reader_does_not_keep_the_store_from_writing() {
        let folder = Folder::new();
        let (mut store, _) = folder.open();
        let reader = Reader::open(folder.path()).unwrap();
        let mut statement = reader.connection.prepare("SELECT * FROM meta").unwrap();
        let mut rows = statement.query(()).unwrap();
        assert!(rows.next().unwrap().is_some());
        assert_eq!(
            store.apply(vec![testing::subscribe(1, 1)]),
            [StoreReply::Subscribed(true)]
        );
    }

    #[test]
    fn reader_of_a_missing_database_makes_none() {
        let folder = Folder::new();
        assert_eq!(
            Reader::open(folder.path()).err(),
            Some(StoreError::ReadOnly)
        );
        assert!(!folder.path().join(FILE_NAME).exists());
    }

    #[test]
    fn user_agents_are_counted_in_the_order_of_the_index() {
        let folder = Folder::new();
        let (store, _) = folder.open();
        let plan = testing::plan(&store, TOTALS);
        assert!(!plan.contains("TEMP B-TREE"), "{plan}");
    }
}
