//! Frames that leave the engine, judged in the order of its decisions.

use super::sockets::{Hello, Pending};
use super::{World, path_of};
use crate::checker::{EndpointUrl, Knows, name_of};
use crate::frames::{Down, Frame};

impl World {
    /// A text frame leaves the engine.
    pub(super) fn send(&mut self, id: u64, text: &str) {
        let now = self.moment();
        let frame = Frame::read(text, now.step);
        let socket = self.sockets.get_mut(&id).expect("it exists");
        assert!(socket.server_open, "frame for a session that has ended");
        let agent = socket.log.agent;
        let interval = self.plan.limits.redelivery_interval;
        match &frame {
            Frame::Hello { uaid, webpush } => {
                assert_ne!(*webpush, self.agents[agent].is_simplepush());
                self.greet(id, uaid);
            }
            Frame::Registered {
                channel,
                status,
                endpoint,
            } => {
                let url = (*status == 200).then(|| EndpointUrl {
                    path: path_of(endpoint),
                    restricted: endpoint.contains("/wpush/v2/"),
                    generation: now.generation,
                });
                self.answer(id, channel, false, url.map(Some).ok_or(*status));
            }
            Frame::Unregistered { channel, .. } if channel == "foo" => {}
            Frame::Unregistered { channel, status } => {
                let outcome = (*status == 200).then_some(None).ok_or(*status);
                self.answer(id, channel, true, outcome);
            }
            Frame::Notification {
                channel,
                version,
                body,
            } => {
                assert!(socket.greeted, "sent before the answer to hello");
                let is_simplepush = self.agents[agent].is_simplepush();
                assert!(!is_simplepush, "a notification that it cannot read");
                self.checker
                    .sent(&mut socket.log, *channel, version, body.as_deref(), now);
            }
            Frame::Updates { updates, .. } => {
                assert!(socket.greeted, "sent before the answer to hello");
                let is_simplepush = self.agents[agent].is_simplepush();
                // What is sent when the list is full may be repeated at any time.
                let is_listed = self.plan.limits.unacked_per_session_max >= 512;
                let timing = (is_listed.then_some(interval), self.elapsed);
                self.checker
                    .updates_sent(&mut socket.log, updates, is_simplepush, timing, now);
            }
            Frame::Refused { status } => {
                assert_eq!(socket.refusal_due.take(), Some(*status));
                self.checker.tally.add(if *status == 503 {
                    "second hello by another name"
                } else {
                    "refused with 401"
                });
            }
            Frame::UrgencyTaken | Frame::NoBroadcast | Frame::Pong => {}
        }
        let socket = self.sockets.get_mut(&id).expect("it exists");
        socket.unsent_bytes += text.len();
        socket.unsent.push_back(Down::Frame(frame));
    }

    /// A register or an unregister is answered.
    fn answer(
        &mut self,
        id: u64,
        channel: &str,
        is_end: bool,
        outcome: Result<Option<EndpointUrl>, u64>,
    ) {
        let now = self.moment();
        let socket = self.sockets.get_mut(&id).expect("it exists");
        let pending = socket.pending.take().expect("it asked");
        let Pending {
            channel: asked,
            ends,
            step,
        } = pending;
        assert_eq!((channel, is_end), (asked.text.as_str(), ends));
        let agent = socket.log.agent;
        if ends {
            socket.log.forget(asked.channel);
        }
        if asked.text != asked.channel.to_string() {
            self.checker.tally.add("channel in another spelling");
        }
        self.checker
            .subscription_answered(agent, asked.channel, step, outcome, now);
    }

    /// A hello is answered.
    fn greet(&mut self, id: u64, uaid: &str) {
        let elapsed = self.elapsed;
        let socket = self.sockets.get_mut(&id).expect("it exists");
        socket.hellos_due = socket.hellos_due.checked_sub(1).expect("it said hello");
        if socket.greeted {
            assert_eq!(uaid, socket.log.uaid, "another name at the second hello");
            self.checker.tally.add("second hello answered");
            return;
        }
        socket.greeted = true;
        uaid.clone_into(&mut socket.log.uaid);
        let hello = socket.hello.clone().expect("it said hello");
        let agent = socket.log.agent;
        let asked = hello.uaid.as_deref().and_then(name_of);
        let name = name_of(uaid).expect("a UAID is a UUID");
        let is_kept = Some(&name) == asked.as_ref();
        match self.keeps_its_name(agent, &hello) {
            Knows::Yes => assert!(is_kept, "{asked:?} was replaced"),
            Knows::No => assert!(!is_kept, "{asked:?} was kept"),
            Knows::Perhaps => {}
        }
        if is_kept {
            assert_eq!(Some(uaid), hello.uaid.as_deref(), "in another spelling");
            let is_ours = self.names.contains(&name);
            if is_ours && self.generation > 0 {
                self.checker.tally.add("uaid kept over a lost database");
            }
            if !is_ours {
                self.checker.tally.add(if hello.channels_len == 0 {
                    "foreign uaid adopted"
                } else {
                    "adopted uaid known"
                });
            }
        } else {
            if self.agents[agent].is_simplepush() && asked.is_some() {
                self.checker
                    .tally
                    .add("unknown uaid with channels replaced");
            }
            assert_eq!(uaid, name, "a new name is 32 hex digits in lower case");
            assert!(!self.names.contains(&name), "somebody else's UAID");
            self.names.push(name);
            let socket = self.sockets.get_mut(&id).expect("it exists");
            socket.named_at = Some(elapsed);
        }
    }

    /// Whether a user agent keeps the name that it says.
    fn keeps_its_name(&self, agent: usize, hello: &Hello) -> Knows {
        let Some(name) = hello.uaid.as_deref().and_then(name_of) else {
            return Knows::No;
        };
        let is_ours = self.names.contains(&name);
        match (self.agents[agent].is_simplepush(), is_ours) {
            (true, _) if self.has_too_many(hello) => Knows::No,
            (_, true) => Knows::Yes,
            (false, false) => Knows::No,
            (true, false) if hello.channels_len == 0 => Knows::Yes,
            (true, false) => self.checker.knows(agent, &name, self.generation),
        }
    }

    pub(super) fn has_too_many(&self, hello: &Hello) -> bool {
        let max = self.plan.limits.subscriptions_per_user_agent_max as usize;
        hello.channels_len > max
    }
}
