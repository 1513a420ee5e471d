//! Push messages from the main service: each is taken once, and acked when it is in good hands.

use super::{Link, Phase, SETTLE_AFTER, after, order};
use crate::engine::UpOrder;
use crate::engine::counters::Counters;
use crate::engine::outbox::Outbox;
use crate::engine::upstream::{Outcome, Turn};
use crate::model::ids::{ChannelId, MessageId};
use crate::model::store::{StoreOp, UpstreamOp};
use crate::model::upstream::Received;
use crate::protocol::client_message::{AckCode, NackCode};
use crate::protocol::keyring;
use crate::protocol::problem::Problem;
use crate::protocol::user_agent::{self, Notification};

/// Most messages of one link whose acks may be lost. autopush keeps 150 for a user agent that is
/// away; a busy link has some hundreds in a minute, after which they are settled. One that is busier
/// forgets the older half of what is acked.
const RECEIVED_MAX: usize = 4096;

/// A message that came and may come again.
#[derive(Debug)]
pub(super) struct Message {
    /// How it is acked, if it came since the start.
    name: Option<(ChannelId, Box<str>)>,
    /// What its ack says; `None` as long as nobody knows what becomes of it.
    code: Option<AckCode>,
    /// How many had come before it.
    place: u64,
    /// What it is called here; `None` if it was not taken, or has been nacked.
    id: Option<MessageId>,
}

impl Link {
    /// A message that was kept before the start.
    pub(in crate::engine::upstream) fn remember(&mut self, received: Received) {
        let message = Message {
            name: None,
            code: Some(AckCode::Delivered),
            place: 0,
            id: None,
        };
        self.received.insert(received, message);
    }

    /// A push message comes: for the first time, or again because its ack was lost.
    pub(super) fn notification(&mut self, notification: Notification, turn: &mut Turn<'_>) {
        self.messages = self.messages.saturating_add(1);
        Counters::add(&mut turn.out.counters.upstream_messages);
        if let Some((_, certain)) = &mut self.ping {
            // It may have been sent before the ping was read. What was acked before it stays with
            // the main service as long as this one's ack is not there, and can come again.
            certain.clear();
        }
        let Notification {
            channel: alias,
            ref version,
            ..
        } = notification;
        let received = keyring::received(version);
        let name = (alias, version.as_str().into());
        if let Some(known) = self.received.get_mut(&received) {
            Counters::add(&mut turn.out.counters.upstream_duplicates);
            known.name = Some(name);
            if known.code.is_some() {
                self.acks.push(received);
            }
            return;
        }
        if self.received.len() >= RECEIVED_MAX {
            let older = self.older_half_of_acked();
            self.forget(older, turn);
        }
        if self.received.len() >= RECEIVED_MAX {
            let why = "more messages came than can be taken at once";
            return self.close(Some(why.to_owned()), turn);
        }
        let message = Message {
            name: Some(name),
            code: None,
            place: self.messages,
            id: None,
        };
        self.received.insert(received, message);
        let known = self.borrowed.get(&alias);
        turn.outcomes.push_back(Outcome::Message {
            owner: self.owner,
            received,
            subscription: known.map(|known| (known.uaid, known.channel)),
            notification,
        });
    }

    /// It is known what became of a message: what its ack says, or why it cannot be taken.
    ///
    /// What passes by itself has the connection closed: the message comes again with a later one.
    pub(in crate::engine::upstream) fn judged(
        &mut self,
        received: Received,
        verdict: Result<AckCode, Problem>,
        turn: &mut Turn<'_>,
    ) {
        let Some(message) = self.received.get_mut(&received) else {
            return;
        };
        let alias = message.name.as_ref().map(|(alias, _)| *alias);
        let is_known = |alias: &ChannelId| self.borrowed.contains_key(alias);
        let code = match verdict {
            // Of a subscription that only its user agent can know.
            Ok(AckCode::NotDelivered) if !alias.as_ref().is_some_and(is_known) => Err(()),
            Ok(code) => Ok(code),
            Err(Problem::NoSubscription) => Err(()),
            Err(problem) => {
                self.received.remove(&received);
                let why = format!("a message cannot be taken: {}", problem.wire().message);
                return self.close(Some(why), turn);
            }
        };
        message.code = Some(code.unwrap_or(AckCode::NotDelivered));
        self.acks.push(received);
        if let (Err(()), Some(alias)) = (code, alias) {
            self.give_back(alias, turn);
        }
    }

    /// A message was taken under this id.
    pub(in crate::engine::upstream) fn taken(&mut self, received: Received, id: MessageId) {
        if let Some(message) = self.received.get_mut(&received) {
            message.id = Some(id);
        }
    }

    /// A message was of no use to its user agent. It is said once, if it can be said now: the main
    /// service does nothing but count it.
    pub(in crate::engine::upstream) fn nack(
        &mut self,
        id: MessageId,
        code: NackCode,
        turn: &mut Turn<'_>,
    ) {
        let Phase::Ready(link) = self.phase else {
            return;
        };
        let mut all = self.received.values_mut();
        let Some(message) = all.find(|message| message.id == Some(id)) else {
            return;
        };
        message.id = None;
        if let Some((_, version)) = &message.name {
            let text = user_agent::nack(version, code);
            order(turn.out, link, UpOrder::Send(text));
        }
    }

    /// Sends the acks that have gathered, in one message.
    pub(in crate::engine::upstream) fn send_acks(&mut self, turn: &mut Turn<'_>) {
        let acks = std::mem::take(&mut self.acks);
        let Phase::Ready(id) = self.phase else {
            // They come again, and are known then.
            return;
        };
        let all = acks.iter().filter_map(|received| {
            let message = self.received.get(received)?;
            let (alias, version) = message.name.as_ref()?;
            Some((*alias, &**version, message.code?))
        });
        let all: Vec<_> = all.collect();
        if all.is_empty() {
            return;
        }
        let sent = u64::try_from(all.len()).unwrap_or(u64::MAX);
        self.acks_sent = self.acks_sent.saturating_add(sent);
        let counter = &mut turn.out.counters.upstream_acks;
        *counter = counter.saturating_add(sent);
        order(turn.out, id, UpOrder::Send(user_agent::acks(all)));
        let soon = after(turn.now, SETTLE_AFTER);
        self.settle_at.get_or_insert(soon);
    }

    /// What cannot come again once the main service has answered a ping that is sent now.
    ///
    /// It keeps a whole batch until all of it is acked: as long as any message is not, none is certain.
    pub(super) fn certain_with_pong(&self) -> Vec<Received> {
        if self.received.values().any(|message| message.code.is_none()) {
            return Vec::new();
        }
        self.received.keys().copied().collect()
    }

    /// Has what is acked remembered beyond the end of the process: its ack may be lost, and what was
    /// acked from memory has left nothing else.
    pub(in crate::engine::upstream) fn keep_acked(&self, out: &mut Outbox) {
        let received: Vec<Received> = self.acked().map(|(received, _)| *received).collect();
        if !received.is_empty() {
            let owner = self.owner;
            out.store_for_nobody(StoreOp::Upstream(UpstreamOp::Acked { owner, received }));
        }
    }

    fn acked(&self) -> impl Iterator<Item = (&Received, &Message)> {
        let all = self.received.iter();
        all.filter(|(_, message)| message.code.is_some())
    }

    /// What is forgotten where a link is so busy that nothing is ever certain. Of all that may come
    /// again, these are the least likely to.
    fn older_half_of_acked(&self) -> Vec<Received> {
        let mut acked: Vec<(u64, Received)> = self
            .acked()
            .map(|(received, message)| (message.place, *received))
            .collect();
        acked.sort_unstable();
        acked.truncate(acked.len().div_ceil(2));
        acked.into_iter().map(|(_, received)| received).collect()
    }

    /// These messages are not expected to come again.
    pub(super) fn forget(&mut self, certain: Vec<Received>, turn: &mut Turn<'_>) {
        if certain.is_empty() {
            if !self.received.is_empty() {
                self.settle_at = Some(after(turn.now, SETTLE_AFTER));
            }
            return;
        }
        for received in &certain {
            self.received.remove(received);
        }
        let owner = self.owner;
        let op = StoreOp::Upstream(UpstreamOp::Settled {
            owner,
            received: certain,
        });
        turn.out.store_for_nobody(op);
    }
}
