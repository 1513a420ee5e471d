//! The worst case of memory that a configuration allows: every limit reached at once.
//!
//! An upper bound by the terms that limits have; what the kernel keeps for sockets is not in it.

use crate::model::limits::WEBSOCKET_MESSAGE_BYTES_MAX;

use super::Config;

/// The program without anybody: 4 MiB at rest (DESIGN.md section 11), and as much for stacks and for
/// what an allocator cannot give back.
const PROGRAM_BYTES: u64 = 8 << 20;

/// What is remembered of addresses, of verified tokens and of the queues of user agents, each with a bound
/// of its own; the budget of growth (DESIGN.md section 11).
const MEMORIES_BYTES: u64 = 16 << 20;

/// A message of a user agent while it arrives: its frame, and what has gathered of fragments in a buffer
/// that doubles. More than any request takes, so it stands for both.
const ARRIVING_BYTES: u64 = 3 * WEBSOCKET_MESSAGE_BYTES_MAX as u64;

/// What a websocket takes beside what arrives and what is unsent: its task, its session, the frames that
/// gather for one write.
const CONNECTION_BYTES: u64 = 8 << 10;

/// An operation for the storage thread beside its message, and its reply.
const OPERATION_BYTES: u64 = 512;

/// The console: 16 connections, each with a reader's page cache (128 KiB) and a stack (256 KiB).
const CONSOLE_BYTES: u64 = 16 * (384 << 10);

impl Config {
    /// The most memory that the gateway takes, in bytes, when each limit is reached at the same time.
    pub fn memory_bytes_max(&self) -> u64 {
        let limits = &self.limits;
        let unsent = wide(limits.unsent_bytes_max);
        let connection = ARRIVING_BYTES
            .saturating_add(unsent)
            .saturating_add(CONNECTION_BYTES);
        [
            PROGRAM_BYTES,
            MEMORIES_BYTES,
            CONSOLE_BYTES,
            wide(limits.connections_max).saturating_mul(connection),
            // As a message, and as the text that is sent.
            wide(limits.held_bytes_max).saturating_mul(2),
            wide(limits.store_queue_max).saturating_mul(OPERATION_BYTES),
            self.storage.cache_bytes.into(),
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }
}

fn wide(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_on_memory_counts() {
        let default = Config::default().memory_bytes_max();
        let raised: [fn(&mut Config); 5] = [
            |config| config.limits.connections_max += 1,
            |config| config.limits.unsent_bytes_max += 1,
            |config| config.limits.held_bytes_max += 1,
            |config| config.limits.store_queue_max += 1,
            |config| config.storage.cache_bytes += 1,
        ];
        for raise in raised {
            let mut config = Config::default();
            raise(&mut config);
            assert!(config.memory_bytes_max() > default);
        }
    }

    #[test]
    fn no_limits_overflow() {
        let mut config = Config::default();
        config.limits.connections_max = usize::MAX;
        config.limits.unsent_bytes_max = usize::MAX;
        config.limits.held_bytes_max = usize::MAX;
        assert_eq!(config.memory_bytes_max(), u64::MAX);
    }
}
