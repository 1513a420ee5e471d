//! The world around the engine: clocks, sockets, power cuts.

#[path = "rest.rs"]
mod rest;
#[path = "storage_thread.rs"]
mod storage_thread;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use edgepush::engine::{
    CloseReason, Engine, Input, Opening, Output, RequestId, SessionId, Settings,
};
use edgepush::model::access::Access;
use edgepush::model::ids::DatabaseId;
use edgepush::model::simplepush::SimplePush;
use edgepush::model::store::{Opened, StoreOp, StoreReply};
use edgepush::model::time::{Now, ServiceTime, UnixTime};
use edgepush::model::unifiedpush::UnifiedPush;
use edgepush::protocol::http::{BaseUrl, Request, Scheme};
use edgepush::protocol::keyring::Keyring;
use edgepush::storage::{FreshDatabase, Store, Synchronous};

use crate::checker::{Asked, Checker, EndpointUrl, Moment, SessionLog};
use crate::frames::{Down, Frame, Said, Up};
use crate::plan::Plan;
use crate::rng::Rng;
use crate::user_agent::UserAgent;

pub(crate) const HOST: &str = "pi.local:8090";
/// 2026, where the clock is right.
const WALL_SECS: u64 = 1_780_000_000;
/// Events that are shown when a run fails.
const TRACE_LINES: usize = 4000;

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) plan: Plan,
    pub(crate) agents: Vec<UserAgent>,
    pub(crate) sockets: BTreeMap<u64, Socket>,
    pub(crate) checker: Checker,
    /// Which socket said hello last, for each user agent.
    newest: BTreeMap<usize, u64>,
    run: Option<Run>,
    directory: PathBuf,
    start: Instant,
    elapsed: Duration,
    served: Duration,
    wall_secs: u64,
    step: u64,
    generation: u32,
    next_id: u64,
    failing: Failing,
    names: Vec<String>,
    /// `None` unless somebody wants to read it.
    trace: Option<VecDeque<String>>,
}

/// One life of the process.
#[derive(Debug)]
struct Run {
    engine: Engine,
    store: Store,
    opened: Opened,
    started: Duration,
    /// Given to the storage thread and not carried out.
    queue: VecDeque<StoreOp>,
    /// Carried out and not reported.
    replies: VecDeque<StoreReply>,
    stopping: bool,
    stopped: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Failing {
    Nothing,
    Writes,
    Everything,
}

/// One websocket, with both of its ends and what is between them.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) log: SessionLog,
    /// Said, and not heard by the gateway.
    pub(crate) up: VecDeque<Up>,
    /// Given by the engine, and not taken by the socket.
    unsent: VecDeque<Down>,
    /// Taken, and not read by the user agent.
    wire: VecDeque<Down>,
    paused: bool,
    /// The engine counts it as open.
    pub(crate) server_open: bool,
    /// The user agent listens.
    pub(crate) client_open: bool,
    /// Takes frames slowly.
    pub(crate) slow: bool,
    hello: Option<Option<String>>,
    greeted: bool,
    /// When it was told a new name: it may linger for a second, whatever it did wrong.
    named_at: Option<Duration>,
    /// The user agent has seen the answer to its hello.
    pub(crate) ready: bool,
    pending: Option<(uuid::Uuid, bool, u64)>,
}

impl World {
    pub(crate) fn new(seed: u64, verbose: bool) -> Self {
        let mut rng = Rng::new(seed);
        let plan = Plan::new(&mut rng);
        let agents = (0..plan.user_agents)
            .map(|_| UserAgent::new(&mut rng))
            .collect();
        let mut world = Self {
            rng,
            plan,
            agents,
            sockets: BTreeMap::new(),
            checker: Checker::new(keyring()),
            newest: BTreeMap::new(),
            run: None,
            directory: new_directory(),
            start: Instant::now(),
            elapsed: Duration::ZERO,
            served: Duration::ZERO,
            wall_secs: WALL_SECS,
            step: 0,
            generation: 0,
            next_id: 0,
            failing: Failing::Nothing,
            names: Vec::new(),
            trace: verbose.then(VecDeque::new),
        };
        if world.plan.durability == edgepush::model::durability::Durability::Relaxed {
            world.checker.tally.add("run with relaxed durability");
        }
        world.boot();
        world
    }

    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        let at = self.elapsed;
        if let Some(trace) = &mut self.trace {
            if trace.len() >= TRACE_LINES {
                trace.pop_front();
            }
            trace.push_back(format!("{:6} {at:?} {}", self.step, line()));
        }
    }

    pub(crate) fn moment(&self) -> Moment {
        let run = self.run.as_ref().expect("there is a run");
        let running = (self.elapsed - run.started).as_secs();
        Moment {
            step: self.step,
            served: self.served,
            service_secs: run.opened.service_time.as_secs() + running,
            database: run.opened.database,
            generation: self.generation,
        }
    }

    pub(crate) fn notifications_sent(&self) -> u64 {
        let run = self.run.as_ref().expect("it runs");
        let snapshot = run.engine.snapshot(self.now());
        snapshot.counters.notifications_sent
    }

    pub(crate) const fn elapsed(&self) -> Duration {
        self.elapsed
    }

    pub(crate) const fn generation(&self) -> u32 {
        self.generation
    }

    fn now(&self) -> Now {
        Now {
            monotonic: self.start + self.elapsed,
            wall: UnixTime::from_secs(self.wall_secs),
            wall_is_trusted: false,
        }
    }

    // Lives and deaths.

    fn boot(&mut self) {
        let fresh = FreshDatabase {
            id: DatabaseId(self.rng.bytes8()),
            key_is_new: self.generation == 0,
        };
        let settings = edgepush::storage::Settings {
            synchronous: Synchronous::Normal,
            ..edgepush::storage::Settings::default()
        };
        let (store, opened) =
            Store::open(&self.directory, &settings, fresh).expect("the database opens");
        assert!(
            Duration::from_secs(opened.service_time.as_secs()) <= self.served,
            "service time ran ahead"
        );
        let engine = Engine::new(
            self.now(),
            Settings {
                limits: self.plan.limits.clone(),
                durability: self.plan.durability,
                simplepush: SimplePush::default(),
                unifiedpush: UnifiedPush::default(),
                public_url: None,
                access: Access::default(),
                upstream: None,
                keyring: keyring(),
                opened,
                random: self.rng.bytes8(),
            },
        );
        self.run = Some(Run {
            engine: engine.expect("runs are not used up"),
            store,
            opened,
            started: self.elapsed,
            queue: VecDeque::new(),
            replies: VecDeque::new(),
            stopping: false,
            stopped: false,
        });
        self.note(|| format!("boot {opened:?}"));
    }

    /// Everything in memory is gone; the network keeps some of what it had taken.
    pub(crate) fn crash(&mut self) {
        self.step += 1;
        self.note(|| "CRASH".to_owned());
        self.checker.tally.add("crash");
        self.run = None;
        self.checker.crashed();
        self.reboot();
    }

    /// Asks the engine to stop and waits until it says that it has.
    pub(crate) fn stop(&mut self) {
        self.checker.tally.add("clean stop");
        if let Some(run) = &mut self.run {
            run.stopping = true;
        }
        self.input(Input::Stop);
        for _ in 0..1000 {
            if self.run.as_ref().is_some_and(|run| run.stopped) {
                break;
            }
            if self.rng.percent(20) {
                crate::application_server::act(self);
            }
            if self.rng.percent(5) {
                self.open(0);
            }
            self.storage_round();
        }
        let now = self.moment();
        let mut run = self.run.take().expect("it runs");
        assert!(run.stopped, "never stopped");
        assert!(run.queue.is_empty() && run.replies.is_empty());
        assert_eq!(
            self.checker.open_requests(),
            0,
            "stopped with open requests"
        );
        for (id, socket) in &self.sockets {
            assert!(!socket.server_open, "stopped with socket {id} open");
        }
        // What the engine still had to delete and could not is delivered again.
        run.store.apply(Vec::new());
        let time = ServiceTime::from_secs(now.service_secs);
        run.store.close(time).expect("the database closes");
        self.checker.crashed();
        self.reboot();
    }

    fn reboot(&mut self) {
        let ids: Vec<u64> = self.sockets.keys().copied().collect();
        for id in ids {
            let read = self.rng.index(4);
            for _ in 0..read {
                self.client_reads(id);
            }
        }
        self.sockets.clear();
        self.newest.clear();
        self.failing = Failing::Nothing;
        self.jump();
        self.elapsed += Duration::from_millis(self.rng.below(100_000));
        if self.plan.losses && self.rng.percent(40) {
            self.lose_database();
        }
        self.boot();
    }

    fn lose_database(&mut self) {
        self.note(|| "DATABASE LOST".to_owned());
        self.checker.tally.add("database lost");
        std::fs::remove_dir_all(&self.directory).expect("it is there");
        std::fs::create_dir(&self.directory).expect("its parent is there");
        self.generation += 1;
        self.served = Duration::ZERO;
        self.checker.database_lost(self.step);
    }

    // Time.

    /// The wall clock is set by somebody, or by a dead battery.
    pub(crate) fn jump(&mut self) {
        self.wall_secs = match self.rng.below(4) {
            0 => {
                self.checker.tally.add("clock in 1970");
                self.rng.below(1000)
            }
            1 => {
                self.checker.tally.add("clock far ahead");
                2_208_988_800 + self.rng.below(1000)
            }
            2 => self.wall_secs.saturating_sub(self.rng.below(100_000)),
            _ => WALL_SECS,
        };
    }

    /// Lets time pass, with each deadline of the engine on its way.
    pub(crate) fn advance(&mut self, by: Duration) {
        let target = self.elapsed + by;
        loop {
            let run = self.run.as_ref().expect("it runs");
            let deadline = run.engine.next_deadline().map(|at| at - self.start);
            let Some(deadline) = deadline.filter(|deadline| *deadline <= target) else {
                break;
            };
            let late = Duration::from_micros(self.rng.below(3000));
            self.tick_to(deadline + late);
            self.input(Input::Timeout);
            let next = self.run.as_ref().and_then(|run| run.engine.next_deadline());
            assert!(
                next.is_none_or(|next| next > self.now().monotonic),
                "a deadline stays in the past: the loop would spin"
            );
        }
        self.tick_to(target);
    }

    fn tick_to(&mut self, elapsed: Duration) {
        let by = elapsed.saturating_sub(self.elapsed);
        self.elapsed += by;
        self.served += by;
        self.wall_secs += by.as_secs();
    }

    // The engine.

    pub(crate) fn input(&mut self, input: Input<'_>) {
        self.step += 1;
        self.note(|| format!("-> {input:?}"));
        let now = self.now();
        let run = self.run.as_mut().expect("it runs");
        run.engine.handle(now, input);
        while let Some(output) = self.run.as_mut().and_then(|run| run.engine.poll_output()) {
            self.note(|| format!("   {output:?}"));
            self.perform(output);
        }
        let run = self.run.as_ref().expect("it runs");
        let snapshot = run.engine.snapshot(now);
        let held_max = u64::try_from(self.plan.limits.held_bytes_max).expect("it fits");
        assert!(
            snapshot.held_bytes <= held_max,
            "{} held bytes",
            snapshot.held_bytes
        );
        let queued = run.queue.len() + run.replies.len();
        assert_eq!(
            snapshot.store_queue, queued as u64,
            "miscounted store queue"
        );
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Send { session, text } => self.send(session.0, &text),
            Output::Ping { session } => self.open_socket(session).unsent.push_back(Down::Ping),
            Output::Pause { session } => {
                self.checker.tally.add("paused");
                let socket = self.open_socket(session);
                assert!(!socket.paused, "paused twice");
                socket.paused = true;
            }
            Output::Resume { session } => {
                let socket = self.open_socket(session);
                assert!(socket.paused, "resumed without a pause");
                socket.paused = false;
            }
            Output::Close { session, reason } => self.close(session, reason),
            Output::Respond { request, response } => {
                let now = self.moment();
                self.checker.responded(request.0, &response, now);
            }
            Output::Datagram { .. } | Output::AskProxy { .. } => {
                unreachable!("nobody asked to be woken")
            }
            Output::Up { .. } => unreachable!("there is no main service"),
            Output::Store(op) => {
                let run = self.run.as_mut().expect("it runs");
                run.queue.push_back(op);
            }
            Output::Stopped => {
                let run = self.run.as_mut().expect("it runs");
                assert!(run.stopping && !run.stopped);
                run.stopped = true;
            }
        }
    }

    fn open_socket(&mut self, session: SessionId) -> &mut Socket {
        let socket = self.sockets.get_mut(&session.0).expect("it exists");
        assert!(socket.server_open, "output for a session that has ended");
        socket
    }

    fn close(&mut self, session: SessionId, reason: CloseReason) {
        let socket = self.open_socket(session);
        socket.server_open = false;
        // What the socket had not taken may be lost with it.
        socket.unsent.clear();
        socket.wire.push_back(Down::Close);
        self.checker.tally.add(match reason {
            CloseReason::GoingAway => "closed: stopping",
            CloseReason::Superseded => "closed: superseded",
            CloseReason::HelloTimeout => "closed: hello timeout",
            CloseReason::PongTimeout => "closed: pong timeout",
            CloseReason::PingTooSoon => "closed: ping too soon",
            CloseReason::SecondHello => "second hello",
            CloseReason::HelloExpected => "first frame was not hello",
            CloseReason::BadMessage(_)
            | CloseReason::Refused(_)
            | CloseReason::WillBeWoken
            | CloseReason::SubscriptionsLost
            | CloseReason::Deregistered
            | CloseReason::BinaryMessage
            | CloseReason::MessageTooLong
            | CloseReason::ProtocolViolation
            | CloseReason::StorageFault => "closed: other fault",
        });
    }

    /// A text frame leaves the engine: judged here, in the order of the engine's decisions.
    fn send(&mut self, id: u64, text: &str) {
        let now = self.moment();
        let generation = self.generation;
        let frame = Frame::read(text);
        let socket = self.sockets.get_mut(&id).expect("it exists");
        assert!(socket.server_open, "frame for a session that has ended");
        let agent = socket.log.agent;
        match &frame {
            Frame::Hello { uaid } => {
                assert!(!socket.greeted, "greeted twice");
                socket.greeted = true;
                socket.log.uaid.clone_from(uaid);
                let asked = socket
                    .hello
                    .clone()
                    .expect("it said hello")
                    .unwrap_or_default();
                if self.names.contains(&asked) {
                    assert_eq!(*uaid, asked, "a UAID of ours was replaced");
                    if generation > 0 {
                        self.checker.tally.add("uaid kept over a lost database");
                    }
                } else {
                    assert!(!self.names.contains(uaid), "somebody else's UAID");
                    assert_ne!(*uaid, asked, "a UAID that is not ours was kept");
                    self.names.push(uaid.clone());
                    socket.named_at = Some(self.elapsed);
                }
            }
            Frame::Registered {
                channel,
                status,
                endpoint,
            } => {
                let (asked, ends, step) = socket.pending.take().expect("it asked");
                assert_eq!((asked, ends), (*channel, false));
                let url = || EndpointUrl {
                    path: path_of(endpoint),
                    restricted: endpoint.contains("/wpush/v2/"),
                    generation,
                };
                let outcome = (*status == 200).then(url).map(Some).ok_or(*status);
                self.checker
                    .subscription_answered(agent, asked, step, outcome, now);
            }
            Frame::Unregistered { channel, status } => {
                let (asked, ends, step) = socket.pending.take().expect("it asked");
                assert_eq!((asked, ends), (*channel, true));
                let outcome = (*status == 200).then_some(None).ok_or(*status);
                self.checker
                    .subscription_answered(agent, asked, step, outcome, now);
            }
            Frame::Notification {
                channel,
                version,
                body,
            } => {
                assert!(socket.greeted, "sent before the answer to hello");
                self.checker
                    .sent(&mut socket.log, *channel, version, body.as_deref(), now);
            }
            Frame::UrgencyTaken | Frame::NoBroadcast | Frame::Pong => {}
        }
        socket.unsent.push_back(Down::Frame(frame));
    }

    // Requests.

    pub(crate) fn request(&mut self, asked: Asked, request: Request) {
        let id = self.new_id();
        self.checker.asked(id, asked);
        self.input(Input::Request {
            request: RequestId(id),
            head: Box::new(request),
        });
    }

    const fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    // Sockets.

    /// Opens a websocket for a user agent.
    pub(crate) fn open(&mut self, agent: usize) -> u64 {
        let id = self.new_id();
        let slow = self.rng.percent(15);
        let socket = Socket {
            log: SessionLog::new(agent),
            up: VecDeque::new(),
            unsent: VecDeque::new(),
            wire: VecDeque::new(),
            paused: false,
            server_open: true,
            client_open: true,
            slow,
            hello: None,
            greeted: false,
            named_at: None,
            ready: false,
            pending: None,
        };
        if slow {
            self.checker.tally.add("slow reader");
        }
        self.sockets.insert(id, socket);
        let opening = Opening {
            session: SessionId(id),
            peer: peer(),
            base_url: BaseUrl::of_host(Scheme::Http, HOST),
            simplepush_path: false,
            borrows: false,
            random: self.rng.bytes8(),
        };
        self.input(Input::Opened(opening));
        id
    }

    pub(crate) fn say(&mut self, id: u64, said: Said) {
        if let Some(socket) = self.sockets.get_mut(&id) {
            socket.up.push_back(Up::Said(said));
        }
    }

    /// The user agent goes away, and the gateway will hear of it.
    pub(crate) fn hang_up(&mut self, id: u64) {
        if let Some(socket) = self.sockets.get_mut(&id) {
            socket.client_open = false;
            socket.up.push_back(Up::Fin);
        }
    }

    /// The gateway reads one thing from a socket. Returns whether there was one.
    fn server_hears(&mut self, id: u64) -> bool {
        let Some(socket) = self.sockets.get_mut(&id) else {
            return false;
        };
        if !socket.server_open {
            socket.up.clear();
            return false;
        }
        let paused = socket.paused;
        match socket.up.front() {
            Some(Up::Fin | Up::Pong) => {}
            Some(Up::Said(_) | Up::Binary) if !paused => {}
            Some(Up::Said(_) | Up::Binary) | None => return false,
        }
        let session = SessionId(id);
        match socket.up.pop_front() {
            Some(Up::Fin) => {
                socket.server_open = false;
                self.input(Input::Gone { session });
            }
            Some(Up::Pong) => {
                self.checker.tally.add("pong");
                self.input(Input::Alive { session });
            }
            Some(Up::Binary) => self.input(Input::Binary {
                session,
                bytes: b"{}",
            }),
            Some(Up::Said(said)) => {
                self.note_said(id, &said);
                let text = said.text();
                self.input(Input::Text {
                    session,
                    text: &text,
                });
            }
            None => {}
        }
        true
    }

    fn note_said(&mut self, id: u64, said: &Said) {
        let mut now = self.moment();
        // What follows belongs to the step of the input.
        now.step += 1;
        let socket = self.sockets.get_mut(&id).expect("it exists");
        let agent = socket.log.agent;
        let is_newest = self.newest.get(&agent) == Some(&id);
        match said {
            Said::Hello(value) if socket.hello.is_none() => {
                socket.hello = Some(value["uaid"].as_str().map(str::to_owned));
                socket.log.hello_step = now.step;
                self.newest.insert(agent, id);
            }
            Said::Register { channel, .. } if socket.greeted && is_newest => {
                socket.pending = Some((*channel, false, now.step));
                self.checker.subscription_op(agent, *channel, false, now);
            }
            Said::Unregister { channel } if socket.greeted && is_newest => {
                socket.pending = Some((*channel, true, now.step));
                self.checker.subscription_op(agent, *channel, true, now);
            }
            Said::Ack(updates) if socket.greeted => {
                for update in updates {
                    if update.version.is_empty() {
                        self.checker.acked_without_version(agent, update.channel);
                    } else {
                        self.checker.acked(agent, &update.version, update.code, now);
                    }
                }
            }
            Said::Urgency(min) if socket.greeted => {
                socket.log.urgency_min = *min;
                socket.log.asked_urgency = true;
            }
            Said::Hello(_)
            | Said::Urgency(_)
            | Said::Register { .. }
            | Said::Unregister { .. }
            | Said::Ack(_)
            | Said::Other(_) => {}
        }
    }

    /// The socket takes one frame from the gateway.
    fn server_writes(&mut self, id: u64) -> bool {
        let Some(socket) = self.sockets.get_mut(&id) else {
            return false;
        };
        let Some(down) = socket.unsent.pop_front() else {
            return false;
        };
        if socket.client_open {
            socket.wire.push_back(down);
        }
        if socket.unsent.is_empty() && socket.server_open {
            let session = SessionId(id);
            self.input(Input::AllSent { session });
        }
        true
    }

    /// The user agent reads one frame.
    fn client_reads(&mut self, id: u64) -> bool {
        let Some(socket) = self.sockets.get_mut(&id) else {
            return false;
        };
        if !socket.client_open {
            socket.wire.clear();
            return false;
        }
        let Some(down) = socket.wire.pop_front() else {
            return false;
        };
        match down {
            Down::Ping => socket.up.push_back(Up::Pong),
            Down::Close => socket.client_open = false,
            Down::Frame(frame) => crate::user_agent::reads(self, id, frame),
        }
        true
    }

    /// Something happens on some sockets.
    pub(crate) fn network_round(&mut self) {
        let ids: Vec<u64> = self.sockets.keys().copied().collect();
        for id in ids {
            let slow = self.sockets[&id].slow;
            for _ in 0..3 {
                if self.rng.percent(if slow { 5 } else { self.plan.pace }) {
                    self.server_writes(id);
                }
                if self.rng.percent(self.plan.pace) {
                    self.client_reads(id);
                }
                if self.rng.percent(self.plan.pace) {
                    self.server_hears(id);
                }
            }
        }
        self.sockets
            .retain(|_, socket| socket.server_open || socket.client_open);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(trace) = &self.trace
        {
            for line in trace {
                eprintln!("{line}");
            }
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// The key outlives every database.
fn keyring() -> Keyring {
    Keyring::new(&[[7; 32]]).expect("one key is enough")
}

pub(crate) fn peer() -> IpAddr {
    IpAddr::from([192, 168, 1, 5])
}

/// The path of a URL of ours.
fn path_of(url: &str) -> String {
    let path = url
        .strip_prefix("http://")
        .and_then(|url| url.strip_prefix(HOST));
    path.expect("an endpoint of ours").to_owned()
}

/// In memory where the system offers that: the simulator is not there to wear out a disk.
fn new_directory() -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let shared_memory = PathBuf::from("/dev/shm");
    let parent = if shared_memory.is_dir() {
        shared_memory
    } else {
        std::env::temp_dir()
    };
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let directory = parent.join(format!(
        "edgepush-simulator-{}-{number}",
        std::process::id()
    ));
    std::fs::create_dir_all(&directory).expect("a directory for the database");
    directory
}
