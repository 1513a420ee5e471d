//! The world around the engine: clocks, sockets, power cuts.

#[path = "judge.rs"]
mod judge;
#[path = "lives.rs"]
mod lives;
#[path = "rest.rs"]
mod rest;
#[path = "sockets.rs"]
mod sockets;
#[path = "storage_thread.rs"]
mod storage_thread;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use edgepush::engine::counters::Snapshot;
use edgepush::engine::{CloseReason, Engine, Input, Output, RequestId, SessionId};
use edgepush::model::limits::MESSAGE_OVERHEAD_BYTES;
use edgepush::model::store::{Opened, StoreError, StoreOp, StoreReply};
use edgepush::model::time::{Now, UnixTime};
use edgepush::protocol::http::Request;
use edgepush::protocol::keyring::Keyring;
use edgepush::storage::Store;

use crate::checker::{Asked, Checker, Moment};
use crate::directory::new_directory;
use crate::frames::Down;
use crate::plan::Plan;
use crate::rng::Rng;
use crate::sabotage::{Sabotage, Saboteur, Way};
use crate::trace::Trace;
use crate::user_agent::UserAgent;

pub(crate) use sockets::Socket;

pub(crate) const HOST: &str = "pi.local:8090";
/// 2026, where the clock is right.
pub(crate) const WALL_SECS: u64 = 1_780_000_000;
/// The largest frame: a page of version updates, and what else may be on its way with it.
const FRAME_BYTES_MAX: usize = 192 << 10;

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
    saboteur: Saboteur,
    /// A notification that is sent behind the next one.
    put_off: Option<(u64, String)>,
    /// All that the gateway made up, in one spelling.
    names: Vec<String>,
    /// Datagrams get lost now and then.
    pub(crate) loses_datagrams: bool,
    /// `None` unless somebody wants to read it.
    trace: Trace,
}

/// One life of the process.
#[derive(Debug)]
struct Run {
    engine: Engine,
    store: Store,
    opened: Opened,
    started: Duration,
    /// Given to the storage thread, when, and not carried out.
    queue: VecDeque<(u64, StoreOp)>,
    /// Carried out and not reported.
    replies: VecDeque<StoreReply>,
    stopping: bool,
    /// Something could not be written behind that.
    stopped_badly: bool,
    stopped: bool,
    /// It has read who slept when it was started.
    knows_sleepers: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Failing {
    Nothing,
    /// The disk, for what takes room.
    Full,
    Writes(StoreError),
    /// Some batches.
    NowAndThen(StoreError),
    /// Reads as well.
    Everything(StoreError),
}

impl World {
    pub(crate) fn new(seed: u64, verbose: bool, sabotage: Sabotage) -> Self {
        let mut rng = Rng::new(seed);
        let plan = Plan::new(&mut rng);
        let agents = (0..plan.user_agents)
            .map(|number| UserAgent::new(&mut rng, number))
            .collect();
        let checker = Checker::new(keyring(), plan.simplepush.offline_status);
        let first_wall_secs = plan.first_wall_secs;
        let mut world = Self {
            rng,
            plan,
            agents,
            sockets: BTreeMap::new(),
            checker,
            newest: BTreeMap::new(),
            run: None,
            directory: new_directory("simulator"),
            start: Instant::now(),
            elapsed: Duration::ZERO,
            served: Duration::ZERO,
            wall_secs: first_wall_secs,
            step: 0,
            generation: 0,
            next_id: 0,
            failing: Failing::Nothing,
            saboteur: Saboteur::new(sabotage),
            put_off: None,
            names: Vec::new(),
            loses_datagrams: true,
            trace: Trace::new(verbose),
        };
        if world.plan.durability == edgepush::model::durability::Durability::Relaxed {
            world.checker.tally.add("run with relaxed durability");
        }
        world.boot();
        world
    }

    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        let at = self.elapsed;
        self.trace
            .note(|| format!("{:6} {at:?} {}", self.step, line()));
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
        self.checker.versions.reading_replies = matches!(input, Input::Stored(_));
        let run = self.run.as_mut().expect("it runs");
        run.engine.handle(now, input);
        while let Some(output) = self.run.as_mut().and_then(|run| run.engine.poll_output()) {
            self.note(|| format!("   {output:?}"));
            self.perform_somehow(output);
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
        self.memory_is_bounded(&snapshot);
    }

    /// Promise 4, beside the bytes of held messages.
    fn memory_is_bounded(&self, snapshot: &Snapshot) {
        let limits = &self.plan.limits;
        let listed_max = limits.unacked_per_session_max as u64 * snapshot.websockets_open;
        assert!(
            snapshot.messages_unacked <= listed_max,
            "{} messages are listed as not acked",
            snapshot.messages_unacked
        );
        // What is held may have to be written at once; beside that each websocket asks for a few
        // things at most, and the engine itself.
        let held = limits.held_bytes_max / MESSAGE_OVERHEAD_BYTES;
        let queue_max = limits.store_queue_max + held + 8 * self.sockets.len() + 64;
        assert!(
            snapshot.store_queue <= queue_max as u64,
            "{} operations wait for the storage",
            snapshot.store_queue
        );
        for (id, socket) in &self.sockets {
            assert!(
                socket.unsent_bytes <= 2 * limits.unsent_bytes_max + FRAME_BYTES_MAX,
                "{} bytes wait for socket {id}",
                socket.unsent_bytes
            );
        }
    }

    /// Does what the engine asks for, unless the gateway is a bad one.
    fn perform_somehow(&mut self, output: Output) {
        let way = self.saboteur.output(&output);
        match (way, output) {
            (Way::Never, _) => {}
            (Way::Twice, Output::Send { session, text }) => {
                self.send(session.0, &text);
                self.send(session.0, &text);
            }
            (Way::Astray, Output::Send { session, text }) => {
                let agent = self.sockets[&session.0].log.agent;
                let mut others = self.sockets.iter();
                let other = others.find(|(_, socket)| {
                    socket.server_open && socket.ready && socket.log.agent != agent
                });
                let to = other.map_or(session.0, |(id, _)| *id);
                self.send(to, &text);
            }
            (Way::Later, Output::Send { session, text }) => {
                self.put_off = Some((session.0, text));
            }
            (_, output) => {
                let to = if let Output::Send { session, .. } = &output {
                    Some(session.0)
                } else {
                    None
                };
                self.perform(output);
                if let Some((id, text)) = self.put_off.take_if(|(id, _)| Some(*id) == to) {
                    self.send(id, &text);
                }
            }
        }
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
            Output::Datagram { to } => self.datagram(to),
            Output::AskProxy { .. } => unreachable!("there is no proxy"),
            Output::Up { .. } => unreachable!("there is no main service"),
            Output::Store(op) => {
                let run = self.run.as_mut().expect("it runs");
                run.queue.push_back((self.step, op));
            }
            Output::Stopped => {
                let run = self.run.as_mut().expect("it runs");
                assert!(run.stopping && !run.stopped);
                run.stopped = true;
            }
        }
    }

    fn datagram(&mut self, to: SocketAddr) {
        self.checker.tally.add("datagram sent");
        assert!(self.plan.simplepush.udp_wakeup);
        let mut agents = self.agents.iter_mut();
        let agent = agents.find(|agent| agent.listens_at(to));
        let agent = agent.expect("a datagram to somebody who asked for it");
        let device = agent.device_mut().expect("it listens");
        let is_lost = self.loses_datagrams && self.rng.percent(40);
        if is_lost {
            self.checker.tally.add("datagram lost");
        }
        if device.shake(!is_lost) {
            self.checker.tally.add("woken by a datagram");
        }
    }

    fn open_socket(&mut self, session: SessionId) -> &mut Socket {
        let socket = self.sockets.get_mut(&session.0).expect("it exists");
        assert!(socket.server_open, "output for a session that has ended");
        socket
    }

    fn close(&mut self, session: SessionId, reason: CloseReason) {
        let elapsed = self.elapsed;
        let idle = self.plan.limits.udp_idle;
        let socket = self.open_socket(session);
        let will_be_woken = reason == CloseReason::WillBeWoken;
        if will_be_woken {
            assert!(socket.pending.is_none(), "let go of with an open question");
            let silent = elapsed - socket.heard_at;
            assert!(silent >= idle, "let go of though it was heard lately");
            let agent = socket.log.agent;
            if let Some(device) = self.agents[agent].device_mut() {
                device.is_let_go();
            }
        }
        let socket = self.open_socket(session);
        if matches!(reason, CloseReason::Refused(_)) {
            assert_eq!(socket.refusal_due, None, "closed without an answer");
        }
        socket.server_open = false;
        // What the socket had not taken may be lost with it.
        socket.unsent.clear();
        socket.wire.push_back(Down::Close { will_be_woken });
        self.checker.tally.add(match reason {
            CloseReason::GoingAway => "closed: stopping",
            CloseReason::Superseded => "closed: superseded",
            CloseReason::HelloTimeout => "closed: hello timeout",
            CloseReason::PongTimeout => "closed: pong timeout",
            CloseReason::PingTooSoon => "closed: ping too soon",
            CloseReason::SecondHello => "second hello",
            CloseReason::HelloExpected => "first frame was not hello",
            CloseReason::Refused(_) => "closed: refused",
            CloseReason::WillBeWoken => "closed: will be woken",
            CloseReason::SubscriptionsLost => unreachable!("there is no main service"),
            CloseReason::BadMessage(_)
            | CloseReason::Deregistered
            | CloseReason::BinaryMessage
            | CloseReason::MessageTooLong
            | CloseReason::ProtocolViolation
            | CloseReason::StorageFault => "closed: other fault",
        });
    }

    // Requests.

    pub(crate) fn request(&mut self, asked: Asked, request: Request) {
        let id = self.new_id();
        self.checker.asked(id, asked);
        self.input(Input::Request {
            request: RequestId(id),
            head: Box::new(request),
        });
        self.checker.versions.posting_is_over();
    }

    pub(crate) const fn wall_secs(&self) -> u64 {
        self.wall_secs
    }

    const fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
        let _ = std::fs::remove_dir_all(self.before());
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
