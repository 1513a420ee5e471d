//! The process's limit on open descriptors: raised as far as the system lets it.

use log::warn;
use rustix::process::{Resource, getrlimit, setrlimit};

/// Descriptors that are no connections: the database and its log, the console, the event loop.
const RESERVED: usize = 64;

/// Raises the limit, and lowers `connections_max` where even that is not enough: a connection more
/// than there are descriptors would also keep the database from its files.
pub fn make_room_for(connections_max: usize) -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Most systems start a program with 1,024 and allow it far more.
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            warn!("cannot raise the limit on open files: {error}");
            limit = getrlimit(Resource::Nofile);
        }
    }
    let Some(descriptors) = limit.current else {
        return connections_max;
    };
    let room = usize::try_from(descriptors)
        .unwrap_or(usize::MAX)
        .saturating_sub(RESERVED);
    if room < connections_max {
        warn!(
            "fewer connections than configured connections_max={connections_max} possible={room}; \
             raise the limit on open files (LimitNOFILE= of the unit, or ulimit -n)"
        );
    }
    connections_max.min(room)
}
