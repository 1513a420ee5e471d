//! What a SimplePush user agent's websocket has of its own: its hello, its acks, and answers to what
//! is wrong (PROTOCOL.md part 2, rules R4 to R23).

use super::outbox::Waiting;
use super::session::{SimplePushFacts, State};
use super::{CloseReason, Engine, SessionId};
use crate::model::dialect::Dialect;
use crate::model::store::StoreOp;
use crate::model::time::Now;
use crate::model::wakeup::Wakeup;
use crate::protocol::server_message::{self, BroadcastAnswer};
use crate::protocol::simplepush_message::{
    self, Hello, Refusal, SimplePushMessage, SpelledChannel, SpelledUaid, VersionAck,
};

impl Engine {
    pub(super) fn simplepush_text(&mut self, now: Now, id: SessionId, text: &str) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let message = match (simplepush_message::parse(text), &session.state) {
            (Ok(message), _) => message,
            (Err(_), State::Leaving(..)) => return,
            (Err(refusal), _) => return self.refuse_message(now, id, refusal, text),
        };
        match (&session.state, message) {
            (State::AwaitingHello, SimplePushMessage::Hello(hello)) => {
                self.simplepush_hello(now, id, hello);
            }
            (State::AwaitingHello, SimplePushMessage::Ping)
                if simplepush_message::is_early_ping(text) =>
            {
                self.app_ping(now, id);
            }
            (State::AwaitingHello, _) => {
                self.refuse_message(now, id, Refusal::HelloExpected, text);
            }
            (State::Identified(_), SimplePushMessage::Hello(hello)) => {
                self.hello_again(now, id, hello, text);
            }
            (State::Identified(_), SimplePushMessage::Ping) => self.app_ping(now, id),
            (State::Identified(_) | State::Leaving(..), SimplePushMessage::Ack(acks)) => {
                self.version_acks(now, id, &acks);
            }
            (State::Identified(_), SimplePushMessage::Register(registration)) => {
                let SpelledChannel { channel, spelling } = registration;
                self.register(now, id, channel, spelling, None);
            }
            (State::Identified(_), SimplePushMessage::Unregister { channel, spelling }) => {
                match channel {
                    Some(channel) => self.unregister(id, channel, spelling),
                    None => {
                        let answer = server_message::unregistered(&spelling, true);
                        self.desk.out.send(id, answer);
                    }
                }
            }
            (State::Identified(_), SimplePushMessage::Ignored) => {}
            // The caller has been told to pause, or the websocket is about to be closed.
            (State::Loading { .. } | State::Leaving(..), _) => {}
        }
    }

    /// Answers what is wrong, then closes (R17).
    fn refuse_message(&mut self, now: Now, id: SessionId, refusal: Refusal, text: &str) {
        if let Some(answer) = refusal.answer(text) {
            self.desk.out.send(id, answer);
        }
        self.end_session(now, id, CloseReason::Refused(refusal));
    }

    /// Decides about the name (R6 to R9): one of ours is kept, also when the database does not know
    /// it. A foreign one is adopted if its user agent believes to have no channels; if it believes to
    /// have some it keeps its name only if they are known, because it must register them again
    /// otherwise, which only a new name makes it do.
    fn simplepush_hello(&mut self, now: Now, id: SessionId, hello: Hello) {
        let Hello {
            uaid,
            channels_len,
            wakeup,
        } = hello;
        let wakeup = self.usable(id, wakeup);
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        session.dialect = Some(Dialect::SimplePush);
        let (uaid, spelling) = match uaid {
            Some(SpelledUaid { uaid, spelling }) => (Some(uaid), Some(spelling)),
            None => (None, None),
        };
        session.simplepush = Some(Box::new(SimplePushFacts { spelling, wakeup }));
        let channels_max = self.desk.limits.subscriptions_per_user_agent_max;
        let has_too_many = u32::try_from(channels_len).unwrap_or(u32::MAX) > channels_max;
        match uaid {
            None => self.newcomer(now, id),
            Some(uaid) if has_too_many => {
                // It has lost count: it starts again with nothing (R9).
                if let Some(older) = self.newest.get(&uaid).copied() {
                    self.end_session(now, older, CloseReason::Superseded);
                }
                self.woken(uaid);
                self.desk
                    .out
                    .store(StoreOp::Forget { uaid }, Waiting::Nobody);
                self.newcomer(now, id);
            }
            Some(uaid) => {
                let must_be_known = channels_len > 0 && !self.desk.keyring.is_ours(uaid);
                self.returning(now, id, uaid, must_be_known);
            }
        }
    }

    /// The same name again, or none, is answered again, with all that was not acked (R11).
    fn hello_again(&mut self, now: Now, id: SessionId, hello: Hello, text: &str) {
        let wakeup = self.usable(id, hello.wakeup);
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let Some(uaid) = session.uaid() else { return };
        if hello.uaid.as_ref().is_some_and(|named| named.uaid != uaid) {
            return self.refuse_message(now, id, Refusal::AnotherName, text);
        }
        if let Some(facts) = &mut session.simplepush {
            facts.wakeup = wakeup;
            if let Some(named) = hello.uaid {
                facts.spelling = Some(named.spelling);
            }
        }
        self.desk
            .out
            .send(id, session.greeting(uaid, &BroadcastAnswer::default()));
        if let Some(agent) = session.agent_mut() {
            agent.repeat_all(now, &mut self.desk);
        }
    }

    /// How it can be woken, if the configuration allows a datagram to where it is.
    fn usable(&self, id: SessionId, wakeup: Option<Wakeup>) -> Option<Wakeup> {
        let peer = self.sessions.get(&id)?.peer;
        wakeup.filter(|wakeup| self.desk.simplepush.may_wake(wakeup.address.ip(), peer))
    }

    fn version_acks(&mut self, now: Now, id: SessionId, acks: &[VersionAck]) {
        for ack in acks {
            self.ack_version(now, id, ack.channel, ack.version);
        }
        self.make_room_for_acks(id);
    }

    /// Lets go of a user agent that can be woken, once it is written down how (part 2, 1.6).
    pub(super) fn let_sleep(&mut self, now: Now, id: SessionId) {
        let again = now.monotonic.checked_add(self.desk.limits.udp_idle);
        self.set_alarm(id, again);
        let Some((session, uaid)) = self.named(id) else {
            return;
        };
        let facts = session.simplepush.as_deref();
        let wakeup = facts.and_then(|facts| facts.wakeup.clone());
        // Without a channel there is nothing to wake it for.
        let may_sleep = session
            .agent()
            .is_some_and(|agent| agent.is_quiet() && !agent.channels.is_empty());
        if let Some(wakeup) = wakeup.filter(|_| may_sleep && self.sleep.has_room()) {
            let op = StoreOp::Sleep { uaid, wakeup };
            self.desk.out.store(op, Waiting::Sleep(id));
        }
    }

    /// It is written down: the user agent may go, unless something has happened since.
    pub(super) fn may_sleep(&mut self, id: SessionId, written: bool) {
        let Some((session, uaid)) = self.named(id).filter(|_| written) else {
            return;
        };
        let facts = session.simplepush.as_deref();
        let Some(wakeup) = facts.and_then(|facts| facts.wakeup.clone()) else {
            return;
        };
        let is_quiet = session.agent().is_some_and(|agent| agent.is_quiet());
        self.sleep.add(uaid, wakeup);
        if is_quiet {
            self.close(id, CloseReason::WillBeWoken);
        }
    }
}
