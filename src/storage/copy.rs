//! A copy of a database, made while it may be in use: for a backup, and for putting one back.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::check;
use super::open::{OpenError, look};
use super::reader::{Totals, open_read_only};
use super::{fault, schema};
use crate::model::store::StoreError;

/// Copies the database at `from`, as it is at this moment, to `to`, which is an empty file. The copy
/// is then looked through from end to end.
///
/// It is marked as a copy, which has [`Store::open`](super::Store::open) give it a new name. It is not
/// flushed to the disk.
///
/// # Errors
///
/// [`CopyError`]; what is at `to` is then of no use.
pub fn copy(from: &Path, to: &Path) -> Result<Totals, CopyError> {
    let target = to.to_str().ok_or(CopyError::Name)?;
    if !from.is_file() {
        return Err(CopyError::Open(OpenError::Unavailable(
            StoreError::ReadOnly,
        )));
    }
    let open = || {
        let connection = open_read_only(from)?;
        match look(&connection)?.version {
            0 => Err(OpenError::Corrupt),
            _ => Ok(connection),
        }
    };
    let source = open().map_err(CopyError::Open)?;
    // A snapshot of one moment, page by page in order; the gateway goes on writing beside it.
    source.execute("VACUUM INTO ?1", [target]).map_err(failed)?;
    mark(to).map_err(failed)?;
    let findings = check::thorough(to).map_err(CopyError::Open)?;
    match (findings.totals, findings.faults) {
        (Some(totals), faults) if faults.is_empty() => Ok(totals),
        (_, faults) => Err(CopyError::Damaged(faults)),
    }
}

/// Whether the file is a copy that no gateway has opened yet (SQLite's file format, section 1.3).
pub(super) fn is_untouched(path: &Path) -> bool {
    let mut header = [0; 72];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
    let [.., a, b, c, d] = header;
    // 1: without a write-ahead log, which a gateway's first step is to ask for.
    read.is_ok() && header[18] == 1 && i32::from_be_bytes([a, b, c, d]) == schema::COPY
}

fn mark(path: &Path) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let copy = Connection::open_with_flags(path, flags)?;
    schema::set_application(&copy, schema::COPY)?;
    copy.close().map_err(|(_, error)| error)
}

fn failed(error: rusqlite::Error) -> CopyError {
    match fault::store_error(&error) {
        StoreError::Corrupt => CopyError::Damaged(vec![error.to_string()]),
        kind @ (StoreError::DiskFull | StoreError::ReadOnly | StoreError::Io) => {
            CopyError::Disk(kind)
        }
    }
}

/// Why there is no copy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CopyError {
    /// The path of the copy is not UTF-8, which SQLite wants.
    Name,
    /// What was to be copied cannot be opened, or is not a database of this program.
    Open(OpenError),
    /// What was copied is damaged.
    Damaged(Vec<String>),
    /// Reading or writing failed.
    Disk(StoreError),
}

impl fmt::Display for CopyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str("the name of the copy must be UTF-8"),
            Self::Open(OpenError::Corrupt) => f.write_str("not a database of edgepush, or damaged"),
            Self::Open(error) => error.fmt(f),
            Self::Damaged(faults) => write!(f, "damaged: {}", faults.join("; ")),
            Self::Disk(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CopyError {}
