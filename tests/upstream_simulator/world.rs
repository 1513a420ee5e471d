//! The world: clocks, lives and deaths of the gateway, and what happens next.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use edgepush::engine::{Input, Output};
use edgepush::model::store::{EnqueueOutcome, StoreOp, StoreReply, UpstreamOp};
use edgepush::model::time::{Now, UnixTime};
use edgepush::model::upstream::Borrowed;
use uuid::Uuid;

use crate::checker::{Checker, Posted, user_of};
use crate::directory::new_directory;
use crate::gateway::Gateway;
use crate::main_service::endpoint::Request;
use crate::main_service::service::{Faults, Service};
use crate::plan::{Plan, faults};
use crate::rng::Rng;
use crate::tally::Tally;
use crate::trace::Trace;
use crate::user_agent::{HOST, Socket, UserAgent};
use crate::wire::Wire;

/// Where the main service's endpoints are.
const ORIGIN: &str = "https://push.example";
/// 2026, where the clock is right.
const WALL_SECS: u64 = 1_780_000_000;
/// What the rate of connections is counted over.
const MINUTE: Duration = Duration::from_secs(60);

/// How the main service receives who connects.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Door {
    Open,
    Closed,
    Silent,
    /// With a time to come again.
    Busy,
    /// It sends on to another machine, which takes them.
    Elsewhere,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) plan: Plan,
    pub(crate) tally: Tally,
    pub(crate) checker: Checker,
    pub(crate) main: Service,
    pub(crate) door: Door,
    opens_at: Duration,
    pub(crate) wires: BTreeMap<u64, Wire>,
    pub(crate) agents: Vec<UserAgent>,
    pub(crate) sockets: BTreeMap<u64, Socket>,
    pub(crate) next_socket: u64,
    gateway: Option<Gateway>,
    /// Which life of the gateway it is.
    pub(crate) life: u64,
    key_is_new: bool,
    /// When this life has connected.
    connects: VecDeque<Duration>,
    directory: PathBuf,
    start: Instant,
    pub(crate) elapsed: Duration,
    wall_secs: u64,
    /// `None` unless somebody wants to read it.
    trace: Trace,
}

impl World {
    pub(crate) fn new(seed: u64, verbose: bool) -> Self {
        let mut rng = Rng::new(seed);
        let plan = Plan::new(&mut rng);
        let mut main = Service::new(seed);
        main.origin = ORIGIN.to_owned();
        let agents = (0..plan.user_agents).map(|_| UserAgent::default());
        let mut world = Self {
            agents: agents.collect(),
            rng,
            plan,
            tally: Tally::default(),
            checker: Checker::default(),
            main,
            door: Door::Open,
            opens_at: Duration::ZERO,
            wires: BTreeMap::new(),
            sockets: BTreeMap::new(),
            next_socket: 0,
            gateway: None,
            life: 0,
            key_is_new: true,
            connects: VecDeque::new(),
            directory: new_directory("upstream"),
            start: Instant::now(),
            elapsed: Duration::ZERO,
            wall_secs: WALL_SECS,
            trace: Trace::new(verbose),
        };
        world.boot();
        world
    }

    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        let at = self.elapsed;
        self.trace.note(|| format!("{at:?} {}", line()));
    }

    fn now(&self) -> Now {
        Now {
            monotonic: self.start + self.elapsed,
            wall: UnixTime::from_secs(self.wall_secs),
            wall_is_trusted: false,
        }
    }

    // What happens.

    pub(crate) fn something_happens(&mut self) {
        if self.elapsed >= self.opens_at {
            self.door = Door::Open;
        }
        self.round(self.plan.pace);
        match self.rng.below(100) {
            0..=24 => self.post(),
            25..=59 => self.user_agent_acts(),
            60..=84 => {
                let millis = match self.rng.below(100) {
                    0..=59 => self.rng.below(50),
                    60..=89 => self.rng.below(3000),
                    _ => self.rng.below(400_000),
                };
                self.advance(Duration::from_millis(millis));
            }
            85 | 86 if self.plan.drops => self.drop_wire(),
            87 | 88 if self.plan.absences => self.goes_away(),
            89 | 90 if self.plan.faults => {
                self.main.faults = faults(&mut self.rng);
                self.note_faults();
            }
            91 if self.plan.resets && self.rng.percent(25) => self.forgets(),
            92 if self.plan.storage_faults => {
                let failing = self.rng.percent(30);
                self.gateway().failing = failing;
            }
            93 if self.plan.crashes && self.rng.percent(60) => self.crash(),
            94 if self.rng.percent(20) => self.stop(),
            95 => self.wall_secs = self.rng.pick(&[0, WALL_SECS, 4 * WALL_SECS]),
            _ => {}
        }
    }

    fn note_faults(&mut self) {
        let faults = self.main.faults.clone();
        self.note(|| format!("{faults:?}"));
        let kinds = [
            (faults.refuses_registers.is_some(), "registers refused"),
            (faults.slow > Duration::ZERO, "slow answers and acks"),
            (!faults.ignores.is_empty(), "messages not acted on"),
            (faults.duplicates, "duplicates"),
            (faults.reorders.is_some(), "disorder"),
        ];
        for (is_so, kind) in kinds {
            if is_so {
                self.tally.add(kind);
            }
        }
    }

    fn goes_away(&mut self) {
        self.door = self
            .rng
            .pick(&[Door::Closed, Door::Silent, Door::Busy, Door::Elsewhere]);
        let secs = match self.rng.below(3) {
            0 => self.rng.below(10),
            1 => self.rng.below(1000),
            _ => 3 * 86_400,
        };
        self.opens_at = self.elapsed + Duration::from_secs(secs);
        let door = self.door;
        self.note(|| format!("{door:?} for {secs} s"));
        self.tally.add("main service away");
        if self.rng.percent(70) {
            self.lose_links();
        }
        if secs > 1000 {
            self.tally.add("main service away for days");
            self.advance(Duration::from_secs(secs));
        }
    }

    /// Every connection to the main service ends.
    fn lose_links(&mut self) {
        for _ in 0..self.wires.len() {
            self.drop_wire();
        }
    }

    fn forgets(&mut self) {
        if self.rng.percent(30) {
            self.tally.add("main service reset");
            self.note(|| "RESET".to_owned());
            for user in self.main.users.keys().copied().collect::<Vec<_>>() {
                self.checker.forgets(&self.main, user, self.elapsed);
            }
            self.main.reset();
        } else {
            let all: Vec<Uuid> = self.main.users.keys().copied().collect();
            if !all.is_empty() {
                self.tally.add("main service forgets one");
                let user = self.rng.pick(&all);
                self.note(|| format!("FORGOTTEN {user}"));
                self.checker.forgets(&self.main, user, self.elapsed);
                self.main.users.remove(&user);
            }
        }
    }

    /// An application server posts to an endpoint of the main service.
    fn post(&mut self) {
        let agent = self.rng.index(self.agents.len());
        let own = &self.agents[agent].subscriptions;
        if own.is_empty() {
            return;
        }
        let subscription = own[self.rng.index(own.len())].clone();
        if subscription.endpoint.contains(HOST) {
            return self.post_at_home(agent, &subscription);
        }
        let ttl_secs = self.rng.pick(&[0, 60, 86_400, 2_592_000, 2_592_000]);
        let topic = self.rng.percent(15).then(|| "weather".to_owned());
        // So many that the main service loses patience with who does not fetch them.
        let count = if self.rng.percent(2) { 60 } else { 1 };
        for _ in 0..count {
            let sent = self.post_to(&subscription.endpoint, ttl_secs, topic.as_deref());
            if let Some(user) = sent {
                self.checker.posted(Posted {
                    agent,
                    channel: subscription.channel,
                    user: Some(user),
                    ttl_secs,
                    topic: topic.clone(),
                    at: self.elapsed,
                });
            }
        }
    }

    /// To whom at the main service, if it is accepted there.
    fn post_to(&mut self, endpoint: &str, ttl_secs: u64, topic: Option<&str>) -> Option<Uuid> {
        let path = endpoint.strip_prefix(ORIGIN)?;
        let user = user_of(&self.main, endpoint);
        let mut request = Request {
            method: "POST".to_owned(),
            path: path.to_owned(),
            body: self.checker.next_number().to_string().into_bytes(),
            ..Request::default()
        };
        let mut header = |name: &str, value: &str| {
            request.headers.insert(name.to_owned(), value.to_owned());
        };
        header("ttl", &ttl_secs.to_string());
        header("content-encoding", "aes128gcm");
        if let Some(topic) = topic {
            header("topic", topic);
        }
        let number = self.checker.next_number();
        let status = self.main.answer(self.elapsed, &request).status;
        self.note(|| format!("POST {number} to {endpoint} => {status}"));
        self.tally.add(match status {
            201 => "posted",
            404 | 410 => "posted to what is gone",
            _ => panic!("answered {status}"),
        });
        user.filter(|_| status == 201)
    }

    // Lives and deaths.

    fn boot(&mut self) {
        self.life += 1;
        self.connects.clear();
        let now = (self.now(), self.elapsed);
        let is_new = std::mem::take(&mut self.key_is_new);
        let gateway = Gateway::boot(&self.directory, &self.plan, &mut self.rng, is_new, now);
        self.gateway = Some(gateway);
        let life = self.life;
        self.note(|| format!("BOOT {life}"));
    }

    fn crash(&mut self) {
        self.tally.add("crash");
        self.note(|| "CRASH".to_owned());
        self.gateway = None;
        self.checker.lapsed();
        self.reboot();
    }

    fn stop(&mut self) {
        self.tally.add("clean stop");
        self.gateway().failing = false;
        self.input(Input::Stop);
        for _ in 0..1000 {
            if self.gateway().stopped {
                break;
            }
            self.wires_round(50);
            self.storage_round(50);
        }
        let gateway = self.gateway.take().expect("it runs");
        gateway.close(self.elapsed);
        self.reboot();
    }

    fn reboot(&mut self) {
        self.lose_all_wires();
        self.sockets.clear();
        for agent in &mut self.agents {
            agent.socket = None;
        }
        self.elapsed += Duration::from_millis(self.rng.below(100_000));
        if self.plan.losses && self.rng.percent(40) {
            self.tally.add("database lost");
            self.note(|| "DATABASE LOST".to_owned());
            std::fs::remove_dir_all(&self.directory).expect("it is there");
            std::fs::create_dir(&self.directory).expect("its parent is there");
            self.checker.lapsed();
            self.checker.database_lost(&self.main);
        }
        self.boot();
    }

    // Time.

    /// Time passes, in steps in which what is under way moves.
    pub(crate) fn advance(&mut self, by: Duration) {
        let target = self.elapsed + by;
        while self.elapsed < target {
            let step = if self.wires.is_empty() {
                target
            } else {
                self.elapsed + Duration::from_secs(1)
            };
            let deadline = self.gateway().engine.next_deadline();
            let deadline = deadline.map_or(target, |at| at - self.start);
            self.tick_to(step.min(deadline.max(self.elapsed)).min(target));
            if deadline <= self.elapsed {
                let late = Duration::from_micros(self.rng.below(3000));
                self.tick_to(self.elapsed + late);
                self.input(Input::Timeout);
                let next = self.gateway().engine.next_deadline();
                let now = self.now().monotonic;
                assert!(next.is_none_or(|next| next > now), "the loop would spin");
            }
            if by > Duration::from_secs(1) {
                self.round(self.plan.pace);
            }
        }
    }

    fn tick_to(&mut self, elapsed: Duration) {
        let by = elapsed.saturating_sub(self.elapsed);
        self.elapsed += by;
        self.wall_secs += by.as_secs();
    }

    /// What is under way moves; whether anything did.
    pub(crate) fn round(&mut self, pace: u64) -> bool {
        let wires = self.wires_round(pace);
        let sockets = self.sockets_round(pace);
        let storage = self.storage_round(pace);
        wires || sockets || storage
    }

    fn storage_round(&mut self, pace: u64) -> bool {
        let queued = self.gateway().queue.len();
        let mut moved = false;
        if queued > 0 && self.rng.percent(pace) {
            let count = 1 + self.rng.index(queued);
            moved = true;
            if self.gateway().commit(count) {
                self.tally.add("batch failed");
                self.checker.lapsed();
            }
        }
        let done = self.gateway().replies.len();
        if done > 0 && self.rng.percent(pace) {
            let count = 1 + self.rng.index(done);
            let replies: Vec<StoreReply> = self.gateway().replies.drain(..count).collect();
            moved = true;
            // A message is sent before it is known whether there is room for it.
            if replies.contains(&StoreReply::Enqueued(EnqueueOutcome::QueueFull)) {
                self.tally.add("queue full");
                self.checker.lapsed();
            }
            self.input(Input::Stored(replies));
        }
        moved
    }

    // The engine.

    pub(crate) fn gateway(&mut self) -> &mut Gateway {
        self.gateway.as_mut().expect("it runs")
    }

    pub(crate) fn input(&mut self, input: Input<'_>) {
        self.note(|| format!("-> {input:?}"));
        let now = self.now();
        self.gateway().engine.handle(now, input);
        while let Some(output) = self.gateway().engine.poll_output() {
            self.note(|| format!("   {output:?}"));
            self.perform(output);
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Send { session, text } => self.send(session, &text),
            Output::Ping { session } => self.send_ping(session),
            Output::Pause { session } => self.pause(session, true),
            Output::Resume { session } => self.pause(session, false),
            Output::Close { session, .. } => self.close(session),
            Output::Up { link, order } => self.order(link, order),
            Output::Store(op) => {
                if let StoreOp::Upstream(UpstreamOp::Borrow { name, borrowed, .. }) = &op {
                    self.borrows(&name.name, borrowed);
                }
                self.gateway().queue.push_back(op);
            }
            Output::Stopped => self.gateway().stopped = true,
            Output::Respond { request, response } => self.answered(request, response.status),
            other @ (Output::Datagram { .. } | Output::AskProxy { .. }) => {
                unreachable!("nobody asked for {other:?}")
            }
        }
    }

    fn borrows(&mut self, name: &str, borrowed: &Borrowed) {
        let read = |text: &str| Uuid::try_parse(text).expect("a name of ours");
        let whose = Uuid::from_bytes(*borrowed.uaid.as_bytes());
        let is_it = |agent: &UserAgent| agent.uaid.as_deref().is_some_and(|own| read(own) == whose);
        if let Some(agent) = self.agents.iter().position(is_it) {
            self.checker.borrows(agent, read(name));
        }
    }

    /// Never above what was set, however much happens.
    pub(crate) fn count_connect(&mut self) {
        let now = self.elapsed;
        self.connects.push_back(now);
        while self.connects.front().is_some_and(|at| now - *at >= MINUTE) {
            self.connects.pop_front();
        }
        let max = self.plan.upstream.connects_per_min_max;
        let count = self.connects.len();
        assert!(count <= max as usize, "{count} connections in a minute");
    }

    // The end.

    /// No more trouble: everybody is here and well, until nothing moves for long.
    pub(crate) fn settle(&mut self) {
        self.note(|| "SETTLE".to_owned());
        self.door = Door::Open;
        self.main.faults = Faults::default();
        self.gateway().failing = false;
        self.plan.pace = 100;
        // Who was forgotten is told at the next hello.
        let now = self.elapsed;
        for session in self.main.sessions.keys().copied().collect::<Vec<_>>() {
            self.main.end(now, session, Some((1001, "restart")));
        }
        let until = self.elapsed + self.time_to_settle();
        while self.elapsed < until {
            for agent in 0..self.agents.len() {
                if self.agents[agent].socket.is_none() {
                    self.connect(agent);
                }
                self.subscribe(agent);
                self.ack(agent);
            }
            while self.round(100) {
                for agent in 0..self.agents.len() {
                    self.ack(agent);
                }
            }
            self.advance(Duration::from_secs(2));
        }
    }

    /// Longer than any wait before another attempt, and than what asks whether a link is alive. A small
    /// queue takes no more than fits into it with each connection, of all that the main service keeps.
    fn time_to_settle(&self) -> Duration {
        let queue = self.plan.limits.messages_per_user_agent_max;
        let connections = self.main.rules.stored_max.div_ceil(queue as usize);
        let connections = u32::try_from(connections).expect("few");
        let emptied = self.plan.upstream.reconnect_max * connections;
        emptied.max(Duration::from_secs(1800))
    }

    /// One more message to each subscription that anybody has.
    pub(crate) fn post_to_all(&mut self) {
        for agent in 0..self.agents.len() {
            for subscription in self.agents[agent].subscriptions.clone() {
                if subscription.endpoint.contains(HOST) {
                    continue;
                }
                let user = self.post_to(&subscription.endpoint, 2_592_000, None);
                self.checker.posted(Posted {
                    agent,
                    channel: subscription.channel,
                    user: Some(
                        user.expect("a subscription that its user agent believes in is there"),
                    ),
                    ttl_secs: 2_592_000,
                    topic: None,
                    at: self.elapsed,
                });
            }
        }
    }

    pub(crate) fn check_the_end(&mut self) {
        self.checker.all_received(&self.main, self.elapsed);
        let dead: Vec<String> = self
            .checker
            .dead_endpoints(&self.main)
            .into_iter()
            .map(str::to_owned)
            .collect();
        for endpoint in dead {
            let user = self.post_to(&endpoint, 0, None);
            assert_eq!(user, None, "what has ended here is alive there");
        }
        for (number, agent) in self.agents.iter().enumerate() {
            let had_reason = self.checker.had_reason_to_be_renamed(number, &self.main);
            assert!(agent.renamed == 0 || had_reason, "renamed without need");
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
