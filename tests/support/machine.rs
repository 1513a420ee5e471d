//! The engine on a clock of the test and the real storage, without sockets.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(unreachable_pub, reason = "a module of tests is nobody's library")]
#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used)] // a test may do both

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use edgepush::engine::{Engine, Input, Opening, Output, RequestId, SessionId, Settings};
use edgepush::model::ids::DatabaseId;
use edgepush::model::store::StoreOp;
use edgepush::model::time::{Now, UnixTime};
use edgepush::protocol::http::{BaseUrl, Request, Scheme, Upgrade};
use edgepush::protocol::keyring::Keyring;
use edgepush::protocol::push_request::{Body, PushHeaders};
use edgepush::storage::{FreshDatabase, Store};

const HOST: &str = "pi.local:8090";
const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 1, 5));
/// 2026, where the clock is right.
const WALL_SECS: u64 = 1_780_000_000;

/// More than any input of these tests comes to.
const OUTPUTS_MAX: usize = 64;

/// A gateway without sockets.
pub struct Machine {
    engine: Engine,
    store: Store,
    folder: PathBuf,
    start: Instant,
    elapsed: Duration,
    next_id: u64,
    /// What was sent to each websocket, the newest last.
    pub sent: Vec<(SessionId, Value)>,
    pub statuses: Vec<u16>,
    pub pings: u32,
    /// Operations other than the sweep and the time.
    pub operations: u32,
    /// Does what it is given, which is the engine's work and nothing of the test's.
    pub around: fn(&mut dyn FnMut()),
}

impl Machine {
    pub fn new(name: &str) -> Self {
        let name = format!("edgepush-machine-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        let fresh = FreshDatabase {
            id: DatabaseId([1; 8]),
            key_is_new: true,
        };
        let settings = edgepush::storage::Settings::default();
        let (store, opened) = Store::open(&folder, &settings, fresh).unwrap();
        let start = Instant::now();
        let keyring = Keyring::new(&[[7; 32]]).unwrap();
        let engine = Engine::new(now(start), Settings::new(keyring, opened, [2; 8]));
        Self {
            engine: engine.unwrap(),
            store,
            folder,
            start,
            elapsed: Duration::ZERO,
            next_id: 0,
            sent: Vec::new(),
            statuses: Vec::new(),
            pings: 0,
            operations: 0,
            around: |work| work(),
        }
    }

    pub fn input(&mut self, input: Input<'_>) {
        let mut now = now(self.start + self.elapsed);
        now.wall = UnixTime::from_secs(WALL_SECS + self.elapsed.as_secs());
        let mut alive = Vec::new();
        let mut replies = Vec::new();
        for output in self.handle(now, input) {
            match output {
                Output::Store(op) => {
                    let is_regular =
                        matches!(op, StoreOp::Expire { .. } | StoreOp::SaveTime { .. });
                    self.operations += u32::from(!is_regular);
                    replies.extend(self.store.apply(vec![op]));
                }
                Output::Ping { session } => {
                    self.pings += 1;
                    alive.push(session);
                }
                Output::Send { session, text } => {
                    self.sent
                        .push((session, serde_json::from_str(&text).unwrap()));
                }
                Output::Respond { response, .. } => self.statuses.push(response.status),
                Output::Close { session, reason } => panic!("closed {session:?}: {reason:?}"),
                Output::Pause { .. }
                | Output::Resume { .. }
                | Output::Datagram { .. }
                | Output::AskProxy { .. }
                | Output::Up { .. }
                | Output::Stopped => {}
            }
        }
        if !replies.is_empty() {
            self.input(Input::Stored(replies));
        }
        for session in alive {
            self.input(Input::Alive { session });
        }
    }

    /// What the engine asks for. Nothing else is done within `around`.
    fn handle(&mut self, now: Now, input: Input<'_>) -> Vec<Output> {
        let mut outputs = Vec::with_capacity(OUTPUTS_MAX);
        let mut input = Some(input);
        let engine = &mut self.engine;
        (self.around)(&mut || {
            engine.handle(now, input.take().unwrap());
            outputs.extend(std::iter::from_fn(|| engine.poll_output()));
        });
        assert!(outputs.len() <= OUTPUTS_MAX, "{}", outputs.len());
        outputs
    }

    /// Lets time pass, with each deadline of the engine on its way.
    pub fn pass(&mut self, by: Duration) {
        let end = self.elapsed + by;
        while let Some(deadline) = self.engine.next_deadline() {
            let at = deadline.saturating_duration_since(self.start);
            if at > end {
                break;
            }
            self.elapsed = at;
            self.input(Input::Timeout);
        }
        self.elapsed = end;
    }

    pub const fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub fn say(&mut self, session: SessionId, message: &Value) {
        let text = message.to_string();
        self.input(Input::Text {
            session,
            text: &text,
        });
        self.input(Input::AllSent { session });
    }

    /// A connected user agent with a subscription, and its endpoint.
    pub fn user_agent(&mut self, hello: &Value) -> (SessionId, String) {
        let session = SessionId(self.new_id());
        let number = session.0;
        self.input(Input::Opened(Opening {
            session,
            peer: PEER,
            base_url: BaseUrl::of_host(Scheme::Http, HOST),
            simplepush_path: false,
            borrows: false,
            random: number.to_be_bytes(),
        }));
        self.say(session, hello);
        let channel = format!("00000000-0000-4000-8000-{number:012}");
        self.say(
            session,
            &json!({"messageType": "register", "channelID": channel}),
        );
        let (_, answer) = self.sent.last().unwrap();
        let endpoint = answer["pushEndpoint"].as_str().unwrap().to_owned();
        (session, endpoint)
    }

    pub fn request(&mut self, method: &str, endpoint: &str, ttl: Option<&str>, body: &[u8]) {
        let path = endpoint.strip_prefix("http://pi.local:8090").unwrap();
        let head = Request {
            peer: PEER,
            method: method.to_owned(),
            path: path.to_owned(),
            query: None,
            base_url: BaseUrl::of_host(Scheme::Http, HOST),
            upgrade: Upgrade::None,
            headers: PushHeaders {
                ttl: ttl.map(str::to_owned),
                ..PushHeaders::default()
            },
            body: Body::Whole(body.to_vec()),
            random: None,
        };
        let request = RequestId(self.new_id());
        let head = Box::new(head);
        self.input(Input::Request { request, head });
    }

    /// Acks what was sent last to this user agent.
    pub fn ack(&mut self, session: SessionId, version: impl Fn(&Value) -> Value) {
        let (to, sent) = self.sent.last().unwrap().clone();
        assert_eq!(to, session, "{sent}");
        assert_eq!(sent["messageType"], "notification", "{sent}");
        let (update, version) = match sent.get("updates") {
            Some(updates) => (updates[0].clone(), version(&updates[0])),
            None => (sent.clone(), version(&sent)),
        };
        let update = json!({"channelID": update["channelID"], "version": version});
        self.say(session, &json!({"messageType": "ack", "updates": [update]}));
    }

    /// What is on flash: the database and its log, every byte.
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder).unwrap() {
            let entry = entry.unwrap();
            let bytes = fs::read(entry.path()).unwrap();
            files.push((entry.file_name().into_string().unwrap(), bytes));
        }
        files.sort();
        assert!(files.len() >= 2, "{}", files.len());
        files
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

const fn now(monotonic: Instant) -> Now {
    Now {
        monotonic,
        wall: UnixTime::from_secs(WALL_SECS),
        wall_is_trusted: true,
    }
}
