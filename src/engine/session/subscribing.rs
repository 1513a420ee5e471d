//! Register and unregister: the question to the storage, and its answer to the user agent.

use crate::engine::counters::Counters;
use crate::engine::outbox::{Registering, Waiting};
use crate::engine::{Engine, Output, SessionId};
use crate::model::dialect::Dialect;
use crate::model::ids::ChannelId;
use crate::model::store::StoreOp;
use crate::model::time::Now;
use crate::protocol::client_message::RegisterKey;
use crate::protocol::keyring::{Endpoint, KeyDigest};
use crate::protocol::server_message::{self, Registered};

impl Engine {
    pub(super) fn webpush_register(
        &mut self,
        now: Now,
        id: SessionId,
        channel: ChannelId,
        key: RegisterKey,
    ) {
        let spelling = server_message::dashed(channel);
        match key {
            RegisterKey::Absent => self.register(now, id, channel, spelling.into(), None),
            RegisterKey::Present(digest) => {
                self.register(now, id, channel, spelling.into(), Some(digest));
            }
            RegisterKey::Invalid => {
                let answer = server_message::registered(&spelling, Registered::InvalidKey);
                self.desk.out.send(id, answer);
            }
        }
    }

    /// `spelling`: the channel's name as the user agent spells it.
    pub(in crate::engine) fn register(
        &mut self,
        now: Now,
        id: SessionId,
        channel: ChannelId,
        spelling: Box<str>,
        restricted_to: Option<KeyDigest>,
    ) {
        if !self.admit_registration(now, id, channel) {
            let answer = server_message::registered(&spelling, Registered::TooMany);
            return self.desk.out.send(id, answer);
        }
        let Some((session, uaid)) = self.named(id) else {
            return;
        };
        // A request without either is refused before the websocket opens.
        let Some(base_url) = self.desk.public_url.as_ref().or(session.base_url.as_ref()) else {
            let answer = server_message::registered(&spelling, Registered::StorageFault);
            return self.desk.out.send(id, answer);
        };
        let dialect = session.dialect.unwrap_or(Dialect::WebPush);
        let token = self.desk.keyring.seal_endpoint(&Endpoint {
            database: self.desk.database,
            uaid,
            channel,
            restricted_to,
            dialect,
        });
        let endpoint = base_url.endpoint(dialect, restricted_to.is_some(), &token);
        let op = StoreOp::Subscribe {
            uaid,
            channel,
            spelling: own_spelling(channel, &spelling),
            dialect,
            subscriptions_max: self.desk.limits.subscriptions_per_user_agent_max,
        };
        let registering = Registering {
            channel,
            spelling,
            endpoint,
        };
        self.asks(id);
        let waiting = Waiting::Register(id, Box::new(registering));
        self.desk.out.store(op, waiting);
    }

    /// `spelling`: the channel's name as the user agent spells it.
    pub(in crate::engine) fn unregister(
        &mut self,
        id: SessionId,
        channel: ChannelId,
        spelling: Box<str>,
    ) {
        let Some((agent, desk)) = self.agent_at(id) else {
            return;
        };
        let uaid = agent.uaid;
        agent.unsubscribe(channel, &mut desk.out);
        let waiting = Waiting::Unregister {
            session: id,
            spelling,
        };
        self.asks(id);
        self.desk
            .out
            .store(StoreOp::Unsubscribe { uaid, channel }, waiting);
    }

    /// Nothing more is heard of it until it has its answer.
    fn asks(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.asking = true;
        }
        self.desk.out.push(Output::Pause { session: id });
    }

    /// The storage has answered a register: `None` if it failed.
    pub(in crate::engine) fn registered(
        &mut self,
        id: SessionId,
        registering: Registering,
        made: Option<bool>,
    ) {
        let Registering {
            channel,
            spelling,
            endpoint,
        } = registering;
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let outcome = match made {
            None => Registered::StorageFault,
            Some(false) => {
                Counters::add(&mut self.desk.out.counters.registrations_over_user_agent_max);
                Registered::TooMany
            }
            Some(true) => {
                if let Some(agent) = session.agent_mut() {
                    agent
                        .channels
                        .register(channel, own_spelling(channel, &spelling));
                }
                Counters::add(&mut self.desk.out.counters.registrations);
                Registered::Endpoint(&endpoint)
            }
        };
        let answer = server_message::registered(&spelling, outcome);
        self.answer(id, answer);
    }

    /// The storage has answered an unregister.
    pub(in crate::engine) fn unregistered(&mut self, id: SessionId, spelling: &str, ended: bool) {
        if ended {
            Counters::add(&mut self.desk.out.counters.unregistrations);
        }
        if let Some((agent, _)) = self.agent_at(id) {
            agent.unsubscribed(ended);
        }
        let answer = server_message::unregistered(spelling, ended);
        self.answer(id, answer);
    }

    fn answer(&mut self, id: SessionId, text: String) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.asking = false;
            self.desk.out.send(id, text);
            self.desk.out.push(Output::Resume { session: id });
        }
    }
}

/// What of a spelling must be remembered: nothing of the usual one.
fn own_spelling(channel: ChannelId, spelling: &str) -> Option<Box<str>> {
    (server_message::dashed(channel) != spelling).then(|| spelling.into())
}
