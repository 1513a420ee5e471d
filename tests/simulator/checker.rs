//! The promises, written down a second time: who is owed what, and what must never happen.
//!
//! Knows only what went in and what came out. A broken promise is a panic.

#[path = "messages.rs"]
mod messages;
#[path = "owed.rs"]
mod owed;
#[path = "session_log.rs"]
mod session_log;
#[path = "subscriptions.rs"]
mod subscriptions;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use edgepush::model::ids::{DatabaseId, MessageId};
use edgepush::protocol::http::Response;
use edgepush::protocol::keyring::Keyring;
use uuid::Uuid;

use crate::frames::Update;
use crate::tally::Tally;
use crate::versions::Versions;

pub(crate) use session_log::SessionLog;
use subscriptions::Truth;
pub(crate) use subscriptions::{EndpointUrl, Knows, Subscription, name_of};

/// Of messages that do not say.
pub(crate) const URGENCY_NORMAL: usize = 2;

/// When something happened, by each clock that matters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// Counts everything that happens.
    pub(crate) step: u64,
    /// How long the gateway has really run, all runs together.
    pub(crate) served: Duration,
    /// The same as the gateway itself should reckon it, in seconds.
    pub(crate) service_secs: u64,
    pub(crate) database: DatabaseId,
    /// Counts the databases.
    pub(crate) generation: u32,
}

/// A push message as an application server knows it.
pub(crate) struct Message {
    pub(crate) agent: usize,
    pub(crate) channel: Uuid,
    pub(crate) ttl_secs: u64,
    pub(crate) topic: Option<String>,
    /// Its place in `URGENCIES`.
    pub(crate) urgency: usize,
    pub(crate) body: Option<Vec<u8>>,
    pub(crate) posted: Moment,
    /// Its endpoint was minted under a database that is gone.
    pub(crate) lost_endpoint: bool,
    pub(crate) answered: Option<(u16, u64)>,
    pub(crate) token: Option<String>,
    pub(crate) deleted: bool,
}

/// A push message as it appears on websockets.
#[derive(Debug)]
struct Seen {
    agent: usize,
    channel: Uuid,
    body: Option<Vec<u8>>,
    message: Option<usize>,
    received: bool,
    /// Of the user agent that it was sent to.
    uaid: String,
    acked: bool,
    /// Perhaps acked, with an empty version.
    perhaps_acked: bool,
    gone: Option<Gone>,
    /// This run of the gateway has to drop it, however often that fails.
    to_drop: bool,
}

/// It was acked or deleted, and must not be sent on a session that says hello after `step`.
#[derive(Clone, Copy, Debug)]
struct Gone {
    step: u64,
    committed: bool,
}

#[derive(Debug)]
pub(crate) enum Asked {
    Post(usize),
    /// A version, or a message for a SimplePush user agent.
    Update(usize),
    Delete {
        token: String,
    },
    Other {
        expected: &'static [u16],
    },
}

#[derive(Debug)]
pub(crate) struct Checker {
    keyring: Keyring,
    pub(crate) messages: Vec<Message>,
    seen: BTreeMap<String, Seen>,
    by_id: BTreeMap<MessageId, String>,
    pub(crate) subscriptions: BTreeMap<(usize, Uuid), Subscription>,
    open: BTreeMap<u64, Asked>,
    pub(crate) versions: Versions,
    offline_status: u16,
    pub(crate) tally: Tally,
}

impl Checker {
    pub(crate) fn new(keyring: Keyring, offline_status: u16) -> Self {
        Self {
            keyring,
            messages: Vec::new(),
            seen: BTreeMap::new(),
            by_id: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            open: BTreeMap::new(),
            versions: Versions::default(),
            offline_status,
            tally: Tally::default(),
        }
    }

    pub(crate) fn asked(&mut self, request: u64, asked: Asked) {
        self.open.insert(request, asked);
    }

    pub(crate) fn open_requests(&self) -> usize {
        self.open.len()
    }

    /// Posts a message. Its number is in its body, if it has one.
    pub(crate) fn posted(&mut self, message: Message) -> usize {
        self.messages.push(message);
        self.messages.len() - 1
    }

    /// Tokens of messages that were answered 201 and may be deleted.
    pub(crate) fn accepted_tokens(&self) -> Vec<String> {
        let messages = self.messages.iter().rev().take(20);
        let messages = messages.filter_map(|message| message.token.clone());
        let updates = self.versions.puts.iter().rev().take(20);
        let updates = updates.filter_map(|put| put.fate.token.clone());
        messages.chain(updates).collect()
    }

    /// Versions that were sent to anybody.
    pub(crate) fn sent_versions(&self) -> Vec<(Uuid, String)> {
        let recent = self.seen.iter().rev().take(20);
        recent
            .map(|(version, seen)| (seen.channel, version.clone()))
            .collect()
    }

    /// Each request gets exactly one answer, and the right one.
    pub(crate) fn responded(&mut self, request: u64, response: &Response, now: Moment) {
        let asked = self.open.remove(&request).expect("one answer each");
        let header = |name| {
            let mut headers = response.headers.iter();
            headers
                .find(|(n, _)| *n == name)
                .map(|(_, value)| value.as_str())
        };
        if matches!(response.status, 429 | 503) {
            assert!(
                header("Retry-After").is_some(),
                "turned away without Retry-After"
            );
        }
        match asked {
            Asked::Other { expected } => {
                let status = response.status;
                assert!(expected.contains(&status), "{status}, not {expected:?}");
            }
            Asked::Delete { token } => match response.status {
                204 => self.deleted(&token, now),
                400 | 503 => {}
                other => panic!("DELETE answered {other}"),
            },
            Asked::Post(number) => {
                if response.status == 201 {
                    let ttl = self.messages[number].ttl_secs.to_string();
                    assert_eq!(header("TTL"), Some(ttl.as_str()));
                }
                let token = header("Location").map(token_of);
                self.post_answered(number, response.status, token, now);
            }
            Asked::Update(number) => {
                let put = &mut self.versions.puts[number];
                match (put.ttl_secs, response.status) {
                    (Some(ttl_secs), 201) => {
                        assert_eq!(header("TTL"), Some(ttl_secs.to_string().as_str()));
                        put.fate.token = header("Location").map(token_of);
                    }
                    (None, 200 | 202) => assert_eq!(response.body, "{}"),
                    _ => {}
                }
                self.update_answered(number, response.status, now);
            }
        }
    }

    fn post_answered(&mut self, number: usize, status: u16, token: Option<String>, now: Moment) {
        let message = &mut self.messages[number];
        message.answered = Some((status, now.step));
        let key = (message.agent, message.channel);
        let (posted, lost) = (message.posted, message.lost_endpoint);
        self.answer_fits(key, posted, lost, status);
        match status {
            201 => {
                self.tally.add("post 201");
                if lost {
                    self.tally.add("lost endpoint used");
                }
                let token = token.expect("201 has a Location");
                self.messages[number].token = Some(token.clone());
                self.link(&token, number);
            }
            410 => self.tally.add("post 410"),
            429 => self.tally.add("post 429"),
            503 => self.tally.add("post 503"),
            other => panic!("a good POST was answered {other}"),
        }
    }

    fn update_answered(&mut self, number: usize, status: u16, now: Moment) {
        let offline_status = self.offline_status;
        self.versions.answered(number, status, offline_status, now);
        let put = &self.versions.puts[number];
        let (posted, lost) = (put.posted, put.lost_endpoint);
        let is_put = put.ttl_secs.is_none();
        self.answer_fits((put.agent, put.channel), posted, lost, status);
        self.tally.add(match (status, is_put) {
            (200, true) => "put 200",
            (202, true) => "put 202",
            (201, false) => "post to a simplepush subscription",
            (410, _) => "put 410",
            (429, _) => "put 429",
            (503, _) => "put 503",
            (other, _) => panic!("a good update was answered {other}"),
        });
    }

    /// Whether the answer is what the state of the subscription allows.
    fn answer_fits(&self, key: (usize, Uuid), posted: Moment, lost: bool, status: u16) {
        let subscription = self.subscriptions.get(&key);
        let subscription = subscription.expect("it has an endpoint");
        let unchanged = subscription.since <= posted.step;
        let disowned = lost && subscription.disowned.is_some();
        match status {
            200..=202 => assert!(
                subscription.truth != Truth::Ended || !unchanged,
                "accepted after its subscription was ended"
            ),
            410 => assert!(
                subscription.truth != Truth::Subscribed || !unchanged || disowned,
                "refused with 410 though it is subscribed"
            ),
            _ => {}
        }
    }

    /// The version of a notification is the last part of the `Location`.
    fn link(&mut self, token: &str, number: usize) {
        let message = &self.messages[number];
        if let Some(seen) = self.seen.get_mut(token) {
            assert!(
                seen.message.is_none_or(|n| n == number),
                "one token, two messages"
            );
            assert_eq!(
                (seen.agent, seen.channel),
                (message.agent, message.channel),
                "message {number} went to the wrong place"
            );
            assert_eq!(seen.body, message.body, "body of message {number}");
            seen.message = Some(number);
            return;
        }
        self.seen.insert(
            token.to_owned(),
            Seen {
                agent: message.agent,
                channel: message.channel,
                body: message.body.clone(),
                message: Some(number),
                received: false,
                uaid: String::new(),
                acked: false,
                perhaps_acked: false,
                gone: None,
                to_drop: false,
            },
        );
        let id = self.keyring.open_message(message.posted.database, token);
        let id = id.expect("a Location opens under its database");
        self.by_id.insert(id, token.to_owned());
    }

    fn deleted(&mut self, token: &str, now: Moment) {
        self.versions.deleted(token);
        let Some(seen) = self.seen.get_mut(token) else {
            return;
        };
        if let Some(number) = seen.message {
            self.messages[number].deleted = true;
        }
        seen.to_drop = true;
        seen.gone.get_or_insert(Gone {
            step: now.step,
            committed: false,
        });
        self.tally.add("deleted by its application server");
    }

    /// Version updates leave the gateway in one frame.
    pub(crate) fn updates_sent(
        &mut self,
        log: &mut SessionLog,
        updates: &[Update],
        is_simplepush: bool,
        (interval, elapsed): (Option<Duration>, Duration),
        now: Moment,
    ) {
        let may_gather = is_simplepush && self.versions.reading_replies;
        assert!(
            may_gather || updates.len() == 1,
            "a new update comes alone, and to a WebPush user agent each"
        );
        assert!(
            !may_gather || log.updates_step != now.step,
            "two frames for one page"
        );
        assert!(
            log.wants_updates(),
            "sent though less urgent than asked for"
        );
        log.updates_step = now.step;
        if updates.len() > 1 {
            self.tally.add("several updates in one frame");
        }
        for update in updates {
            let channel = Uuid::parse_str(&update.channel).expect("a channel is a UUID");
            self.may_be_sent_to(log.agent, channel, &log.uaid);
            self.is_spelled_right(log.agent, channel, &update.channel);
            self.versions.sent(log, channel, update, now);
            let puts = self.versions.possible((log.agent, channel), update);
            // Of several that look the same nobody can tell which was sent when.
            let interval = interval.filter(|_| puts.len() == 1 && !self.versions.has_failed(&puts));
            let interval = interval.unwrap_or(Duration::ZERO);
            if log.is_due(channel, update, interval, elapsed) {
                self.tally.add("update repeated when it was due");
            }
            log.note(channel, update, puts.len(), interval, (now.step, elapsed));
        }
    }

    /// A user agent reads an update that was sent at `step`.
    pub(crate) fn update_received(
        &mut self,
        agent: usize,
        channel: Uuid,
        update: &Update,
        step: u64,
    ) {
        let tally = &mut self.tally;
        self.versions
            .received((agent, channel), update, step, tally);
    }

    /// What was only in memory is gone: acks may be forgotten, requests are never answered.
    pub(crate) fn crashed(&mut self, orderly: bool) {
        self.open.clear();
        self.versions.crashed(orderly);
        for seen in self.seen.values_mut() {
            seen.gone = seen.gone.filter(|gone| gone.committed);
            seen.to_drop = false;
        }
    }
}

/// Short enough to be read.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("agent", &self.agent)
            .field("channel", &self.channel)
            .field("ttl_secs", &self.ttl_secs)
            .field("topic", &self.topic)
            .field("urgency", &self.urgency)
            .field("posted", &self.posted)
            .field("lost_endpoint", &self.lost_endpoint)
            .field("answered", &self.answered)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

impl Seen {
    fn of(message: &Message) -> Self {
        Self {
            body: message.body.clone(),
            ..Self::unknown(message.agent, message.channel)
        }
    }

    fn unknown(agent: usize, channel: Uuid) -> Self {
        Self {
            agent,
            channel,
            body: None,
            message: None,
            received: false,
            uaid: String::new(),
            acked: false,
            perhaps_acked: false,
            gone: None,
            to_drop: false,
        }
    }
}

/// The body of a message: its number, then filling.
pub(crate) fn body_of(number: usize, filling: usize) -> Vec<u8> {
    let mut body = format!("message {number} ").into_bytes();
    body.resize(body.len() + filling, b'x');
    body
}

fn token_of(url: &str) -> String {
    let (_, token) = url.rsplit_once('/').expect("a Location is a URL");
    token.to_owned()
}

fn number_in(body: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(body).expect("a body of ours");
    let number = text.split(' ').nth(1).expect("a body of ours has a number");
    Some(number.parse().expect("a number"))
}
