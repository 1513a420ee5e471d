//! What the tests of this layer share: folders that go away, and short names for operations.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{FreshDatabase, OpenError, Settings, Store};
use crate::model::dialect::Dialect;
use crate::model::ids::{ChannelId, DatabaseId, MessageId, Uaid};
use crate::model::message::{Content, Encoding, Payload, PushMessage, Topic, Ttl, Urgency};
use crate::model::store::{Cursors, Deletion, Opened, Quota, StoreOp, StoreReply, Subscription};
use crate::model::time::ServiceTime;
use crate::model::version::{NewVersion, Version, VersionUpdate};

/// A directory for one test.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("edgepush-storage-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The store in it; made, if it must be, where an earlier database may have existed.
    pub(super) fn open(&self) -> (Store, Opened) {
        self.open_with(&Settings::default())
    }

    pub(super) fn open_with(&self, settings: &Settings) -> (Store, Opened) {
        Store::open(&self.0, settings, FRESH).unwrap()
    }

    pub(super) fn try_open(&self) -> Result<(Store, Opened), OpenError> {
        Store::open(&self.0, &Settings::default(), FRESH)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(super) const FRESH: FreshDatabase = FreshDatabase {
    id: DatabaseId([7; 8]),
    key_is_new: false,
};

pub(super) const NO_QUOTA: Quota = Quota {
    subscription_messages_max: u32::MAX,
    subscription_bytes_max: u64::MAX,
    messages_max: u32::MAX,
    bytes_max: u64::MAX,
    total_bytes_max: u64::MAX,
};

pub(super) const fn uaid(number: u8) -> Uaid {
    Uaid::from_bytes([number; 16])
}

pub(super) const fn channel(number: u8) -> ChannelId {
    ChannelId::from_bytes([number; 16])
}

pub(super) const fn at(secs: u64) -> ServiceTime {
    ServiceTime::from_secs(secs)
}

/// A message of 100 bytes, received at second 100, for one hour.
pub(super) fn message(id: i64, channel_number: u8) -> PushMessage {
    PushMessage {
        id: MessageId::from_i64(id),
        channel: channel(channel_number),
        received_at: at(100),
        ttl: Ttl::from_secs_lowered(3600),
        topic: None,
        urgency: Urgency::Normal,
        payload: Payload::Encrypted(Content {
            encoding: Encoding::Aes128gcm,
            encryption: None,
            crypto_key: None,
            body: vec![0xab; 100].into(),
        }),
    }
}

/// A version update, received at second 100, for ever.
pub(super) fn update(id: i64, channel_number: u8, version: NewVersion) -> PushMessage {
    PushMessage {
        ttl: Ttl::UNBOUNDED,
        payload: Payload::Update(VersionUpdate::bare(version)),
        ..message(id, channel_number)
    }
}

pub(super) const fn version(number: u64) -> Version {
    Version::from_secs(number)
}

/// What the version clock shows in these tests.
pub(super) const VERSION_CLOCK: Version = version(1000);

pub(super) const fn save_time(secs: u64) -> StoreOp {
    StoreOp::SaveTime {
        service_time: at(secs),
        version_clock: version(0),
    }
}

pub(super) fn with_topic(message: PushMessage, topic: &str) -> PushMessage {
    PushMessage {
        topic: Some(Topic::new(topic).unwrap()),
        ..message
    }
}

pub(super) const fn subscribe(user_agent: u8, channel_number: u8) -> StoreOp {
    subscribe_as(user_agent, channel_number, Dialect::WebPush)
}

pub(super) const fn subscribe_as(user_agent: u8, channel_number: u8, dialect: Dialect) -> StoreOp {
    StoreOp::Subscribe {
        uaid: uaid(user_agent),
        channel: channel(channel_number),
        spelling: None,
        dialect,
        subscriptions_max: 100,
    }
}

/// As it is loaded when nothing of SimplePush is known of it.
pub(super) const fn plain_subscription(channel_number: u8) -> Subscription {
    Subscription {
        channel: channel(channel_number),
        spelling: None,
        last_version: None,
        is_restored: false,
    }
}

pub(super) const fn unsubscribe(user_agent: u8, channel_number: u8) -> StoreOp {
    StoreOp::Unsubscribe {
        uaid: uaid(user_agent),
        channel: channel(channel_number),
    }
}

pub(super) const fn disown(user_agent: u8, channel_number: u8) -> StoreOp {
    StoreOp::Disown {
        uaid: uaid(user_agent),
        channel: channel(channel_number),
    }
}

pub(super) const fn find(user_agent: u8, channel_number: u8, lost: bool) -> StoreOp {
    StoreOp::Find {
        uaid: uaid(user_agent),
        channel: channel(channel_number),
        lost,
    }
}

pub(super) const fn load(user_agent: u8) -> StoreOp {
    StoreOp::Load {
        uaid: uaid(user_agent),
    }
}

pub(super) fn enqueue(user_agent: u8, message: PushMessage) -> StoreOp {
    enqueue_within(user_agent, message, NO_QUOTA)
}

pub(super) fn enqueue_within(user_agent: u8, message: PushMessage, quota: Quota) -> StoreOp {
    StoreOp::Enqueue {
        uaid: uaid(user_agent),
        message: Arc::new(message),
        lost: None,
        version_clock: VERSION_CLOCK,
        noted_from: VERSION_CLOCK,
        quota,
        received: None,
    }
}

/// To an endpoint of a lost database.
pub(super) fn enqueue_lost(user_agent: u8, message: PushMessage) -> StoreOp {
    StoreOp::Enqueue {
        uaid: uaid(user_agent),
        message: Arc::new(message),
        lost: Some(Dialect::WebPush),
        version_clock: VERSION_CLOCK,
        noted_from: VERSION_CLOCK,
        quota: NO_QUOTA,
        received: None,
    }
}

/// All that is kept for a user agent at second 100.
pub(super) const fn fetch(user_agent: u8) -> StoreOp {
    StoreOp::Fetch {
        uaid: uaid(user_agent),
        after: Cursors::START,
        urgency_min: Urgency::VeryLow,
        now: at(100),
        messages_max: 1000,
        bytes_max: usize::MAX,
    }
}

pub(super) fn delete(id: i64, owner: Option<u8>) -> StoreOp {
    StoreOp::Delete(vec![Deletion::Message {
        id: MessageId::from_i64(id),
        owner: owner.map(uaid),
    }])
}

/// The reply to a single operation.
pub(super) fn one(store: &mut Store, op: StoreOp) -> StoreReply {
    let mut replies = store.apply(vec![op]);
    assert_eq!(replies.len(), 1);
    replies.remove(0)
}

/// The ids of what is kept for a user agent at second 100.
pub(super) fn ids(store: &mut Store, user_agent: u8) -> Vec<i64> {
    let StoreReply::Page { messages, .. } = one(store, fetch(user_agent)) else {
        panic!("not a page");
    };
    messages.iter().map(|message| message.id.as_i64()).collect()
}

/// What SQLite would do for a query, in its words.
pub(super) fn plan(store: &Store, sql: &str) -> String {
    let mut statement = store
        .connection
        .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
        .unwrap();
    let mut rows = statement.raw_query();
    let mut lines = String::new();
    while let Some(row) = rows.next().unwrap() {
        lines += &row.get::<_, String>("detail").unwrap();
        lines += "; ";
    }
    lines
}
