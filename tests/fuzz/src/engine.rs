//! The whole engine: any sequence of inputs that its contract allows, with any bytes in them, and any
//! replies of the storage that have the right kind.

mod storage;
mod words;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use arbitrary::Unstructured;
use edgepush::engine::{
    Engine, Input, Opening, Output, RequestId, SessionId, Settings, TurnedAway, Violation,
};
use edgepush::model::access::Access;
use edgepush::model::durability::Durability;
use edgepush::model::ids::DatabaseId;
use edgepush::model::limits::Limits;
use edgepush::model::simplepush::SimplePush;
use edgepush::model::store::{Opened, StoreOp, StoreReply};
use edgepush::model::time::{Now, ServiceTime, UnixTime};
use edgepush::model::unifiedpush::UnifiedPush;
use edgepush::model::version::Version;
use edgepush::protocol::http::{BaseUrl, Scheme};
use edgepush::protocol::keyring::{KEY_BYTES, Keyring};

use serde_json::Value;
use words::Words;

/// Longest answer to anything: what is echoed of a message, or a push message with its headers.
const SENT_BYTES_MAX: usize = 1 << 20;
/// Most that one input may bring about.
const OUTPUTS_MAX: usize = 4096;
/// Most inputs of one run, so that runs stay short.
const INPUTS_MAX: usize = 200;

/// The engine and all that is around it.
struct World {
    engine: Engine,
    now: Now,
    last_id: u64,
    sockets: BTreeMap<u64, Socket>,
    /// Requests without an answer.
    open: BTreeSet<u64>,
    /// What the storage was asked and has not answered.
    asked: VecDeque<StoreOp>,
    words: Words,
    stopped: bool,
}

#[derive(Default)]
struct Socket {
    paused: bool,
    /// Its hello was answered: another one would end it.
    greeted: bool,
}

pub(crate) fn engine(bytes: &[u8]) {
    let mut u = Unstructured::new(bytes);
    let mut world = World::new(&mut u);
    for _ in 0..INPUTS_MAX {
        if u.is_empty() || world.step(&mut u).is_err() {
            break;
        }
    }
    world.end();
}

impl World {
    fn new(u: &mut Unstructured<'_>) -> Self {
        let now = Now {
            monotonic: Instant::now(),
            wall: UnixTime::from_secs(u.arbitrary().unwrap_or(0)),
            wall_is_trusted: u.arbitrary().unwrap_or(false),
        };
        let choice: u8 = u.arbitrary().unwrap_or(0);
        let limits = if choice & 1 == 0 {
            Limits::default()
        } else {
            Limits {
                unacked_per_session_max: 2,
                held_bytes_max: 20_000,
                store_queue_max: 4,
                unsent_bytes_max: 2048,
                subscriptions_per_user_agent_max: 2,
                app_ping_interval_min: Duration::ZERO,
                websockets_per_address_max: 3,
                newcomer_burst_max: 3,
                registration_burst_max: 4,
                subscription_burst_max: 3,
                user_agent_burst_max: 5,
                address_burst_max: 8,
                ..Limits::default()
            }
        };
        let settings = Settings {
            limits,
            durability: if choice & 2 == 0 {
                Durability::Strict
            } else {
                Durability::Relaxed
            },
            simplepush: SimplePush {
                udp_wakeup: choice & 4 == 0,
                udp_proxy: (choice & 8 == 0).then(|| "http://operator.example/".into()),
                ..SimplePush::default()
            },
            unifiedpush: UnifiedPush {
                lenient: choice & 16 == 0,
                matrix: choice & 32 == 0,
            },
            public_url: None,
            access: Access::default(),
            upstream: None,
            keyring: Keyring::new(&[[1; KEY_BYTES]]).expect("one key"),
            opened: Opened {
                database: DatabaseId([1; 8]),
                run: 1,
                service_time: ServiceTime::from_secs(u.arbitrary::<u32>().unwrap_or(0).into()),
                version_clock: Version::from_secs(0),
                lost_before: false,
                has_links: false,
            },
            random: [0; 8],
        };
        let mut world = Self {
            engine: Engine::new(now, settings).expect("the first run"),
            now,
            last_id: 0,
            sockets: BTreeMap::new(),
            open: BTreeSet::new(),
            asked: VecDeque::new(),
            words: Words::default(),
            stopped: false,
        };
        world.input(Input::Timeout);
        if choice & 64 == 0 {
            world.usual_beginning();
        }
        world
    }

    /// One user agent of each dialect with a subscription: where most of what is interesting begins.
    fn usual_beginning(&mut self) {
        for hello in [
            r#"{"messageType":"hello","use_webpush":true}"#,
            r#"{"messageType":"hello","channelIDs":[]}"#,
        ] {
            let session = SessionId(self.new_id());
            self.sockets.insert(session.0, Socket::default());
            self.input(Input::Opened(Opening {
                session,
                peer: IpAddr::V4(Ipv4Addr::new(192, 168, 1, 5)),
                base_url: BaseUrl::of_host(Scheme::Http, "pi"),
                simplepush_path: false,
                borrows: false,
                random: session.0.to_be_bytes(),
            }));
            let name = words::CHANNEL;
            let register = format!(r#"{{"messageType":"register","channelID":"{name}"}}"#);
            for text in [hello, &register] {
                self.input(Input::Text { session, text });
                let asked = std::mem::take(&mut self.asked);
                let replies = asked.iter().map(storage::plain_reply).collect();
                self.input(Input::Stored(replies));
            }
        }
    }

    fn step(&mut self, u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
        match u.int_in_range(0..=15)? {
            0 | 1 => self.open(u)?,
            2..=5 => {
                let Some(id) = self.a_socket(u)? else {
                    return Ok(());
                };
                // A socket that is paused is not read from.
                let greeted = self.sockets.get(&id).is_some_and(|socket| socket.greeted);
                if self.sockets.get(&id).is_some_and(|socket| !socket.paused) {
                    let text = self.words.message(greeted, u)?;
                    let session = SessionId(id);
                    self.input(Input::Text {
                        session,
                        text: &text,
                    });
                }
            }
            6 => self.other_frame(u)?,
            7..=9 => {
                let request = self.new_id();
                let head = Box::new(self.words.request(u)?);
                self.open.insert(request);
                self.input(Input::Request {
                    request: RequestId(request),
                    head,
                });
            }
            10..=12 => {
                let most = self.asked.len().min(8);
                let count = u.int_in_range(0..=most)?;
                let mut replies = Vec::new();
                for op in self.asked.drain(..count) {
                    replies.push(storage::reply(&op, u)?);
                }
                self.input(Input::Stored(replies));
            }
            13 => {
                // Mostly less than anything waits for, now and then more than everything.
                let power = u.int_in_range(0..=12)? + if u.ratio(1, 8)? { 8 } else { 0 };
                self.pass(Duration::from_millis(1 << power));
            }
            14 => {
                self.now.wall = UnixTime::from_secs(u.arbitrary()?);
                self.now.wall_is_trusted = u.arbitrary()?;
                let list = self.words.broadcasts(u)?;
                self.input(Input::Broadcasts(list));
            }
            _ => {
                let input = if u.ratio(1, 8)? {
                    Input::Stop
                } else {
                    Input::TurnedAway(TurnedAway::TooManyOfAddress)
                };
                self.input(input);
            }
        }
        Ok(())
    }

    fn new_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn a_socket(&self, u: &mut Unstructured<'_>) -> arbitrary::Result<Option<u64>> {
        if self.sockets.is_empty() {
            return Ok(None);
        }
        let at = u.choose_index(self.sockets.len())?;
        Ok(self.sockets.keys().nth(at).copied())
    }

    fn open(&mut self, u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
        let id = self.new_id();
        self.sockets.insert(id, Socket::default());
        let peer: IpAddr = match u.int_in_range(0..=3)? {
            0 => IpAddr::V6(Ipv6Addr::from(u.arbitrary::<u128>()?)),
            1 => IpAddr::V4(Ipv4Addr::from(u.arbitrary::<u32>()?)),
            _ => IpAddr::V4(Ipv4Addr::new(192, 168, 1, 5)),
        };
        let named: bool = u.arbitrary()?;
        self.input(Input::Opened(Opening {
            session: SessionId(id),
            peer,
            base_url: named
                .then(|| BaseUrl::of_host(Scheme::Http, "pi"))
                .flatten(),
            simplepush_path: u.arbitrary()?,
            borrows: u.arbitrary()?,
            random: id.to_be_bytes(),
        }));
        Ok(())
    }

    fn other_frame(&mut self, u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
        let Some(id) = self.a_socket(u)? else {
            return Ok(());
        };
        let session = SessionId(id);
        let paused = self.sockets.get(&id).is_none_or(|socket| socket.paused);
        let input = match u.int_in_range(0..=15)? {
            0 if !paused => Input::Binary {
                session,
                bytes: u.arbitrary()?,
            },
            1 => Input::Violation {
                session,
                violation: Violation::TooLong,
            },
            2 => Input::Violation {
                session,
                violation: Violation::Protocol,
            },
            4..=9 => Input::AllSent { session },
            3 => {
                self.sockets.remove(&id);
                Input::Gone { session }
            }
            _ => Input::Alive { session },
        };
        self.input(input);
        Ok(())
    }

    fn pass(&mut self, time: Duration) {
        self.now.monotonic += time;
        self.input(Input::Timeout);
        let next = self.engine.next_deadline();
        assert!(
            next.is_none_or(|at| at > self.now.monotonic),
            "due, and not done"
        );
    }

    fn input(&mut self, input: Input<'_>) {
        self.engine.handle(self.now, input);
        let mut outputs = 0;
        while let Some(output) = self.engine.poll_output() {
            outputs += 1;
            assert!(outputs < OUTPUTS_MAX);
            self.output(output);
        }
    }

    fn output(&mut self, output: Output) {
        match output {
            Output::Send { session, text } => {
                assert!(text.len() <= SENT_BYTES_MAX);
                let message: Value = serde_json::from_str(&text).expect("what is sent is JSON");
                let socket = self.open_socket(session);
                socket.greeted |= message["messageType"] == "hello";
                self.words.heard(&message);
            }
            Output::Ping { session } => {
                self.open_socket(session);
            }
            Output::Pause { session } => {
                let socket = self.open_socket(session);
                assert!(!std::mem::replace(&mut socket.paused, true), "paused twice");
            }
            Output::Resume { session } => {
                let socket = self.open_socket(session);
                assert!(
                    std::mem::replace(&mut socket.paused, false),
                    "resumed twice"
                );
            }
            Output::Close { session, reason } => {
                assert!(reason.as_str().len() <= 123);
                self.open_socket(session);
                self.sockets.remove(&session.0);
            }
            Output::Respond { request, response } => {
                assert!(self.open.remove(&request.0), "answered twice");
                assert!(response.body.len() <= SENT_BYTES_MAX);
                self.words.answered(&response);
                if response.status == 101 {
                    // Opens later, or never.
                }
            }
            Output::Store(op) => self.asked.push_back(op),
            Output::Datagram { .. } | Output::AskProxy { .. } => {}
            Output::Up { .. } => unreachable!("there is no main service"),
            Output::Stopped => {
                assert!(!self.stopped, "stopped twice");
                self.stopped = true;
            }
        }
    }

    /// A socket that something is said to: it must be open.
    fn open_socket(&mut self, session: SessionId) -> &mut Socket {
        let socket = self.sockets.get_mut(&session.0);
        socket.expect("nothing follows for a websocket that is closed")
    }

    /// Answers what is open, then stops: everybody gets an answer and nothing is left.
    fn end(mut self) {
        self.input(Input::Stop);
        let mut rounds = 0;
        while !self.asked.is_empty() {
            rounds += 1;
            assert!(rounds < OUTPUTS_MAX, "the storage is never done");
            let asked = std::mem::take(&mut self.asked);
            let replies: Vec<StoreReply> = asked.iter().map(storage::plain_reply).collect();
            self.input(Input::Stored(replies));
        }
        assert!(self.stopped, "never stopped");
        assert!(self.open.is_empty(), "{:?} never answered", self.open);
        assert!(self.sockets.is_empty(), "websockets left open");
        let snapshot = self.engine.snapshot(self.now);
        assert_eq!((snapshot.messages_held, snapshot.held_bytes), (0, 0));
    }
}
