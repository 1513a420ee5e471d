//! The user agents of the house: they subscribe, come and go, ack sooner or later.

use std::collections::{BTreeSet, VecDeque};

use edgepush::engine::{Input, Opening, SessionId};
use edgepush::protocol::http::{BaseUrl, Scheme};
use uuid::Uuid;

use crate::checker::user_of;
use crate::frames::{Ack, Down, Frame, Said, Up};
use crate::world::World;

pub(crate) const HOST: &str = "pi.local:8090";

#[derive(Debug, Default)]
pub(crate) struct UserAgent {
    pub(crate) uaid: Option<String>,
    pub(crate) socket: Option<u64>,
    pub(crate) subscriptions: Vec<Subscription>,
    to_ack: Vec<Ack>,
    /// What it has unregistered: an answer to an earlier register of these means nothing.
    ended: BTreeSet<Uuid>,
    /// How often it lost subscriptions with its name.
    pub(crate) renamed: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Subscription {
    pub(crate) channel: Uuid,
    pub(crate) endpoint: String,
}

#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) agent: usize,
    up: VecDeque<Up>,
    down: VecDeque<Down>,
    paused: bool,
    greeted: bool,
    /// Bytes that the engine counts as unsent.
    owes_all_sent: bool,
}

impl World {
    // What the engine orders.

    pub(crate) fn send(&mut self, session: SessionId, text: &str) {
        let frame = Frame::read(text);
        let agent = self.socket(session).agent;
        if let Frame::Notification {
            channel,
            version,
            body,
        } = &frame
        {
            self.checker.sent(agent, *channel, version, body.as_deref());
        }
        if let Frame::Unregistered { channel, status } = &frame
            && *status == 200
        {
            self.checker.has_ended(agent, *channel);
        }
        if let Frame::Registered {
            channel, status, ..
        } = &frame
            && *status == 200
        {
            self.checker.is_there(agent, *channel);
        }
        let socket = self.socket(session);
        socket.down.push_back(Down::Frame(frame));
        socket.owes_all_sent = true;
    }

    pub(crate) fn send_ping(&mut self, session: SessionId) {
        self.socket(session).down.push_back(Down::Ping);
    }

    pub(crate) fn pause(&mut self, session: SessionId, paused: bool) {
        self.socket(session).paused = paused;
    }

    /// The engine has ended a session. What it had sent is read first.
    pub(crate) fn close(&mut self, session: SessionId) {
        let socket = self.sockets.remove(&session.0).expect("it is open");
        let agent = socket.agent;
        for down in socket.down {
            if let Down::Frame(frame) = down {
                self.reads(agent, frame);
            }
        }
        let agent = &mut self.agents[agent];
        if agent.socket == Some(session.0) {
            agent.socket = None;
            agent.to_ack.clear();
        }
    }

    fn socket(&mut self, session: SessionId) -> &mut Socket {
        let socket = self.sockets.get_mut(&session.0);
        socket.expect("output for a session that has ended")
    }

    // What user agents do.

    /// One of them does something.
    pub(crate) fn user_agent_acts(&mut self) {
        let agent = self.rng.index(self.agents.len());
        let Some(id) = self.agents[agent].socket else {
            return self.connect(agent);
        };
        if !self.sockets.get(&id).is_some_and(|socket| socket.greeted) {
            return;
        }
        let subscribed = self.agents[agent].subscriptions.len();
        match self.rng.below(10) {
            0 | 1 if subscribed < 4 => {
                let channel = self.rng.uuid();
                self.say(id, Said::Register { channel, key: None });
            }
            2 if subscribed > 0 => {
                self.tally.add("registered again");
                let channel = self.some_channel(agent);
                self.say(id, Said::Register { channel, key: None });
            }
            3 if subscribed > 0 => {
                let channel = self.some_channel(agent);
                self.checker.unregisters(agent, channel);
                self.agents[agent].ended.insert(channel);
                self.agents[agent]
                    .subscriptions
                    .retain(|own| own.channel != channel);
                self.say(id, Said::Unregister { channel });
            }
            4 => self.disconnect(agent),
            _ => self.ack(agent),
        }
    }

    fn some_channel(&mut self, agent: usize) -> Uuid {
        let own = &self.agents[agent].subscriptions;
        let at = self.rng.index(own.len());
        self.agents[agent].subscriptions[at].channel
    }

    pub(crate) fn connect(&mut self, agent: usize) {
        self.next_socket += 1;
        let id = self.next_socket;
        let socket = Socket {
            agent,
            up: VecDeque::new(),
            down: VecDeque::new(),
            paused: false,
            greeted: false,
            owes_all_sent: false,
        };
        self.sockets.insert(id, socket);
        self.agents[agent].socket = Some(id);
        self.checker.returns(agent);
        let opening = Opening {
            session: SessionId(id),
            peer: [192, 168, 1, 5].into(),
            base_url: BaseUrl::of_host(Scheme::Http, HOST),
            simplepush_path: false,
            borrows: false,
            random: self.rng.bytes8(),
        };
        self.input(Input::Opened(opening));
        let uaid = self.agents[agent].uaid.clone();
        let hello = serde_json::json!({"messageType": "hello", "use_webpush": true, "uaid": uaid});
        self.say(id, Said::Hello(hello));
    }

    pub(crate) fn disconnect(&mut self, agent: usize) {
        self.agents[agent].to_ack.clear();
        if let Some(id) = self.agents[agent].socket.take()
            && self.sockets.remove(&id).is_some()
        {
            let session = SessionId(id);
            self.input(Input::Gone { session });
        }
    }

    /// Acks everything that it has read.
    pub(crate) fn ack(&mut self, agent: usize) {
        let all = std::mem::take(&mut self.agents[agent].to_ack);
        if let Some(id) = self.agents[agent].socket
            && let Some(last) = all.last()
        {
            let version = last.version.clone();
            self.say(id, Said::Ack(all));
            if self.rng.percent(10) {
                self.tally.add("nack");
                self.say(id, Said::Nack { version });
            }
        }
    }

    /// Asks for a subscription, if it has none.
    pub(crate) fn subscribe(&mut self, agent: usize) {
        if let Some(id) = self.agents[agent].socket
            && self.agents[agent].subscriptions.is_empty()
        {
            let channel = self.rng.uuid();
            self.say(id, Said::Register { channel, key: None });
        }
    }

    fn say(&mut self, id: u64, said: Said) {
        if let Some(socket) = self.sockets.get_mut(&id) {
            socket.up.push_back(Up::Said(said));
        }
    }

    // What travels.

    /// Something moves on some websockets; whether anything did.
    pub(crate) fn sockets_round(&mut self, pace: u64) -> bool {
        let mut moved = false;
        let all: Vec<u64> = self.sockets.keys().copied().collect();
        for id in all {
            for _ in 0..4 {
                if self.rng.percent(pace) {
                    moved |= self.engine_hears(id);
                }
                if self.rng.percent(pace) {
                    moved |= self.agent_hears(id);
                }
            }
        }
        moved
    }

    fn engine_hears(&mut self, id: u64) -> bool {
        let session = SessionId(id);
        let Some(socket) = self.sockets.get_mut(&id) else {
            return false;
        };
        if std::mem::take(&mut socket.owes_all_sent) {
            self.input(Input::AllSent { session });
            return true;
        }
        if socket.paused && !matches!(socket.up.front(), Some(Up::Pong)) {
            return false;
        }
        let (agent, up) = (socket.agent, socket.up.pop_front());
        match up {
            Some(Up::Pong) => self.input(Input::Alive { session }),
            Some(Up::Said(said)) => {
                if let Said::Ack(acks) = &said {
                    for ack in acks {
                        self.checker.acked(agent, &ack.version);
                    }
                }
                let text = said.text();
                self.input(Input::Text {
                    session,
                    text: &text,
                });
            }
            None => return false,
        }
        true
    }

    fn agent_hears(&mut self, id: u64) -> bool {
        let Some(socket) = self.sockets.get_mut(&id) else {
            return false;
        };
        let agent = socket.agent;
        match socket.down.pop_front() {
            Some(Down::Frame(frame)) => self.reads(agent, frame),
            Some(Down::Ping) => socket.up.push_back(Up::Pong),
            None => return false,
        }
        true
    }

    fn reads(&mut self, number: usize, frame: Frame) {
        let agent = &mut self.agents[number];
        match frame {
            Frame::Hello { uaid } => {
                if let Some(id) = agent.socket
                    && let Some(socket) = self.sockets.get_mut(&id)
                {
                    socket.greeted = true;
                }
                let before = agent.uaid.replace(uaid.clone());
                if before.is_some_and(|before| before != uaid) {
                    agent.renamed += u32::from(!agent.subscriptions.is_empty());
                    agent.subscriptions.clear();
                    self.checker.renamed(number, self.elapsed);
                    self.tally.add("user agent gets another name");
                }
            }
            Frame::Registered {
                channel,
                status: 200,
                endpoint,
            } => {
                let is_local = endpoint.contains(HOST);
                self.tally.add(if is_local {
                    "local in place of borrowed"
                } else {
                    "borrowed"
                });
                if agent.ended.contains(&channel) {
                    return;
                }
                agent.subscriptions.retain(|own| own.channel != channel);
                let user = user_of(&self.main, &endpoint);
                self.checker.has_endpoint(number, channel, &endpoint, user);
                agent.subscriptions.push(Subscription { channel, endpoint });
            }
            Frame::Registered { .. } => self.tally.add("register refused"),
            Frame::Notification {
                channel,
                version,
                body,
            } => {
                self.checker.received(body.as_deref());
                let code = Some(100);
                agent.to_ack.push(Ack {
                    channel,
                    version,
                    code,
                });
            }
            Frame::Unregistered { .. } | Frame::UrgencyTaken | Frame::NoBroadcast | Frame::Pong => {
            }
        }
    }
}
