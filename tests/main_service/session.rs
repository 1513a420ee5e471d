//! One websocket of the main service: what is said on it, and what is answered (PROTOCOL.md part 3,
//! 4.2 to 4.7).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use data_encoding::{BASE64URL, BASE64URL_NOPAD};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::service::{Endpoint, Faults, Notification, Rules, Service, SessionId};

/// Bytes behind an endpoint's token, which is 140 characters long, and 183 with a key.
const TOKEN_BYTES: usize = 99;
const TOKEN_WITH_KEY_BYTES: usize = 131;

/// What comes from a user agent.
#[derive(Clone, Debug)]
pub enum Up {
    /// A whole message.
    Text(String),
    Binary,
    Fragment(String),
    /// A frame above 64 KiB, or what no frame is.
    Malformed,
    Ping(String),
    Pong(String),
    Close(Option<(u16, String)>),
}

impl Up {
    pub fn payload(&self) -> &str {
        match self {
            Self::Text(text) | Self::Fragment(text) | Self::Ping(text) | Self::Pong(text) => text,
            Self::Close(Some((_, reason))) => reason,
            Self::Binary | Self::Malformed | Self::Close(None) => "",
        }
    }
}

/// What goes to a user agent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Down {
    Text(String),
    Ping,
    /// With what the ping said.
    Pong(String),
    /// The last of all.
    Close(Option<(u16, String)>),
}

impl Down {
    pub fn close(code: u16, reason: &str) -> Self {
        Self::Close(Some((code, reason.to_owned())))
    }
}

/// One websocket.
#[derive(Debug)]
pub struct Session {
    /// Since hello.
    pub uaid: Option<Uuid>,
    /// Nothing that comes matters any more.
    pub over: bool,
    pub(super) inbox: VecDeque<(Duration, Up)>,
    pub(super) outbox: VecDeque<Down>,
    /// Held back to go out of order, until then.
    pub(super) held: Option<(Duration, Down)>,
    /// Sent without having been stored, not acked; oldest first, so that the newest of a topic is kept.
    pub(super) direct: Vec<Notification>,
    /// The batch from storage that is out, and what of it is acked.
    pub(super) batch: Vec<(Notification, bool)>,
    /// Something was stored meanwhile.
    pub(super) has_more: bool,
    pub(super) read_since_empty: usize,
    /// Its user is written with its first channel.
    is_new: bool,
    opened: Duration,
    last_ping: Option<Duration>,
    /// When the next websocket ping goes out.
    ping_at: Duration,
    /// When the pong to the last one must be there.
    pong_until: Option<Duration>,
    /// Which it wants, and the versions that it knows.
    broadcasts: BTreeMap<String, String>,
}

impl Session {
    pub(super) fn new(now: Duration, rules: &Rules) -> Self {
        Self {
            uaid: None,
            over: false,
            inbox: VecDeque::new(),
            outbox: VecDeque::new(),
            held: None,
            direct: Vec::new(),
            batch: Vec::new(),
            has_more: false,
            read_since_empty: 0,
            is_new: false,
            opened: now,
            last_ping: None,
            ping_at: now + rules.ping_interval,
            pong_until: None,
            broadcasts: BTreeMap::new(),
        }
    }

    /// Whether anything is out without an ack: then no further batch goes out.
    pub(super) fn is_owed_acks(&self) -> bool {
        !self.direct.is_empty() || self.batch.iter().any(|(_, acked)| !acked)
    }

    /// Sends a notification as the faults will have it.
    pub(super) fn send(&mut self, faults: &Faults, now: Duration, text: String) {
        let copies = if faults.duplicates { 2 } else { 1 };
        let down = Down::Text(text);
        self.outbox
            .extend(std::iter::repeat_n(&down, copies - 1).cloned());
        let earlier = self.held.take();
        match (earlier, faults.reorders) {
            (None, Some(delay)) => self.held = Some((now + delay, down)),
            (earlier, _) => {
                self.outbox.push_back(down);
                self.outbox.extend(earlier.map(|(_, earlier)| earlier));
            }
        }
    }
}

/// What a user agent may say.
#[derive(Debug, Deserialize)]
#[serde(tag = "messageType", rename_all = "snake_case")]
enum Said {
    Hello {
        uaid: Option<String>,
        #[serde(rename = "channelIDs")]
        _channels: Option<Vec<Uuid>>,
        broadcasts: Option<BTreeMap<String, String>>,
    },
    Register {
        #[serde(rename = "channelID")]
        channel: String,
        key: Option<String>,
    },
    Unregister {
        #[serde(rename = "channelID")]
        channel: Uuid,
        #[serde(rename = "code")]
        _code: Option<u32>,
    },
    BroadcastSubscribe {
        broadcasts: BTreeMap<String, String>,
    },
    Ack {
        updates: Vec<Update>,
    },
    Nack {
        #[serde(rename = "code")]
        _code: Option<i32>,
        #[serde(rename = "version")]
        _version: String,
    },
    Ping,
}

#[derive(Debug, Deserialize)]
struct Update {
    #[serde(rename = "channelID")]
    _channel: Uuid,
    version: String,
    #[serde(rename = "code")]
    _code: Option<u16>,
}

impl Said {
    fn read(text: &str) -> Option<Self> {
        let is_ping = serde_json::from_str(text).is_ok_and(|value: Value| value == json!({}));
        if is_ping {
            return Some(Self::Ping);
        }
        serde_json::from_str(text).ok()
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Hello { .. } => "hello",
            Self::Register { .. } => "register",
            Self::Unregister { .. } => "unregister",
            Self::BroadcastSubscribe { .. } => "broadcast_subscribe",
            Self::Ack { .. } => "ack",
            Self::Nack { .. } => "nack",
            Self::Ping => "ping",
        }
    }
}

impl Service {
    pub(super) fn act(&mut self, now: Duration, id: SessionId, up: Up) {
        let text = match up {
            Up::Text(text) => text,
            Up::Binary | Up::Fragment(_) => {
                return self.end(now, id, Some((1003, "UnsupportedMessage")));
            }
            Up::Malformed => return self.end(now, id, Some((1002, "Protocol"))),
            // Behind what was said before it has been acted on.
            Up::Ping(payload) => return self.push(id, Down::Pong(payload)),
            Up::Pong(_) => return self.pong(now, id),
            Up::Close(close) => {
                let close = close.as_ref();
                let close = close.map(|(code, reason)| (*code, reason.as_str()));
                return self.end(now, id, close);
            }
        };
        let Some(said) = Said::read(&text) else {
            return self.end(now, id, Some((1011, "Json")));
        };
        if self.faults.ignores.contains(said.name()) {
            return;
        }
        let session = self.sessions.get_mut(&id).expect("it is open");
        match (said, session.uaid) {
            (
                Said::Hello {
                    uaid, broadcasts, ..
                },
                None,
            ) => {
                self.hello(now, id, uaid.as_deref(), broadcasts.unwrap_or_default());
            }
            (Said::Hello { .. }, Some(_)) | (_, None) => self.end(now, id, Some((1011, "SM"))),
            (Said::Register { channel, key }, Some(uaid)) => {
                self.register(now, id, uaid, &channel, key.as_deref());
            }
            (Said::Unregister { channel, .. }, Some(uaid)) => {
                if let Some(user) = self.users.get_mut(&uaid) {
                    user.channels.remove(&channel);
                }
                self.say(
                    id,
                    format!(
                        r#"{{"messageType":"unregister","channelID":"{channel}","status":200}}"#
                    ),
                );
            }
            (Said::BroadcastSubscribe { broadcasts }, Some(_)) => {
                let news = self.subscribe(id, broadcasts);
                if news != json!({}) {
                    let news = format!(r#"{{"messageType":"broadcast","broadcasts":{news}}}"#);
                    self.say(id, news);
                }
            }
            (Said::Ack { updates }, Some(_)) => {
                for update in updates {
                    if self.sessions[&id].over {
                        return;
                    }
                    self.acked(now, id, &update.version);
                }
            }
            (Said::Nack { .. }, Some(_)) => {}
            (Said::Ping, Some(_)) => self.ping(now, id),
        }
    }

    fn hello(
        &mut self,
        now: Duration,
        id: SessionId,
        claimed: Option<&str>,
        broadcasts: BTreeMap<String, String>,
    ) {
        if let Some(url) = &self.faults.sends_on {
            let text = json!({"messageType": "hello", "status": 307, "redirect": url}).to_string();
            self.say(id, text);
            return self.end(now, id, Some((1000, "")));
        }
        let claimed = claimed.and_then(|text| Uuid::try_parse(text).ok());
        let known = claimed.filter(|uaid| self.users.contains_key(uaid));
        let uaid =
            known.unwrap_or_else(|| uuid::Builder::from_random_bytes(self.random()).into_uuid());
        // Its un-acked messages are stored before the newer one reads the storage.
        if let Some(old) = self.online.get(&uaid).copied() {
            self.end(now, old, Some((1011, "SM")));
        }
        self.online.insert(uaid, id);
        let session = self.sessions.get_mut(&id).expect("it is open");
        session.uaid = Some(uaid);
        session.is_new = known.is_none();
        let news = self.subscribe(id, broadcasts);
        let uaid = uaid.simple();
        self.say(
            id,
            format!(
                r#"{{"messageType":"hello","uaid":"{uaid}","status":200,"use_webpush":true,"broadcasts":{news}}}"#
            ),
        );
        if known.is_some() {
            self.send_stored(now, id);
        }
    }

    fn register(
        &mut self,
        now: Duration,
        id: SessionId,
        uaid: Uuid,
        channel: &str,
        key: Option<&str>,
    ) {
        let parsed = Uuid::try_parse(channel).ok();
        let Some(parsed) = parsed.filter(|parsed| parsed.to_string() == channel) else {
            return self.end(now, id, Some((1011, "SM")));
        };
        let answer = |status: u16, endpoint: &str| {
            format!(
                r#"{{"messageType":"register","channelID":"{channel}","status":{status},"pushEndpoint":"{endpoint}"}}"#
            )
        };
        if let Some(status) = self.faults.refuses_registers {
            return self.say(id, answer(status, ""));
        }
        let digest = match key.map(key_digest) {
            Some(None) => return self.say(id, answer(400, "Failed to generate endpoint")),
            Some(digest) => digest,
            None => None,
        };
        let (version, length) = match digest {
            None => ("v1", TOKEN_BYTES),
            Some(_) => ("v2", TOKEN_WITH_KEY_BYTES),
        };
        let token = self.token("gAAAAABm", length);
        let url = format!("{}/wpush/{version}/{token}", self.origin);
        let endpoint = Endpoint {
            uaid,
            channel: parsed,
            key_digest: digest,
        };
        self.endpoints.insert(token, endpoint);
        // Only now is a new user written; one that was deleted meanwhile never again.
        let session = self.sessions.get_mut(&id).expect("it is open");
        if std::mem::take(&mut session.is_new) {
            self.users.entry(uaid).or_default();
        }
        if let Some(user) = self.users.get_mut(&uaid) {
            user.channels.insert(parsed);
        }
        self.say(id, answer(200, &url));
    }

    /// Adds to what it wants to hear of; what it does not know yet.
    fn subscribe(&mut self, id: SessionId, broadcasts: BTreeMap<String, String>) -> Value {
        let session = self.sessions.get_mut(&id).expect("it is open");
        let (mut news, mut errors) = (json!({}), json!({}));
        for (name, version) in broadcasts {
            match self.broadcasts.get(&name) {
                None => errors[&name] = json!("Broadcast not found"),
                Some(current) => {
                    if *current != version {
                        news[&name] = json!(current);
                    }
                    session.broadcasts.insert(name, current.clone());
                }
            }
        }
        if errors != json!({}) {
            news["errors"] = errors;
        }
        news
    }

    fn ping(&mut self, now: Duration, id: SessionId) {
        let least = self.rules.ping_interval_min;
        let session = self.sessions.get_mut(&id).expect("it is open");
        if session.last_ping.is_some_and(|last| now - last < least) {
            return self.end(now, id, Some((1011, "SM")));
        }
        session.last_ping = Some(now);
        self.say(id, "{}".to_owned());
    }

    fn pong(&mut self, now: Duration, id: SessionId) {
        let next = now + self.rules.ping_interval;
        let session = self.sessions.get_mut(&id).expect("it is open");
        session.pong_until = None;
        session.ping_at = next;
    }

    /// Its timeouts, its own pings, the broadcasts that wait for them, what was held back.
    pub(super) fn keep_alive(&mut self, now: Duration, id: SessionId) {
        let interval = self.rules.ping_interval;
        let session = self.sessions.get_mut(&id).expect("it is open");
        if session.over {
            return;
        }
        let held = session.held.take_if(|(until, _)| *until <= now);
        session.outbox.extend(held.map(|(_, down)| down));
        if session.uaid.is_none() && now - session.opened >= self.rules.hello_timeout {
            return self.end(now, id, Some((1011, "HandshakeTimeout")));
        }
        if session.pong_until.is_some_and(|until| until <= now) {
            return self.end(now, id, Some((1011, "PongTimeout")));
        }
        if session.uaid.is_none() || session.ping_at > now {
            return;
        }
        session.ping_at = now + interval;
        let known = session.broadcasts.clone();
        let news = self.subscribe(id, known);
        if news == json!({}) {
            let session = self.sessions.get_mut(&id).expect("it is open");
            session.pong_until = Some(now + self.rules.pong_timeout);
            session.outbox.push_back(Down::Ping);
        } else {
            let news = format!(r#"{{"messageType":"broadcast","broadcasts":{news}}}"#);
            self.say(id, news);
        }
    }

    fn say(&mut self, id: SessionId, text: String) {
        self.push(id, Down::Text(text));
    }

    fn push(&mut self, id: SessionId, down: Down) {
        let session = self.sessions.get_mut(&id).expect("it is open");
        session.outbox.push_back(down);
    }
}

/// SHA-256 of a key as `register` has it: base64url, padded or not, of any length.
pub(super) fn key_digest(key: &str) -> Option<Vec<u8>> {
    let key = decode_key(key)?;
    let digest = ring::digest::digest(&ring::digest::SHA256, &key);
    Some(digest.as_ref().to_vec())
}

pub(super) fn decode_key(key: &str) -> Option<Vec<u8>> {
    let bare = BASE64URL_NOPAD.decode(key.as_bytes());
    bare.or_else(|_| BASE64URL.decode(key.as_bytes())).ok()
}
