//! The rules of the main service (PROTOCOL.md part 3), quirks included: users, sessions, what is
//! stored and in which batches. No socket and no clock: time is an argument.
//!
//! Not modelled, because nobody behind a websocket can see it: other nodes, and two messages of one
//! channel in one millisecond, of which the real one loses one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};
use uuid::Uuid;

use super::session::{Down, Session, Up};

pub type SessionId = u64;

/// Read from storage at once: topic messages, and others.
const BATCH_OF_TOPICS: usize = 11;
const BATCH: usize = 10;
/// Notifications that may wait for one socket; those that follow are stored.
const QUEUE_MAX: usize = 128;
/// Bytes behind a version, which is about 200 characters long.
const VERSION_BYTES: usize = 144;

/// What its operator may set; a test makes times short.
#[derive(Clone, Debug)]
pub struct Rules {
    /// From the upgrade to hello.
    pub hello_timeout: Duration,
    /// An application ping that follows another more quickly ends the connection.
    pub ping_interval_min: Duration,
    /// Between its own websocket pings, and until their pong.
    pub ping_interval: Duration,
    pub pong_timeout: Duration,
    /// Stored messages that are read before its storage is empty: one more, and the user is deleted.
    pub stored_max: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            hello_timeout: Duration::from_secs(5),
            ping_interval_min: Duration::from_secs(45),
            ping_interval: Duration::from_secs(300),
            pong_timeout: Duration::from_secs(4),
            stored_max: 150,
        }
    }
}

/// What it does wrong, as long as a test says so.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Registers are answered with this status.
    pub refuses_registers: Option<u16>,
    /// What it hears, acks included, is taken so much later, and never if the connection ends first.
    pub slow: Duration,
    /// Messages of these types are heard and not acted on.
    pub ignores: BTreeSet<&'static str>,
    /// Every notification goes out twice.
    pub duplicates: bool,
    /// hello is answered with this URL to go to instead, as pushgo does; nothing is said after that.
    pub sends_on: Option<String>,
    /// A notification is held back so long, and goes out behind the next if one comes first.
    pub reorders: Option<Duration>,
}

/// A push message that has been accepted.
#[derive(Clone, Debug)]
pub struct Notification {
    /// The last part of `Location`.
    pub version: String,
    pub channel: Uuid,
    pub ttl_secs: u64,
    pub topic: Option<String>,
    pub data: Option<String>,
    /// As a user agent gets them: `encoding`, `encryption`, `crypto_key`.
    pub headers: BTreeMap<&'static str, String>,
    /// When it was posted, or stored again.
    pub since: Duration,
}

impl Notification {
    fn is_expired(&self, now: Duration) -> bool {
        now >= self
            .since
            .saturating_add(Duration::from_secs(self.ttl_secs))
    }

    /// Fields in the order that the real one has them.
    fn text(&self) -> String {
        let (channel, version) = (self.channel, &self.version);
        let mut text = format!(
            r#"{{"messageType":"notification","channelID":"{channel}","version":"{version}""#
        );
        if let Some(data) = &self.data {
            text += &format!(r#","data":"{data}","headers":{}"#, json!(self.headers));
        }
        text + "}"
    }
}

/// Somebody who has registered a channel.
#[derive(Debug, Default)]
pub struct User {
    pub channels: BTreeSet<Uuid>,
    /// The latest of each topic.
    topics: BTreeMap<(Uuid, String), Notification>,
    /// All others, oldest first.
    others: Vec<Notification>,
}

impl User {
    pub fn stored_len(&self) -> usize {
        self.topics.len() + self.others.len()
    }

    fn store(&mut self, notification: Notification) {
        match &notification.topic {
            Some(topic) => {
                let key = (notification.channel, topic.clone());
                self.topics.insert(key, notification);
            }
            None => self.others.push(notification),
        }
    }

    pub(super) fn delete(&mut self, version: &str) {
        self.topics.retain(|_, stored| stored.version != version);
        self.others.retain(|stored| stored.version != version);
    }

    /// Topics first, and nothing else as long as there are any.
    fn read(&mut self, now: Duration) -> Vec<Notification> {
        self.topics.retain(|_, stored| !stored.is_expired(now));
        self.others.retain(|stored| !stored.is_expired(now));
        if self.topics.is_empty() {
            self.others.iter().take(BATCH).cloned().collect()
        } else {
            let topics = self.topics.values().take(BATCH_OF_TOPICS);
            topics.cloned().collect()
        }
    }
}

/// What an endpoint's token says.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub uaid: Uuid,
    pub channel: Uuid,
    /// SHA-256 of the VAPID key that it is restricted to.
    pub key_digest: Option<Vec<u8>>,
}

/// Something that it was told.
#[derive(Clone, Debug)]
pub struct Heard {
    pub at: Duration,
    pub session: SessionId,
    /// The request that opened the websocket, or the payload of any frame.
    pub text: String,
}

/// The whole main service.
#[derive(Debug)]
pub struct Service {
    pub rules: Rules,
    pub faults: Faults,
    /// What endpoint URLs start with.
    pub origin: String,
    /// The wall clock, for VAPID tokens.
    pub wall_secs: u64,
    pub users: BTreeMap<Uuid, User>,
    pub sessions: BTreeMap<SessionId, Session>,
    /// Each user agent's newest websocket.
    pub online: BTreeMap<Uuid, SessionId>,
    pub broadcasts: BTreeMap<String, String>,
    /// All that it was ever told.
    pub heard: Vec<Heard>,
    /// The real one opens its tokens under a key; a reset changes that.
    pub endpoints: BTreeMap<String, Endpoint>,
    /// How many names of any kind were given.
    names: u64,
    seed: u64,
}

impl Service {
    pub fn new(seed: u64) -> Self {
        Self {
            rules: Rules::default(),
            faults: Faults::default(),
            origin: String::new(),
            wall_secs: 0,
            users: BTreeMap::new(),
            sessions: BTreeMap::new(),
            online: BTreeMap::new(),
            broadcasts: BTreeMap::new(),
            heard: Vec::new(),
            endpoints: BTreeMap::new(),
            names: 0,
            seed,
        }
    }

    // Websockets.

    /// A websocket has opened.
    pub fn opened(&mut self, now: Duration, session: SessionId, request: &str) {
        self.heard(now, session, request);
        self.sessions
            .insert(session, Session::new(now, &self.rules));
    }

    /// Something came on a websocket. It is acted on in [`tick`](Self::tick).
    pub fn received(&mut self, now: Duration, session: SessionId, up: Up) {
        self.heard(now, session, up.payload());
        let due = now + self.faults.slow;
        let session = self.sessions.get_mut(&session);
        // Who was closed for saying no hello in time is not let in by one that comes later.
        if let Some(session) = session.filter(|session| !session.over) {
            session.inbox.push_back((due, up));
        }
    }

    /// The next frame for a websocket. After [`Down::Close`] there are no more.
    pub fn poll(&mut self, session: SessionId) -> Option<Down> {
        let session = self.sessions.get_mut(&session)?;
        session.outbox.pop_front()
    }

    /// The connection is no more.
    pub fn gone(&mut self, now: Duration, session: SessionId) {
        self.end(now, session, None);
        self.sessions.remove(&session);
    }

    /// Everything whose time has come.
    pub fn tick(&mut self, now: Duration) {
        let all: Vec<SessionId> = self.sessions.keys().copied().collect();
        for id in all {
            while let Some(up) = self.take_due(now, id) {
                self.act(now, id, up);
            }
            self.keep_alive(now, id);
        }
    }

    fn take_due(&mut self, now: Duration, id: SessionId) -> Option<Up> {
        let session = self.sessions.get_mut(&id)?;
        if session.inbox.front()?.0 > now {
            return None;
        }
        session.inbox.pop_front().map(|(_, up)| up)
    }

    /// Ends a session: what was sent and not acked is stored again, in no order. With a close frame
    /// if there is one.
    pub fn end(&mut self, now: Duration, id: SessionId, close: Option<(u16, &str)>) {
        let Some(session) = self.sessions.get_mut(&id).filter(|session| !session.over) else {
            return;
        };
        session.over = true;
        session.inbox.clear();
        session
            .outbox
            .extend(session.held.take().map(|(_, down)| down));
        if let Some((code, reason)) = close {
            session.outbox.push_back(Down::close(code, reason));
        }
        let direct = std::mem::take(&mut session.direct);
        let Some(uaid) = session.uaid else {
            return;
        };
        if self.online.get(&uaid) == Some(&id) {
            self.online.remove(&uaid);
        }
        for mut notification in direct {
            notification.since = now;
            self.store(now, uaid, notification);
        }
    }

    // Messages.

    /// Hands an accepted message on or keeps it.
    pub(super) fn route(&mut self, now: Duration, uaid: Uuid, notification: Notification) {
        if let Some(id) = self.online.get(&uaid).copied() {
            let session = self.sessions.get_mut(&id).expect("it is online");
            if session.outbox.len() < QUEUE_MAX {
                session.send(&self.faults, now, notification.text());
                if notification.ttl_secs > 0 {
                    session.direct.push(notification);
                }
                return;
            }
        }
        if notification.ttl_secs > 0 {
            self.store(now, uaid, notification);
        }
    }

    fn store(&mut self, now: Duration, uaid: Uuid, notification: Notification) {
        let Some(user) = self.users.get_mut(&uaid) else {
            return;
        };
        user.store(notification);
        if let Some(id) = self.online.get(&uaid).copied() {
            self.send_stored(now, id);
        }
    }

    /// The next batch, unless one is still out.
    pub(super) fn send_stored(&mut self, now: Duration, id: SessionId) {
        let session = self.sessions.get_mut(&id).expect("it is online");
        if session.is_owed_acks() {
            session.has_more = true;
            return;
        }
        session.has_more = false;
        let uaid = session.uaid.expect("it has said hello");
        let Some(user) = self.users.get_mut(&uaid) else {
            return;
        };
        let batch = user.read(now);
        if batch.is_empty() {
            session.read_since_empty = 0;
            return;
        }
        session.read_since_empty += batch.len();
        if session.read_since_empty > self.rules.stored_max {
            self.users.remove(&uaid);
            self.end(now, id, Some((1000, "SM")));
            return;
        }
        for notification in &batch {
            session.send(&self.faults, now, notification.text());
        }
        session.batch = batch.into_iter().map(|sent| (sent, false)).collect();
    }

    /// An ack, which counts by its version alone.
    pub(super) fn acked(&mut self, now: Duration, id: SessionId, version: &str) {
        let session = self.sessions.get_mut(&id).expect("it has acked");
        let uaid = session.uaid.expect("it has said hello");
        let user = self.users.get_mut(&uaid);
        let sent = session.direct.len();
        session.direct.retain(|direct| direct.version != version);
        let was_direct = session.direct.len() < sent;
        let sent = session.batch.iter_mut();
        let mut sent = sent.filter(|(sent, _)| sent.version == version);
        let stored = sent.next().map(|(sent, acked)| {
            *acked = true;
            sent.topic.is_some()
        });
        let Some(user) = user.filter(|_| was_direct || stored.is_some()) else {
            return;
        };
        if stored == Some(true) {
            user.delete(version);
        }
        if session.is_owed_acks() {
            return;
        }
        // Only now are the others of the batch forgotten.
        let batch = std::mem::take(&mut session.batch);
        for (sent, _) in &batch {
            user.delete(&sent.version);
        }
        if session.has_more || !batch.is_empty() {
            self.send_stored(now, id);
        }
    }

    // What a test does to it.

    /// It has lost everything but its connections: every UAID is unknown, every endpoint is none.
    pub fn reset(&mut self) {
        self.users.clear();
        self.endpoints.clear();
    }

    /// All that it was told in messages of this type.
    pub fn told(&self, message_type: &str) -> Vec<Value> {
        let all = self.heard.iter();
        let all = all.filter_map(|heard| serde_json::from_str::<Value>(&heard.text).ok());
        all.filter(|message| message["messageType"] == message_type)
            .collect()
    }

    /// All that it was told, as one text.
    pub fn everything_heard(&self) -> String {
        let all: Vec<&str> = self.heard.iter().map(|heard| heard.text.as_str()).collect();
        all.join("\n")
    }

    /// The versions that it was told of in acks, with their codes.
    pub fn acks(&self) -> Vec<(String, u64)> {
        let updates = |ack: Value| ack["updates"].as_array().cloned().unwrap_or_default();
        let version = |update: Value| {
            let code = update["code"].as_u64().unwrap_or(100);
            Some((update["version"].as_str()?.to_owned(), code))
        };
        let all = self.told("ack").into_iter().flat_map(updates);
        all.filter_map(version).collect()
    }

    /// Everything that anybody has registered and not unregistered.
    pub fn channels(&self) -> Vec<(Uuid, Uuid)> {
        let all = self.users.iter();
        all.flat_map(|(uaid, user)| user.channels.iter().map(|channel| (*uaid, *channel)))
            .collect()
    }

    /// Messages that it still has for anybody.
    pub fn stored_len(&self) -> usize {
        self.users.values().map(User::stored_len).sum()
    }

    fn heard(&mut self, at: Duration, session: SessionId, text: &str) {
        let text = text.to_owned();
        self.heard.push(Heard { at, session, text });
    }

    // Names.

    /// Bytes that no other call gives.
    pub(super) fn random(&mut self) -> [u8; 16] {
        let mut half = || {
            self.names += 1;
            // SplitMix64: its states are all different.
            let mut z = self
                .seed
                .wrapping_add(self.names.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            (z ^ (z >> 31)).to_be_bytes()
        };
        let (first, second) = (half(), half());
        std::array::from_fn(|at| if at < 8 { first[at] } else { second[at - 8] })
    }

    /// Looks like a Fernet token, and is only a name.
    pub(super) fn token(&mut self, prefix: &str, length: usize) -> String {
        let mut bytes = Vec::new();
        while bytes.len() < length {
            bytes.extend(self.random());
        }
        bytes.truncate(length);
        prefix.to_owned() + &BASE64URL_NOPAD.encode(&bytes)
    }

    pub(super) fn version(&mut self, topic: Option<&str>) -> String {
        // Those of topics mostly end in padding.
        let padding = topic.map_or("", |_| "=");
        self.token("gAAAAAB", VERSION_BYTES) + padding
    }
}
