//! Register and unregister: the question to the storage, and its answer to the user agent.

use crate::engine::counters::Counters;
use crate::engine::outbox::{Registering, Waiting};
use crate::engine::upstream::Wanted;
use crate::engine::{Engine, Output, SessionId};
use crate::model::dialect::Dialect;
use crate::model::ids::ChannelId;
use crate::model::store::StoreOp;
use crate::model::time::Now;
use crate::protocol::client_message::RegisterKey;
use crate::protocol::keyring::{Endpoint, KeyDigest};
use crate::protocol::server_message::{self, Registered, own_spelling};

impl Engine {
    pub(super) fn webpush_register(
        &mut self,
        now: Now,
        id: SessionId,
        channel: ChannelId,
        key: RegisterKey<'_>,
    ) {
        let spelling = server_message::dashed(channel);
        let key = match key {
            RegisterKey::Absent => None,
            RegisterKey::Present(digest, text) => Some((digest, text.into())),
            RegisterKey::Invalid => {
                let answer = server_message::registered(&spelling, Registered::InvalidKey);
                return self.desk.out.send(id, answer);
            }
        };
        self.register(now, id, channel, spelling.into(), key);
    }

    /// `spelling`: the channel's name as the user agent spells it; `key`: what the subscription is to be
    /// restricted to, and how that was sent.
    pub(in crate::engine) fn register(
        &mut self,
        now: Now,
        id: SessionId,
        channel: ChannelId,
        spelling: Box<str>,
        key: Option<(KeyDigest, Box<str>)>,
    ) {
        if !self.admit_registration(now, id, channel) {
            let answer = server_message::registered(&spelling, Registered::TooMany);
            return self.desk.out.send(id, answer);
        }
        let Some((session, uaid)) = self.named(id) else {
            return;
        };
        let (restricted_to, key) = key.unzip();
        let wanted = Wanted {
            session: id,
            uaid,
            channel,
            dialect: session.dialect.unwrap_or(Dialect::WebPush),
            spelling,
            restricted_to,
            key,
        };
        if let Some((wanted, borrowed)) = self.borrow(now, wanted) {
            self.register_here(wanted, borrowed);
        }
    }

    /// `borrowed`: the endpoint that the user agent gets, if not one of the gateway itself.
    pub(in crate::engine) fn register_here(&mut self, wanted: Wanted, borrowed: Option<Box<str>>) {
        let Wanted {
            session: id,
            uaid,
            channel,
            dialect,
            spelling,
            restricted_to,
            key: _,
        } = wanted;
        let Some((session, _)) = self.named(id) else {
            return;
        };
        // A request without either is refused before the websocket opens.
        let Some(base_url) = self.desk.public_url.as_ref().or(session.base_url.as_ref()) else {
            let answer = server_message::registered(&spelling, Registered::StorageFault);
            return self.desk.out.send(id, answer);
        };
        let endpoint = borrowed.map(String::from).unwrap_or_else(|| {
            let token = self.desk.keyring.seal_endpoint(&Endpoint {
                database: self.desk.database,
                uaid,
                channel,
                restricted_to,
                dialect,
            });
            base_url.endpoint(dialect, restricted_to.is_some(), &token)
        });
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
        now: Now,
        id: SessionId,
        channel: ChannelId,
        spelling: Box<str>,
    ) {
        let Some((agent, desk)) = self.agent_at(id) else {
            return;
        };
        let uaid = agent.uaid;
        agent.unsubscribe(channel, &mut desk.out);
        self.cancel_borrowing(now, uaid, channel);
        let waiting = Waiting::Unregister {
            session: id,
            uaid,
            channel,
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
        registering: &Registering,
        made: Option<bool>,
    ) {
        if let Some(answer) = self.registration_answer(id, registering, made) {
            self.answer(id, answer);
        }
    }

    /// What a session hears of the subscription that it asked for, which is there from here on.
    pub(in crate::engine) fn registration_answer(
        &mut self,
        id: SessionId,
        registering: &Registering,
        made: Option<bool>,
    ) -> Option<String> {
        let Registering {
            channel,
            spelling,
            endpoint,
        } = registering;
        let session = self.sessions.get_mut(&id)?;
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
                        .register(*channel, own_spelling(*channel, spelling));
                }
                Counters::add(&mut self.desk.out.counters.registrations);
                Registered::Endpoint(endpoint)
            }
        };
        Some(server_message::registered(spelling, outcome))
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
