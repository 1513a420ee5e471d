//! Whether a push message may be kept, and what it replaces.
//!
//! Everything is decided before its first row is written, so that a refused message leaves nothing
//! behind and no savepoint is needed.

use std::borrow::Cow;

use super::fault;
use super::messages::{self, Kept};
use super::store::Store;
use super::subscriptions::{self, Known, Origin};
use super::upstream;
use super::usage::Usage;
use crate::model::dialect::Dialect;
use crate::model::ids::Uaid;
use crate::model::message::{Payload, PushMessage, Ttl, Urgency};
use crate::model::store::{Deletion, EnqueueOutcome, Quota};
use crate::model::upstream::{Owner, Received};
use crate::model::version::{NewVersion, Version, VersionUpdate};

/// Where a message would go.
struct Place {
    /// The message that it takes the place of: of the same subscription and topic, or the version
    /// update of the same subscription.
    replaced: Option<Kept>,
    /// What its queue and its subscription hold.
    before: Usage,
    /// What they would hold.
    after: Usage,
}

/// What comes with a message, beside itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) lost: Option<Dialect>,
    pub(super) version_clock: Version,
    pub(super) noted_from: Version,
    pub(super) quota: Quota,
    pub(super) received: Option<(Owner, Received)>,
}

impl Store {
    /// Keeps `message` for `uaid`; see `StoreOp::Enqueue`.
    pub(super) fn enqueue(
        &mut self,
        uaid: Uaid,
        message: &PushMessage,
        terms: Terms,
    ) -> rusqlite::Result<EnqueueOutcome> {
        let outcome = self.enqueue_one(uaid, message, terms)?;
        if let Some((owner, received)) = terms.received.filter(|_| outcome.is_kept()) {
            upstream::receive(&self.connection, owner, received)?;
        }
        Ok(outcome)
    }

    fn enqueue_one(
        &mut self,
        uaid: Uaid,
        message: &PushMessage,
        terms: Terms,
    ) -> rusqlite::Result<EnqueueOutcome> {
        let known = subscriptions::known(&self.connection, uaid, message.channel)?;
        let Some(dialect) = known.map(|known| known.dialect).or(terms.lost) else {
            return Ok(EnqueueOutcome::NoSubscription);
        };
        if known.is_none() && !subscriptions::may_return(&self.connection, uaid, message.channel)? {
            return Ok(EnqueueOutcome::NoSubscription);
        }
        let kept = self.in_its_place(uaid, message, dialect)?;
        let message = as_kept(message, dialect, known, kept, terms.version_clock);
        let quota = terms.quota;
        let mut place = self.place(uaid, &message, kept)?;
        if let Some(kept) = place.replaced.filter(|kept| comes_late(&message, *kept)) {
            // What replaces it is there already. Or it is that very message.
            if message.payload.update().is_some() && kept.expires_at < message.expires_at() {
                // It answers for this one as well, so it must not go sooner.
                messages::keep_as_long_as(&self.connection, kept.id, &message)?;
            }
            return Ok(EnqueueOutcome::Kept);
        }
        if place.after.excess(quota).is_some() && place.before.may_hold_expired(message.received_at)
        {
            // What is expired counts until it is swept, but it must not keep a message out.
            messages::expire_of(&self.connection, uaid, message.received_at)?;
            self.usage.forget(uaid);
            let left = place.replaced;
            let left = left.filter(|kept| kept.expires_at > message.received_at);
            place = self.place(uaid, &message, left)?;
        }
        if let Some(refusal) = place.after.excess(quota) {
            return Ok(refusal);
        }
        let used_bytes = self.used_bytes()?;
        if used_bytes.saturating_add(messages::cost_bytes(&message)) > quota.total_bytes_max {
            return Ok(EnqueueOutcome::StoreFull);
        }
        self.put(uaid, &message, &place)?;
        let outcome = self.note_origin(uaid, &message, known, terms.lost)?;
        self.note_version(uaid, &message, terms.noted_from)?;
        Ok(outcome)
    }

    /// The message of which only one can be kept, and that is there: of the same topic, or the update
    /// of the same subscription.
    fn in_its_place(
        &self,
        uaid: Uaid,
        message: &PushMessage,
        dialect: Dialect,
    ) -> rusqlite::Result<Option<Kept>> {
        let channel = message.channel;
        if dialect == Dialect::SimplePush || message.payload.update().is_some() {
            return messages::update_of(&self.connection, uaid, channel);
        }
        match &message.topic {
            Some(topic) => messages::with_topic(&self.connection, uaid, channel, topic),
            None => Ok(None),
        }
    }

    fn place(
        &mut self,
        uaid: Uaid,
        message: &PushMessage,
        replaced: Option<Kept>,
    ) -> rusqlite::Result<Place> {
        let before = self.usage.of(&self.connection, uaid, message.channel)?;
        Ok(Place {
            replaced,
            before,
            after: before.with(message, replaced),
        })
    }

    fn put(&mut self, uaid: Uaid, message: &PushMessage, place: &Place) -> rusqlite::Result<()> {
        if let Some(kept) = place.replaced {
            let deletion = Deletion::Message {
                id: kept.id,
                owner: Some(uaid),
            };
            messages::delete(&self.connection, deletion)?;
        }
        match messages::insert(&self.connection, uaid, message) {
            Ok(()) => self.usage.set(uaid, message.channel, place.after),
            // Asked for twice: kept once.
            Err(error)
                if fault::is_taken_key(&error)
                    && messages::is_kept(&self.connection, uaid, message)? =>
            {
                self.usage.forget(uaid);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Remembers that an endpoint of a lost database names the subscription.
    fn note_origin(
        &self,
        uaid: Uaid,
        message: &PushMessage,
        known: Option<Known>,
        lost: Option<Dialect>,
    ) -> rusqlite::Result<EnqueueOutcome> {
        let Some(dialect) = lost else {
            return Ok(EnqueueOutcome::Kept);
        };
        let (outcome, origin) = match known.map(|known| known.origin) {
            None => (EnqueueOutcome::KeptAndRestored, Origin::Restored),
            Some(Origin::Registered) => (EnqueueOutcome::Kept, Origin::Both),
            Some(Origin::Restored | Origin::Both) => return Ok(EnqueueOutcome::Kept),
        };
        subscriptions::set_origin(&self.connection, uaid, message.channel, origin, dialect)?;
        Ok(outcome)
    }

    /// Remembers a version that nothing else leads beyond: when the update is acked its row is gone,
    /// and the next one that nobody names must be higher all the same.
    fn note_version(
        &self,
        uaid: Uaid,
        message: &PushMessage,
        noted_from: Version,
    ) -> rusqlite::Result<()> {
        match message
            .payload
            .update()
            .map(|update| update.version.version())
        {
            Some(version) if version >= noted_from => {
                subscriptions::set_last_version(&self.connection, uaid, message.channel, version)
            }
            Some(_) | None => Ok(()),
        }
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

/// The message as it is written: an update gets its number, and for a SimplePush subscription anything
/// else becomes an update. `kept`: what it would take the place of.
fn as_kept(
    message: &PushMessage,
    dialect: Dialect,
    known: Option<Known>,
    kept: Option<Kept>,
    version_clock: Version,
) -> Cow<'_, PushMessage> {
    let (asked, data) = match (&message.payload, dialect) {
        (Payload::Update(update), _) => (update.version, update.data.clone()),
        (Payload::Empty | Payload::Encrypted(_) | Payload::Raw(_), Dialect::WebPush) => {
            return Cow::Borrowed(message);
        }
        (Payload::Empty | Payload::Encrypted(_) | Payload::Raw(_), Dialect::SimplePush) => {
            (NewVersion::AtLeast(version_clock), None)
        }
    };
    let kept = kept.filter(|kept| kept.expires_at > message.received_at);
    let version = match asked {
        NewVersion::Exact(version) => version,
        // Given twice, it is the one that is there.
        NewVersion::AtLeast(_) if kept.is_some_and(|kept| kept.id == message.id) => {
            kept.and_then(|kept| kept.version).unwrap_or(version_clock)
        }
        NewVersion::AtLeast(least) => {
            let written = known.and_then(|known| known.last_version);
            let last = written.max(kept.and_then(|kept| kept.version));
            last.map_or(least, |last| least.max(last.next()))
        }
    };
    let remaining = kept.map_or(Ttl::from_secs_lowered(0), |kept| {
        kept.expires_at.remaining_from(message.received_at)
    });
    Cow::Owned(PushMessage {
        // Whoever waits for the older one must not wait in vain.
        ttl: message.ttl.max(remaining),
        topic: None,
        // As every update has, whatever it is made of.
        urgency: Urgency::default(),
        payload: Payload::Update(VersionUpdate {
            version: NewVersion::Exact(version),
            data,
        }),
        ..message.clone()
    })
}

/// Whether `kept` is there in place of `message` already.
fn comes_late(message: &PushMessage, kept: Kept) -> bool {
    match (message.payload.update(), kept.version) {
        (Some(update), Some(kept_version)) => {
            let is_higher = kept_version > update.version.version();
            kept.id == message.id || (is_higher && kept.expires_at > message.received_at)
        }
        _ => kept.id >= message.id,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::ids::MessageId;
    use crate::model::message::Ttl;
    use crate::model::store::{StoreOp, StoreReply};
    use crate::storage::testing::{
        self, Folder, NO_QUOTA, at, delete, enqueue, enqueue_lost, enqueue_within, find, ids,
        message, one, subscribe, unsubscribe, update, version, with_topic,
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
    fn noisy_subscription_reaches_its_own_limit_and_leaves_room_for_the_others() {
        let folder = Folder::new();
        let mut store = subscribed(&folder);
        let quota = Quota {
            subscription_messages_max: 2,
            messages_max: 3,
            ..NO_QUOTA
        };
        let fill = |id, channel| enqueue_within(1, message(id, channel), quota);
        let replies = store.apply(vec![
            fill(10, 1),
            fill(11, 1),
            fill(12, 1),
            fill(13, 2),
            fill(14, 2),
        ]);
        assert_eq!(
            replies,
            [
                EnqueueOutcome::Kept,
                EnqueueOutcome::Kept,
                EnqueueOutcome::SubscriptionFull,
                EnqueueOutcome::Kept,
                EnqueueOutcome::QueueFull,
            ]
            .map(StoreReply::Enqueued)
        );
        assert_eq!(ids(&mut store, 1), [10, 11, 13]);
        // What is acked makes room where it was.
        store.apply(vec![delete(13, Some(1))]);
        let replies = store.apply(vec![fill(15, 1), fill(16, 2)]);
        assert_eq!(
            replies,
            [EnqueueOutcome::SubscriptionFull, EnqueueOutcome::Kept].map(StoreReply::Enqueued)
        );
    }

    #[test]
    fn subscription_takes_its_quota_of_bytes_and_not_one_more() {
        let folder = Folder::new();
        let mut store = subscribed(&folder);
        let cost = messages::cost_bytes(&message(10, 1));
        let within = |id, channel, subscription_bytes_max| {
            let quota = Quota {
                subscription_bytes_max,
                ..NO_QUOTA
            };
            enqueue_within(1, message(id, channel), quota)
        };
        let replies = store.apply(vec![
            within(10, 1, 2 * cost),
            within(11, 1, 2 * cost - 1),
            within(12, 1, 2 * cost),
            within(13, 2, cost),
        ]);
        assert_eq!(
            replies,
            [
                EnqueueOutcome::Kept,
                EnqueueOutcome::SubscriptionFull,
                EnqueueOutcome::Kept,
                EnqueueOutcome::Kept,
            ]
            .map(StoreReply::Enqueued)
        );
    }

    #[test]
    fn replaced_message_does_not_count_against_the_quota() {
        let folder = Folder::new();
        let mut store = subscribed(&folder);
        let quota = Quota {
            subscription_messages_max: 1,
            ..messages_max(1)
        };
        let topical = |id| enqueue_within(1, with_topic(message(id, 1), "a"), quota);
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
            lost: Some(Dialect::WebPush),
            version_clock: testing::VERSION_CLOCK,
            noted_from: testing::VERSION_CLOCK,
            quota,
            received: None,
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

    /// What is kept for user agent 1: version and data of its updates, `None` for other messages.
    fn kept(store: &mut Store) -> Vec<Option<(u64, Option<String>)>> {
        let StoreReply::Page { messages, .. } = one(store, testing::fetch(1)) else {
            panic!("not a page");
        };
        let update = |message: &PushMessage| {
            let update = message.payload.update()?;
            let data = update.data.as_deref().map(str::to_owned);
            Some((update.version.version().as_u64(), data))
        };
        messages.iter().map(update).collect()
    }

    fn exact(number: u64) -> NewVersion {
        NewVersion::Exact(version(number))
    }

    const NEXT: NewVersion = NewVersion::AtLeast(testing::VERSION_CLOCK);

    #[test]
    fn of_a_channel_only_the_highest_version_is_kept_with_what_came_with_it() {
        let folder = Folder::new();
        let mut store = subscribed(&folder);
        let with_data = |id, number, data: &str| {
            let mut message = update(id, 1, exact(number));
            message.payload = Payload::Update(VersionUpdate {
                version: exact(number),
                data: Some(data.into()),
            });
            enqueue(1, message)
        };
        store.apply(vec![
            with_data(10, 5, "five"),
            with_data(11, 3, "three"),
            enqueue(1, update(12, 2, exact(1))),
            enqueue(2, update(13, 1, exact(9))),
        ]);
        let five = Some((5, Some("five".to_owned())));
        assert_eq!(kept(&mut store), [five, Some((1, None))]);
        store.apply(vec![with_data(14, 5, "again"), with_data(15, 7, "seven")]);
        let seven = Some((7, Some("seven".to_owned())));
        assert_eq!(kept(&mut store), [Some((1, None)), seven]);
        assert_eq!(ids(&mut store, 1), [12, 15]);
    }

    #[test]
    fn storage_grows_with_channels_and_not_with_updates() {
        let folder = Folder::new();
        let mut store = subscribed(&folder);
        let fill = |id: i64| {
            let version = exact(id.cast_unsigned());
            enqueue_within(1, update(id, 1, version), messages_max(1))
        };
        let replies = store.apply((10..200).map(fill).collect());
        assert_eq!(
            replies,
            vec![StoreReply::Enqueued(EnqueueOutcome::Kept); 190]
        );
        assert_eq!(kept(&mut store), [Some((199, None))]);
    }

    #[test]
    fn version_that_nobody_names_is_above_all_that_the_channel_has_had() {
        let folder = Folder::new();
        let mut store = subscribed(&folder);
        let next = |id| enqueue(1, update(id, 1, NEXT));
        store.apply(vec![next(10)]);
        assert_eq!(kept(&mut store), [Some((1000, None))]);
        store.apply(vec![next(11), next(11)]);
        assert_eq!(kept(&mut store), [Some((1001, None))]);
        // Acked in the same second: its row is gone, its number is not.
        store.apply(vec![delete(11, Some(1)), next(12)]);
        assert_eq!(kept(&mut store), [Some((1002, None))]);
        let explicit = enqueue(1, update(13, 1, exact(5000)));
        store.apply(vec![explicit, delete(13, Some(1)), next(14)]);
        assert_eq!(kept(&mut store), [Some((5001, None))]);
        // What the clock has passed needs no memory.
        let low = enqueue(1, update(15, 2, exact(7)));
        store.apply(vec![
            low,
            delete(15, Some(1)),
            enqueue(1, update(16, 2, NEXT)),
        ]);
        assert_eq!(kept(&mut store), [Some((5001, None)), Some((1000, None))]);
    }

    #[test]
    fn message_to_a_simplepush_subscription_is_kept_as_an_update() {
        let folder = Folder::new();
        let (mut store, _) = folder.open();
        store.apply(vec![
            testing::subscribe_as(1, 1, Dialect::SimplePush),
            enqueue(1, with_topic(message(10, 1), "a")),
            enqueue(1, with_topic(message(11, 1), "b")),
        ]);
        assert_eq!(kept(&mut store), [Some((1001, None))]);
        // A user agent that speaks WebPush by now gets the message itself.
        store.apply(vec![
            testing::subscribe_as(1, 1, Dialect::WebPush),
            enqueue(1, message(12, 1)),
        ]);
        assert_eq!(kept(&mut store), [Some((1001, None)), None]);
    }

    #[test]
    fn lost_subscription_is_taken_back_in_with_its_dialect() {
        let folder = Folder::new();
        let (mut store, _) = folder.open();
        let lost = |id| StoreOp::Enqueue {
            uaid: testing::uaid(1),
            message: Arc::new(message(id, 1)),
            lost: Some(Dialect::SimplePush),
            version_clock: testing::VERSION_CLOCK,
            noted_from: testing::VERSION_CLOCK,
            quota: NO_QUOTA,
            received: None,
        };
        assert_eq!(
            outcome(&mut store, lost(10)),
            EnqueueOutcome::KeptAndRestored
        );
        assert_eq!(
            outcome(&mut store, enqueue(1, message(11, 1))),
            EnqueueOutcome::Kept
        );
        assert_eq!(kept(&mut store), [Some((1001, None))]);
    }

    #[test]
    fn update_that_is_kept_for_ever_is_not_shortened_by_one_that_is_not() {
        let folder = Folder::new();
        let (mut store, _) = folder.open();
        let short = |id, received_at| {
            let message = PushMessage {
                received_at: at(received_at),
                ttl: Ttl::from_secs_lowered(1),
                ..message(id, 1)
            };
            enqueue(1, message)
        };
        store.apply(vec![
            testing::subscribe_as(1, 1, Dialect::SimplePush),
            enqueue(1, update(10, 1, exact(5))),
            short(11, 500),
        ]);
        let sweep = StoreOp::Expire {
            now: at(1 << 30),
            messages_max: 10,
        };
        assert_eq!(one(&mut store, sweep), StoreReply::Expired(0));
        // One that has expired does not stand in the way of a lower one.
        let (mut store, _) = Folder::new().open();
        store.apply(vec![
            testing::subscribe_as(1, 1, Dialect::SimplePush),
            short(10, 0),
            enqueue(1, update(11, 1, exact(5))),
        ]);
        assert_eq!(kept(&mut store), [Some((5, None))]);
    }

    #[test]
    fn higher_update_that_a_lower_one_comes_behind_is_kept_as_long_as_that_one() {
        let folder = Folder::new();
        let (mut store, _) = folder.open();
        let short = PushMessage {
            ttl: Ttl::from_secs_lowered(1),
            ..update(10, 1, exact(7))
        };
        let replies = store.apply(vec![
            subscribe(1, 1),
            enqueue(1, short),
            enqueue(1, update(11, 1, exact(5))),
            StoreOp::Expire {
                now: at(1 << 30),
                messages_max: 10,
            },
        ]);
        assert_eq!(replies[3], StoreReply::Expired(0));
        assert_eq!(kept(&mut store), [Some((7, None))]);
        assert_eq!(ids(&mut store, 1), [10]);
        let StoreReply::Page { messages, .. } = one(&mut store, testing::fetch(1)) else {
            panic!("not a page");
        };
        assert_eq!(messages[0].ttl, update(11, 1, exact(5)).ttl);
    }

    #[test]
    fn ack_drops_the_update_of_its_channel_up_to_its_version() {
        let folder = Folder::new();
        let mut store = subscribed(&folder);
        let ack = |channel, number| {
            StoreOp::Delete(vec![Deletion::Update {
                uaid: testing::uaid(1),
                channel: testing::channel(channel),
                version: version(number),
                until: MessageId::from_i64(12),
            }])
        };
        store.apply(vec![
            enqueue(1, update(10, 1, exact(5))),
            enqueue(1, update(11, 2, exact(5))),
            enqueue(1, message(12, 1)),
            ack(1, 4),
        ]);
        assert_eq!(ids(&mut store, 1), [10, 11, 12]);
        store.apply(vec![ack(1, 5)]);
        assert_eq!(ids(&mut store, 1), [11, 12]);
        // Put after the ack, whose deletion comes late.
        store.apply(vec![enqueue(1, update(13, 1, exact(3))), ack(1, 5)]);
        assert_eq!(ids(&mut store, 1), [11, 12, 13]);
    }

    #[test]
    fn message_that_became_an_update_stays_for_those_that_it_stands_for() {
        let folder = Folder::new();
        let (mut store, _) = folder.open();
        store.apply(vec![
            testing::subscribe_as(1, 1, Dialect::SimplePush),
            enqueue(1, update(10, 1, exact(5))),
            enqueue(1, message(11, 1)),
            delete(11, None),
        ]);
        assert_eq!(ids(&mut store, 1), [11]);
        store.apply(vec![delete(11, Some(1))]);
        assert!(ids(&mut store, 1).is_empty());
    }

    #[test]
    fn version_is_noted_from_where_nothing_else_leads_beyond_it() {
        let folder = Folder::new();
        let mut store = subscribed(&folder);
        let noted_after = |store: &mut Store, id, number, noted_from| {
            let StoreOp::Enqueue { uaid, message, .. } = enqueue(1, update(id, 1, exact(number)))
            else {
                unreachable!("`enqueue` makes nothing else");
            };
            let op = StoreOp::Enqueue {
                uaid,
                message,
                lost: None,
                version_clock: testing::VERSION_CLOCK,
                noted_from: version(noted_from),
                quota: NO_QUOTA,
                received: None,
            };
            assert_eq!(outcome(store, op), EnqueueOutcome::Kept);
            let known = subscriptions::known(&store.connection, uaid, testing::channel(1));
            known.unwrap().unwrap().last_version
        };
        assert_eq!(noted_after(&mut store, 10, 500, 501), None);
        let noted = noted_after(&mut store, 11, 500, 500);
        assert_eq!(noted, Some(version(500)), "far below the clock");
    }
}
