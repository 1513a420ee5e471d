//! Whether a database is what it should be: SQLite's own checks, and what this program holds to.
//!
//! Only reads, also while the gateway runs.

use std::fmt;
use std::path::Path;

use rusqlite::{Connection, InterruptHandle};

use super::messages::Wanted;
use super::open::{OpenError, look};
use super::reader::{Totals, count, open_read_only};
use super::{FILE_NAME, fault, messages, schema};
use crate::model::ids::Uaid;
use crate::model::message::Urgency;
use crate::model::store::{Cursors, StoreError};
use crate::model::time::ServiceTime;

/// Most faults that are named. After the first few, more say nothing new.
const FAULTS_MAX: usize = 20;
/// Messages that are looked at together, in number and in bytes.
const PAGE_MESSAGES: u32 = 64;
const PAGE_BYTES: usize = 64 << 10;

/// What must be 0, and what it means if it is not.
const RULES: [(&str, &str); 6] = [
    (
        "SELECT count(*) <> 1 FROM meta",
        "databases name themselves other than once",
    ),
    (
        "SELECT count(*) FROM message AS m WHERE NOT EXISTS
            (SELECT 1 FROM subscription AS s WHERE s.uaid = m.uaid AND s.channel = m.channel)",
        "messages have no subscription",
    ),
    (
        "SELECT count(*) FROM tombstone JOIN subscription USING (uaid, channel)",
        "subscriptions are said to have ended",
    ),
    (
        "SELECT count(*) FROM (SELECT 1 FROM message WHERE topic IS NOT NULL
            GROUP BY uaid, channel, topic HAVING count(*) > 1)",
        "topics have more than one message",
    ),
    (
        "SELECT count(*) FROM message WHERE cost_bytes < 0 OR expires_at < received_at",
        "messages have an impossible size or time",
    ),
    (
        "SELECT count(*) FROM message, meta WHERE message.id >> 40 > meta.runs",
        "messages come from a start that has not been",
    ),
];

/// What a thorough check has found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Findings {
    /// In words, the worst first; none if all is well.
    pub faults: Vec<String>,
    /// What is kept, as far as it could be counted.
    pub totals: Option<Totals>,
}

/// Looks through all of the database at `path`.
///
/// # Errors
///
/// [`OpenError`] when it cannot be looked at; damage of any kind is a finding.
pub fn thorough(path: &Path) -> Result<Findings, OpenError> {
    if path.is_dir() {
        return Err(OpenError::Corrupt);
    }
    let connection = open_read_only(path)?;
    let found = look(&connection)?;
    let mut faults = integrity(&connection)?;
    if faults.is_empty() && found.version == schema::VERSION {
        faults = broken_rules(&connection).or_else(as_fault)?;
    }
    Ok(Findings {
        faults,
        totals: count(&connection, path).ok(),
    })
}

/// What SQLite finds wrong with the database at `path`. Nothing, if it cannot be read for another
/// reason.
pub(super) fn damage(path: &Path) -> Vec<String> {
    open_read_only(path)
        .map_err(OpenError::from)
        .and_then(|connection| integrity(&connection))
        .unwrap_or_else(|error| match error {
            OpenError::Corrupt => vec![error.to_string()],
            OpenError::NewerSchema { .. }
            | OpenError::NoWriteAheadLog
            | OpenError::Unavailable(_) => Vec::new(),
        })
}

fn integrity(connection: &Connection) -> Result<Vec<String>, OpenError> {
    let check = format!("PRAGMA integrity_check({FAULTS_MAX})");
    verdict(connection, &check).or_else(as_fault)
}

/// Damage that ends a check is what it was looking for.
fn as_fault(error: rusqlite::Error) -> Result<Vec<String>, OpenError> {
    if fault::is_damage(&error) || fault::is_bad_value(&error) {
        return Ok(vec![error.to_string()]);
    }
    Err(error.into())
}

/// The lines of a check that answers "ok" when there is nothing to say.
fn verdict(connection: &Connection, check: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(check)?;
    let lines = statement.query_map((), |row| row.get::<_, String>(0))?;
    let mut faults = Vec::new();
    for line in lines {
        let line = line?;
        if line != "ok" {
            faults.push(line.replace('\n', " "));
        }
    }
    Ok(faults)
}

fn broken_rules(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    // All of it as of one moment: the gateway may go on meanwhile.
    let connection = &*connection.unchecked_transaction()?;
    let mut faults = Vec::new();
    for (question, meaning) in RULES {
        let number: i64 = connection.query_row(question, (), |row| row.get(0))?;
        if number > 0 {
            faults.push(format!("{number} {meaning}"));
        }
    }
    let unreadable = unreadable_messages(connection)?;
    if unreadable > 0 {
        faults.push(format!("{unreadable} messages cannot be understood"));
    }
    Ok(faults)
}

fn unreadable_messages(connection: &Connection) -> rusqlite::Result<u64> {
    let mut statement = connection.prepare("SELECT DISTINCT uaid FROM message")?;
    let owners = statement.query_map((), |row| Ok(Uaid::from_bytes(row.get(0)?)))?;
    let mut unreadable = 0_u64;
    for owner in owners {
        let owner = owner?;
        let mut wanted = Wanted {
            after: Cursors::START,
            urgency_min: Urgency::VeryLow,
        };
        loop {
            let start = ServiceTime::default();
            let page = messages::page(connection, owner, wanted, start, PAGE_MESSAGES, PAGE_BYTES)?;
            unreadable = unreadable.saturating_add(page.damaged.into());
            match page.messages.last() {
                Some(last) if page.more => wanted.after.advance(Urgency::VeryLow, last.id),
                Some(_) | None => break,
            }
        }
    }
    Ok(unreadable)
}

/// A quick look through the database of a running gateway, on a connection of its own.
#[derive(Debug)]
pub struct QuickCheck(Connection);

impl QuickCheck {
    /// Opens the database in `directory`.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when it cannot be read.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        open_read_only(&directory.join(FILE_NAME))
            .map(Self)
            .map_err(|error| fault::store_error(&error))
    }

    /// What ends the check from another thread.
    pub fn interrupter(&self) -> Interrupter {
        Interrupter(self.0.get_interrupt_handle())
    }

    /// Reads every page, table by table: a long read would keep the write-ahead log from being used
    /// again. `Some` says what is damaged.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when it cannot be read for another reason, or was interrupted.
    pub fn run(&self) -> Result<Option<String>, StoreError> {
        let run = || -> rusqlite::Result<Option<String>> {
            let names = "SELECT name FROM sqlite_schema WHERE type = 'table'";
            let mut statement = self.0.prepare(names)?;
            let names = statement.query_map((), |row| row.get(0))?;
            for name in names.collect::<rusqlite::Result<Vec<String>>>()? {
                let check = format!("PRAGMA quick_check(\"{name}\")");
                if let Some(fault) = verdict(&self.0, &check)?.into_iter().next() {
                    return Ok(Some(fault));
                }
            }
            Ok(None)
        };
        match run() {
            Err(error) if fault::is_damage(&error) => Ok(Some(error.to_string())),
            result => result.map_err(|error| fault::store_error(&error)),
        }
    }
}

/// Ends a [`QuickCheck`] from another thread when it is dropped.
pub struct Interrupter(InterruptHandle);

impl fmt::Debug for Interrupter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interrupter")
    }
}

impl Drop for Interrupter {
    fn drop(&mut self) {
        self.0.interrupt();
    }
}
