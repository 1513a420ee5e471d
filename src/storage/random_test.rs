//! Random batches against a plain model of what is promised, with full disks and restarts in between.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::operations::{is_write, takes_room};
use super::testing::{self, Folder, at};
use super::{FreshDatabase, Settings, Store, Synchronous};
use crate::model::dialect::Dialect;
use crate::model::ids::{ChannelId, MessageId, Uaid};
use crate::model::message::{Content, Encoding, Payload, PushMessage, Topic, Ttl, Urgency};
use crate::model::store::{
    self, Cursors, Deletion, EnqueueOutcome, Quota, StoreError, StoreOp, StoreReply,
};
use crate::model::time::ServiceTime;
use crate::model::version::{NewVersion, Version, VersionUpdate};

/// Set to run one seed again.
const SEED_VARIABLE: &str = "EDGEPUSH_TEST_SEED";
const BATCHES: u32 = 1500;
/// Kinds of events that must come up, so that a test of nothing does not pass.
const OUTCOMES: usize = 25;

#[test]
fn every_reply_is_that_of_the_model() {
    if let Ok(seed) = std::env::var(SEED_VARIABLE) {
        run(seed.parse().unwrap());
        return;
    }
    let mut seen = BTreeSet::new();
    for seed in [1, 2, random_seed()] {
        // Shown by the test harness when the test fails.
        println!("run again with {SEED_VARIABLE}={seed}");
        seen.append(&mut run(seed));
    }
    assert_eq!(seen.len(), OUTCOMES, "only {seen:?}");
}

fn random_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::from(now.subsec_nanos()) + 1
}

fn run(seed: u64) -> BTreeSet<&'static str> {
    let mut random = Random {
        state: seed,
        last_id: 0,
        last_enqueue: None,
    };
    let folder = Folder::new();
    let fresh = FreshDatabase {
        key_is_new: random.one_in(2),
        ..testing::FRESH
    };
    let mut model = Model {
        lost_before: !fresh.key_is_new,
        ..Model::default()
    };
    let settings = Settings {
        synchronous: Synchronous::Normal, // no power is cut here, and the test is twice as fast
        ..Settings::default()
    };
    let open = || Store::open(folder.path(), &settings, fresh).unwrap();
    let (mut store, _) = open();
    let mut runs = 1;
    for batch in 0..BATCHES {
        if random.one_in(50) {
            drop(store);
            let (again, opened) = open();
            store = again;
            runs += 1;
            assert_eq!(opened.run, runs, "batch {batch}");
            assert_eq!(opened.service_time, model.service_time(), "batch {batch}");
        }
        let count = random.below(12) + 1;
        let ops: Vec<StoreOp> = (0..count).map(|_| random.op()).collect();
        let is_full = random.one_in(10);
        set_room(&store, !is_full);
        let mut replies = store.apply(ops.clone());
        replies.iter_mut().for_each(sort);
        let before = model.clone();
        let mut expected: Vec<_> = ops.iter().map(|op| model.apply(op)).collect();
        let disk_full = StoreReply::Failed(StoreError::DiskFull);
        if is_full && replies.contains(&disk_full) {
            model = before;
            model.seen.insert("disk full");
            // All or none of what takes no room, and nothing of what does.
            let takes_none = |op: &StoreOp| is_write(op) && !takes_room(op);
            let mut rest = ops.iter().zip(&replies).filter(|(op, _)| takes_none(op));
            let rest_failed = rest.any(|(_, reply)| *reply == disk_full);
            if !rest_failed {
                model.seen.insert("disk full, and the rest done");
            }
            expected = ops
                .iter()
                .map(|op| {
                    if takes_room(op) || (rest_failed && is_write(op)) {
                        disk_full.clone()
                    } else {
                        model.apply(op)
                    }
                })
                .collect();
        }
        assert_eq!(replies.len(), expected.len());
        for ((op, reply), expected) in ops.iter().zip(&replies).zip(&expected) {
            assert_eq!(reply, expected, "batch {batch}: {op:?} of {ops:?}");
        }
    }
    model.seen
}

/// Without room the file is as small as it can be, and cannot grow.
fn set_room(store: &Store, has_room: bool) {
    let set = if has_room {
        "PRAGMA max_page_count = 1000000"
    } else {
        "VACUUM; PRAGMA max_page_count = 1"
    };
    store.connection.execute_batch(set).unwrap();
}

fn sort(reply: &mut StoreReply) {
    if let StoreReply::Loaded(subscriptions) = reply {
        subscriptions.sort();
    }
}

type Subscription = (Uaid, ChannelId);

#[derive(Clone)]
struct Known {
    is_registered: bool,
    is_lost: bool,
    dialect: Dialect,
    spelling: Option<Box<str>>,
    last_version: Option<Version>,
}

/// What is promised, without SQL, caches or indexes.
#[derive(Clone, Default)]
struct Model {
    lost_before: bool,
    subscriptions: BTreeMap<Subscription, Known>,
    tombstones: BTreeSet<Subscription>,
    messages: BTreeMap<MessageId, (Uaid, Arc<PushMessage>)>,
    saved: ServiceTime,
    version_clock: Option<Version>,
    /// What came up.
    seen: BTreeSet<&'static str>,
}

impl Model {
    fn service_time(&self) -> ServiceTime {
        let newest = self.messages.values().next_back();
        let newest = newest.map_or(at(0), |(_, message)| message.received_at);
        self.saved.max(newest)
    }

    fn apply(&mut self, op: &StoreOp) -> StoreReply {
        match *op {
            StoreOp::Load { uaid } => {
                let own = self.subscriptions.iter().filter(|(key, _)| key.0 == uaid);
                let own = own.map(|(key, known)| store::Subscription {
                    channel: key.1,
                    spelling: known.spelling.clone(),
                    last_version: known.last_version,
                    is_restored: !known.is_registered,
                });
                StoreReply::Loaded(own.collect())
            }
            StoreOp::Subscribe {
                uaid,
                channel,
                ref spelling,
                dialect,
                subscriptions_max,
            } => {
                let key = (uaid, channel);
                let made = self.subscribe(key, dialect, subscriptions_max);
                if made && let Some(known) = self.subscriptions.get_mut(&key) {
                    known.spelling.clone_from(spelling);
                    known.dialect = dialect;
                }
                StoreReply::Subscribed(made)
            }
            StoreOp::Unsubscribe { uaid, channel } => {
                let key = (uaid, channel);
                self.unsubscribe(key);
                StoreReply::Done
            }
            StoreOp::Forget { uaid } => {
                self.seen.insert("forgotten");
                let own = self.subscriptions.keys().filter(|key| key.0 == uaid);
                for key in own.copied().collect::<Vec<_>>() {
                    self.unsubscribe(key);
                }
                StoreReply::Done
            }
            StoreOp::Upstream(_) => unreachable!("has tests of its own"),
            StoreOp::Disown { uaid, channel } => {
                let key = (uaid, channel);
                if self
                    .subscriptions
                    .get(&key)
                    .is_some_and(|o| !o.is_registered)
                {
                    self.seen.insert("disowned");
                    self.end(key, true);
                }
                StoreReply::Done
            }
            StoreOp::Find {
                uaid,
                channel,
                lost,
            } => StoreReply::Subscription(self.find((uaid, channel), lost)),
            StoreOp::Enqueue {
                uaid,
                ref message,
                lost,
                version_clock,
                noted_from,
                quota,
                received: _,
            } => {
                let versions = (version_clock, noted_from);
                StoreReply::Enqueued(self.enqueue(uaid, message, lost, versions, quota))
            }
            StoreOp::Fetch {
                uaid,
                after,
                urgency_min,
                now,
                messages_max,
                bytes_max,
            } => self.fetch(uaid, (after, urgency_min), now, messages_max, bytes_max),
            StoreOp::Delete(ref deletions) => {
                for deletion in deletions {
                    let before = self.messages.len();
                    self.messages
                        .retain(|_, (uaid, message)| !is_meant(*deletion, *uaid, message));
                    if self.messages.len() < before {
                        self.seen.insert(match deletion {
                            Deletion::Message { .. } => "deleted",
                            Deletion::Update { .. } => "update deleted",
                        });
                    }
                }
                StoreReply::Done
            }
            StoreOp::Expire { now, messages_max } => {
                self.seen.insert("expired");
                let mut expired: Vec<_> = self
                    .messages
                    .values()
                    .map(|(_, message)| (message.expires_at(), message.id))
                    .filter(|(expires_at, _)| *expires_at <= now)
                    .collect();
                expired.sort();
                expired.truncate(messages_max as usize);
                for (_, id) in &expired {
                    self.messages.remove(id);
                }
                StoreReply::Expired(expired.len() as u32)
            }
            StoreOp::SaveTime {
                service_time,
                version_clock,
            } => {
                let written = self.version_clock.unwrap_or(Version::from_secs(0));
                if written != version_clock || !self.messages.is_empty() {
                    self.version_clock = Some(version_clock);
                    self.saved = self.saved.max(service_time);
                }
                StoreReply::Done
            }
            StoreOp::SaveVersions { uaid, ref versions } => {
                for (channel, version) in versions {
                    self.note_version((uaid, *channel), *version);
                }
                StoreReply::Done
            }
            StoreOp::Sleep { .. } | StoreOp::Woken { .. } => StoreReply::Done,
            StoreOp::Sleepers => StoreReply::Sleepers(vec![]),
        }
    }

    fn note_version(&mut self, key: Subscription, version: Version) {
        if let Some(known) = self.subscriptions.get_mut(&key) {
            known.last_version = known.last_version.max(Some(version));
        }
    }

    fn unsubscribe(&mut self, key: Subscription) {
        let known = self.subscriptions.get(&key);
        let bury = self.lost_before || known.is_some_and(|known| known.is_lost);
        self.end(key, bury);
    }

    fn subscribe(&mut self, key: Subscription, dialect: Dialect, subscriptions_max: u32) -> bool {
        if let Some(known) = self.subscriptions.get_mut(&key) {
            known.is_registered = true;
            return true;
        }
        let own = self.subscriptions.keys().filter(|other| other.0 == key.0);
        if own.count() >= subscriptions_max as usize {
            self.seen.insert("too many subscriptions");
            return false;
        }
        let known = Known {
            is_registered: true,
            is_lost: self.tombstones.remove(&key),
            dialect,
            spelling: None,
            last_version: None,
        };
        self.subscriptions.insert(key, known);
        true
    }

    fn end(&mut self, key: Subscription, bury: bool) {
        self.subscriptions.remove(&key);
        self.messages
            .retain(|_, (uaid, message)| (*uaid, message.channel) != key);
        if bury {
            self.tombstones.insert(key);
        }
    }

    fn find(&self, key: Subscription, lost: bool) -> bool {
        self.subscriptions.contains_key(&key) || (lost && !self.tombstones.contains(&key))
    }

    fn enqueue(
        &mut self,
        uaid: Uaid,
        message: &Arc<PushMessage>,
        lost: Option<Dialect>,
        (version_clock, noted_from): (Version, Version),
        quota: Quota,
    ) -> EnqueueOutcome {
        let key = (uaid, message.channel);
        if !self.find(key, lost.is_some()) {
            self.seen.insert("no subscription");
            return EnqueueOutcome::NoSubscription;
        }
        let dialect = self.subscriptions.get(&key).map(|known| known.dialect);
        let dialect = dialect.or(lost).unwrap();
        let message = &Arc::new(self.as_kept(uaid, message, dialect, version_clock));
        if self.comes_late(uaid, message) {
            self.seen.insert("late");
            self.keep_as_long_as(uaid, message);
            return EnqueueOutcome::Kept;
        }
        if !self.has_room(uaid, message, quota) {
            self.messages.retain(|_, (owner, kept)| {
                *owner != uaid || kept.expires_at() > message.received_at
            });
            if !self.subscription_has_room(uaid, message, quota) {
                self.seen.insert("subscription full");
                return EnqueueOutcome::SubscriptionFull;
            }
            if !self.has_room(uaid, message, quota) {
                self.seen.insert("queue full");
                return EnqueueOutcome::QueueFull;
            }
            self.seen.insert("room made");
        }
        if quota.total_bytes_max == 0 {
            self.seen.insert("store full");
            return EnqueueOutcome::StoreFull;
        }
        if let Some(id) = self.replaced(uaid, message) {
            let is_update = message.payload.update().is_some();
            self.seen
                .insert(if is_update { "raised" } else { "replaced" });
            self.messages.remove(&id);
        }
        match self.messages.entry(message.id) {
            Entry::Vacant(place) => drop(place.insert((uaid, message.clone()))),
            // Also if its user agent speaks another dialect by now.
            Entry::Occupied(_) => drop(self.seen.insert("given twice")),
        }
        let outcome = match (self.subscriptions.get_mut(&key), lost) {
            (Some(known), lost) => {
                known.is_lost |= lost.is_some();
                EnqueueOutcome::Kept
            }
            (None, dialect) => {
                self.seen.insert("restored");
                let known = Known {
                    is_registered: false,
                    is_lost: true,
                    dialect: dialect.unwrap(),
                    spelling: None,
                    last_version: None,
                };
                self.subscriptions.insert(key, known);
                EnqueueOutcome::KeptAndRestored
            }
        };
        if let Some(update) = message.payload.update()
            && update.version.version() >= noted_from
        {
            self.seen.insert("version noted");
            self.note_version(key, update.version.version());
        }
        outcome
    }

    /// What of a message is written.
    fn as_kept(
        &mut self,
        uaid: Uaid,
        message: &PushMessage,
        dialect: Dialect,
        version_clock: Version,
    ) -> PushMessage {
        let (asked, data) = match &message.payload {
            Payload::Update(update) => (update.version, update.data.clone()),
            Payload::Empty | Payload::Encrypted(_) | Payload::Raw(_)
                if dialect == Dialect::SimplePush =>
            {
                self.seen.insert("translated");
                (NewVersion::AtLeast(version_clock), None)
            }
            Payload::Empty | Payload::Encrypted(_) | Payload::Raw(_) => return message.clone(),
        };
        let there = self
            .update_of(uaid, message.channel)
            .filter(|kept| kept.expires_at() > message.received_at)
            .cloned();
        let highest = there.as_ref().and_then(|kept| number_of(kept));
        let known = self.subscriptions.get(&(uaid, message.channel));
        let last = known.and_then(|known| known.last_version).max(highest);
        let version = match (asked, &there) {
            (NewVersion::AtLeast(_), Some(kept)) if kept.id == message.id => highest.unwrap(),
            (NewVersion::AtLeast(least), _) => {
                last.map_or(least, |last| if least > last { least } else { last.next() })
            }
            (NewVersion::Exact(version), _) => version,
        };
        let mut kept = PushMessage {
            topic: None,
            urgency: Urgency::Normal,
            payload: Payload::Update(VersionUpdate {
                version: NewVersion::Exact(version),
                data,
            }),
            ..message.clone()
        };
        if let Some(there) = there
            && there.expires_at() > kept.expires_at()
        {
            self.seen.insert("lives longer");
            let secs = there.expires_at().as_secs() - kept.received_at.as_secs() - 1;
            kept.ttl = if there.ttl == Ttl::UNBOUNDED {
                Ttl::UNBOUNDED
            } else {
                Ttl::from_secs_lowered(secs)
            };
        }
        kept
    }

    fn update_of(&self, uaid: Uaid, channel: ChannelId) -> Option<&Arc<PushMessage>> {
        let own = |owner: &Uaid, kept: &PushMessage| (*owner, kept.channel) == (uaid, channel);
        let mut all = self.messages.values();
        let found = all.find(|(owner, kept)| own(owner, kept) && kept.payload.update().is_some());
        found.map(|(_, kept)| kept)
    }

    /// What a lower update comes behind answers for it as well.
    fn keep_as_long_as(&mut self, uaid: Uaid, message: &PushMessage) {
        let id = self.replaced(uaid, message).unwrap();
        let (_, kept) = self.messages.get_mut(&id).unwrap();
        if message.payload.update().is_some() && kept.expires_at() < message.expires_at() {
            self.seen.insert("extended");
            let kept = Arc::make_mut(kept);
            (kept.received_at, kept.ttl) = (message.received_at, message.ttl);
        }
    }

    fn comes_late(&self, uaid: Uaid, message: &PushMessage) -> bool {
        let Some(id) = self.replaced(uaid, message) else {
            return false;
        };
        let (_, kept) = &self.messages[&id];
        match (number_of(kept), number_of(message)) {
            (Some(there), Some(new)) => {
                id == message.id || (there > new && kept.expires_at() > message.received_at)
            }
            _ => id >= message.id,
        }
    }

    fn replaced(&self, uaid: Uaid, message: &PushMessage) -> Option<MessageId> {
        if message.payload.update().is_some() {
            return self.update_of(uaid, message.channel).map(|kept| kept.id);
        }
        message.topic.as_ref()?;
        let same =
            |kept: &PushMessage| (kept.channel, &kept.topic) == (message.channel, &message.topic);
        let found = self
            .messages
            .values()
            .find(|(owner, kept)| *owner == uaid && same(kept))?;
        Some(found.1.id)
    }

    fn has_room(&self, uaid: Uaid, message: &PushMessage, quota: Quota) -> bool {
        let costs = self.costs(uaid, message, |_| true);
        self.subscription_has_room(uaid, message, quota)
            && costs.len() <= quota.messages_max as usize
            && costs.iter().sum::<u64>() <= quota.bytes_max
    }

    fn subscription_has_room(&self, uaid: Uaid, message: &PushMessage, quota: Quota) -> bool {
        let costs = self.costs(uaid, message, |kept| kept.channel == message.channel);
        costs.len() <= quota.subscription_messages_max as usize
            && costs.iter().sum::<u64>() <= quota.subscription_bytes_max
    }

    /// Of what is counted with `message`, it included.
    fn costs(
        &self,
        uaid: Uaid,
        message: &PushMessage,
        counts: impl Fn(&PushMessage) -> bool,
    ) -> Vec<u64> {
        let replaced = self.replaced(uaid, message);
        let queue = self.messages.iter();
        queue
            .filter(|(id, (owner, _))| *owner == uaid && Some(**id) != replaced)
            .map(|(_, (_, kept))| kept)
            .filter(|kept| counts(kept))
            .map(|kept| kept.cost_bytes() as u64)
            .chain([message.cost_bytes() as u64])
            .collect()
    }

    fn fetch(
        &mut self,
        uaid: Uaid,
        (after, urgency_min): (Cursors, Urgency),
        now: ServiceTime,
        messages_max: u32,
        bytes_max: usize,
    ) -> StoreReply {
        let unread = |kept: &PushMessage| kept.id > after.of(kept.urgency);
        let unread: Vec<PushMessage> = self
            .messages
            .values()
            .filter(|(owner, kept)| *owner == uaid && unread(kept) && kept.expires_at() > now)
            .map(|(_, message)| PushMessage::clone(message))
            .collect();
        let all = unread.len();
        let mut queue = unread;
        queue.retain(|kept| kept.urgency >= urgency_min);
        if queue.len() < all {
            self.seen.insert("held back");
        }
        let mut bytes = 0;
        let taken = queue
            .iter()
            .take(messages_max as usize)
            .take_while(|message| {
                let has_room = bytes < bytes_max;
                bytes += message.cost_bytes();
                has_room
            })
            .count()
            .max(1);
        let more = queue.len() > taken;
        queue.truncate(taken);
        self.seen
            .insert(if more { "page with more" } else { "last page" });
        StoreReply::Page {
            messages: queue,
            more,
        }
    }
}

fn number_of(message: &PushMessage) -> Option<Version> {
    Some(message.payload.update()?.version.version())
}

fn is_meant(deletion: Deletion, uaid: Uaid, message: &PushMessage) -> bool {
    match deletion {
        Deletion::Message { id, owner } => {
            let may = match owner {
                Some(owner) => owner == uaid,
                None => message.payload.update().is_none(),
            };
            id == message.id && may
        }
        Deletion::Update {
            uaid: owner,
            channel,
            version,
            until,
        } => {
            (owner, channel) == (uaid, message.channel)
                && message.id <= until
                && number_of(message).is_some_and(|number| number <= version)
        }
    }
}

/// Marsaglia's xorshift64: small, and the same on every machine.
struct Random {
    state: u64,
    /// Even; the odd ids below it are for messages that come late.
    last_id: i64,
    last_enqueue: Option<StoreOp>,
}

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        // The upper bits are the better ones.
        (self.state >> 16) % end
    }

    fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }

    fn uaid(&mut self) -> Uaid {
        testing::uaid(self.below(3) as u8)
    }

    fn channel(&mut self) -> ChannelId {
        testing::channel(self.below(4) as u8)
    }

    /// One of the last ids, of which only some are there.
    fn id(&mut self) -> MessageId {
        MessageId::from_i64(self.last_id - self.below(60) as i64)
    }

    fn new_id(&mut self) -> MessageId {
        self.last_id += 2;
        let late = if self.one_in(4) { 5 } else { 0 };
        MessageId::from_i64(self.last_id - late)
    }

    fn urgency(&mut self) -> Urgency {
        Urgency::ALL[self.below(4) as usize]
    }

    fn cursors(&mut self) -> Cursors {
        let mut cursors = Cursors::START;
        for _ in 0..self.below(3) {
            let (urgency_min, id) = (self.urgency(), self.id());
            cursors.advance(urgency_min, id);
        }
        cursors
    }

    fn time(&mut self) -> ServiceTime {
        at(self.below(1000))
    }

    fn op(&mut self) -> StoreOp {
        let (uaid, channel) = (self.uaid(), self.channel());
        match self.below(20) {
            0 => StoreOp::Load { uaid },
            1 | 2 => StoreOp::Subscribe {
                uaid,
                channel,
                spelling: self.one_in(3).then(|| "ABCD".into()),
                dialect: self.dialect(),
                subscriptions_max: self.below(5) as u32,
            },
            3 => StoreOp::Unsubscribe { uaid, channel },
            4 => StoreOp::Disown { uaid, channel },
            5 => StoreOp::Find {
                uaid,
                channel,
                lost: self.one_in(2),
            },
            6 | 7 => StoreOp::Fetch {
                uaid,
                after: self.cursors(),
                urgency_min: self.urgency(),
                now: self.time(),
                messages_max: self.below(6) as u32,
                bytes_max: self.below(10_000) as usize,
            },
            8 => StoreOp::Delete((0..self.below(4)).map(|_| self.deletion()).collect()),
            9 if self.one_in(4) => StoreOp::Expire {
                now: self.time(),
                messages_max: self.below(3) as u32,
            },
            10 => StoreOp::SaveTime {
                service_time: self.time(),
                version_clock: self.version(),
            },
            12 if self.one_in(8) => StoreOp::Forget { uaid },
            13 if self.one_in(4) => StoreOp::SaveVersions {
                uaid,
                versions: vec![(channel, self.version())],
            },
            11 if self.one_in(2) && self.last_enqueue.is_some() => {
                self.last_enqueue.clone().unwrap()
            }
            _ => {
                let op = self.enqueue(uaid, channel);
                self.last_enqueue = Some(op.clone());
                op
            }
        }
    }

    fn deletion(&mut self) -> Deletion {
        if self.one_in(3) {
            return Deletion::Update {
                uaid: self.uaid(),
                channel: self.channel(),
                version: self.version(),
                until: self.id(),
            };
        }
        Deletion::Message {
            id: self.id(),
            owner: self.one_in(2).then(|| self.uaid()),
        }
    }

    fn dialect(&mut self) -> Dialect {
        [Dialect::WebPush, Dialect::SimplePush][self.below(2) as usize]
    }

    /// Around what the version clock shows.
    fn version(&mut self) -> Version {
        testing::version(990 + self.below(20))
    }

    fn enqueue(&mut self, uaid: Uaid, channel: ChannelId) -> StoreOp {
        StoreOp::Enqueue {
            uaid,
            message: Arc::new(self.message(channel)),
            lost: self.one_in(4).then(|| self.dialect()),
            version_clock: testing::VERSION_CLOCK,
            noted_from: self.version(),
            quota: Quota {
                subscription_messages_max: self.below(12) as u32,
                subscription_bytes_max: self.below(20_000),
                messages_max: self.below(20) as u32,
                bytes_max: self.below(30_000),
                total_bytes_max: if self.one_in(20) { 0 } else { u64::MAX },
            },
            received: None,
        }
    }

    fn message(&mut self, channel: ChannelId) -> PushMessage {
        if self.one_in(3) {
            let version = self.version();
            let version = if self.one_in(2) {
                NewVersion::Exact(version)
            } else {
                NewVersion::AtLeast(version)
            };
            let data = self.one_in(2).then(|| "data".into());
            return PushMessage {
                id: self.new_id(),
                channel,
                received_at: self.time(),
                ttl: Ttl::UNBOUNDED,
                topic: None,
                urgency: Urgency::Normal,
                payload: Payload::Update(VersionUpdate { version, data }),
            };
        }
        PushMessage {
            id: self.new_id(),
            channel,
            received_at: self.time(),
            ttl: Ttl::from_secs_lowered(self.below(1000)),
            topic: self
                .one_in(3)
                .then(|| Topic::new(["a", "b"][self.below(2) as usize]).unwrap()),
            urgency: self.urgency(),
            payload: if self.one_in(4) {
                Payload::Empty
            } else if self.one_in(4) {
                Payload::Raw(self.content().body)
            } else {
                Payload::Encrypted(self.content())
            },
        }
    }

    fn content(&mut self) -> Content {
        let header = |random: &mut Self| random.one_in(2).then(|| "name=value".into());
        Content {
            encoding: [Encoding::Aesgcm, Encoding::Aes128gcm][self.below(2) as usize],
            encryption: header(self),
            crypto_key: header(self),
            body: (0..=self.below(5630)).map(|byte| byte as u8).collect(),
        }
    }
}
