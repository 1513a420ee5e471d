//! How full each queue is, without counting it again for each message.
//!
//! Only remembers; whoever drops messages must [`forget`](Cache::forget) their queue, and whoever
//! rolls back must [`clear`](Cache::clear) all.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, Row};

use super::messages::{Kept, cost_bytes, unsigned};
use crate::model::ids::{ChannelId, Uaid};
use crate::model::message::PushMessage;
use crate::model::store::{EnqueueOutcome, Quota};
use crate::model::time::ServiceTime;

/// Most queues remembered, and as many subscriptions: 160 KiB or so together. Beyond it all are
/// forgotten, and counted again when used.
const QUEUES_MAX: usize = 1024;

/// Answered from one index alone, in one go; a test in `messages` holds it to that.
///
/// The index has six bytes of the channel. Two subscriptions of one user agent that have these in
/// common share their limit as well; one that wants that harms itself.
pub(super) const COUNT: &str = "
    SELECT count(*), coalesce(sum(cost_bytes), 0), min(expires_at),
        count(*) FILTER (WHERE substr(channel, 1, 2) = substr(?2, 1, 2)
            AND substr(channel, 13, 4) = substr(?2, 13, 4)),
        coalesce(sum(cost_bytes) FILTER (WHERE substr(channel, 1, 2) = substr(?2, 1, 2)
            AND substr(channel, 13, 4) = substr(?2, 13, 4)), 0)
    FROM message WHERE uaid = ?1";

/// What is kept for one user agent, and for one of its subscriptions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Usage {
    queue: Queue,
    subscription: Count,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Queue {
    count: Count,
    /// When the first of the messages expires, or earlier; the end of time without messages.
    first_expiry: ServiceTime,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Count {
    messages: u64,
    bytes: u64,
}

impl Usage {
    fn count(connection: &Connection, uaid: Uaid, channel: ChannelId) -> rusqlite::Result<Self> {
        let count = |row: &Row<'_>, messages, bytes| {
            Ok::<_, rusqlite::Error>(Count {
                messages: unsigned(row.get(messages)?),
                bytes: unsigned(row.get(bytes)?),
            })
        };
        connection
            .prepare_cached(COUNT)?
            .query_row((uaid.as_bytes(), channel.as_bytes()), |row| {
                let first_expiry = row.get::<_, Option<i64>>(2)?;
                Ok(Self {
                    queue: Queue {
                        count: count(row, 0, 1)?,
                        first_expiry: ServiceTime::from_secs(
                            first_expiry.map_or(u64::MAX, unsigned),
                        ),
                    },
                    subscription: count(row, 3, 4)?,
                })
            })
    }

    /// What it would be with `message` in place of `replaced`, which is of the same subscription.
    pub(super) fn with(self, message: &PushMessage, replaced: Option<Kept>) -> Self {
        Self {
            queue: Queue {
                count: self.queue.count.with(message, replaced),
                first_expiry: self.queue.first_expiry.min(message.expires_at()),
            },
            subscription: self.subscription.with(message, replaced),
        }
    }

    /// Which limit is passed. The subscription's own comes first: it is to be blamed.
    pub(super) fn excess(self, quota: Quota) -> Option<EnqueueOutcome> {
        let subscription = self.subscription;
        if !subscription.is_within(
            quota.subscription_messages_max,
            quota.subscription_bytes_max,
        ) {
            Some(EnqueueOutcome::SubscriptionFull)
        } else if !self
            .queue
            .count
            .is_within(quota.messages_max, quota.bytes_max)
        {
            Some(EnqueueOutcome::QueueFull)
        } else {
            None
        }
    }

    /// Whether a message of the user agent may have expired by `now`.
    pub(super) fn may_hold_expired(self, now: ServiceTime) -> bool {
        self.queue.first_expiry <= now
    }
}

impl Count {
    fn with(self, message: &PushMessage, replaced: Option<Kept>) -> Self {
        let (messages, bytes) = replaced.map_or((0, 0), |kept| (1, kept.cost_bytes));
        Self {
            messages: self.messages.saturating_sub(messages).saturating_add(1),
            bytes: self
                .bytes
                .saturating_sub(bytes)
                .saturating_add(cost_bytes(message)),
        }
    }

    fn is_within(self, messages_max: u32, bytes_max: u64) -> bool {
        self.messages <= u64::from(messages_max) && self.bytes <= bytes_max
    }
}

/// The usage of recently used queues, as of the open transaction.
#[derive(Debug, Default)]
pub(super) struct Cache {
    queues: HashMap<Uaid, Queue>,
    /// By user agent, so that all of one are forgotten together.
    subscriptions: BTreeMap<(Uaid, ChannelId), Count>,
}

impl Cache {
    /// What is kept for a user agent and a subscription, counted if either is not known.
    pub(super) fn of(
        &mut self,
        connection: &Connection,
        uaid: Uaid,
        channel: ChannelId,
    ) -> rusqlite::Result<Usage> {
        let queue = self.queues.get(&uaid);
        let subscription = self.subscriptions.get(&(uaid, channel));
        if let (Some(queue), Some(subscription)) = (queue, subscription) {
            return Ok(Usage {
                queue: *queue,
                subscription: *subscription,
            });
        }
        let usage = Usage::count(connection, uaid, channel)?;
        self.set(uaid, channel, usage);
        Ok(usage)
    }

    /// Remembers what is kept for a user agent and a subscription now.
    pub(super) fn set(&mut self, uaid: Uaid, channel: ChannelId, usage: Usage) {
        let Usage {
            queue,
            subscription,
        } = usage;
        if self.queues.len() >= QUEUES_MAX && !self.queues.contains_key(&uaid) {
            self.queues.clear();
        }
        self.queues.insert(uaid, queue);
        let key = (uaid, channel);
        if self.subscriptions.len() >= QUEUES_MAX && !self.subscriptions.contains_key(&key) {
            self.subscriptions.clear();
        }
        self.subscriptions.insert(key, subscription);
    }

    /// Messages of the user agent were dropped.
    pub(super) fn forget(&mut self, uaid: Uaid) {
        self.queues.remove(&uaid);
        let first = ChannelId::from_bytes([0; 16]);
        let last = ChannelId::from_bytes([0xff; 16]);
        let own = self.subscriptions.range((uaid, first)..=(uaid, last));
        for key in own.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.subscriptions.remove(&key);
        }
    }

    /// Anything may have changed.
    pub(super) fn clear(&mut self) {
        self.queues.clear();
        self.subscriptions.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Count = Count {
        messages: 0,
        bytes: 0,
    };
    const USAGE: Usage = Usage {
        queue: Queue {
            count: NOTHING,
            first_expiry: ServiceTime::from_secs(1),
        },
        subscription: NOTHING,
    };

    fn uaid(number: usize) -> Uaid {
        Uaid::from_bytes((number as u128).to_be_bytes())
    }

    fn channel(number: usize) -> ChannelId {
        ChannelId::from_bytes((number as u128).to_be_bytes())
    }

    #[test]
    fn memory_of_usage_is_bounded_by_its_number_of_queues() {
        let mut cache = Cache::default();
        for number in 0..QUEUES_MAX {
            cache.set(uaid(number), channel(0), USAGE);
        }
        cache.set(uaid(0), channel(0), USAGE);
        assert_eq!(cache.queues.len(), QUEUES_MAX);
        cache.set(uaid(QUEUES_MAX), channel(0), USAGE);
        assert_eq!(cache.queues.len(), 1);
    }

    #[test]
    fn memory_of_usage_is_bounded_by_its_number_of_subscriptions() {
        let mut cache = Cache::default();
        for number in 0..QUEUES_MAX {
            cache.set(uaid(0), channel(number), USAGE);
        }
        cache.set(uaid(0), channel(0), USAGE);
        assert_eq!(cache.subscriptions.len(), QUEUES_MAX);
        cache.set(uaid(0), channel(QUEUES_MAX), USAGE);
        assert_eq!(cache.subscriptions.len(), 1);
    }

    #[test]
    fn user_agent_is_forgotten_with_all_its_subscriptions_and_no_others() {
        let mut cache = Cache::default();
        for number in [0, 1, usize::MAX] {
            for owner in 1..=3 {
                cache.set(uaid(owner), channel(number), USAGE);
            }
        }
        cache.set(uaid(2), ChannelId::from_bytes([0xff; 16]), USAGE);
        cache.forget(uaid(2));
        assert_eq!(cache.queues.len(), 2);
        assert_eq!(cache.subscriptions.len(), 6);
        assert!(!cache.subscriptions.keys().any(|key| key.0 == uaid(2)));
    }
}
