//! Acks: of messages by their tokens, of version updates by their numbers.

use super::State;
use crate::engine::counters::Counters;
use crate::engine::{Engine, Output, SessionId};
use crate::model::ids::ChannelId;
use crate::model::store::Deletion;
use crate::model::time::Now;
use crate::model::version::Version;
use crate::protocol::client_message::{AckCode, AckUpdate, AckVersion};

impl Engine {
    pub(super) fn acks(&mut self, now: Now, id: SessionId, updates: &[AckUpdate<'_>]) {
        for update in updates {
            match &update.version {
                AckVersion::Text(text) => self.ack(now, id, update, text),
                AckVersion::Number(version) => {
                    self.ack_version(now, id, update.channel(), *version);
                }
            }
        }
        self.make_room_for_acks(id);
    }

    /// Lets a user agent wait that acks faster than flash takes it.
    pub(in crate::engine) fn make_room_for_acks(&mut self, id: SessionId) {
        if self.desk.out.too_many_deletions() {
            self.desk.out.push(Output::Pause { session: id });
            self.desk.out.flush_deletions(Some(id));
        }
    }

    /// An ack of a version update.
    pub(in crate::engine) fn ack_version(
        &mut self,
        now: Now,
        id: SessionId,
        channel: ChannelId,
        version: Version,
    ) {
        let desk = &mut self.desk;
        match self.sessions.get_mut(&id).map(|session| &mut session.state) {
            Some(State::Identified(agent)) => agent.ack_version(channel, version, now, desk),
            Some(State::Leaving(uaid, _)) => {
                let deletion = Deletion::Update {
                    uaid: *uaid,
                    channel,
                    version,
                    until: desk.last_message_id(),
                };
                desk.out.delete(now.monotonic, deletion);
            }
            Some(State::AwaitingHello | State::Loading { .. }) | None => {}
        }
    }

    fn ack(&mut self, now: Now, id: SessionId, update: &AckUpdate<'_>, version: &str) {
        let code = update.code();
        let out = &mut self.desk.out;
        match code {
            AckCode::Delivered => {}
            AckCode::DecryptionError => Counters::add(&mut out.counters.acks_undecryptable),
            AckCode::NotDelivered => Counters::add(&mut out.counters.acks_not_delivered),
        }
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let by_version = self.desk.keyring.open_message(self.desk.database, version);
        match &mut session.state {
            State::Identified(agent) => {
                let only = || agent.only_unacked(update.channel());
                let message = match by_version {
                    None if version.is_empty() => only(),
                    other => other,
                };
                if let Some(message) = message {
                    agent.ack(message, code, now, &mut self.desk.out);
                }
            }
            State::Leaving(uaid, _) => {
                if let Some(message) = by_version {
                    let deletion = Deletion::Message {
                        id: message,
                        owner: Some(*uaid),
                    };
                    self.desk.out.delete(now.monotonic, deletion);
                }
            }
            State::AwaitingHello | State::Loading { .. } => {}
        }
    }
}
