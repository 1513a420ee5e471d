//! A day on which nothing happens, compressed: the engine on a clock of the test and the real storage.
//! User agents are connected and answer pings; nothing of it may reach flash.

#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used)] // a test may do both

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use edgepush::engine::{Engine, Input, Opening, Output, RequestId, SessionId, Settings};
use edgepush::model::access::Access;
use edgepush::model::durability::Durability;
use edgepush::model::ids::DatabaseId;
use edgepush::model::limits::Limits;
use edgepush::model::simplepush::SimplePush;
use edgepush::model::store::StoreOp;
use edgepush::model::time::{Now, UnixTime};
use edgepush::model::unifiedpush::UnifiedPush;
use edgepush::protocol::http::{BaseUrl, Request, Scheme, Upgrade};
use edgepush::protocol::keyring::Keyring;
use edgepush::protocol::push_request::{Body, PushHeaders};
use edgepush::storage::{FreshDatabase, Store};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const HOST: &str = "pi.local:8090";
const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 1, 5));
/// 2026, where the clock is right.
const WALL_SECS: u64 = 1_780_000_000;

/// A gateway without sockets.
struct Machine {
    engine: Engine,
    store: Store,
    folder: PathBuf,
    start: Instant,
    elapsed: Duration,
    next_id: u64,
    /// What was sent to each websocket, the newest last.
    sent: Vec<(SessionId, Value)>,
    statuses: Vec<u16>,
    pings: u32,
    /// Operations other than the sweep and the time.
    operations: u32,
}

impl Machine {
    fn new(name: &str) -> Self {
        let name = format!("edgepush-idle-{name}-{}", std::process::id());
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
        let engine = Engine::new(
            now(start),
            Settings {
                limits: Limits::default(),
                durability: Durability::Strict,
                simplepush: SimplePush::default(),
                unifiedpush: UnifiedPush::default(),
                public_url: None,
                access: Access::default(),
                upstream: None,
                keyring: Keyring::new(&[[7; 32]]).unwrap(),
                opened,
                random: [2; 8],
            },
        );
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
        }
    }

    fn input(&mut self, input: Input<'_>) {
        let mut now = now(self.start + self.elapsed);
        now.wall = UnixTime::from_secs(WALL_SECS + self.elapsed.as_secs());
        self.engine.handle(now, input);
        let mut alive = Vec::new();
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Store(op) => {
                    let is_regular =
                        matches!(op, StoreOp::Expire { .. } | StoreOp::SaveTime { .. });
                    self.operations += u32::from(!is_regular);
                    let replies = self.store.apply(vec![op]);
                    self.engine.handle(now, Input::Stored(replies));
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
        for session in alive {
            self.input(Input::Alive { session });
        }
    }

    /// Lets time pass, with each deadline of the engine on its way.
    fn pass(&mut self, by: Duration) {
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

    const fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn say(&mut self, session: SessionId, message: &Value) {
        let text = message.to_string();
        self.input(Input::Text {
            session,
            text: &text,
        });
        self.input(Input::AllSent { session });
    }

    /// A connected user agent with a subscription, and its endpoint.
    fn user_agent(&mut self, hello: &Value) -> (SessionId, String) {
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

    fn request(&mut self, method: &str, endpoint: &str, ttl: Option<&str>, body: &[u8]) {
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
    fn ack(&mut self, session: SessionId, version: impl Fn(&Value) -> Value) {
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
    fn files(&self) -> Vec<(String, Vec<u8>)> {
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

/// Bytes that this process has had written to a disk, as the kernel counts them.
fn bytes_written() -> u64 {
    let account = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = account
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    line.map_or(0, |bytes| bytes.parse().unwrap())
}

/// A morning with all that a gateway does, after which nothing waits.
fn busy_morning(machine: &mut Machine) -> (SessionId, String) {
    let hello = json!({"messageType": "hello", "use_webpush": true});
    let agents: Vec<_> = (0..20).map(|_| machine.user_agent(&hello)).collect();
    for (session, endpoint) in &agents {
        machine.request("POST", endpoint, Some("60"), b"");
        machine.ack(*session, |sent| sent["version"].clone());
    }
    // One that is acked when it is on flash already.
    let (session, endpoint) = agents[0].clone();
    machine.request("POST", &endpoint, Some("3600"), b"");
    machine.pass(Duration::from_secs(1));
    machine.ack(session, |sent| sent["version"].clone());

    let hello = json!({"messageType": "hello", "uaid": "", "channelIDs": []});
    let (device, simple) = machine.user_agent(&hello);
    machine.request("PUT", &simple, None, b"");
    machine.ack(device, |update| update["version"].clone());
    assert_eq!(machine.statuses.len(), 22);
    assert!(
        machine.statuses.iter().all(|status| *status / 100 == 2),
        "{:?}",
        machine.statuses
    );
    machine.pass(Duration::from_secs(2 * 60 * 60));
    (session, endpoint)
}

#[test]
fn nothing_is_written_on_a_day_when_nothing_happens() {
    let mut machine = Machine::new("day");
    let (session, endpoint) = busy_morning(&mut machine);
    let (before, written) = (machine.files(), bytes_written());
    machine.pings = 0;
    machine.operations = 0;

    machine.pass(DAY);
    assert!(machine.files() == before, "a file has changed");
    assert_eq!(bytes_written(), written);
    assert_eq!(machine.operations, 0, "the storage was asked for something");
    // Each of them was pinged every five minutes.
    assert!(machine.pings > 21 * 280, "{}", machine.pings);

    // And it is all there still: what waits is written down, and how long it has waited each hour.
    machine.request("POST", &endpoint, Some("172800"), b"");
    machine.pass(Duration::from_secs(1));
    let kept = machine.files();
    assert!(kept != before, "a message was to be kept");
    machine.pass(DAY);
    assert!(machine.files() != kept, "the time was to be kept");
    machine.ack(session, |sent| sent["version"].clone());
}
