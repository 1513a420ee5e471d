//! Websockets, with both of their ends and what is between them.

use std::collections::VecDeque;
use std::time::Duration;

use edgepush::engine::{Input, Opening, SessionId};
use edgepush::protocol::http::{BaseUrl, Scheme};
use serde_json::Value;

use super::{HOST, World, peer};
use crate::checker::{SessionLog, name_of};
use crate::frames::{Ack, AckVersion, Down, Said, Spelled, Up};

/// One websocket, with both of its ends and what is between them.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) log: SessionLog,
    /// Said, and not heard by the gateway.
    pub(crate) up: VecDeque<Up>,
    /// Given by the engine, and not taken by the socket.
    pub(super) unsent: VecDeque<Down>,
    /// Bytes of the frames among them.
    pub(super) unsent_bytes: usize,
    /// Taken, and not read by the user agent.
    pub(super) wire: VecDeque<Down>,
    pub(super) paused: bool,
    /// The engine counts it as open.
    pub(crate) server_open: bool,
    /// The user agent listens.
    pub(crate) client_open: bool,
    /// Takes frames slowly.
    pub(crate) slow: bool,
    pub(super) hello: Option<Hello>,
    /// How many answers to hello are due.
    pub(super) hellos_due: u32,
    pub(super) greeted: bool,
    /// The user agent has said hello on another one.
    pub(super) superseded: bool,
    /// It has heard what it closes for.
    pub(super) must_close: bool,
    pub(super) refusal_due: Option<u64>,
    /// When the gateway has heard of its user agent last.
    pub(super) heard_at: Duration,
    /// When it was told a new name: it may linger for a second, whatever it did wrong.
    pub(super) named_at: Option<Duration>,
    /// The user agent has seen the answer to its hello.
    pub(crate) ready: bool,
    pub(super) pending: Option<Pending>,
}

/// The first hello of a websocket.
#[derive(Clone, Debug)]
pub(super) struct Hello {
    /// As it is spelled.
    pub(super) uaid: Option<String>,
    pub(super) channels_len: usize,
}

/// A register or an unregister that was heard.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) channel: Spelled,
    pub(super) ends: bool,
    pub(super) step: u64,
}

impl Socket {
    fn new(agent: usize, slow: bool, now: Duration) -> Self {
        Self {
            log: SessionLog::new(agent),
            up: VecDeque::new(),
            unsent: VecDeque::new(),
            unsent_bytes: 0,
            wire: VecDeque::new(),
            paused: false,
            server_open: true,
            client_open: true,
            slow,
            hello: None,
            hellos_due: 0,
            greeted: false,
            superseded: false,
            must_close: false,
            refusal_due: None,
            heard_at: now,
            named_at: None,
            ready: false,
            pending: None,
        }
    }

    /// What it goes by, as far as the gateway knows.
    fn name(&self) -> Option<String> {
        if self.greeted {
            return self.log.name();
        }
        let asked = self.hello.as_ref()?.uaid.as_deref();
        asked.and_then(name_of)
    }

    const fn is_in_use(&self) -> bool {
        self.greeted && !self.superseded && !self.must_close
    }
}

impl World {
    /// Opens a websocket for a user agent.
    pub(crate) fn open(&mut self, agent: usize) -> u64 {
        let id = self.new_id();
        let slow = self.rng.percent(15);
        if slow {
            self.checker.tally.add("slow reader");
        }
        let simplepush_path = self.agents[agent].uses_simplepush_path();
        if simplepush_path {
            self.checker.tally.add("simplepush's own path");
        }
        let socket = Socket::new(agent, slow, self.elapsed());
        self.sockets.insert(id, socket);
        let opening = Opening {
            session: SessionId(id),
            peer: peer(),
            base_url: BaseUrl::of_host(Scheme::Http, HOST),
            simplepush_path,
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
    pub(super) fn server_hears(&mut self, id: u64) -> bool {
        let now = self.elapsed();
        let Some(socket) = self.sockets.get_mut(&id) else {
            return false;
        };
        if !socket.server_open {
            socket.up.clear();
            return false;
        }
        match socket.up.front() {
            Some(Up::Fin | Up::Pong) => {}
            Some(Up::Said(_) | Up::Binary(_)) if !socket.paused => {}
            Some(Up::Said(_) | Up::Binary(_)) | None => return false,
        }
        let session = SessionId(id);
        socket.heard_at = now;
        match socket.up.pop_front() {
            Some(Up::Fin) => {
                socket.server_open = false;
                self.input(Input::Gone { session });
            }
            Some(Up::Pong) => {
                self.checker.tally.add("pong");
                self.input(Input::Alive { session });
            }
            Some(Up::Binary(said)) => {
                let text = said.text();
                if self.takes_binary(id) {
                    self.checker.tally.add("binary frame of simplepush");
                    self.note_said(id, &said);
                }
                let bytes = text.as_bytes();
                self.input(Input::Binary { session, bytes });
            }
            Some(Up::Said(said)) => {
                self.note_said(id, &said);
                let text = said.text();
                let text = text.as_str();
                if !self.saboteur.swallows(text) {
                    self.input(Input::Text { session, text });
                }
            }
            None => {}
        }
        true
    }

    fn takes_binary(&self, id: u64) -> bool {
        let socket = &self.sockets[&id];
        let agent = &self.agents[socket.log.agent];
        let is_known = socket.hello.is_some() || agent.uses_simplepush_path();
        agent.is_simplepush() && is_known
    }

    fn note_said(&mut self, id: u64, said: &Said) {
        let mut now = self.moment();
        // What follows belongs to the step of the input.
        now.step += 1;
        let socket = self.sockets.get_mut(&id).expect("it exists");
        let agent = socket.log.agent;
        match said {
            Said::Hello(value) if socket.hello.is_none() => self.note_hello(id, value),
            Said::Hello(value) => self.note_hello_again(id, value),
            Said::Register { channel, .. } | Said::Unregister { channel } if socket.is_in_use() => {
                let ends = matches!(said, Said::Unregister { .. });
                socket.pending = Some(Pending {
                    channel: channel.clone(),
                    ends,
                    step: now.step,
                });
                let name = socket.log.name().expect("it has a name");
                self.checker
                    .subscription_op(agent, &name, channel, ends, now);
            }
            Said::Ack(_, acks) if socket.greeted => {
                let name = socket.log.name().expect("it has a name");
                let is_newest = !socket.superseded;
                for ack in acks {
                    self.note_ack(agent, &name, is_newest, ack);
                }
            }
            Said::Wrong { answer, .. } => {
                if socket.hello.is_none() || socket.is_in_use() {
                    socket.refusal_due = *answer;
                }
                socket.must_close = true;
            }
            Said::Urgency(min) if socket.greeted => {
                socket.log.urgency_min = *min;
                socket.log.asked_urgency = true;
            }
            Said::Register { .. }
            | Said::Unregister { .. }
            | Said::Ack(..)
            | Said::Urgency(_)
            | Said::Other(_) => {}
        }
    }

    fn note_hello(&mut self, id: u64, value: &Value) {
        let mut now = self.moment();
        now.step += 1;
        let hello = Hello {
            uaid: value["uaid"].as_str().map(str::to_owned),
            channels_len: value["channelIDs"].as_array().map_or(0, Vec::len),
        };
        let socket = self.sockets.get_mut(&id).expect("it exists");
        let agent = socket.log.agent;
        let name = hello.uaid.as_deref().and_then(name_of);
        let has_too_many = self.has_too_many(&hello);
        let socket = self.sockets.get_mut(&id).expect("it exists");
        socket.hello = Some(hello);
        socket.hellos_due = 1;
        socket.log.hello_step = now.step;
        self.newest.insert(agent, id);
        let Some(name) = name else { return };
        let others = self.sockets.iter_mut();
        for (_, other) in others.filter(|(other, _)| **other != id) {
            if other.log.agent == agent && other.name().as_ref() == Some(&name) {
                other.superseded = true;
            }
        }
        if has_too_many && self.agents[agent].is_simplepush() {
            self.checker.tally.add("hello with too many channels");
            self.checker.forgotten(agent, &name, now);
        }
    }

    /// A second hello on a websocket.
    fn note_hello_again(&mut self, id: u64, value: &Value) {
        let step = self.moment().step + 1;
        let socket = self.sockets.get_mut(&id).expect("it exists");
        let is_simplepush = self.agents[socket.log.agent].is_simplepush();
        if !is_simplepush || !socket.is_in_use() {
            return;
        }
        let named = value["uaid"].as_str();
        let is_another = named.and_then(name_of).is_some_and(|name| {
            let own = socket.log.name();
            own.as_ref() != Some(&name)
        });
        if is_another {
            socket.refusal_due = Some(503);
            socket.must_close = true;
            return;
        }
        socket.hellos_due += 1;
        socket.log.again_step = step;
        if let Some(uaid) = named.filter(|uaid| name_of(uaid).is_some()) {
            uaid.clone_into(&mut socket.log.uaid);
        }
    }

    fn note_ack(&mut self, agent: usize, name: &str, is_newest: bool, ack: &Ack) {
        let mut now = self.moment();
        now.step += 1;
        let channel = ack.channel.channel;
        let subscription = self.checker.subscriptions.get(&(agent, channel));
        if subscription.is_some_and(|subscription| subscription.name != name) {
            return;
        }
        let is_simplepush = self.agents[agent].is_simplepush();
        match &ack.version {
            AckVersion::Token(token) if token.is_empty() => {
                self.checker.acked_without_version(agent, channel);
            }
            AckVersion::Token(token) => self.checker.acked(agent, token, ack.code, now),
            AckVersion::Quoted(_) if !is_simplepush => {}
            AckVersion::Number(version) | AckVersion::Quoted(version) => {
                let key = (agent, channel);
                self.checker.versions.acked(key, *version, is_newest, now);
            }
        }
    }

    /// The socket takes one frame from the gateway.
    pub(super) fn server_writes(&mut self, id: u64) -> bool {
        let Some(socket) = self.sockets.get_mut(&id) else {
            return false;
        };
        let Some(down) = socket.unsent.pop_front() else {
            return false;
        };
        if socket.client_open {
            socket.wire.push_back(down);
        }
        if socket.unsent.is_empty() {
            socket.unsent_bytes = 0;
        }
        if socket.unsent.is_empty() && socket.server_open {
            let session = SessionId(id);
            self.input(Input::AllSent { session });
        }
        true
    }

    /// The user agent reads one frame.
    pub(super) fn client_reads(&mut self, id: u64) -> bool {
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
            Down::Close { will_be_woken } => {
                socket.client_open = false;
                let agent = socket.log.agent;
                if will_be_woken && self.agents[agent].socket == Some(id) {
                    let generation = self.generation;
                    if let Some(device) = self.agents[agent].device_mut() {
                        device.fall_asleep(generation);
                    }
                }
            }
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
