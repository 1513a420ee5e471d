//! What a failure of SQLite means to whoever asked. No other module reads SQLite's error codes.

use rusqlite::{Error, ffi};

use crate::model::store::StoreError;

/// The state of the disk behind an `error`.
///
/// A column that does not hold what this program writes counts as damage.
pub(super) const fn store_error(error: &Error) -> StoreError {
    if let Error::SqliteFailure(failure, _) = error {
        if failure.extended_code == ffi::SQLITE_IOERR_SHMSIZE {
            // The index of the write-ahead log could not grow.
            return StoreError::DiskFull;
        }
        return from_primary_code(failure.extended_code & 0xff);
    }
    if is_bad_value(error) {
        return StoreError::Corrupt;
    }
    StoreError::Io
}

/// Whether there was no space left on the device.
pub(super) fn is_disk_full(error: &Error) -> bool {
    store_error(error) == StoreError::DiskFull
}

/// Whether SQLite itself found the file damaged. One row that cannot be understood is less than that.
pub(super) fn is_damage(error: &Error) -> bool {
    !is_bad_value(error) && store_error(error) == StoreError::Corrupt
}

/// Whether the file has other tables than it should, or lacks a row that is always there.
pub(super) const fn is_not_ours(error: &Error) -> bool {
    if let Error::SqliteFailure(failure, _) = error {
        let code = failure.extended_code & 0xff;
        return matches!(code, ffi::SQLITE_ERROR | ffi::SQLITE_CONSTRAINT);
    }
    matches!(
        error,
        Error::SqlInputError { .. } | Error::QueryReturnedNoRows
    )
}

/// Whether a row was read that cannot be understood.
pub(super) const fn is_bad_value(error: &Error) -> bool {
    matches!(
        error,
        Error::FromSqlConversionFailure(..)
            | Error::IntegralValueOutOfRange(..)
            | Error::InvalidColumnType(..)
            | Error::Utf8Error(..)
    )
}

/// Whether the row's primary key is there already.
pub(super) const fn is_taken_key(error: &Error) -> bool {
    if let Error::SqliteFailure(failure, _) = error {
        return failure.extended_code == ffi::SQLITE_CONSTRAINT_PRIMARYKEY;
    }
    false
}

const fn from_primary_code(code: i32) -> StoreError {
    match code {
        ffi::SQLITE_FULL => StoreError::DiskFull,
        ffi::SQLITE_READONLY | ffi::SQLITE_CANTOPEN | ffi::SQLITE_PERM => StoreError::ReadOnly,
        ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB => StoreError::Corrupt,
        _ => StoreError::Io,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_of_the_disk_is_told_apart() {
        let cases = [
            (ffi::SQLITE_FULL, StoreError::DiskFull),
            (ffi::SQLITE_READONLY, StoreError::ReadOnly),
            (ffi::SQLITE_READONLY_DBMOVED, StoreError::ReadOnly),
            (ffi::SQLITE_CANTOPEN, StoreError::ReadOnly),
            (ffi::SQLITE_PERM, StoreError::ReadOnly),
            (ffi::SQLITE_CORRUPT, StoreError::Corrupt),
            (ffi::SQLITE_CORRUPT_INDEX, StoreError::Corrupt),
            (ffi::SQLITE_NOTADB, StoreError::Corrupt),
            (ffi::SQLITE_IOERR_FSYNC, StoreError::Io),
            (ffi::SQLITE_IOERR_SHMSIZE, StoreError::DiskFull),
            (ffi::SQLITE_BUSY, StoreError::Io),
        ];
        for (code, kind) in cases {
            let error = Error::SqliteFailure(ffi::Error::new(code), None);
            assert_eq!(store_error(&error), kind, "{code}");
        }
    }
}
