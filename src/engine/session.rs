//! One user agent's websocket, from open to close: hello, the messages after it, keep-alive.
//!
//! What only SimplePush has is in `simplepush`.

mod acking;
mod hello;
mod subscribing;
mod urgency;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use log::debug;

use super::agent::Agent;
use super::counters::Counters;
use super::deadlines::coarse;
use super::desk::Desk;
use super::{CloseReason, Engine, Opening, Output, SessionId, Stop};
use crate::model::dialect::Dialect;
use crate::model::ids::Uaid;
use crate::model::time::Now;
use crate::model::wakeup::Wakeup;
use crate::protocol::client_message::{self, ClientMessage};
use crate::protocol::http::BaseUrl;
use crate::protocol::server_message::{self, BroadcastAnswer};
use crate::protocol::simplepush_message;

/// After a hello that was answered with a new UAID the websocket is not closed for this long:
/// Firefox would believe that it is still open (PROTOCOL.md 1.E).
const NEW_NAME_LINGER: Duration = Duration::from_secs(1);

/// An open websocket.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) state: State,
    /// Which protocol it is about; `None` until the first message tells.
    pub(super) dialect: Option<Dialect>,
    /// What a SimplePush user agent said in its hello.
    pub(super) simplepush: Option<Box<SimplePushFacts>>,
    pub(super) peer: IpAddr,
    /// It came in by a path whose user agents borrow their subscriptions.
    pub(super) borrows: bool,
    /// The broadcasts that its hello named, until that is answered.
    listens_to: Vec<(Box<str>, Box<str>)>,
    /// How the user agent reached us.
    base_url: Option<BaseUrl>,
    random: [u8; 8],
    /// Its place in the table of deadlines.
    alarm: Option<Instant>,
    pub(super) last_heard: Instant,
    last_ping: Option<Instant>,
    /// A websocket ping is out.
    awaiting_pong: bool,
    /// When it was told a new UAID.
    named_at: Option<Instant>,
    /// It waits for the answer to a register or an unregister.
    asking: bool,
    /// That its user agent sleeps is on its way to flash.
    pub(super) falls_asleep: bool,
}

/// What a SimplePush user agent said in its hello.
#[derive(Debug)]
pub(super) struct SimplePushFacts {
    /// How it spells its UAID; `None` if it had none.
    pub(super) spelling: Option<Box<str>>,
    /// How it can be woken, if it may.
    pub(super) wakeup: Option<Wakeup>,
}

#[derive(Debug)]
pub(super) enum State {
    /// Open and nameless.
    AwaitingHello,
    /// Named; the storage is asked for its subscriptions. Without any it gets a new name if it
    /// must be known.
    Loading { uaid: Uaid, must_be_known: bool },
    /// In use.
    Identified(Box<Agent>),
    /// No more deliveries; acks still count, until it is closed for this reason.
    Leaving(Uaid, CloseReason),
}

impl Session {
    pub(super) fn agent(&self) -> Option<&Agent> {
        match &self.state {
            State::Identified(agent) => Some(agent),
            State::AwaitingHello | State::Loading { .. } | State::Leaving(..) => None,
        }
    }

    pub(super) fn agent_mut(&mut self) -> Option<&mut Agent> {
        match &mut self.state {
            State::Identified(agent) => Some(agent),
            State::AwaitingHello | State::Loading { .. } | State::Leaving(..) => None,
        }
    }

    /// Whether nothing is owed to its user agent, no answer either.
    pub(super) fn is_quiet(&self) -> bool {
        !self.asking && self.agent().is_some_and(Agent::is_quiet)
    }

    /// Whether nothing that waits on flash is owed to its user agent either; `None` as long as that is
    /// not known, or does not matter any more.
    pub(super) fn has_everything(&self) -> Option<bool> {
        let agent = self.agent()?;
        Some(!self.asking && agent.has_everything())
    }

    pub(super) const fn uaid(&self) -> Option<Uaid> {
        match &self.state {
            State::AwaitingHello => None,
            State::Loading { uaid, .. } | State::Leaving(uaid, _) => Some(*uaid),
            State::Identified(agent) => Some(agent.uaid),
        }
    }

    /// The answer to its hello.
    pub(super) fn greeting(&self, uaid: Uaid, broadcasts: &BroadcastAnswer) -> String {
        match (self.dialect, &self.simplepush) {
            (Some(Dialect::SimplePush), facts) => {
                let spelling = facts.as_ref().and_then(|facts| facts.spelling.as_deref());
                server_message::simplepush_hello(uaid, spelling)
            }
            (Some(Dialect::WebPush) | None, _) => server_message::hello(uaid, broadcasts),
        }
    }

    /// How its user agent can be woken, if it may.
    pub(super) fn wakeup(&self) -> Option<&Wakeup> {
        self.simplepush.as_ref()?.wakeup.as_ref()
    }

    /// Longest silence before something is done about it.
    fn silence_max(&self, engine: &Engine) -> Duration {
        if self.wakeup().is_some() {
            engine.desk.limits.udp_idle
        } else {
            engine.desk.limits.ping_interval
        }
    }
}

impl Engine {
    pub(super) fn session_opened(&mut self, now: Now, opening: Opening) {
        let Opening {
            session: id,
            peer,
            base_url,
            simplepush_path,
            borrows,
            random,
        } = opening;
        if self.stop != Stop::No {
            return self.desk.out.close(id, CloseReason::GoingAway);
        }
        let limits = &self.desk.limits;
        let timeout = if simplepush_path {
            limits.simplepush_hello_timeout
        } else {
            limits.hello_timeout
        };
        let mut session = Session {
            state: State::AwaitingHello,
            dialect: simplepush_path.then_some(Dialect::SimplePush),
            simplepush: None,
            borrows,
            listens_to: Vec::new(),
            peer,
            base_url,
            random,
            alarm: None,
            last_heard: now.monotonic,
            last_ping: None,
            awaiting_pong: false,
            named_at: None,
            asking: false,
            falls_asleep: false,
        };
        let at = now.monotonic.checked_add(timeout);
        self.deadlines.set(id, &mut session.alarm, at);
        self.admission.websocket_opened(self.access.source(peer));
        self.sessions.insert(id, Box::new(session));
    }

    pub(super) fn session_text(&mut self, now: Now, id: SessionId, text: &str) {
        self.session_alive(now, id);
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let dialect = session.dialect;
        match dialect.or_else(|| simplepush_message::dialect(text)) {
            Some(Dialect::WebPush) => self.webpush_text(now, id, text),
            // What both protocols have, before hello: SimplePush says what is wrong.
            Some(Dialect::SimplePush) | None => self.simplepush_text(now, id, text),
        }
    }

    /// SimplePush user agents may send JSON in a binary frame (R4).
    pub(super) fn session_binary(&mut self, now: Now, id: SessionId, bytes: &[u8]) {
        let dialect = self.sessions.get(&id).and_then(|session| session.dialect);
        match (dialect, std::str::from_utf8(bytes)) {
            (Some(Dialect::SimplePush), Ok(text)) => self.session_text(now, id, text),
            (Some(_) | None, _) => self.end_session(now, id, CloseReason::BinaryMessage),
        }
    }

    fn webpush_text(&mut self, now: Now, id: SessionId, text: &str) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let message = match client_message::parse(text) {
            Ok(message) => message,
            Err(error) => return self.end_session(now, id, CloseReason::BadMessage(error)),
        };
        match (&session.state, message) {
            // The oldest user agents ping before they say hello.
            (State::AwaitingHello | State::Identified(_), ClientMessage::Ping) => {
                self.app_ping(now, id);
            }
            (State::AwaitingHello, ClientMessage::Hello { uaid, broadcasts }) => {
                self.hello(now, id, uaid, &broadcasts);
            }
            (State::AwaitingHello, _) => self.end_session(now, id, CloseReason::HelloExpected),
            (State::Identified(_) | State::Loading { .. }, ClientMessage::Hello { .. }) => {
                self.end_session(now, id, CloseReason::SecondHello);
            }
            (State::Identified(_) | State::Leaving(..), ClientMessage::Ack(updates)) => {
                self.acks(now, id, &updates);
            }
            (State::Identified(_), ClientMessage::Register { channel, key }) => {
                self.webpush_register(now, id, channel, key);
            }
            (State::Identified(_), ClientMessage::Unregister { channel }) => {
                self.unregister(now, id, channel, server_message::dashed(channel).into());
            }
            (State::Identified(_), ClientMessage::Nack { version, code }) => {
                Counters::add(&mut self.desk.out.counters.nacks);
                if let Some(code) = code {
                    self.nack_borrowed(now, id, &version, code);
                }
            }
            (State::Identified(_), ClientMessage::Urgency(min)) => self.set_urgency(now, id, min),
            (State::Identified(_), ClientMessage::BroadcastSubscribe(wanted)) => {
                let wanted = wanted.iter().map(|(id, has)| (&**id, &**has));
                self.broadcast_subscribe(id, wanted);
            }
            // The caller has been told to pause, or the websocket is about to be closed.
            (State::Loading { .. } | State::Leaving(..), _) => {}
        }
    }

    /// Any frame: the user agent is there.
    pub(super) fn session_alive(&mut self, now: Now, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        session.last_heard = now.monotonic;
        if session.awaiting_pong {
            session.awaiting_pong = false;
            self.watch_silence(id);
        }
    }

    pub(super) fn session_all_sent(&mut self, now: Now, id: SessionId) {
        if let Some((agent, desk)) = self.agent_at(id) {
            agent.all_sent(now, desk);
        }
    }

    pub(super) fn session_gone(&mut self, id: SessionId) {
        if let Some(session) = self.remove_session(id) {
            debug!("websocket gone uaid={}", tag_of(&session));
        }
    }

    /// Its deadline has passed, and is out of the table.
    pub(super) fn session_alarm(&mut self, now: Now, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        session.alarm = None;
        match session.state {
            State::AwaitingHello => self.close(id, CloseReason::HelloTimeout),
            State::Leaving(_, reason) => self.close(id, reason),
            State::Loading { .. } => {}
            State::Identified(_) if session.awaiting_pong => {
                self.end_session(now, id, CloseReason::PongTimeout);
            }
            State::Identified(_) => self.silence(now, id),
        }
    }

    /// It may have been silent for too long.
    fn silence(&mut self, now: Now, id: SessionId) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let silent = now.monotonic.saturating_duration_since(session.last_heard);
        if silent < session.silence_max(self) {
            return self.watch_silence(id);
        }
        if silent < self.desk.limits.ping_interval {
            return self.let_sleep(now, id);
        }
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        session.awaiting_pong = true;
        let at = now.monotonic.checked_add(self.desk.limits.pong_timeout);
        self.deadlines.set(id, &mut session.alarm, at);
        self.desk.out.push(Output::Ping { session: id });
    }

    /// Looks at its silence again at `at`.
    pub(super) fn set_alarm(&mut self, id: SessionId, at: Option<Instant>) {
        if let Some(session) = self.sessions.get_mut(&id) {
            self.deadlines.set(id, &mut session.alarm, at);
        }
    }

    /// Ends a session for `reason`: at once, or a little later where a user agent needs that.
    pub(super) fn end_session(&mut self, now: Now, id: SessionId, reason: CloseReason) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let named_until = session
            .named_at
            .and_then(|at| at.checked_add(NEW_NAME_LINGER))
            .filter(|until| *until > now.monotonic);
        let close_at = if reason == CloseReason::Superseded {
            now.monotonic
                .checked_add(self.desk.limits.superseded_linger)
        } else {
            named_until
        };
        match close_at {
            None => self.close(id, reason),
            Some(_) => {
                self.leave(id, reason);
                if let Some(session) = self.sessions.get_mut(&id) {
                    self.deadlines.set(id, &mut session.alarm, close_at);
                }
            }
        }
    }

    pub(super) fn app_ping(&mut self, now: Now, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let last = session.last_ping.replace(now.monotonic);
        let too_soon = last.is_some_and(|last| {
            now.monotonic.saturating_duration_since(last) < self.desk.limits.app_ping_interval_min
        });
        if too_soon {
            self.end_session(now, id, CloseReason::PingTooSoon);
        } else {
            self.desk.out.send(id, server_message::PONG.to_owned());
        }
    }

    /// Sets the alarm to the moment at which the user agent has been silent for too long.
    fn watch_silence(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let at = session.last_heard.checked_add(session.silence_max(self));
        let at = coarse(self.desk.started, at);
        self.set_alarm(id, at);
    }

    /// Stops deliveries: what only memory holds goes to flash, and the name is free.
    fn leave(&mut self, id: SessionId, reason: CloseReason) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let Some(uaid) = session.uaid() else { return };
        if self.newest.get(&uaid) == Some(&id) {
            self.newest.remove(&uaid);
        }
        // Its alarm closes it from here on: no frame may move that.
        session.awaiting_pong = false;
        let state = std::mem::replace(&mut session.state, State::Leaving(uaid, reason));
        if let State::Identified(mut agent) = state {
            agent.leave(&mut self.desk);
        }
    }

    pub(super) fn close(&mut self, id: SessionId, reason: CloseReason) {
        if let Some(session) = self.remove_session(id) {
            debug!(
                "websocket closed uaid={} reason={reason:?}",
                tag_of(&session)
            );
            self.desk.out.close(id, reason);
        }
    }

    fn remove_session(&mut self, id: SessionId) -> Option<Session> {
        self.leave(id, CloseReason::GoingAway);
        let mut session = self.sessions.remove(&id)?;
        let source = self.access.source(session.peer);
        self.admission.websocket_closed(source);
        self.deadlines.set(id, &mut session.alarm, None);
        self.broadcasts.forget(id);
        Some(*session)
    }

    /// The user agent of a websocket, if its hello was answered, and the desk that it works at.
    pub(super) fn agent_at(&mut self, id: SessionId) -> Option<(&mut Agent, &mut Desk)> {
        let agent = self.sessions.get_mut(&id)?.agent_mut()?;
        Some((agent, &mut self.desk))
    }

    /// The user agent of this name, if it is here.
    pub(super) fn agent_of(&self, uaid: Uaid) -> Option<&Agent> {
        self.sessions.get(self.newest.get(&uaid)?)?.agent()
    }

    /// The same, as for [`agent_at`](Self::agent_at).
    pub(super) fn agent_of_mut(&mut self, uaid: Uaid) -> Option<(&mut Agent, &mut Desk)> {
        let session = *self.newest.get(&uaid)?;
        self.agent_at(session)
    }

    pub(super) fn named(&self, id: SessionId) -> Option<(&Session, Uaid)> {
        let session = self.sessions.get(&id)?;
        Some((session, session.uaid()?))
    }
}

fn tag_of(session: &Session) -> String {
    session
        .uaid()
        .map_or_else(|| "none".to_owned(), |uaid| uaid.tag().to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Input;
    use super::super::testing::{EMPTY_PAGE, KEPT, Out, Table, loaded, versions};
    use super::*;
    use crate::model::limits::Limits;
    use crate::model::store::{StoreOp, StoreReply};

    const HELLO: &str = r#"{"messageType":"hello","use_webpush":true}"#;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn user_agent_silent_for_the_hello_timeout_is_closed_once() {
        let mut table = Table::new();
        let id = table.open();
        assert_eq!(table.pass(Duration::from_millis(4999)), []);
        let closed = [Out::Closed(id, CloseReason::HelloTimeout)];
        assert_eq!(table.pass(Duration::from_millis(1)), closed);
        assert_eq!(table.pass(secs(60)), []);
    }

    #[test]
    fn ping_before_hello_is_answered_and_does_not_put_off_the_hello_timeout() {
        let mut table = Table::new();
        let id = table.open();
        assert_eq!(table.pass(secs(4)), []);
        assert_eq!(table.say(id, "{}"), [Out::Sent(id, "{}".to_owned())]);
        let closed = [Out::Closed(id, CloseReason::HelloTimeout)];
        assert_eq!(table.pass(secs(1)), closed);
    }

    #[test]
    fn first_message_must_be_hello_and_there_is_no_second_one() {
        let mut table = Table::new();
        let id = table.open();
        let closed = [Out::Closed(id, CloseReason::HelloExpected)];
        assert_eq!(
            table.say(id, r#"{"messageType":"nack","version":"v"}"#),
            closed
        );

        let (id, _) = table.newcomer();
        table.pass(secs(1));
        let closed = [Out::Closed(id, CloseReason::SecondHello)];
        assert_eq!(table.say(id, HELLO), closed);
    }

    #[test]
    fn websocket_lives_for_a_second_after_a_new_name_whatever_happens() {
        let mut table = Table::new();
        let (id, _) = table.newcomer();
        assert_eq!(table.say(id, HELLO), []);
        assert_eq!(table.pass(Duration::from_millis(999)), []);
        let closed = [Out::Closed(id, CloseReason::SecondHello)];
        assert_eq!(table.pass(Duration::from_millis(1)), closed);
    }

    #[test]
    fn application_ping_within_ten_seconds_of_the_last_closes_the_websocket() {
        let mut table = Table::new();
        let (id, _) = table.newcomer();
        let pong = [Out::Sent(id, "{}".to_owned())];
        assert_eq!(table.say(id, "{}"), pong);
        table.pass(secs(10));
        assert_eq!(table.say(id, "{}"), pong);
        table.pass(Duration::from_millis(9999));
        let closed = [Out::Closed(id, CloseReason::PingTooSoon)];
        assert_eq!(table.say(id, "{}"), closed);
    }

    #[test]
    fn user_agent_that_answers_no_ping_is_closed_and_one_that_does_stays() {
        let mut table = Table::new();
        let (id, _) = table.newcomer();
        // Coarse: up to a second later.
        assert_eq!(table.pass(secs(299)), []);
        assert_eq!(table.pass(secs(2)), [Out::Pinged(id)]);
        assert_eq!(table.pass(secs(3)), []);
        let session = SessionId(id);
        assert_eq!(table.input(Input::Alive { session }), []);
        assert_eq!(table.pass(secs(299)), []);
        assert_eq!(table.pass(secs(2)), [Out::Pinged(id)]);
        let closed = [Out::Closed(id, CloseReason::PongTimeout)];
        assert_eq!(table.pass(secs(4)), closed);
        assert_eq!(table.pass(secs(600)), []);
    }

    #[test]
    fn superseded_websocket_is_closed_after_two_seconds_and_what_it_was_owed_comes_on_the_newest() {
        let mut table = Table::new();
        let (old, uaid) = table.newcomer();
        let endpoint = table.register(old, 1);
        let (request, sent) = table.post(&endpoint, 60, None);
        let new = table.again(&uaid);
        // To flash first, so that what the new one asks for has it.
        let message = match table.asked.as_slice() {
            [StoreOp::Enqueue { message, .. }, StoreOp::Load { .. }] => message.as_ref().clone(),
            other => panic!("{other:?}"),
        };
        let outs = table.stored(vec![KEPT, loaded(1)]);
        assert_eq!(outs[0], Out::Answered(request, 201));
        assert_eq!(outs.last(), Some(&Out::Resumed(new)));
        let again = table.stored(vec![super::super::testing::page(vec![message])]);
        assert_eq!(versions(&again), versions(&sent));
        assert!(matches!(again.as_slice(), [Out::Sent(to, _)] if *to == new));

        assert_eq!(table.pass(Duration::from_millis(1999)), []);
        let closed = [Out::Closed(old, CloseReason::Superseded)];
        assert_eq!(table.pass(Duration::from_millis(1)), closed);
    }

    #[test]
    fn ack_on_a_superseded_websocket_counts() {
        let mut table = Table::new();
        let (old, uaid) = table.newcomer();
        let endpoint = table.register(old, 1);
        let (_, sent) = table.post(&endpoint, 60, None);
        table.again(&uaid);
        table.ack(old, 1, &versions(&sent)[0], 100);
        table.pass(secs(1));
        assert!(matches!(table.asked.last(), Some(StoreOp::Delete(gone)) if gone.len() == 1));
    }

    #[test]
    fn superseded_websocket_that_owes_a_pong_is_closed_in_time() {
        let mut table = Table::new();
        let (old, uaid) = table.newcomer();
        assert_eq!(table.pass(secs(301)), [Out::Pinged(old)]);
        table.again(&uaid);
        let session = SessionId(old);
        table.input(Input::Alive { session });
        let closed = [Out::Closed(old, CloseReason::Superseded)];
        assert_eq!(table.pass(secs(2)), closed);
    }

    #[test]
    fn websocket_that_went_while_it_was_paused_is_not_resumed() {
        let limits = Limits {
            delete_delay: secs(60),
            ..Limits::default()
        };
        let mut table = Table::with(limits, Default::default());
        let (id, _) = table.newcomer();
        table.register(id, 1);
        let keyring = super::super::testing::keyring();
        let database = super::super::testing::DATABASE;
        let mut outs = Vec::new();
        for number in 0..256 {
            let message = crate::model::ids::MessageId::from_i64(number);
            let version = keyring.seal_message(database, message);
            outs = table.ack(id, 1, &version, 100);
        }
        assert_eq!(outs, [Out::Paused(id)]);
        let session = SessionId(id);
        table.input(Input::Gone { session });
        assert_eq!(table.stored(vec![StoreReply::Done]), []);
    }

    #[test]
    fn uaid_of_ours_is_kept_with_an_empty_database() {
        let mut table = Table::new();
        let (_, uaid) = table.newcomer();
        let mut later = Table::new();
        let id = later.again(&uaid);
        let outs = later.stored(vec![StoreReply::Loaded(vec![])]);
        let Out::Sent(_, hello) = &outs[0] else {
            panic!("{outs:?}");
        };
        assert!(hello.contains(&uaid));
        assert_eq!(outs[1..], [Out::Resumed(id)]);
        assert_eq!(later.stored(vec![EMPTY_PAGE]), []);
    }
}
