//! What a SimplePush user agent's websocket has of its own: its hello, its acks, and answers to what
//! is wrong (PROTOCOL.md part 2, rules R4 to R23).

use super::agent::Agent;
use super::outbox::Waiting;
use super::session::{Session, SimplePushFacts, State};
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
                    Some(channel) => self.unregister(now, id, channel, spelling),
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
                self.start_again(now, id, uaid);
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
        // Without a channel there is nothing to wake it for. And one at a time: taken back behind
        // the second one, the first would leave a sleeper that flash does not know.
        let has_channels = |agent: &Agent| !agent.channels.is_empty();
        let may_sleep = session.is_quiet()
            && !session.falls_asleep
            && session.agent().is_some_and(has_channels);
        let wakeup = session
            .wakeup()
            .filter(|_| may_sleep && self.sleep.has_room());
        if let Some(wakeup) = wakeup.cloned() {
            let op = StoreOp::Sleep { uaid, wakeup };
            self.desk.out.store(op, Waiting::Sleep(id, uaid));
            if let Some(session) = self.sessions.get_mut(&id) {
                session.falls_asleep = true;
            }
        }
    }

    /// It is written down: the user agent may go, unless something has happened since. Then that is
    /// taken back, or it would be woken after a restart wherever it is by then.
    pub(super) fn may_sleep(&mut self, now: Now, id: SessionId, uaid: Uaid, written: bool) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.falls_asleep = false;
        }
        if !written {
            return;
        }
        let idle = self.desk.limits.udp_idle;
        let is_silent = |session: &&Session| {
            let silent = now.monotonic.saturating_duration_since(session.last_heard);
            session.is_quiet() && silent >= idle
        };
        let session = self.sessions.get(&id).map(AsRef::as_ref).filter(is_silent);
        if let Some(wakeup) = session.and_then(|session| session.wakeup()).cloned() {
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

    use super::super::Input;
    use super::super::testing::{
        EMPTY_PAGE, KEPT, Out, PEER, Table, device_hello, loaded, numbers, page,
    };
    use super::*;
    use crate::model::durability::Durability;
    use crate::model::ids::Uaid;
    use crate::model::limits::Limits;
    use crate::model::message::{PushMessage, Ttl};
    use crate::model::simplepush::SimplePush;
    use crate::model::store::{Deletion, Sleeper, StoreError, StoreReply};
    use crate::protocol::push_request::PushHeaders;

    const DONE: StoreReply = StoreReply::Done;
    const FAILED: StoreReply = StoreReply::Failed(StoreError::DiskFull);

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    /// One that lets user agents sleep, and has read that nobody does.
    fn sleepy_table() -> Table {
        let simplepush = SimplePush {
            udp_wakeup: true,
            ..SimplePush::default()
        };
        let mut table = Table::with_simplepush(Limits::default(), Durability::Strict, simplepush);
        assert_eq!(table.pass(secs(0)), []);
        assert!(matches!(table.asked.as_slice(), [StoreOp::Sleepers]));
        table
    }

    /// The message that was put last of all, as the storage keeps it.
    fn kept(table: &Table) -> PushMessage {
        let mut asked = table.asked.iter().rev();
        let message = asked.find_map(|op| {
            if let StoreOp::Enqueue { message, .. } = op {
                return Some(message.as_ref().clone());
            }
            None
        });
        message.unwrap()
    }

    /// A device with a subscription: the session, its UAID and the endpoint.
    fn subscribed(table: &mut Table) -> (u64, String, String) {
        let (id, uaid) = table.device();
        let endpoint = table.register(id, 1);
        (id, uaid, endpoint)
    }

    /// One that has gone with update 5 on its way to flash, and is about to be sent it: the session,
    /// its UAID, the endpoint and what was kept.
    fn returned(table: &mut Table) -> (u64, String, String, PushMessage) {
        let (id, uaid, endpoint) = subscribed(table);
        table.put(&endpoint, Some(5));
        let session = SessionId(id);
        table.input(Input::Gone { session });
        let message = kept(table);
        let id = table.device_again(&uaid);
        table.stored(vec![DONE, KEPT, DONE, loaded(1)]);
        table.all_sent(id);
        (id, uaid, endpoint, message)
    }

    /// Idle for so long that it is about to be let go of: the session, and its endpoint.
    fn drowsy(table: &mut Table) -> (u64, String) {
        let (id, _, endpoint) = subscribed(table);
        let idle = Limits::default().udp_idle + secs(1);
        assert_eq!(table.pass(idle), []);
        assert!(matches!(table.asked.as_slice(), [StoreOp::Sleep { .. }]));
        (id, endpoint)
    }

    fn with_wakeup() -> Table {
        let mut table = sleepy_table();
        table.stored(vec![StoreReply::Sleepers(Vec::new())]);
        table
    }

    #[test]
    fn sleepers_are_read_at_the_start_and_again_where_that_failed() {
        let mut table = sleepy_table();
        table.stored(vec![FAILED]);
        table.pass(secs(60));
        let sleepers = table
            .asked
            .iter()
            .position(|op| matches!(op, StoreOp::Sleepers));
        assert_eq!(sleepers, Some(0));
        let (_, uaid) = Table::new().device();
        let sleeper = Sleeper {
            uaid: Uaid::from_bytes(uuid::Uuid::parse_str(&uaid).unwrap().into_bytes()),
            wakeup: Wakeup {
                address: (PEER, 9).into(),
                network: None,
            },
            is_due: true,
        };
        let outs = table.stored(vec![StoreReply::Sleepers(vec![sleeper])]);
        assert_eq!(outs, [Out::Woken((PEER, 9).into())]);
    }

    #[test]
    fn user_agent_that_asks_something_while_it_is_let_go_of_stays_until_it_has_its_answer() {
        let mut table = with_wakeup();
        let (id, _) = drowsy(&mut table);
        let ask = r#"{"messageType":"register","channelID":"01010101010101010101010101010102"}"#;
        assert_eq!(table.say(id, ask), [Out::Paused(id)]);
        // However long that takes.
        table.pass(secs(11));
        assert_eq!(table.stored(vec![DONE]), []);
        let outs = table.stored(vec![StoreReply::Subscribed(true)]);
        assert!(matches!(outs.as_slice(), [Out::Sent(..), Out::Resumed(_)]));

        // It was written down as asleep, which is taken back first.
        table.pass(secs(11));
        let closed = [Out::Closed(id, CloseReason::WillBeWoken)];
        assert_eq!(table.stored(vec![DONE, DONE]), closed);
    }

    #[test]
    fn second_hello_repeats_what_is_only_held() {
        let mut table = Table::new();
        let (id, uaid, endpoint) = subscribed(&mut table);
        let (request, outs) = table.put(&endpoint, Some(5));
        assert_eq!(numbers(&outs), [5]);
        table.all_sent(id);
        let outs = table.say(id, &device_hello(&uaid));
        assert!(matches!(outs.as_slice(), [Out::Sent(..)]));
        table.all_sent(id);
        let [
            StoreOp::SaveTime { .. },
            StoreOp::Enqueue { message, .. },
            StoreOp::Fetch { .. },
        ] = table.asked.as_slice()
        else {
            panic!("{:?}", table.asked);
        };
        let message = message.as_ref().clone();
        let outs = table.stored(vec![DONE, KEPT, page(vec![message])]);
        assert_eq!(outs[0], Out::Answered(request, 200));
        assert_eq!(numbers(&outs), [5]);
    }

    #[test]
    fn second_hello_begins_anew_where_the_first_is_still_being_served() {
        let mut table = Table::new();
        let (id, uaid, _, message) = returned(&mut table);
        let more = StoreReply::Page {
            messages: vec![message.clone()],
            more: true,
        };
        assert_eq!(numbers(&table.stored(vec![more])), [5]);
        table.all_sent(id);
        // The second page is on its way.
        table.say(id, &device_hello(&uaid));
        table.all_sent(id);
        table.stored(vec![EMPTY_PAGE]);
        let outs = table.stored(vec![page(vec![message])]);
        assert_eq!(numbers(&outs), [5]);
    }

    #[test]
    fn update_acked_while_a_page_brings_it_again_is_not_sent_again() {
        let mut table = Table::new();
        let (id, uaid, endpoint) = subscribed(&mut table);
        table.put(&endpoint, Some(5));
        table.all_sent(id);
        table.say(id, &device_hello(&uaid));
        table.all_sent(id);
        let message = kept(&table);
        table.ack_number(id, 1, 5);
        let outs = table.stored(vec![DONE, KEPT, page(vec![message])]);
        assert_eq!(numbers(&outs), [] as [u64; 0]);
    }

    #[test]
    fn ack_also_ends_a_lower_version_that_waits_on_flash() {
        let mut table = Table::new();
        let (id, _, endpoint, message) = returned(&mut table);
        // This one is not in the page.
        table.put(&endpoint, Some(3));
        table.stored(vec![page(vec![message])]);
        table.ack_number(id, 1, 5);
        table.pass(secs(1));
        let [.., StoreOp::Delete(deletions)] = table.asked.as_slice() else {
            panic!("{:?}", table.asked);
        };
        let of_channel = |deletion: &Deletion| matches!(deletion, Deletion::Update { .. });
        assert!(deletions.iter().any(of_channel), "{deletions:?}");
    }

    #[test]
    fn message_with_ttl_0_has_no_number_while_versions_on_flash_are_unknown() {
        let mut table = Table::new();
        let (id, uaid, endpoint) = subscribed(&mut table);
        let session = SessionId(id);
        table.input(Input::Gone { session });
        let id = table.device_again(&uaid);
        // The storage will choose its number.
        table.put(&endpoint, None);
        table.stored(vec![loaded(1)]);
        table.all_sent(id);
        let (request, outs) = table.post(&endpoint, 0, None);
        assert_eq!(outs, [Out::Answered(request, 201)]);
    }

    #[test]
    fn update_that_was_expired_in_its_page_is_looked_for_again_where_another_has_prolonged_it() {
        let mut table = Table::new();
        let (_, _, endpoint, mut message) = returned(&mut table);
        message.ttl = Ttl::from_secs_lowered(1);
        table.put(&endpoint, Some(3));
        table.pass(secs(5));
        assert_eq!(table.stored(vec![page(vec![message])]), []);
        table.stored(vec![KEPT]);
        let [StoreOp::Fetch { after, .. }] = table.asked.as_slice() else {
            panic!("{:?}", table.asked);
        };
        assert_eq!(*after, crate::model::store::Cursors::START);
    }

    #[test]
    fn number_of_an_update_that_was_expired_in_its_page_is_not_given_out_again() {
        let mut table = Table::new();
        let (_, _, endpoint, mut message) = returned(&mut table);
        message.ttl = Ttl::from_secs_lowered(1);
        table.pass(secs(2));
        assert_eq!(table.stored(vec![page(vec![message])]), []);
        let (_, outs) = table.put(&endpoint, None);
        assert_eq!(numbers(&outs), [6]);
    }

    #[test]
    fn channel_whose_end_could_not_be_written_keeps_its_spelling() {
        let mut table = Table::new();
        let (id, uaid) = table.device();
        let spelled = "01010101010101010101010101010101";
        let say = |what: &str| format!(r#"{{"messageType":"{what}","channelID":"{spelled}"}}"#);
        table.say(id, &say("register"));
        let outs = table.stored(vec![StoreReply::Subscribed(true)]);
        let Out::Sent(_, answer) = &outs[0] else {
            panic!("{outs:?}");
        };
        let answer: serde_json::Value = serde_json::from_str(answer).unwrap();
        let url = answer["pushEndpoint"].as_str().unwrap();
        let endpoint = url.strip_prefix("http://pi").unwrap().to_owned();
        table.put(&endpoint, Some(5));
        table.pass(secs(1));
        let message = kept(&table);
        table.stored(vec![DONE, KEPT]);
        table.say(id, &say("unregister"));
        table.stored(vec![FAILED]);
        table.all_sent(id);
        table.say(id, &device_hello(&uaid));
        table.all_sent(id);
        let outs = table.stored(vec![page(vec![message])]);
        assert!(matches!(outs.as_slice(), [Out::Sent(_, text)] if text.contains(spelled)));
    }

    #[test]
    fn idle_user_agent_is_let_go_of_when_it_is_written_down_how_to_wake_it() {
        let mut table = with_wakeup();
        let (id, _) = drowsy(&mut table);
        let closed = [Out::Closed(id, CloseReason::WillBeWoken)];
        assert_eq!(table.stored(vec![DONE]), closed);
        assert!(table.asked.is_empty());
    }

    #[test]
    fn user_agent_that_was_gone_before_it_could_be_let_go_of_does_not_count_as_asleep() {
        let mut table = with_wakeup();
        let session = SessionId(drowsy(&mut table).0);
        table.input(Input::Gone { session });
        assert_eq!(table.stored(vec![DONE]), []);
        assert!(matches!(table.asked.as_slice(), [StoreOp::Woken { .. }]));
    }

    #[test]
    fn user_agent_that_was_sent_something_before_it_could_be_let_go_of_stays() {
        let mut table = with_wakeup();
        let (_, endpoint) = drowsy(&mut table);
        let (_, outs) = table.request("PUT", &endpoint, PushHeaders::default());
        assert!(matches!(outs.as_slice(), [Out::Sent(..)]));
        assert_eq!(table.stored(vec![DONE]), []);
        assert!(matches!(table.asked.last(), Some(StoreOp::Woken { .. })));
    }

    #[test]
    fn user_agent_of_which_it_cannot_be_written_down_how_to_wake_it_stays() {
        let mut table = with_wakeup();
        drowsy(&mut table);
        assert_eq!(table.stored(vec![FAILED]), []);
        assert!(table.asked.is_empty());
    }

    #[test]
    fn sleeper_is_written_down_once_however_slow_the_storage_is() {
        let mut table = with_wakeup();
        let (id, _) = drowsy(&mut table);
        table.pass(secs(11));
        assert_eq!(table.asked.len(), 1);
        // It stays, so what was written is taken back; then it is let go of.
        table.say(id, "{}");
        table.stored(vec![DONE]);
        table.pass(secs(11));
        let [StoreOp::Woken { .. }, StoreOp::Sleep { .. }] = table.asked.as_slice() else {
            panic!("{:?}", table.asked);
        };
        let closed = [Out::Closed(id, CloseReason::WillBeWoken)];
        assert_eq!(table.stored(vec![DONE, DONE]), closed);
        assert!(table.asked.is_empty(), "flash knows that it sleeps");
    }
}
