//! How it is kept: SQLite, one batch of operations in one commit.
//!
//! Owns the schema and every query. It never decides when a batch ends, reads no clock, starts no
//! thread and makes no random bytes: those come in as arguments.

pub mod check;
mod copy;
mod enqueue;
mod fault;
mod health;
mod messages;
mod open;
mod operations;
mod reader;
mod reserve;
mod salvage;
mod schema;
pub mod set_aside;
mod settings;
mod sleepers;
mod start;
mod store;
mod subscriptions;
mod upstream;
mod usage;

#[cfg(test)]
mod damage_test;
#[cfg(test)]
mod random_test;
#[cfg(test)]
mod testing;

pub use copy::{CopyError, copy};
pub use health::Health;
pub use open::{FreshDatabase, OpenError};
pub use reader::{Reader, Totals};
pub use settings::{Settings, Synchronous};
pub use store::Store;

/// Name of the database within the data directory. SQLite puts `-wal` and `-shm` files beside it.
pub const FILE_NAME: &str = "edgepush.db";
