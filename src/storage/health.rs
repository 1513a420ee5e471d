//! What is wrong with the disk or the database, for whoever looks from another thread.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::model::store::StoreError;

/// Shared by the [`Store`](super::Store) and those who watch over it.
#[derive(Debug, Default)]
pub struct Health {
    disk_full: AtomicBool,
    damaged: AtomicBool,
}

impl Health {
    /// What is wrong, if anything is known to be.
    pub fn fault(&self) -> Option<StoreError> {
        if self.is_damaged() {
            Some(StoreError::Corrupt)
        } else if self.is_disk_full() {
            Some(StoreError::DiskFull)
        } else {
            None
        }
    }

    /// Whether the database has turned out to be damaged since it was opened.
    pub fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    /// The database has turned out to be damaged. `true` if that is news.
    pub fn note_damage(&self) -> bool {
        !self.damaged.swap(true, Ordering::Relaxed)
    }

    pub(super) fn is_disk_full(&self) -> bool {
        self.disk_full.load(Ordering::Relaxed)
    }

    pub(super) fn set_disk_full(&self, is_full: bool) {
        self.disk_full.store(is_full, Ordering::Relaxed);
    }
}
