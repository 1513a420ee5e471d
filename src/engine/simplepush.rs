//! What a SimplePush user agent's websocket has of its own: its hello, its acks, and answers to what
//! is wrong (PROTOCOL.md part 2, rules R4 to R23).

use super::agent::Agent;
use super::outbox::Waiting;
use super::session::{SimplePushFacts, State};
use super::{CloseReason, Engine, SessionId};
use crate::model::dialect::Dialect;
use crate::model::ids::Uaid;
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
            self.desk.out.store(op, Waiting::Sleep(id, uaid));
        }
    }

    /// It is written down: the user agent may go, unless something has happened since. Then that is
    /// taken back, or it would be woken after a restart wherever it is by then.
    pub(super) fn may_sleep(&mut self, id: SessionId, uaid: Uaid, written: bool) {
        if !written {
            return;
        }
        let session = self.sessions.get(&id);
        let quiet = session.filter(|session| session.agent().is_some_and(Agent::is_quiet));
        let facts = quiet.and_then(|session| session.simplepush.as_deref());
        if let Some(wakeup) = facts.and_then(|facts| facts.wakeup.clone()) {
            self.sleep.add(uaid, wakeup);
            self.close(id, CloseReason::WillBeWoken);
        } else {
            self.desk
                .out
                .store(StoreOp::Woken { uaid }, Waiting::Nobody);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::engine::testing::{Out, PEER, Table};
    use crate::engine::{CloseReason, Input, SessionId};
    use crate::model::limits::Limits;
    use crate::model::simplepush::SimplePush;
    use crate::model::store::{StoreError, StoreOp, StoreReply};
    use crate::protocol::push_request::PushHeaders;

    /// Idle for so long that it is about to be let go of: the session, and its endpoint.
    fn drowsy(table: &mut Table) -> (u64, String) {
        let id = table.open();
        let hello = format!(
            r#"{{"messageType":"hello","channelIDs":[],"wakeup_hostport":{{"ip":"{PEER}","port":9}}}}"#
        );
        table.say(id, &hello);
        let endpoint = table.register(id, 1);
        let idle = Limits::default().udp_idle + Duration::from_secs(1);
        assert_eq!(table.pass(idle), []);
        assert!(matches!(table.asked.as_slice(), [StoreOp::Sleep { .. }]));
        (id, endpoint)
    }

    fn with_wakeup() -> Table {
        let simplepush = SimplePush {
            udp_wakeup: true,
            ..SimplePush::default()
        };
        let mut table = Table::with_simplepush(simplepush);
        table.stored(vec![StoreReply::Sleepers(Vec::new())]);
        table
    }

    #[test]
    fn idle_user_agent_is_let_go_of_when_it_is_written_down_how_to_wake_it() {
        let mut table = with_wakeup();
        let (id, _) = drowsy(&mut table);
        let closed = [Out::Closed(id, CloseReason::WillBeWoken)];
        assert_eq!(table.stored(vec![StoreReply::Done]), closed);
        assert!(table.asked.is_empty());
    }

    #[test]
    fn user_agent_that_was_gone_before_it_could_be_let_go_of_does_not_count_as_asleep() {
        let mut table = with_wakeup();
        let session = SessionId(drowsy(&mut table).0);
        table.input(Input::Gone { session });
        assert_eq!(table.stored(vec![StoreReply::Done]), []);
        assert!(matches!(table.asked.as_slice(), [StoreOp::Woken { .. }]));
    }

    #[test]
    fn user_agent_that_was_sent_something_before_it_could_be_let_go_of_stays() {
        let mut table = with_wakeup();
        let (_, endpoint) = drowsy(&mut table);
        let (_, outs) = table.request("PUT", &endpoint, PushHeaders::default());
        assert!(matches!(outs.as_slice(), [Out::Sent(..)]));
        assert_eq!(table.stored(vec![StoreReply::Done]), []);
        assert!(matches!(table.asked.as_slice(), [StoreOp::Woken { .. }]));
    }

    #[test]
    fn user_agent_of_which_it_cannot_be_written_down_how_to_wake_it_stays() {
        let mut table = with_wakeup();
        drowsy(&mut table);
        let failed = StoreReply::Failed(StoreError::DiskFull);
        assert_eq!(table.stored(vec![failed]), []);
        assert!(table.asked.is_empty());
    }
}
