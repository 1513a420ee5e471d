//! How SQLite is set up. The values come from the board profile.

use std::time::Duration;

use rusqlite::Connection;

use super::reserve::Reserve;

/// How SQLite is set up.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Size of a database page; a power of two from 512 to 65536. Fixed when the file is made.
    ///
    /// 4096, as SQLite's default and as the smallest block that memory cards and file systems write.
    pub page_bytes: u32,
    /// Most memory for cached pages, of one connection.
    pub cache_bytes: u32,
    /// The write-ahead log is copied back into the database when it has this many pages.
    ///
    /// More means that a page which changes often is copied less often; the price is disk space.
    pub checkpoint_pages: u32,
    /// A write-ahead log that had to grow beyond this is cut back to it.
    pub journal_bytes_max: u32,
    /// When flash is told to keep what was written.
    pub synchronous: Synchronous,
    /// Room on the disk that is kept back for deleting when the rest is full; 0 for none. A small file
    /// system gets less.
    pub reserve_bytes: u64,
    /// How long to wait for another process that writes (a backup, an operator's `sqlite3`).
    ///
    /// Everything else waits as long, so it is short.
    pub busy_timeout: Duration,
}

/// When flash is told to keep what was written (fsync).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Synchronous {
    /// At each commit: what was answered survives a power cut.
    Full,
    /// At each checkpoint: a power cut may take back the last commits, but never damages the file.
    Normal,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            page_bytes: 4096,
            cache_bytes: 512 << 10,
            checkpoint_pages: 1000,
            journal_bytes_max: 4 << 20,
            synchronous: Synchronous::Full,
            reserve_bytes: 0,
            busy_timeout: Duration::from_millis(250),
        }
    }
}

impl Settings {
    /// A reserve with which deleting always succeeds: the write-ahead log may hold as many pages that
    /// the database must grow by before the log can be used again, and the deletions themselves.
    pub fn with_full_reserve(self) -> Self {
        let log_bytes = u64::from(self.checkpoint_pages).saturating_mul(self.page_bytes.into());
        Self {
            reserve_bytes: log_bytes.saturating_add(256 << 10),
            ..self
        }
    }

    /// With the log of a small file system kept so short that its small reserve is enough.
    pub(super) fn with_log_for(&self, reserve: &Reserve) -> Self {
        // Half of it for what the database grows by, half for what is written meanwhile.
        let two_pages = u64::from(self.page_bytes).saturating_mul(2);
        let pages = reserve.bytes().checked_div(two_pages).unwrap_or(0);
        // One that does not tell its size has no reserve, and says nothing about being small.
        let is_small = (1..self.reserve_bytes).contains(&reserve.bytes());
        let pages = u32::try_from(pages).unwrap_or(u32::MAX).max(1);
        Self {
            checkpoint_pages: if is_small {
                pages.min(self.checkpoint_pages)
            } else {
                self.checkpoint_pages
            },
            ..self.clone()
        }
    }

    /// Sets up the connection that writes. `false` when the file system cannot hold a write-ahead log.
    pub(super) fn apply(&self, connection: &Connection) -> rusqlite::Result<bool> {
        connection.busy_timeout(self.busy_timeout)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        // The page size first: making the write-ahead log already writes a page.
        connection.pragma_update(None, "page_size", self.page_bytes)?;
        let mode: String =
            connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
        if mode != "wal" {
            return Ok(false);
        }
        let synchronous = match self.synchronous {
            Synchronous::Full => "full",
            Synchronous::Normal => "normal",
        };
        connection.pragma_update(None, "synchronous", synchronous)?;
        connection.pragma_update(None, "temp_store", "memory")?;
        set_cache(connection, self.cache_bytes)?;
        // These three answer with the new value, which `pragma_update` would take for a mistake.
        for (name, value) in [
            ("wal_autocheckpoint", self.checkpoint_pages),
            ("journal_size_limit", self.journal_bytes_max),
            ("mmap_size", 0), // a failing memory card is then an error, not a SIGBUS
        ] {
            connection.pragma_update_and_check(None, name, value, |_| Ok(()))?;
        }
        Ok(true)
    }
}

/// Statements kept ready: all that this layer has, with room for the next few.
const STATEMENTS_MAX: usize = 40;

/// Bounds the page cache of one connection.
pub(super) fn set_cache(connection: &Connection, bytes: u32) -> rusqlite::Result<()> {
    // Negative means KiB instead of pages.
    let kib = i64::from(bytes >> 10).max(1).saturating_neg();
    connection.pragma_update(None, "cache_size", kib)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::testing::Folder;

    #[test]
    fn settings_reach_sqlite() {
        let folder = Folder::new();
        let settings = Settings {
            page_bytes: 8192,
            checkpoint_pages: 77,
            journal_bytes_max: 12_345,
            synchronous: Synchronous::Normal,
            ..Settings::default()
        };
        let (store, _) = folder.open_with(&settings);
        let number = |name: &str| -> i64 {
            store
                .connection
                .pragma_query_value(None, name, |row| row.get(0))
                .unwrap()
        };
        assert_eq!(number("page_size"), 8192);
        assert_eq!(number("cache_size"), -512);
        assert_eq!(number("wal_autocheckpoint"), 77);
        assert_eq!(number("journal_size_limit"), 12_345);
        assert_eq!(number("synchronous"), 1);
        assert_eq!(number("temp_store"), 2);
    }

    #[test]
    fn every_commit_is_flushed_unless_asked_otherwise() {
        let folder = Folder::new();
        let (store, _) = folder.open();
        let synchronous: i64 = store
            .connection
            .pragma_query_value(None, "synchronous", |row| row.get(0))
            .unwrap();
        assert_eq!(synchronous, 2);
    }
}
