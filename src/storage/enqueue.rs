//! Whether a push message may be kept, and what it replaces.
//!
//! Everything is decided before its first row is written, so that a refused message leaves nothing
//! behind and no savepoint is needed.

use super::fault;
use super::messages::{self, Kept};
use super::store::Store;
use super::subscriptions::{self, Origin};
use super::usage::Usage;
use crate::model::ids::Uaid;
use crate::model::message::PushMessage;
use crate::model::store::{Deletion, EnqueueOutcome, Quota};

/// Where a message would go.
struct Place {
    /// The message of the same subscription and topic, which it takes the place of.
    replaced: Option<Kept>,
    /// What its queue holds.
    before: Usage,
    /// What its queue would hold.
    after: Usage,
}

impl Store {
    /// Keeps `message` for `uaid`; see `StoreOp::Enqueue`.
    pub(super) fn enqueue(
        &mut self,
        uaid: Uaid,
        message: &PushMessage,
        lost: bool,
        quota: Quota,
    ) -> rusqlite::Result<EnqueueOutcome> {
        let origin = subscriptions::origin(&self.connection, uaid, message.channel)?;
        if origin.is_none()
            && !(lost && subscriptions::may_return(&self.connection, uaid, message.channel)?)
        {
            return Ok(EnqueueOutcome::NoSubscription);
        }
        let mut place = self.place(uaid, message)?;
        if place.replaced.is_some_and(|kept| kept.id >= message.id) {
            // It comes late, and what replaces it is there already. Or it is that very message.
            return Ok(EnqueueOutcome::Kept);
        }
        if !place.after.is_within(quota) && place.before.may_hold_expired(message.received_at) {
            // What is expired counts until it is swept, but it must not keep a message out.
            messages::expire_of(&self.connection, uaid, message.received_at)?;
            self.usage.forget(uaid);
            place = self.place(uaid, message)?;
        }
        if !place.after.is_within(quota) {
            return Ok(EnqueueOutcome::QueueFull);
        }
        let used_bytes = self.used_bytes()?;
        if used_bytes.saturating_add(messages::cost_bytes(message)) > quota.total_bytes_max {
            return Ok(EnqueueOutcome::StoreFull);
        }
        self.put(uaid, message, &place)?;
        self.note_origin(uaid, message, origin, lost)
    }

    fn place(&mut self, uaid: Uaid, message: &PushMessage) -> rusqlite::Result<Place> {
        let replaced = match &message.topic {
            Some(topic) => messages::with_topic(&self.connection, uaid, message.channel, topic)?,
            None => None,
        };
        let before = self.usage.of(&self.connection, uaid)?;
        Ok(Place {
            replaced,
            before,
            after: before.with(message, replaced),
        })
    }

    fn put(&mut self, uaid: Uaid, message: &PushMessage, place: &Place) -> rusqlite::Result<()> {
        if let Some(kept) = place.replaced {
            let deletion = Deletion {
                id: kept.id,
                owner: Some(uaid),
            };
            messages::delete(&self.connection, deletion)?;
        }
        match messages::insert(&self.connection, uaid, message) {
            Ok(()) => self.usage.set(uaid, place.after),
            // Asked for twice: kept once.
            Err(error)
                if fault::is_taken_key(&error)
                    && messages::is_kept(&self.connection, uaid, message)? => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Remembers that an endpoint of a lost database names the subscription.
    fn note_origin(
        &self,
        uaid: Uaid,
        message: &PushMessage,
        origin: Option<Origin>,
        lost: bool,
    ) -> rusqlite::Result<EnqueueOutcome> {
        let (outcome, origin) = match origin {
            None => (EnqueueOutcome::KeptAndRestored, Origin::Restored),
            Some(Origin::Registered) if lost => (EnqueueOutcome::Kept, Origin::Both),
            Some(Origin::Registered | Origin::Restored | Origin::Both) => {
                return Ok(EnqueueOutcome::Kept);
            }
        };
        subscriptions::set_origin(&self.connection, uaid, message.channel, origin)?;
        Ok(outcome)
    }

    /// Bytes of the database that hold something. Both pragmas are read from the first page.
    fn used_bytes(&self) -> rusqlite::Result<u64> {
        let pages = |sql| {
            self.connection
                .prepare_cached(sql)?
                .query_row((), |row| row.get(0))
                .map(messages::unsigned)
        };
        let used = pages("PRAGMA page_count")?.saturating_sub(pages("PRAGMA freelist_count")?);
        Ok(used.saturating_mul(self.page_bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::message::Ttl;
    use crate::model::store::{StoreOp, StoreReply};
    use crate::storage::testing::{
        self, Folder, NO_QUOTA, at, delete, enqueue, enqueue_lost, enqueue_within, find, ids,
        message, one, subscribe, unsubscribe, with_topic,
    };

    fn outcome(store: &mut Store, op: StoreOp) -> EnqueueOutcome {
        let StoreReply::Enqueued(outcome) = one(store, op) else {
            panic!("not an outcome");
        };
        outcome
    }

    fn messages_max(messages_max: u32) -> Quota {
        Quota {
            messages_max,
            ..NO_QUOTA
        }
    }

    fn subscribed(folder: &Folder) -> Store {
        let (mut store, _) = folder.open();
        store.apply(vec![subscribe(1, 1), subscribe(1, 2), subscribe(2, 1)]);
        store
    }

    #[test]
    fn message_to_an_unknown_subscription_is_not_kept() {
        let folder = Folder::new();
        let (mut store, _) = folder.open();
        assert_eq!(
            outcome(&mut store, enqueue(1, message(10, 1))),
            EnqueueOutcome::NoSubscription
        );
        assert!(ids(&mut store, 1).is_empty());
    }

    #[test]
    fn message_to_a_lost_subscription_takes_it_back_in_once() {
        let folder = Folder::new();
        let (mut store, _) = folder.open();
        let replies = store.apply(vec![
            enqueue_lost(1, message(10, 1)),
            enqueue_lost(1, message(11, 1)),
            find(1, 1, false),
        ]);
        assert_eq!(
            replies,
            [
                StoreReply::Enqueued(EnqueueOutcome::KeptAndRestored),
                StoreReply::Enqueued(EnqueueOutcome::Kept),
                StoreReply::Subscription(true),
            ]
        );
        assert_eq!(ids(&mut store, 1), [10, 11]);
    }

    #[test]
    fn topic_replaces_only_within_its_subscription() {
        let folder = Folder::new();
        let mut store = subscribed(&folder);
        store.apply(vec![
            enqueue(1, with_topic(message(10, 1), "a")),
            enqueue(1, with_topic(message(11, 1), "b")),
            enqueue(1, with_topic(message(12, 2), "a")),
            enqueue(2, with_topic(message(13, 1), "a")),
            enqueue(1, message(14, 1)),
            enqueue(1, with_topic(message(15, 1), "a")),
        ]);
        assert_eq!(ids(&mut store, 1), [11, 12, 14, 15]);
        assert_eq!(ids(&mut store, 2), [13]);
    }

    #[test]
    fn late_message_does_not_replace_a_newer_one_of_its_topic() {
        let folder = Folder::new();
        let mut store = subscribed(&folder);
        store.apply(vec![enqueue(1, with_topic(message(11, 1), "a"))]);
        assert_eq!(
            outcome(&mut store, enqueue(1, with_topic(message(10, 1), "a"))),
            EnqueueOutcome::Kept
        );
        assert_eq!(ids(&mut store, 1), [11]);
    }

    #[test]
    fn message_given_twice_is_kept_once() {
        let folder = Folder::new();
        let mut store = subscribed(&folder);
        let topical = || enqueue(1, with_topic(message(11, 1), "a"));
        let plain = || enqueue_within(1, message(10, 1), messages_max(3));
        let replies = store.apply(vec![plain(), plain(), topical(), topical(), plain()]);
        assert_eq!(replies, vec![StoreReply::Enqueued(EnqueueOutcome::Kept); 5]);
        assert_eq!(ids(&mut store, 1), [10, 11]);
    }

    #[test]
    fn queue_takes_its_quota_of_messages_and_not_one_more() {
        let folder = Folder::new();
        let mut store = subscribed(&folder);
        let fill = |id| enqueue_within(1, message(id, 1), messages_max(2));
        assert_eq!(
            store.apply(vec![fill(10), fill(11), fill(12)]),
            [
                EnqueueOutcome::Kept,
                EnqueueOutcome::Kept,
                EnqueueOutcome::QueueFull
            ]
            .map(StoreReply::Enqueued)
        );
        assert_eq!(ids(&mut store, 1), [10, 11]);
        // Another user agent's queue has its own room.
        let other = enqueue_within(2, message(13, 1), messages_max(2));
        assert_eq!(outcome(&mut store, other), EnqueueOutcome::Kept);
    }

    #[test]
    fn queue_takes_its_quota_of_bytes_and_not_one_more() {
        let folder = Folder::new();
        let mut store = subscribed(&folder);
        let cost = messages::cost_bytes(&message(10, 1));
        let within = |id, bytes_max| {
            let quota = Quota {
                bytes_max,
                ..NO_QUOTA
            };
            enqueue_within(1, message(id, 1), quota)
        };
        assert_eq!(
            store.apply(vec![
                within(10, 2 * cost),
                within(11, 2 * cost - 1),
                within(12, 2 * cost)
            ]),
            [
                EnqueueOutcome::Kept,
                EnqueueOutcome::QueueFull,
                EnqueueOutcome::Kept
            ]
            .map(StoreReply::Enqueued)
        );
    }

    #[test]
    fn replaced_message_does_not_count_against_the_quota() {
        let folder = Folder::new();
        let mut store = subscribed(&folder);
        let topical = |id| enqueue_within(1, with_topic(message(id, 1), "a"), messages_max(1));
        store.apply(vec![topical(10)]);
        assert_eq!(outcome(&mut store, topical(11)), EnqueueOutcome::Kept);
        assert_eq!(ids(&mut store, 1), [11]);
    }

    #[test]
    fn full_store_refuses_and_says_so() {
        let folder = Folder::new();
        let mut store = subscribed(&folder);
        let needed = store.used_bytes().unwrap() + messages::cost_bytes(&message(10, 1));
        let within = |total_bytes_max| {
            let quota = Quota {
                total_bytes_max,
                ..NO_QUOTA
            };
            enqueue_within(1, message(10, 1), quota)
        };
        assert_eq!(
            outcome(&mut store, within(needed - 1)),
            EnqueueOutcome::StoreFull
        );
        assert_eq!(outcome(&mut store, within(needed)), EnqueueOutcome::Kept);
    }

    #[test]
    fn used_bytes_go_down_when_messages_are_dropped() {
        let folder = Folder::new();
        let mut store = subscribed(&folder);
        let empty = store.used_bytes().unwrap();
        store.apply((1..200).map(|id| enqueue(1, message(id, 1))).collect());
        assert!(store.used_bytes().unwrap() > empty);
        store.apply(vec![unsubscribe(1, 1)]);
        assert_eq!(store.used_bytes().unwrap(), empty);
    }

    #[test]
    fn refused_message_leaves_nothing_behind() {
        let folder = Folder::new();
        let mut store = subscribed(&folder);
        store.apply(vec![
            enqueue(1, with_topic(message(10, 1), "a")),
            enqueue(1, message(11, 1)),
        ]);
        let lost = |quota| StoreOp::Enqueue {
            uaid: testing::uaid(1),
            message: Arc::new(message(12, 3)),
            lost: true,
            quota,
        };
        let no_bytes = Quota {
            total_bytes_max: 0,
            ..NO_QUOTA
        };
        let topical = enqueue_within(1, with_topic(message(13, 1), "a"), no_bytes);
        assert_eq!(
            store.apply(vec![
                lost(messages_max(2)),
                lost(no_bytes),
                topical,
                find(1, 3, false)
            ]),
            [
                StoreReply::Enqueued(EnqueueOutcome::QueueFull),
                StoreReply::Enqueued(EnqueueOutcome::StoreFull),
                StoreReply::Enqueued(EnqueueOutcome::StoreFull),
                StoreReply::Subscription(false),
            ]
        );
        assert_eq!(ids(&mut store, 1), [10, 11]);
    }

    #[test]
    fn expired_messages_do_not_keep_a_queue_full() {
        let folder = Folder::new();
        let mut store = subscribed(&folder);
        let lasting = |id, secs| PushMessage {
            ttl: Ttl::from_secs_lowered(secs),
            ..message(id, 1)
        };
        let late = |id, received_at| {
            let message = PushMessage {
                received_at: at(received_at),
                ..message(id, 1)
            };
            enqueue_within(1, message, messages_max(2))
        };
        store.apply(vec![
            enqueue(1, with_topic(lasting(10, 50), "a")),
            enqueue(1, lasting(11, 1000)),
        ]);
        assert_eq!(
            outcome(&mut store, late(12, 150)),
            EnqueueOutcome::QueueFull
        );
        assert_eq!(outcome(&mut store, late(13, 151)), EnqueueOutcome::Kept);
        assert_eq!(
            outcome(&mut store, late(14, 151)),
            EnqueueOutcome::QueueFull
        );
        assert_eq!(ids(&mut store, 1), [11, 13]);
    }

    #[test]
    fn expired_message_of_the_same_topic_makes_room_once() {
        let folder = Folder::new();
        let mut store = subscribed(&folder);
        let short = PushMessage {
            ttl: Ttl::from_secs_lowered(1),
            ..with_topic(message(10, 1), "a")
        };
        let next = PushMessage {
            received_at: at(200),
            ..with_topic(message(13, 1), "a")
        };
        store.apply(vec![
            enqueue(1, short),
            enqueue(1, message(11, 1)),
            enqueue(1, message(12, 1)),
        ]);
        assert_eq!(
            outcome(&mut store, enqueue_within(1, next, messages_max(2))),
            EnqueueOutcome::QueueFull
        );
        assert_eq!(ids(&mut store, 1), [11, 12]);
    }

    #[test]
    fn dropped_messages_make_room() {
        let folder = Folder::new();
        let mut store = subscribed(&folder);
        let fill = |id| enqueue_within(1, message(id, 1), messages_max(1));
        let expire = StoreOp::Expire {
            now: at(3701),
            messages_max: 10,
        };
        let replies = store.apply(vec![
            fill(10),
            fill(11),
            delete(10, None),
            fill(12),
            expire,
            fill(13),
            unsubscribe(1, 1),
            subscribe(1, 1),
            fill(14),
        ]);
        let kept = StoreReply::Enqueued(EnqueueOutcome::Kept);
        let full = StoreReply::Enqueued(EnqueueOutcome::QueueFull);
        assert_eq!(
            [
                &replies[0],
                &replies[1],
                &replies[3],
                &replies[5],
                &replies[8]
            ],
            [&kept, &full, &kept, &kept, &kept]
        );
    }
}
