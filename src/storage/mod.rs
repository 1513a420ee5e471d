//! How it is kept: SQLite, one batch of operations in one commit.
//!
//! Owns the schema and every query. It never decides when a batch ends, reads no clock, starts no
//! thread and makes no random bytes: those come in as arguments.

mod enqueue;
mod fault;
mod messages;
mod open;
mod reader;
mod schema;
mod settings;
mod sleepers;
mod store;
mod subscriptions;
mod usage;

#[cfg(test)]
mod random_test;
#[cfg(test)]
mod testing;

pub use open::{FreshDatabase, OpenError};
pub use reader::{Reader, Totals};
pub use settings::{Settings, Synchronous};
pub use store::Store;

/// Name of the database within the data directory. SQLite puts `-wal` and `-shm` files beside it.
pub const FILE_NAME: &str = "edgepush.db";
