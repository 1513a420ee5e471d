//! Taking over into a new database what can still be read of a damaged one.
//!
//! Reads each table from both ends until it meets the damage. What lies between two damaged places
//! stays behind; the damaged file is only read, and stays for those who want to look closer
//! (`sqlite3 .recover`).

use std::path::Path;

use log::{error, warn};
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, TransactionBehavior, params_from_iter};

use super::open::make;
use super::settings::{Settings, set_cache};
use super::store::empty_log;
use super::{fault, set_aside};
use crate::model::ids::DatabaseId;

/// What was taken over.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Salvaged {
    /// Push messages.
    pub(super) messages: u64,
    /// Subscriptions.
    pub(super) subscriptions: u64,
    /// All could be read to the end. It may have been damaged all the same, in an index.
    pub(super) is_whole: bool,
}

/// Rows of one commit: a few hundred KiB of messages.
const ROWS_OF_COMMIT: usize = 500;
const CACHE_BYTES: u32 = 256 << 10;

/// Makes a new database at `target` and fills it from the damaged one at `source`.
///
/// # Errors
///
/// When the new one is of no use. One that could not be filled to the end is.
pub(super) fn salvage(
    source: &Path,
    target: &Path,
    settings: &Settings,
    id: DatabaseId,
) -> rusqlite::Result<Salvaged> {
    let mut new = Connection::open(target)?;
    settings.apply(&new)?;
    let transaction = new.transaction_with_behavior(TransactionBehavior::Immediate)?;
    make(&transaction, id, true)?;
    transaction.commit()?;
    let mut salvaged = Salvaged {
        is_whole: true,
        ..Salvaged::default()
    };
    if let Err(error) = fill(source, &mut new, &mut salvaged) {
        error!(
            "salvage_ended reason=\"{}\" cause=\"{error}\"",
            fault::store_error(&error)
        );
        salvaged.is_whole = false;
    }
    // It is moved to its place without its log.
    empty_log(&new)?;
    new.close().map_err(|(_, error)| error)?;
    Ok(salvaged)
}

fn fill(source: &Path, new: &mut Connection, salvaged: &mut Salvaged) -> rusqlite::Result<()> {
    // SQLite would remove the log of an empty file, and there is nothing else to be had of it.
    if !source
        .metadata()
        .is_ok_and(|file| file.is_file() && file.len() > 0)
    {
        salvaged.is_whole = false;
        return Ok(());
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let old = Connection::open_with_flags(source, flags)?;
    set_cache(&old, CACHE_BYTES)?;
    for name in tables(new)? {
        let Ok(Some(table)) = Table::shared(&old, new, &name) else {
            salvaged.is_whole = false;
            continue;
        };
        if name == "meta" {
            salvaged.is_whole &= table.raise(&old, new).is_ok();
            continue;
        }
        let copied = match name.as_str() {
            "message" => &mut salvaged.messages,
            "subscription" => &mut salvaged.subscriptions,
            _ => &mut 0,
        };
        salvaged.is_whole &= table.copy(&old, new, copied)?;
    }
    drop(old);
    // Made by opening it; of no use to anybody.
    let _ = std::fs::remove_file(set_aside::with_suffix(source, "-shm"));
    Ok(())
}

/// The tables of the present schema.
fn tables(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'")?
        .query_map((), |row| row.get(0))?
        .collect()
}

/// What an older table and a present one have in common.
struct Table {
    name: String,
    columns: Vec<String>,
    /// Those of them that are its primary key.
    key: Vec<String>,
}

impl Table {
    /// `None` if the old file has no such table, or one of another key.
    fn shared(old: &Connection, new: &Connection, name: &str) -> rusqlite::Result<Option<Self>> {
        let (there, here) = (columns(old, name)?, columns(new, name)?);
        let key = |columns: &[(String, u32)]| -> Vec<String> {
            let mut key: Vec<_> = columns.iter().filter(|(_, place)| *place > 0).collect();
            key.sort_by_key(|(_, place)| *place);
            key.into_iter().map(|(name, _)| name.clone()).collect()
        };
        if there.is_empty() || key(&there) != key(&here) {
            return Ok(None);
        }
        let columns = here.iter().map(|(name, _)| name);
        Ok(Some(Self {
            name: name.to_owned(),
            key: key(&here),
            columns: columns
                .filter(|name| there.iter().any(|(other, _)| other == *name))
                .cloned()
                .collect(),
        }))
    }

    /// Whether the damage was never met.
    fn copy(
        &self,
        old: &Connection,
        new: &mut Connection,
        copied: &mut u64,
    ) -> rusqlite::Result<bool> {
        let is_whole = self.copy_from_one_end(old, new, "ASC", copied)?;
        if !is_whole {
            self.copy_from_one_end(old, new, "DESC", copied)?;
        }
        Ok(is_whole)
    }

    fn copy_from_one_end(
        &self,
        old: &Connection,
        new: &mut Connection,
        direction: &str,
        copied: &mut u64,
    ) -> rusqlite::Result<bool> {
        let order: Vec<_> = self
            .key
            .iter()
            .map(|name| format!("{name} {direction}"))
            .collect();
        let (name, columns, order) = (&self.name, self.columns.join(", "), order.join(", "));
        // Its schema could be read, or this table would not be here.
        let mut reading = old.prepare(&format!(
            "SELECT {columns} FROM {name} NOT INDEXED ORDER BY {order}"
        ))?;
        let mut rows = reading.raw_query();
        loop {
            let mut batch = Vec::with_capacity(ROWS_OF_COMMIT);
            let end = loop {
                match rows.next() {
                    Ok(Some(row)) => batch.push(
                        (0..self.columns.len())
                            .map(|column| row.get(column))
                            .collect::<rusqlite::Result<Vec<Value>>>(),
                    ),
                    Ok(None) => break Some(true),
                    Err(error) => {
                        warn!("damage_met table={name} cause=\"{error}\"");
                        break Some(false);
                    }
                }
                if batch.len() >= ROWS_OF_COMMIT {
                    break None;
                }
            };
            let added = self.insert(new, batch.into_iter().flatten())?;
            *copied = copied.saturating_add(added);
            if let Some(is_whole) = end {
                return Ok(is_whole);
            }
        }
    }

    /// Adds rows; those that cannot be right, or are there already, are passed over.
    fn insert(
        &self,
        new: &mut Connection,
        rows: impl Iterator<Item = Vec<Value>>,
    ) -> rusqlite::Result<u64> {
        let places = vec!["?"; self.columns.len()].join(", ");
        let (name, columns) = (&self.name, self.columns.join(", "));
        let transaction = new.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut added = 0_u64;
        let text = format!("INSERT OR IGNORE INTO {name} ({columns}) VALUES ({places})");
        let mut inserting = transaction.prepare_cached(&text)?;
        for row in rows {
            match inserting.execute(params_from_iter(row)) {
                Ok(count) => added = added.saturating_add(u64::try_from(count).unwrap_or(0)),
                Err(error) if fault::is_not_ours(&error) => {}
                Err(error) => return Err(error),
            }
        }
        drop(inserting);
        transaction.commit()?;
        Ok(added)
    }

    /// Of `meta`: what only grows goes on from where it was. The name is a new one, as after a loss.
    fn raise(&self, old: &Connection, new: &Connection) -> rusqlite::Result<()> {
        for column in &self.columns {
            let text = format!("SELECT {column} FROM meta");
            if let Value::Integer(number) = old.query_row(&text, (), |row| row.get(0))? {
                let text = format!("UPDATE OR IGNORE meta SET {column} = max({column}, ?1)");
                new.execute(&text, [number])?;
            }
        }
        Ok(())
    }
}

/// Names of the columns of a table, and the place of each in the primary key, from 1.
fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<(String, u32)>> {
    connection
        .prepare("SELECT name, pk FROM pragma_table_info(?1)")?
        .query_map([table], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}
