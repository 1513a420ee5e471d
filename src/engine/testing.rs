//! What the tests of this layer share: an engine on a table, with short words for what happens to it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::{CloseReason, Engine, Input, Opening, Output, RequestId, SessionId, Settings, UpOrder};
use crate::model::durability::Durability;
use crate::model::ids::{ChannelId, DatabaseId};
use crate::model::limits::Limits;
use crate::model::simplepush::SimplePush;
use crate::model::store::{EnqueueOutcome, Opened, StoreOp, StoreReply, Subscription};
use crate::model::time::{Now, UnixTime};
use crate::model::upstream::Upstream;
use crate::protocol::http::{BaseUrl, Request, Response, Scheme, Upgrade};
use crate::protocol::keyring::Keyring;
use crate::protocol::push_request::{Body, PushHeaders};

pub(super) const DATABASE: DatabaseId = DatabaseId([1; 8]);
pub(super) const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 5));
pub(super) const KEPT: StoreReply = StoreReply::Enqueued(EnqueueOutcome::Kept);
pub(super) const EMPTY_PAGE: StoreReply = StoreReply::Page {
    messages: Vec::new(),
    more: false,
};

/// An engine, its clock, and what it has asked of the storage and was not answered yet.
pub(super) struct Table {
    pub(super) engine: Engine,
    now: Now,
    names: u64,
    /// The `Host` of requests.
    pub(super) reached_by: &'static str,
    pub(super) asked: Vec<StoreOp>,
    /// Who sends requests and opens websockets.
    pub(super) peer: IpAddr,
    /// Whole answers to requests.
    pub(super) responses: HashMap<u64, Response>,
    /// The newest connection to the main service.
    pub(super) newest_link: u64,
}

/// What came out for others than the storage.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Out {
    Sent(u64, String),
    Pinged(u64),
    Paused(u64),
    Resumed(u64),
    Closed(u64, CloseReason),
    Answered(u64, u16),
    Woken(SocketAddr),
    AskedToWake(SocketAddr),
    Up(u64, UpOrder),
    Stopped,
}

impl Table {
    pub(super) fn new() -> Self {
        Self::with(Limits::default(), Durability::Strict)
    }

    pub(super) fn with(limits: Limits, durability: Durability) -> Self {
        Self::with_simplepush(limits, durability, SimplePush::default())
    }

    pub(super) fn with_simplepush(
        limits: Limits,
        durability: Durability,
        simplepush: SimplePush,
    ) -> Self {
        Self::made(limits, durability, simplepush, None, false)
    }

    /// With a main service; what is kept of it is asked for.
    pub(super) fn with_upstream(upstream: Upstream) -> Self {
        Self::made_with_upstream(upstream, false)
    }

    /// The same with a database before which there was another one.
    pub(super) fn with_upstream_after_a_loss(upstream: Upstream) -> Self {
        Self::made_with_upstream(upstream, true)
    }

    fn made_with_upstream(upstream: Upstream, lost_before: bool) -> Self {
        let upstream = Some(Box::new(upstream));
        let (limits, durability) = (Limits::default(), Durability::Strict);
        Self::made(
            limits,
            durability,
            SimplePush::default(),
            upstream,
            lost_before,
        )
    }

    fn made(
        limits: Limits,
        durability: Durability,
        simplepush: SimplePush,
        upstream: Option<Box<Upstream>>,
        lost_before: bool,
    ) -> Self {
        let now = Now {
            monotonic: Instant::now(),
            wall: UnixTime::from_secs(0),
            wall_is_trusted: false,
        };
        let opened = Opened {
            lost_before,
            ..Opened::new(DATABASE)
        };
        let settings = Settings {
            limits,
            durability,
            simplepush,
            upstream,
            ..Settings::new(keyring(), opened, [0; 8])
        };
        let mut table = Self {
            engine: Engine::new(now, settings).unwrap(),
            now,
            names: 0,
            reached_by: "pi",
            asked: Vec::new(),
            peer: PEER,
            responses: HashMap::new(),
            newest_link: 0,
        };
        assert_eq!(table.input(Input::Timeout), []);
        table
    }

    pub(super) fn input(&mut self, input: Input<'_>) -> Vec<Out> {
        self.engine.handle(self.now, input);
        let mut outs = Vec::new();
        while let Some(output) = self.engine.poll_output() {
            outs.push(match output {
                Output::Store(op) => {
                    self.asked.push(op);
                    continue;
                }
                Output::Send { session, text } => Out::Sent(session.0, text),
                Output::Ping { session } => Out::Pinged(session.0),
                Output::Pause { session } => Out::Paused(session.0),
                Output::Resume { session } => Out::Resumed(session.0),
                Output::Close { session, reason } => Out::Closed(session.0, reason),
                Output::Respond { request, response } => {
                    let status = response.status;
                    self.responses.insert(request.0, response);
                    Out::Answered(request.0, status)
                }
                Output::Datagram { to } => Out::Woken(to),
                Output::AskProxy { wakeup, .. } => Out::AskedToWake(wakeup.address),
                Output::Up { link, order } => {
                    self.newest_link = self.newest_link.max(link.0);
                    Out::Up(link.0, order)
                }
                Output::Stopped => Out::Stopped,
            });
        }
        outs
    }

    /// Lets time pass and calls at its end.
    pub(super) fn pass(&mut self, by: Duration) -> Vec<Out> {
        self.now.monotonic += by;
        self.input(Input::Timeout)
    }

    pub(super) fn stored(&mut self, replies: Vec<StoreReply>) -> Vec<Out> {
        assert!(self.asked.len() >= replies.len());
        self.asked.drain(..replies.len());
        self.input(Input::Stored(replies))
    }

    pub(super) const fn monotonic(&self) -> Instant {
        self.now.monotonic
    }

    pub(super) const fn set_wall(&mut self, secs: u64, trusted: bool) {
        self.now.wall = UnixTime::from_secs(secs);
        self.now.wall_is_trusted = trusted;
    }

    pub(super) fn snapshot(&self) -> super::counters::Snapshot {
        self.engine.snapshot(self.now)
    }

    fn name(&mut self) -> u64 {
        self.names += 1;
        self.names
    }

    pub(super) fn open(&mut self) -> u64 {
        let id = self.name();
        let outs = self.input(Input::Opened(Opening {
            session: SessionId(id),
            peer: self.peer,
            base_url: BaseUrl::of_host(Scheme::Http, "pi"),
            simplepush_path: false,
            borrows: false,
            random: id.to_be_bytes(),
        }));
        assert_eq!(outs, []);
        id
    }

    pub(super) fn say(&mut self, session: u64, text: &str) -> Vec<Out> {
        let session = SessionId(session);
        self.input(Input::Text { session, text })
    }

    pub(super) fn all_sent(&mut self, session: u64) -> Vec<Out> {
        let session = SessionId(session);
        self.input(Input::AllSent { session })
    }

    /// A new user agent on a new websocket: the session and its UAID.
    pub(super) fn newcomer(&mut self) -> (u64, String) {
        let id = self.open();
        let outs = self.say(id, r#"{"messageType":"hello","use_webpush":true}"#);
        let [Out::Sent(_, hello)] = outs.as_slice() else {
            panic!("{outs:?}");
        };
        let hello: serde_json::Value = serde_json::from_str(hello).unwrap();
        (id, hello["uaid"].as_str().unwrap().to_owned())
    }

    /// The same of a SimplePush user agent, which can be woken at port 9 of where it is.
    pub(super) fn device(&mut self) -> (u64, String) {
        let id = self.open();
        let outs = self.say(id, &device_hello(""));
        let [Out::Sent(_, hello)] = outs.as_slice() else {
            panic!("{outs:?}");
        };
        let hello: serde_json::Value = serde_json::from_str(hello).unwrap();
        (id, hello["uaid"].as_str().unwrap().to_owned())
    }

    /// Its next websocket; the storage is asked.
    pub(super) fn device_again(&mut self, uaid: &str) -> u64 {
        let id = self.open();
        assert_eq!(self.say(id, &device_hello(uaid)), [Out::Paused(id)]);
        id
    }

    /// Puts a version, or asks for the next one; the request's name and what came out.
    pub(super) fn put(&mut self, path: &str, version: Option<u64>) -> (u64, Vec<Out>) {
        let version = version.map(|version| format!("version={version}"));
        self.ask("PUT", path, version, PushHeaders::default(), Upgrade::None)
    }

    /// Acks a version by its number.
    pub(super) fn ack_number(&mut self, session: u64, channel: u8, version: u64) -> Vec<Out> {
        let channel = channel_id(channel).uuid();
        let text = format!(
            r#"{{"messageType":"ack","updates":[{{"channelID":"{channel}","version":{version}}}]}}"#
        );
        self.say(session, &text)
    }

    /// A websocket that has said hello with `uaid`; the storage is asked.
    pub(super) fn again(&mut self, uaid: &str) -> u64 {
        let id = self.open();
        let hello = format!(r#"{{"messageType":"hello","use_webpush":true,"uaid":"{uaid}"}}"#);
        assert_eq!(self.say(id, &hello), [Out::Paused(id)]);
        id
    }

    /// Registers and returns the path of the endpoint.
    pub(super) fn register(&mut self, session: u64, channel: u8) -> String {
        let text = format!(
            r#"{{"messageType":"register","channelID":"{}"}}"#,
            channel_id(channel).uuid()
        );
        assert_eq!(self.say(session, &text), [Out::Paused(session)]);
        let outs = self.stored(vec![StoreReply::Subscribed(true)]);
        let [Out::Sent(_, answer), Out::Resumed(_)] = outs.as_slice() else {
            panic!("{outs:?}");
        };
        let answer: serde_json::Value = serde_json::from_str(answer).unwrap();
        let url = answer["pushEndpoint"].as_str().unwrap();
        url.strip_prefix("http://pi").unwrap().to_owned()
    }

    pub(super) fn unregister(&mut self, session: u64, channel: u8) -> Vec<Out> {
        let text = format!(
            r#"{{"messageType":"unregister","channelID":"{}"}}"#,
            channel_id(channel).uuid()
        );
        self.say(session, &text)
    }

    /// Posts without a body; the request's name and what came out.
    pub(super) fn post(&mut self, path: &str, ttl: u32, topic: Option<&str>) -> (u64, Vec<Out>) {
        let headers = PushHeaders {
            ttl: Some(ttl.to_string()),
            topic: topic.map(str::to_owned),
            ..PushHeaders::default()
        };
        self.request("POST", path, headers)
    }

    pub(super) fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: PushHeaders,
    ) -> (u64, Vec<Out>) {
        self.ask(method, path, None, headers, Upgrade::None)
    }

    /// Asks for a websocket; the answer.
    pub(super) fn handshake(&mut self, path: &str) -> Response {
        let (request, _) = self.ask(
            "GET",
            path,
            None,
            PushHeaders::default(),
            Upgrade::Websocket,
        );
        self.responses[&request].clone()
    }

    fn ask(
        &mut self,
        method: &str,
        path: &str,
        query: Option<String>,
        headers: PushHeaders,
        upgrade: Upgrade,
    ) -> (u64, Vec<Out>) {
        let id = self.name();
        let head = Request {
            peer: self.peer,
            method: method.to_owned(),
            path: path.to_owned(),
            query,
            base_url: BaseUrl::of_host(Scheme::Http, self.reached_by),
            upgrade,
            headers,
            body: Body::Whole(Vec::new()),
            random: Some([u8::try_from(id).unwrap(); 24]),
        };
        let outs = self.input(Input::Request {
            request: RequestId(id),
            head: Box::new(head),
        });
        (id, outs)
    }

    /// Acks one message; `code` 100 unless something was wrong with it.
    pub(super) fn ack(&mut self, session: u64, channel: u8, version: &str, code: u16) -> Vec<Out> {
        let channel = channel_id(channel).uuid();
        let text = format!(
            r#"{{"messageType":"ack","updates":[{{"channelID":"{channel}","version":"{version}","code":{code}}}]}}"#
        );
        self.say(session, &text)
    }

    /// The message that the storage is asked to keep, last of all.
    pub(super) fn asked_to_keep(&self) -> crate::model::message::PushMessage {
        match self.asked.last() {
            Some(StoreOp::Enqueue { message, .. }) => message.as_ref().clone(),
            other => panic!("{other:?}"),
        }
    }
}

/// The hello of a SimplePush user agent. Without a UAID where that is empty.
pub(super) fn device_hello(uaid: &str) -> String {
    let wakeup = format!(r#"{{"ip":"{PEER}","port":9}}"#);
    format!(
        r#"{{"messageType":"hello","uaid":"{uaid}","channelIDs":[],"wakeup_hostport":{wakeup}}}"#
    )
}

/// One subscription of a user agent that returns.
pub(super) fn loaded(channel: u8) -> StoreReply {
    loaded_as(channel, false)
}

/// The same, taken back in from a lost database.
pub(super) fn restored(channel: u8) -> StoreReply {
    loaded_as(channel, true)
}

fn loaded_as(channel: u8, is_restored: bool) -> StoreReply {
    StoreReply::Loaded(vec![Subscription {
        channel: channel_id(channel),
        spelling: None,
        last_version: None,
        is_restored,
    }])
}

/// One page with everything there is.
pub(super) fn page(messages: Vec<crate::model::message::PushMessage>) -> StoreReply {
    StoreReply::Page {
        messages,
        more: false,
    }
}

/// The versions of the notifications among `outs`.
pub(super) fn versions(outs: &[Out]) -> Vec<String> {
    let texts = outs.iter().filter_map(|out| match out {
        Out::Sent(_, text) => Some(text),
        Out::Pinged(_)
        | Out::Paused(_)
        | Out::Resumed(_)
        | Out::Closed(..)
        | Out::Answered(..)
        | Out::Woken(_)
        | Out::AskedToWake(_)
        | Out::Up(..)
        | Out::Stopped => None,
    });
    texts
        .filter_map(|text| {
            let frame: serde_json::Value = serde_json::from_str(text).unwrap();
            frame["version"].as_str().map(str::to_owned)
        })
        .collect()
}

/// The numbers of the version updates among `outs`.
pub(super) fn numbers(outs: &[Out]) -> Vec<u64> {
    let frame = |out: &Out| {
        if let Out::Sent(_, text) = out {
            return serde_json::from_str::<serde_json::Value>(text).ok();
        }
        None
    };
    let updates = |frame: serde_json::Value| frame["updates"].as_array().cloned();
    let all = outs.iter().filter_map(frame).filter_map(updates).flatten();
    all.map(|update| update["version"].as_u64().unwrap())
        .collect()
}

pub(super) fn keyring() -> Keyring {
    Keyring::new(&[[7; 32]]).unwrap()
}

pub(super) fn channel_id(number: u8) -> ChannelId {
    ChannelId::from_bytes([number; 16])
}
