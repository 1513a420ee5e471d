//! The only reader of the machine's clocks.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::model::time::{Now, UnixTime};

/// Reads both clocks. Called once for each turn of the event loop.
pub fn read() -> Now {
    // Before 1970 counts as 1970: a board that has lost its clock must still start.
    let wall = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Now {
        monotonic: Instant::now(),
        wall: UnixTime::from_secs(wall.as_secs()),
    }
}
