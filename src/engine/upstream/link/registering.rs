//! Subscriptions at the main service: asked for, and given back.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{Link, Phase, after, order, said};
use crate::engine::counters::Counters;
use crate::engine::upstream::{NotMade, Outcome, Turn, Wanted};
use crate::engine::{LinkId, UpOrder};
use crate::model::ids::{ChannelId, Uaid};
use crate::model::limits::ENDPOINT_URL_BYTES_MAX;
use crate::model::store::{StoreOp, UpstreamOp};
use crate::model::upstream::Borrowed;
use crate::protocol::peer_url::PeerUrl;
use crate::protocol::user_agent::{self, Verdict};

impl Link {
    /// Takes a subscription that is on flash.
    pub(in crate::engine::upstream) fn insert(&mut self, borrowed: Borrowed) {
        self.borrowed.insert(borrowed.alias, borrowed);
    }

    /// Takes one that has just been made, unless it was lost on its way to flash: its user agent is
    /// told that.
    pub(in crate::engine::upstream) fn insert_made(&mut self, borrowed: Borrowed) {
        if self.making.remove(&borrowed.alias).is_some() {
            self.insert(borrowed);
        }
    }

    /// The endpoint of a subscription that is there with this key.
    pub(in crate::engine::upstream) fn endpoint(
        &self,
        alias: ChannelId,
        key: Option<&str>,
    ) -> Option<Box<str>> {
        let borrowed = self
            .borrowed
            .get(&alias)
            .filter(|borrowed| !borrowed.ended)?;
        (borrowed.key.as_deref() == key).then(|| borrowed.endpoint.clone())
    }

    /// Asks for a subscription. While the main service is known not to be reached, nobody waits for it.
    pub(in crate::engine::upstream) fn want(
        &mut self,
        alias: ChannelId,
        wanted: Wanted,
        turn: &mut Turn<'_>,
    ) {
        let is_down = matches!(self.phase, Phase::Waiting { .. }) && self.failures > 0;
        if is_down {
            return not_made(wanted, NotMade::Unreachable, turn);
        }
        if let Phase::Ready(id) = self.phase {
            register(id, alias, &wanted, turn);
        }
        let until = after(turn.now, turn.settings.register_timeout);
        if let Some((older, _)) = self.wanted.insert(alias, (wanted, until)) {
            not_made(older, NotMade::Cancelled, turn);
        }
    }

    /// All registers without an answer; whoever takes them decides again.
    pub(in crate::engine::upstream) fn take_wanted(
        &mut self,
    ) -> impl Iterator<Item = Wanted> + use<> {
        let wanted = std::mem::take(&mut self.wanted);
        wanted.into_values().map(|(wanted, _)| wanted)
    }

    /// Those whose registers the main service has not answered yet.
    pub(in crate::engine::upstream) fn asked_for(&self) -> impl Iterator<Item = ChannelId> {
        self.wanted.keys().copied()
    }

    /// Nobody waits for a subscription any more. Whatever is answered to it now is given back.
    pub(in crate::engine::upstream) fn cancel(&mut self, alias: ChannelId, turn: &mut Turn<'_>) {
        if let Some((wanted, _)) = self.wanted.remove(&alias) {
            not_made(wanted, NotMade::Cancelled, turn);
        }
    }

    /// A subscription has ended here.
    pub(in crate::engine::upstream) fn end(&mut self, alias: ChannelId, turn: &mut Turn<'_>) {
        self.cancel(alias, turn);
        let Some(borrowed) = self.borrowed.get_mut(&alias) else {
            return;
        };
        if !std::mem::replace(&mut borrowed.ended, true) {
            self.give_back(alias, turn);
        }
    }

    /// All subscriptions of a user agent have ended here.
    pub(in crate::engine::upstream) fn end_all(&mut self, uaid: Uaid, turn: &mut Turn<'_>) {
        let borrowed = self
            .borrowed
            .iter()
            .map(|(alias, known)| (alias, known.uaid));
        let wanted = self
            .wanted
            .iter()
            .map(|(alias, known)| (alias, known.0.uaid));
        let all: Vec<ChannelId> = borrowed
            .chain(wanted)
            .filter(|(_, owner)| *owner == uaid)
            .map(|(alias, _)| *alias)
            .collect();
        for alias in all {
            self.end(alias, turn);
        }
    }

    /// Ends a subscription there, if it can be said now; what is on flash is said again later. One that
    /// its user agent has had all along, and that was only asked for anew, stays.
    pub(in crate::engine::upstream) fn give_back(&mut self, alias: ChannelId, turn: &mut Turn<'_>) {
        self.making.remove(&alias);
        if self.borrowed.get(&alias).is_some_and(|known| !known.ended) {
            return;
        }
        if let Phase::Ready(id) = self.phase {
            order(turn.out, id, UpOrder::Send(user_agent::unregister(alias)));
        }
    }

    /// Says all that must be said on a new connection. First what has ended: it may be wanted again.
    pub(super) fn ask_all(&mut self, id: LinkId, turn: &mut Turn<'_>) {
        for (alias, borrowed) in &self.borrowed {
            if borrowed.ended {
                order(turn.out, id, UpOrder::Send(user_agent::unregister(*alias)));
            }
        }
        for (alias, (wanted, _)) in &self.wanted {
            register(id, *alias, wanted, turn);
        }
    }

    /// The main service has answered a register.
    pub(super) fn registered(
        &mut self,
        alias: ChannelId,
        endpoint: String,
        verdict: &Verdict,
        turn: &mut Turn<'_>,
    ) {
        let is_usable =
            endpoint.len() <= ENDPOINT_URL_BYTES_MAX && PeerUrl::endpoint(&endpoint).is_ok();
        let Some((wanted, _)) = self.wanted.remove(&alias) else {
            // Too late. What its user agent has in its place is another endpoint, unless it has asked
            // twice: then the answer to the other question is on its way to flash.
            if verdict.is_ok() && !self.making.contains_key(&alias) {
                self.give_back(alias, turn);
            }
            return;
        };
        match self.full_name(turn.settings) {
            Some(name) if verdict.is_ok() && is_usable => {
                let endpoint = endpoint.into();
                self.making.insert(alias, wanted.uaid);
                let made = Outcome::Made {
                    wanted,
                    name,
                    endpoint,
                };
                turn.outcomes.push_back(made);
            }
            _ => {
                let why = match verdict.status {
                    400 => NotMade::InvalidKey,
                    _ => NotMade::Unreachable,
                };
                self.last_error = Some(if verdict.is_ok() {
                    "the answer to register has no usable endpoint".to_owned()
                } else {
                    said("register", verdict)
                });
                not_made(wanted, why, turn);
            }
        }
    }

    /// The main service has answered an unregister. One that it could not carry out is said again on
    /// the next connection.
    pub(super) fn unregistered(
        &mut self,
        alias: Option<ChannelId>,
        verdict: &Verdict,
        turn: &mut Turn<'_>,
    ) {
        let Some(alias) = alias else {
            return;
        };
        let has_ended = self.borrowed.get(&alias).is_some_and(|known| known.ended);
        if !verdict.is_ok() || !has_ended {
            return;
        }
        self.borrowed.remove(&alias);
        Counters::add(&mut turn.out.counters.upstream_unregistrations);
        let owner = self.owner;
        let op = StoreOp::Upstream(UpstreamOp::Returned { owner, alias });
        turn.out.store_for_nobody(op);
    }

    /// Gives up registers that have waited for long enough.
    pub(super) fn give_up_late(&mut self, turn: &mut Turn<'_>) {
        let (late, others) = std::mem::take(&mut self.wanted)
            .into_iter()
            .partition(|(_, (_, until))| *until <= turn.now);
        self.wanted = others;
        give_up(late, turn);
    }

    /// Gives up all registers: there is no connection.
    pub(super) fn give_up_all(&mut self, turn: &mut Turn<'_>) {
        let all = std::mem::take(&mut self.wanted);
        give_up(all, turn);
    }
}

fn give_up(wanted: BTreeMap<ChannelId, (Wanted, Instant)>, turn: &mut Turn<'_>) {
    for (wanted, _) in wanted.into_values() {
        not_made(wanted, NotMade::Unreachable, turn);
    }
}

fn register(id: LinkId, alias: ChannelId, wanted: &Wanted, turn: &mut Turn<'_>) {
    let text = user_agent::register(alias, wanted.key.as_deref());
    order(turn.out, id, UpOrder::Send(text));
}

fn not_made(wanted: Wanted, why: NotMade, turn: &mut Turn<'_>) {
    if why != NotMade::Cancelled {
        Counters::add(&mut turn.out.counters.upstream_registrations_failed);
    }
    turn.outcomes.push_back(Outcome::NotMade(wanted, why));
}
