//! The end of a subscription whose user agent is connected.

use std::collections::BTreeMap;

use super::{Agent, Place};
use crate::engine::outbox::Outbox;
use crate::model::ids::ChannelId;
use crate::protocol::problem::Problem;

impl Agent {
    /// Ends a subscription at once: nothing of it is sent or kept from here on.
    pub(in crate::engine) fn unsubscribe(&mut self, channel: ChannelId, out: &mut Outbox) {
        self.ending = Some(channel);
        self.end(channel, out);
    }

    /// A subscription has ended in the storage.
    pub(in crate::engine) fn drop_channel(&mut self, channel: ChannelId, out: &mut Outbox) {
        self.end(channel, out);
        self.channels.forget(channel);
    }

    fn end(&mut self, channel: ChannelId, out: &mut Outbox) {
        self.channels.end(channel);
        let all = std::mem::take(&mut self.unacked).into_iter();
        let (ended, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
            all.partition(|(_, unacked)| unacked.channel == channel);
        self.unacked = others;
        self.some_ended |= !ended.is_empty();
        for unacked in ended.into_values() {
            if let Place::Held(held) = unacked.place {
                out.release(held.message.cost_bytes());
                out.refuse(held.request, Problem::NoSubscription);
            }
        }
    }

    /// The storage has answered what [`unsubscribe`](Self::unsubscribe) asked. Where it failed there
    /// may still be something of the channel, in its spelling.
    pub(in crate::engine) fn unsubscribed(&mut self, ended: bool) {
        if let Some(channel) = self.ending.take().filter(|_| ended) {
            self.channels.forget(channel);
        }
    }
}
