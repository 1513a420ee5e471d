//! The promises, written down a second time: who is owed what, and what must never happen.
//!
//! Knows only what went in and what came out. A broken promise is a panic.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use edgepush::model::ids::{DatabaseId, MessageId};
use edgepush::model::store::Deletion;
use edgepush::protocol::http::Response;
use edgepush::protocol::keyring::Keyring;
use uuid::Uuid;

use crate::tally::Tally;

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

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Truth {
    /// Something is under way, or ended without an answer.
    Unknown,
    Subscribed,
    Ended,
}

#[derive(Debug)]
pub(crate) struct Subscription {
    truth: Truth,
    since: u64,
    last_op: u64,
    unregistered: Option<u64>,
    /// Under which database it was registered last.
    generation: u32,
    disowned: Option<u64>,
    pub(crate) endpoints: Vec<EndpointUrl>,
}

#[derive(Clone, Debug)]
pub(crate) struct EndpointUrl {
    pub(crate) path: String,
    pub(crate) restricted: bool,
    pub(crate) generation: u32,
}

/// What one websocket has carried.
#[derive(Debug, Default)]
pub(crate) struct SessionLog {
    pub(crate) agent: usize,
    /// As the answer to hello named it; empty before.
    pub(crate) uaid: String,
    pub(crate) hello_step: u64,
    /// What it wants at least, and whether it has ever said so.
    pub(crate) urgency_min: usize,
    pub(crate) asked_urgency: bool,
    sent: BTreeSet<String>,
    /// Of each channel and urgency.
    last: BTreeMap<(Uuid, usize), MessageId>,
}

#[derive(Debug)]
pub(crate) enum Asked {
    Post(usize),
    Delete { token: String },
    Other { expected: &'static [u16] },
}

#[derive(Debug)]
pub(crate) struct Checker {
    keyring: Keyring,
    pub(crate) messages: Vec<Message>,
    seen: BTreeMap<String, Seen>,
    by_id: BTreeMap<MessageId, String>,
    pub(crate) subscriptions: BTreeMap<(usize, Uuid), Subscription>,
    open: BTreeMap<u64, Asked>,
    pub(crate) tally: Tally,
}

impl SessionLog {
    pub(crate) fn new(agent: usize) -> Self {
        Self {
            agent,
            ..Self::default()
        }
    }
}

impl Checker {
    pub(crate) fn new(keyring: Keyring) -> Self {
        Self {
            keyring,
            messages: Vec::new(),
            seen: BTreeMap::new(),
            by_id: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            open: BTreeMap::new(),
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
        let recent = self.messages.iter().rev().take(20);
        recent.filter_map(|message| message.token.clone()).collect()
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
                let location = header("Location").map(|url| {
                    let (_, token) = url.rsplit_once('/').expect("a Location is a URL");
                    token.to_owned()
                });
                if response.status == 201 {
                    let ttl = self.messages[number].ttl_secs.to_string();
                    assert_eq!(header("TTL"), Some(ttl.as_str()));
                }
                self.post_answered(number, response.status, location, now);
            }
        }
    }

    fn post_answered(&mut self, number: usize, status: u16, location: Option<String>, now: Moment) {
        let message = &mut self.messages[number];
        message.answered = Some((status, now.step));
        let posted = message.posted;
        let subscription = self
            .subscriptions
            .get_mut(&(message.agent, message.channel));
        let subscription = subscription.expect("it has an endpoint");
        let unchanged = subscription.since <= posted.step;
        let disowned = message.lost_endpoint && subscription.disowned.is_some();
        match status {
            201 => {
                self.tally.add("post 201");
                assert!(
                    subscription.truth != Truth::Ended || !unchanged,
                    "message {number} accepted after its subscription was ended"
                );
                if message.lost_endpoint {
                    self.tally.add("lost endpoint used");
                }
                let token = location.expect("201 has a Location");
                message.token = Some(token.clone());
                self.link(&token, number);
            }
            410 => {
                self.tally.add("post 410");
                assert!(
                    subscription.truth != Truth::Subscribed || !unchanged || disowned,
                    "message {number} refused with 410 though it is subscribed"
                );
            }
            429 => self.tally.add("post 429"),
            503 => self.tally.add("post 503"),
            other => panic!("a good POST was answered {other}"),
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

    /// A notification leaves the gateway.
    pub(crate) fn sent(
        &mut self,
        log: &mut SessionLog,
        channel: Uuid,
        version: &str,
        body: Option<&[u8]>,
        now: Moment,
    ) {
        let id = self.keyring.open_message(now.database, version);
        let id = id.expect("a version opens under the present database");
        assert!(
            log.sent.insert(version.to_owned()),
            "sent twice on one session"
        );
        let subscription = self.subscriptions.get(&(log.agent, channel));
        let subscription = subscription.expect("sent for a channel that was never registered");
        assert_ne!(
            subscription.truth,
            Truth::Ended,
            "sent after its unregister was answered"
        );

        if let Some(number) = body.and_then(number_in) {
            let token = self.messages[number].token.clone();
            assert!(
                token.is_none_or(|token| token == version),
                "another version"
            );
            let message = &self.messages[number];
            let seen = self
                .seen
                .entry(version.to_owned())
                .or_insert_with(|| Seen::of(message));
            seen.message = Some(number);
        }
        let seen = self
            .seen
            .entry(version.to_owned())
            .or_insert_with(|| Seen::unknown(log.agent, channel));
        assert_eq!(
            (seen.agent, seen.channel),
            (log.agent, channel),
            "to the wrong place"
        );
        assert_eq!(seen.body.as_deref(), body, "another body");
        seen.uaid.clone_from(&log.uaid);
        if let Some(gone) = seen.gone {
            assert!(
                log.hello_step <= gone.step,
                "sent again after its ack or its deletion"
            );
        }
        self.by_id.insert(id, version.to_owned());
        let number = seen.message;
        let acked = seen.acked || seen.perhaps_acked;
        if let Some(number) = number {
            self.may_be_sent(number, acked, log, now);
        }
        if number.is_none_or(|number| self.messages[number].ttl_secs > 0) {
            let urgency = number.map_or(URGENCY_NORMAL, |number| self.messages[number].urgency);
            let of_channel = log.last.range((channel, 0)..=(channel, usize::MAX));
            if of_channel.into_iter().any(|(_, last)| *last > id) {
                assert!(log.asked_urgency, "out of order");
                self.tally.add("overtaken by a more urgent one");
            }
            let last = log.last.insert((channel, urgency), id);
            assert!(last.is_none_or(|last| last < id), "out of order");
        }
    }

    /// Neither expired nor replaced.
    fn may_be_sent(&self, number: usize, acked: bool, log: &SessionLog, now: Moment) {
        let message = &self.messages[number];
        assert!(
            message.urgency >= log.urgency_min,
            "message {number} sent though less urgent than asked for"
        );
        if message.ttl_secs > 0 {
            // The second in which it was posted is not counted: it may have just begun.
            let expires = message.posted.service_secs + message.ttl_secs + 1;
            assert!(
                now.service_secs < expires,
                "message {number} sent after its TTL"
            );
        }
        // Its ack or its deletion may be lost with the process. It is then sent again, whatever came
        // after it.
        let dropped = message.deleted || acked;
        let newer = self.replacements(number).find(|newer| {
            let accepted = newer.answered.filter(|(status, _)| *status == 201);
            // An expired one is not looked for, and a crash takes back some of the service time.
            let was_kept =
                newer.posted.service_secs <= message.posted.service_secs + message.ttl_secs;
            was_kept && accepted.is_some_and(|(_, step)| step < log.hello_step)
        });
        assert!(
            newer.is_none() || dropped,
            "message {number} sent again though replaced by topic"
        );
    }

    fn replacements(&self, number: usize) -> impl Iterator<Item = &Message> {
        let old = &self.messages[number];
        self.messages[number + 1..].iter().filter(move |newer| {
            old.topic.is_some()
                && newer.topic == old.topic
                && (newer.agent, newer.channel) == (old.agent, old.channel)
                && newer.ttl_secs > 0
        })
    }

    /// A notification has reached the user agent.
    pub(crate) fn received(&mut self, version: &str) {
        let seen = self.seen.get_mut(version).expect("it was sent");
        let again = std::mem::replace(&mut seen.received, true);
        let ttl = seen.message.map(|number| self.messages[number].ttl_secs);
        self.tally.add(match (again, ttl) {
            (true, _) => "message delivered again",
            (false, Some(0)) => "ttl 0 delivered",
            (false, _) => "message delivered",
        });
        if !again && seen.body.is_none() {
            self.tally.add("message without a body");
        }
    }

    /// The gateway has read an ack that does not say of what; of something received it must be.
    pub(crate) fn acked_without_version(&mut self, agent: usize, channel: Uuid) {
        for seen in self.seen.values_mut() {
            if (seen.agent, seen.channel) == (agent, channel) && seen.received {
                seen.perhaps_acked = true;
            }
        }
    }

    /// The gateway has read an ack by version.
    pub(crate) fn acked(&mut self, agent: usize, version: &str, code: Option<u16>, now: Moment) {
        let Some(seen) = self.seen.get_mut(version) else {
            return;
        };
        if seen.agent != agent {
            self.tally.add("ack of somebody else's message");
            return;
        }
        seen.acked = true;
        seen.to_drop = true;
        seen.gone.get_or_insert(Gone {
            step: now.step,
            committed: false,
        });
        if code == Some(102) {
            let subscription = self.subscriptions.get_mut(&(agent, seen.channel));
            subscription.expect("it was sent").disowned = Some(now.step);
        }
        let waiting = seen
            .message
            .is_some_and(|number| self.messages[number].answered.is_none());
        self.tally.add(if waiting {
            "ack in the window"
        } else {
            "ack after the window"
        });
    }

    /// The storage has carried out deletions, or failed to.
    pub(crate) fn deletions_applied(&mut self, deletions: &[Deletion], done: bool, step: u64) {
        for deletion in deletions {
            let Deletion::Message { id, owner } = deletion else {
                continue;
            };
            let Some(token) = self.by_id.get(id) else {
                continue;
            };
            let Some(seen) = self.seen.get_mut(token) else {
                continue;
            };
            let owner = owner.map(|owner| owner.uuid().simple().to_string());
            if owner.is_some_and(|owner| owner != seen.uaid) {
                continue;
            }
            match (&mut seen.gone, done) {
                (Some(gone), true) => gone.committed = true,
                (gone @ Some(_), false) => *gone = None,
                (gone @ None, true) if seen.acked => {
                    *gone = Some(Gone {
                        step,
                        committed: true,
                    });
                }
                (None, _) => {}
            }
        }
    }

    /// Nothing moves any more and the storage works: what failed has been tried again.
    pub(crate) fn deletions_are_over(&mut self, step: u64) {
        for seen in self.seen.values_mut().filter(|seen| seen.to_drop) {
            seen.gone.get_or_insert(Gone {
                step,
                committed: true,
            });
        }
    }

    /// What was only in memory is gone: acks may be forgotten, requests are never answered.
    pub(crate) fn crashed(&mut self) {
        self.open.clear();
        for seen in self.seen.values_mut() {
            seen.gone = seen.gone.filter(|gone| gone.committed);
            seen.to_drop = false;
        }
    }

    pub(crate) fn database_lost(&mut self, step: u64) {
        self.by_id.clear();
        for subscription in self.subscriptions.values_mut() {
            subscription.disowned = None;
            if subscription.truth == Truth::Ended {
                subscription.truth = Truth::Unknown;
                subscription.since = step;
            }
        }
    }

    /// The gateway has read a register or an unregister.
    pub(crate) fn subscription_op(&mut self, agent: usize, channel: Uuid, ends: bool, now: Moment) {
        let subscription = self.subscriptions.entry((agent, channel));
        let subscription = subscription.or_insert(Subscription {
            truth: Truth::Unknown,
            since: 0,
            last_op: 0,
            unregistered: None,
            generation: 0,
            disowned: None,
            endpoints: Vec::new(),
        });
        subscription.truth = Truth::Unknown;
        subscription.since = now.step;
        subscription.last_op = now.step;
        if ends {
            subscription.unregistered = Some(now.step);
        }
    }

    /// The gateway has answered a register or an unregister that it read at `op_step`.
    pub(crate) fn subscription_answered(
        &mut self,
        agent: usize,
        channel: Uuid,
        op_step: u64,
        outcome: Result<Option<EndpointUrl>, u64>,
        now: Moment,
    ) {
        let subscription = self.subscriptions.get_mut(&(agent, channel));
        let subscription = subscription.expect("answered what was asked");
        let truth = match outcome {
            Ok(Some(endpoint)) => {
                subscription.generation = endpoint.generation;
                let same = |known: &EndpointUrl| known.path == endpoint.path;
                if !subscription.endpoints.iter().any(same) {
                    subscription.endpoints.push(endpoint);
                }
                Truth::Subscribed
            }
            Ok(None) => Truth::Ended,
            Err(_) => Truth::Unknown,
        };
        if subscription.last_op == op_step {
            subscription.truth = truth;
            subscription.since = now.step;
        }
    }

    /// Whether a message that was answered 201 must still be with the gateway or its user agent.
    fn is_owed(&self, number: usize, now: Moment) -> bool {
        let message = &self.messages[number];
        let subscription = &self.subscriptions[&(message.agent, message.channel)];
        let later = |step: Option<u64>| step.is_some_and(|step| step >= message.posted.step);
        let age = now.served.saturating_sub(message.posted.served);
        let replaced = self
            .replacements(number)
            .any(|newer| newer.answered.is_none_or(|(status, _)| status == 201));
        message.answered.is_some_and(|(status, _)| status == 201)
            && message.ttl_secs > 0
            && message.posted.generation == now.generation
            && !message.deleted
            && age < Duration::from_secs(message.ttl_secs)
            && !replaced
            && !later(subscription.unregistered)
            && !later(subscription.disowned)
    }

    fn seen_of(&self, number: usize) -> Option<&Seen> {
        self.seen.get(self.messages[number].token.as_ref()?)
    }

    /// Nothing moves any more, and this session is its user agent's newest and in good health:
    /// everything owed to it has been sent to it, or was acked before.
    pub(crate) fn all_sent(&self, log: &SessionLog, now: Moment) {
        for number in 0..self.messages.len() {
            let message = &self.messages[number];
            let is_wanted = message.agent == log.agent && message.urgency >= log.urgency_min;
            if !is_wanted || !self.is_owed(number, now) {
                continue;
            }
            let seen = self.seen_of(number);
            let acked = seen.is_some_and(|seen| seen.acked || seen.perhaps_acked);
            let token = self.messages[number].token.as_ref();
            let sent = token.is_some_and(|token| log.sent.contains(token));
            assert!(
                acked || sent,
                "message {number} is stuck: {:?}",
                self.messages[number]
            );
        }
    }

    /// Promise 1, when every user agent has come back and read everything.
    pub(crate) fn all_received(&mut self, now: Moment) {
        assert!(self.open.is_empty(), "requests without an answer");
        for number in 0..self.messages.len() {
            let received = self.seen_of(number).is_some_and(|seen| seen.received);
            assert!(
                received || !self.is_owed(number, now),
                "message {number} was accepted and is lost: {:?}",
                self.messages[number]
            );
        }
        self.count_undelivered(now);
    }

    fn count_undelivered(&mut self, now: Moment) {
        for number in 0..self.messages.len() {
            let message = &self.messages[number];
            let received = self.seen_of(number).is_some_and(|seen| seen.received);
            if received || message.answered.is_none_or(|(status, _)| status != 201) {
                continue;
            }
            let age = now.served.saturating_sub(message.posted.served);
            if message.ttl_secs == 0 {
                self.tally.add("ttl 0 dropped");
            } else if self.replacements(number).next().is_some() {
                self.tally.add("replaced by topic");
            } else if age >= Duration::from_secs(message.ttl_secs) {
                self.tally.add("expired undelivered");
            }
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

fn number_in(body: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(body).expect("a body of ours");
    let number = text.split(' ').nth(1).expect("a body of ours has a number");
    Some(number.parse().expect("a number"))
}
