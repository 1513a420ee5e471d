//! The hello of a user agent: a new name, or what is known of the one that it has.

use log::debug;

use super::State;
use crate::engine::agent::Agent;
use crate::engine::outbox::Waiting;
use crate::engine::{CloseReason, Engine, Output, SessionId};
use crate::model::dialect::Dialect;
use crate::model::ids::Uaid;
use crate::model::store::{StoreOp, Subscription};
use crate::model::time::Now;
use crate::protocol::client_message::Broadcasts;

impl Engine {
    /// The storage has answered a hello.
    pub(in crate::engine) fn hello_loaded(
        &mut self,
        now: Now,
        id: SessionId,
        subscriptions: Vec<Subscription>,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let State::Loading {
            uaid,
            must_be_known,
        } = session.state
        else {
            return;
        };
        let (by_path, dialect) = (session.borrows, session.dialect);
        if self.must_subscribe_again(now, uaid, by_path, &subscriptions) {
            self.newest.remove(&uaid);
            self.start_again(now, id, uaid);
        } else if must_be_known && subscriptions.is_empty() {
            if self.newest.get(&uaid) == Some(&id) {
                self.newest.remove(&uaid);
            }
            self.newcomer(now, id);
        } else {
            let dialect = dialect.unwrap_or(Dialect::WebPush);
            debug!(
                "hello uaid={} dialect={dialect:?} subscriptions={}",
                uaid.tag(),
                subscriptions.len()
            );
            self.woken(uaid);
            let mut agent = Agent::returning(uaid, id, dialect, subscriptions);
            for (channel, version) in self.desk.unsaved_versions.of_all(uaid) {
                agent.channels.note_version(channel, version);
            }
            self.greet(now, id, agent);
        }
        self.desk.out.push(Output::Resume { session: id });
    }

    /// A UAID of ours is kept, also when the database does not know it; any other is replaced.
    pub(super) fn hello(
        &mut self,
        now: Now,
        id: SessionId,
        uaid: Option<Uaid>,
        wanted: &Broadcasts<'_>,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        session.dialect = Some(Dialect::WebPush);
        let has = wanted
            .iter()
            .map(|(id, has)| (Box::from(&**id), Box::from(&**has)));
        session.listens_to = has.collect();
        match uaid.filter(|uaid| self.desk.keyring.is_ours(*uaid)) {
            None => self.newcomer(now, id),
            Some(uaid) => self.returning(now, id, uaid, false),
        }
    }

    /// A user agent that gets a new name, so that it subscribes again, and loses what it had.
    pub(in crate::engine) fn start_again(&mut self, now: Now, id: SessionId, uaid: Uaid) {
        self.woken(uaid);
        self.desk.out.store_for_nobody(StoreOp::Forget { uaid });
        self.end_all_borrowed(now, uaid);
        self.newcomer(now, id);
    }

    /// A user agent that gets a new name.
    pub(in crate::engine) fn newcomer(&mut self, now: Now, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        self.deadlines.set(id, &mut session.alarm, None);
        session.named_at = Some(now.monotonic);
        if let Some(facts) = &mut session.simplepush {
            facts.spelling = None;
        }
        let dialect = session.dialect.unwrap_or(Dialect::WebPush);
        let uaid = self.desk.keyring.mint_uaid(session.random);
        self.newest.insert(uaid, id);
        debug!("hello uaid={} dialect={dialect:?} new", uaid.tag());
        self.greet(now, id, Agent::new(uaid, id, dialect));
    }

    /// A user agent that keeps its name, unless it must be known and is not.
    pub(in crate::engine) fn returning(
        &mut self,
        now: Now,
        id: SessionId,
        uaid: Uaid,
        must_be_known: bool,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        self.deadlines.set(id, &mut session.alarm, None);
        session.state = State::Loading {
            uaid,
            must_be_known,
        };
        // The older session first: what it holds must be on its way to flash before this one asks
        // what is there.
        if let Some(older) = self.newest.insert(uaid, id) {
            self.end_session(now, older, CloseReason::Superseded);
        }
        self.desk.out.push(Output::Pause { session: id });
        let op = StoreOp::Load { uaid };
        self.desk.out.store(op, Waiting::Hello(id));
    }

    fn greet(&mut self, now: Now, id: SessionId, mut agent: Agent) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let wanted = std::mem::take(&mut session.listens_to);
        let wanted = wanted.iter().map(|(id, has)| (&**id, &**has));
        let broadcasts = self.broadcasts.subscribe(id, wanted);
        self.desk
            .out
            .send(id, session.greeting(agent.uaid, &broadcasts));
        agent.catch_up(now, &mut self.desk);
        session.state = State::Identified(Box::new(agent));
        self.ask_for_broadcasts();
        self.watch_silence(id);
    }
}
