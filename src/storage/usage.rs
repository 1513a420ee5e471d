//! How full each queue is, without counting it again for each message.
//!
//! Only remembers; whoever drops messages must [`forget`](Cache::forget) their queue, and whoever
//! rolls back must [`clear`](Cache::clear) all.

use std::collections::HashMap;

use rusqlite::Connection;

use super::messages::{Kept, cost_bytes, unsigned};
use crate::model::ids::Uaid;
use crate::model::message::PushMessage;
use crate::model::store::Quota;
use crate::model::time::ServiceTime;

/// Most queues remembered: 64 KiB or so. Beyond it all are forgotten, and counted again when used.
const QUEUES_MAX: usize = 1024;

/// Answered from one index alone; a test in `messages` holds it to that.
pub(super) const COUNT: &str = "
    SELECT count(*), coalesce(sum(cost_bytes), 0), min(expires_at) FROM message WHERE uaid = ?1";

/// What is kept for one user agent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Usage {
    messages: u64,
    bytes: u64,
    /// When the first of the messages expires, or earlier; the end of time without messages.
    first_expiry: ServiceTime,
}

impl Usage {
    /// Counts the queue of a user agent.
    fn count(connection: &Connection, uaid: Uaid) -> rusqlite::Result<Self> {
        connection
            .prepare_cached(COUNT)?
            .query_row([uaid.as_bytes()], |row| {
                Ok(Self {
                    messages: unsigned(row.get(0)?),
                    bytes: unsigned(row.get(1)?),
                    first_expiry: ServiceTime::from_secs(
                        row.get::<_, Option<i64>>(2)?.map_or(u64::MAX, unsigned),
                    ),
                })
            })
    }

    /// What it would be with `message` in place of `replaced`.
    pub(super) fn with(self, message: &PushMessage, replaced: Option<Kept>) -> Self {
        let (messages, bytes) = replaced.map_or((0, 0), |kept| (1, kept.cost_bytes));
        Self {
            messages: self.messages.saturating_sub(messages).saturating_add(1),
            bytes: self
                .bytes
                .saturating_sub(bytes)
                .saturating_add(cost_bytes(message)),
            first_expiry: self.first_expiry.min(message.expires_at()),
        }
    }

    /// Whether a user agent may have this much.
    pub(super) fn is_within(self, quota: Quota) -> bool {
        self.messages <= u64::from(quota.messages_max) && self.bytes <= quota.bytes_max
    }

    /// Whether a message of it may have expired by `now`.
    pub(super) fn may_hold_expired(self, now: ServiceTime) -> bool {
        self.first_expiry <= now
    }
}

/// The usage of recently used queues, as of the open transaction.
#[derive(Debug, Default)]
pub(super) struct Cache {
    queues: HashMap<Uaid, Usage>,
}

impl Cache {
    /// What is kept for a user agent, counted if that is not known.
    pub(super) fn of(&mut self, connection: &Connection, uaid: Uaid) -> rusqlite::Result<Usage> {
        if let Some(known) = self.queues.get(&uaid) {
            return Ok(*known);
        }
        let usage = Usage::count(connection, uaid)?;
        self.set(uaid, usage);
        Ok(usage)
    }

    /// Remembers what is kept for a user agent now.
    pub(super) fn set(&mut self, uaid: Uaid, usage: Usage) {
        if self.queues.len() >= QUEUES_MAX && !self.queues.contains_key(&uaid) {
            self.queues.clear();
        }
        self.queues.insert(uaid, usage);
    }

    /// Messages of the user agent were dropped.
    pub(super) fn forget(&mut self, uaid: Uaid) {
        self.queues.remove(&uaid);
    }

    /// Anything may have changed.
    pub(super) fn clear(&mut self) {
        self.queues.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_usage_is_bounded_by_its_number_of_queues() {
        let mut cache = Cache::default();
        let usage = Usage {
            messages: 1,
            bytes: 1,
            first_expiry: ServiceTime::from_secs(1),
        };
        let uaid = |number: usize| Uaid::from_bytes((number as u128).to_be_bytes());
        for number in 0..QUEUES_MAX {
            cache.set(uaid(number), usage);
        }
        cache.set(uaid(0), usage);
        assert_eq!(cache.queues.len(), QUEUES_MAX);
        cache.set(uaid(QUEUES_MAX), usage);
        assert_eq!(cache.queues.len(), 1);
    }
}
