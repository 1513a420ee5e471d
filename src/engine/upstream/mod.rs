//! The gateway as a user agent of the main service: which links there are, and what each of them is
//! asked to do.
//!
//! Owns the links and when each may connect. What comes of them for user agents is the engine's, in
//! `borrowing`: it is told by [`Outcome`]s.

mod link;
mod outcome;
mod pacer;
mod telling;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use log::warn;

use link::Link;
pub(super) use outcome::{Borrowing, NotMade, Outcome, Wanted};
use pacer::Pacer;
use telling::Telling;

use super::counters::LinkState;
use super::deadlines::Deadlines;
use super::outbox::{Judged, Outbox, Waiting};
use super::{LinkId, UpEvent};
use crate::model::ids::{ChannelId, MessageId, Uaid};
use crate::model::store::{StoreOp, UpstreamOp};
use crate::model::upstream::{self as model, Borrowed, Identity, Kept, Name, Owner, Received};
use crate::protocol::client_message::NackCode;
use crate::protocol::keyring::{self, Keyring};

/// How soon what is kept is read again where that failed.
const LOAD_AGAIN: Duration = Duration::from_secs(60);

/// All links.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) settings: model::Upstream,
    links: BTreeMap<Owner, Link>,
    /// Whose each open connection is.
    connections: BTreeMap<LinkId, Owner>,
    alarms: Deadlines<Owner>,
    /// Links that have acks to send at the end of this turn.
    acking: BTreeSet<Owner>,
    /// User agents whose subscriptions are lost, and who do not know it.
    telling: Telling,
    pacer: Pacer,
    /// Broadcasts that somebody has listened to.
    broadcasts: BTreeSet<Box<str>>,
    /// The link that they were asked for on.
    carrier: Option<Owner>,
    last_link: u64,
    load: Load,
    outcomes: VecDeque<Outcome>,
}

/// Whether it is known what there is.
#[derive(Debug)]
enum Load {
    /// It is to be asked for at this time.
    At(Instant),
    Asked,
    Done,
}

/// Where a subscription is at the main service: on whose link, and what it is called there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) owner: Owner,
    pub(super) alias: ChannelId,
}

impl Place {
    /// Of one that is there.
    pub(super) const fn of(borrowed: &Borrowed) -> Self {
        Self {
            owner: borrowed.owner,
            alias: borrowed.alias,
        }
    }
}

impl Upstream {
    pub(super) fn new(now: Instant, settings: model::Upstream) -> Self {
        Self {
            pacer: Pacer::new(settings.connects_per_min_max),
            settings,
            links: BTreeMap::new(),
            connections: BTreeMap::new(),
            alarms: Deadlines::new(),
            acking: BTreeSet::new(),
            telling: Telling::default(),
            broadcasts: BTreeSet::new(),
            carrier: None,
            last_link: 0,
            load: Load::At(now),
            outcomes: VecDeque::new(),
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let load = match self.load {
            Load::At(at) => Some(at),
            Load::Asked | Load::Done => None,
        };
        let look = self.telling.next_look();
        load.into_iter().chain(self.alarms.next()).chain(look).min()
    }

    /// What has come of it, one at a time.
    pub(super) fn poll_outcome(&mut self) -> Option<Outcome> {
        let outcome = self.outcomes.pop_front();
        if let Some(Outcome::Lost(uaids)) = &outcome {
            self.telling.add(uaids.iter().copied());
        }
        outcome
    }

    /// Everything whose time has come.
    pub(super) fn timeout(&mut self, now: Instant, out: &mut Outbox) {
        if let Load::At(at) = self.load
            && at <= now
        {
            self.load = Load::Asked;
            out.store(StoreOp::Upstream(UpstreamOp::Load), Waiting::Upstream);
        }
        while let Some(owner) = self.alarms.pop_due(now) {
            if let Some(link) = self.links.get_mut(&owner) {
                link.alarm = None;
            }
            self.on(now, owner, out, Link::alarm);
        }
    }

    /// What is kept has been read; `None` if that failed.
    ///
    /// Gives the registers that came before: only now it is known whether they are borrowed already.
    #[must_use]
    pub(super) fn loaded(
        &mut self,
        now: Instant,
        kept: Option<Kept>,
        out: &mut Outbox,
    ) -> Vec<Wanted> {
        let Some(kept) = kept else {
            let again = now.checked_add(LOAD_AGAIN);
            self.load = again.map_or(Load::Done, Load::At);
            return Vec::new();
        };
        let early = self.links.values_mut().flat_map(Link::take_wanted);
        let early = early.collect();
        self.load = Load::Done;
        self.telling.add(kept.to_tell);
        self.telling.look_soon(now);
        let mut elsewhere = BTreeSet::new();
        for Name {
            owner,
            name,
            service,
        } in kept.names
        {
            if service == self.settings.service {
                self.link(now, owner).name = Some(name);
            } else {
                // Whatever was borrowed there, nobody hears of it any more.
                elsewhere.insert(owner);
            }
        }
        for borrowed in kept.borrowed {
            let owner = borrowed.owner;
            self.link(now, owner).insert(borrowed);
        }
        for (owner, received) in kept.received {
            self.link(now, owner).remember(received);
        }
        let owners: Vec<Owner> = self.links.keys().copied().collect();
        let is_there = self.settings.is_there();
        let mut lost = 0_usize;
        for owner in owners {
            if elsewhere.contains(&owner) || !is_there {
                self.on(now, owner, out, |link, turn| {
                    lost = lost.saturating_add(link.lose(turn));
                });
            }
            self.on(now, owner, out, Link::wake);
        }
        if lost > 0 {
            let what = if is_there { "replaced" } else { "taken_away" };
            warn!("upstream_{what} user_agents={lost}");
        }
        early
    }

    /// Whose link is the one for this user agent.
    const fn owner_of(&self, uaid: Uaid) -> Owner {
        match self.settings.identity {
            Identity::PerUserAgent => Owner(uaid),
            Identity::Shared => Owner::ALL,
        }
    }

    /// Where a subscription is at the main service, if it is there.
    pub(super) fn place(&self, uaid: Uaid, channel: ChannelId, keyring: &Keyring) -> Place {
        Place {
            owner: self.owner_of(uaid),
            alias: match self.settings.identity {
                Identity::PerUserAgent => channel,
                Identity::Shared => keyring.alias(uaid, channel),
            },
        }
    }

    /// The endpoint of a subscription that is borrowed already, with this key.
    pub(super) fn endpoint(&self, place: Place, key: Option<&str>) -> Option<Box<str>> {
        self.links.get(&place.owner)?.endpoint(place.alias, key)
    }

    /// Whether a subscription that is registered here as `channel` is one that is being asked for
    /// above, for another user agent, by that name or by what its aliases have in common.
    ///
    /// Nobody else has given a channel the same name by chance: it has come round, from gateway to
    /// gateway. Asked for once more, it would go round for ever.
    pub(super) fn has_come_round(&self, place: Place, channel: ChannelId) -> bool {
        let mark = keyring::mark(channel);
        let is_it = |alias| alias == channel || (mark.is_some() && keyring::mark(alias) == mark);
        self.links.iter().any(|(owner, link)| {
            let mut asked_for = link.asked_for();
            asked_for.any(|alias| (*owner, alias) != (place.owner, place.alias) && is_it(alias))
        })
    }

    /// Asks the main service for a subscription.
    pub(super) fn want(&mut self, now: Instant, place: Place, wanted: Wanted, out: &mut Outbox) {
        let Place { owner, alias } = place;
        self.link(now, owner);
        self.on(now, owner, out, |link, turn| link.want(alias, wanted, turn));
    }

    /// A subscription has ended here: it ends there as well.
    pub(super) fn end(&mut self, now: Instant, place: Place, out: &mut Outbox) {
        let Place { owner, alias } = place;
        self.on(now, owner, out, |link, turn| link.end(alias, turn));
    }

    /// A user agent does not wait for a subscription any more.
    pub(super) fn cancel(&mut self, now: Instant, place: Place, out: &mut Outbox) {
        let Place { owner, alias } = place;
        self.on(now, owner, out, |link, turn| link.cancel(alias, turn));
    }

    /// All subscriptions of this user agent have ended here, or are about to.
    pub(super) fn end_all(&mut self, now: Instant, uaid: Uaid, out: &mut Outbox) {
        let owner = self.owner_of(uaid);
        self.telling.remove(uaid);
        self.on(now, owner, out, |link, turn| link.end_all(uaid, turn));
    }

    /// A subscription that the main service has made is on flash.
    pub(super) fn borrowed(&mut self, now: Instant, borrowed: Borrowed, out: &mut Outbox) {
        let owner = borrowed.owner;
        self.on(now, owner, out, |link, _| link.insert_made(borrowed));
    }

    /// A subscription that the main service has made is of no use.
    pub(super) fn give_back(&mut self, now: Instant, place: Place, out: &mut Outbox) {
        let Place { owner, alias } = place;
        self.on(now, owner, out, |link, turn| link.give_back(alias, turn));
    }

    /// It is known what became of a push message.
    pub(super) fn judged(&mut self, now: Instant, judged: Judged, out: &mut Outbox) {
        let Judged {
            owner,
            received,
            verdict,
        } = judged;
        self.acking.insert(owner);
        self.on(now, owner, out, |link, turn| {
            link.judged(received, verdict, turn);
        });
    }

    /// A push message was taken under this id.
    pub(super) fn taken(&mut self, owner: Owner, received: Received, id: MessageId) {
        if let Some(link) = self.links.get_mut(&owner) {
            link.taken(received, id);
        }
    }

    /// A push message was of no use to this user agent.
    pub(super) fn nack(
        &mut self,
        now: Instant,
        uaid: Uaid,
        message: MessageId,
        code: NackCode,
        out: &mut Outbox,
    ) {
        let owner = self.owner_of(uaid);
        self.on(now, owner, out, |link, turn| link.nack(message, code, turn));
    }

    /// Sends the acks of this turn.
    pub(super) fn send_acks(&mut self, now: Instant, out: &mut Outbox) {
        for owner in std::mem::take(&mut self.acking) {
            self.on(now, owner, out, Link::send_acks);
        }
    }

    /// Asks for broadcasts that nobody has asked for before: on one link, as soon as one is ready.
    pub(super) fn listen<'a>(&mut self, ids: impl Iterator<Item = &'a str>, out: &mut Outbox) {
        let new: Vec<&str> = ids.filter(|id| !self.broadcasts.contains(*id)).collect();
        if new.is_empty() {
            return;
        }
        self.broadcasts.extend(new.iter().map(|id| Box::from(*id)));
        if let Some(link) = self.carrier.and_then(|owner| self.links.get(&owner)) {
            link.ask_for_broadcasts(new, out);
        } else {
            self.choose_carrier(out);
        }
    }

    /// Broadcasts move to another link with the end of theirs.
    fn choose_carrier(&mut self, out: &mut Outbox) {
        let is_ready = |link: &Link| link.is_ready();
        let carrier = self.carrier.and_then(|owner| self.links.get(&owner));
        if self.broadcasts.is_empty() || carrier.is_some_and(is_ready) {
            return;
        }
        self.carrier = None;
        if let Some((owner, link)) = self.links.iter().find(|(_, link)| link.is_ready()) {
            self.carrier = Some(*owner);
            link.ask_for_broadcasts(self.broadcasts.iter().map(|id| &**id), out);
        }
    }

    /// What the operator sees.
    pub(super) fn snapshot(&self, now: Instant) -> Vec<LinkState> {
        self.links.values().map(|link| link.state(now)).collect()
    }

    /// What this user agent had at the main service is lost, with the database that knew of it.
    pub(super) fn lost_with_a_database(&mut self, uaid: Uaid, out: &mut Outbox) {
        self.telling.add([uaid]);
        out.store_for_nobody(StoreOp::Upstream(UpstreamOp::ToTell { uaid }));
    }

    /// How many user agents do not know yet that their subscriptions are lost.
    pub(super) fn to_tell_len(&self) -> usize {
        self.telling.len()
    }

    /// User agents whose subscriptions are lost, and who do not know it.
    pub(super) const fn telling(&mut self) -> &mut Telling {
        &mut self.telling
    }

    /// Something happened on a connection.
    pub(super) fn event(&mut self, now: Instant, id: LinkId, event: UpEvent<'_>, out: &mut Outbox) {
        let Some(owner) = self.connections.get(&id).copied() else {
            return;
        };
        if matches!(event, UpEvent::Ended(_)) {
            self.connections.remove(&id);
        }
        self.acking.insert(owner);
        self.on(now, owner, out, |link, turn| link.event(event, turn));
    }

    /// The process is about to end: what may come again is known to the next one.
    pub(super) fn keep_acked(&self, out: &mut Outbox) {
        for link in self.links.values() {
            link.keep_acked(out);
        }
    }

    /// The process ends: every connection is closed.
    pub(super) fn close_all(&mut self, now: Instant, out: &mut Outbox) {
        self.send_acks(now, out);
        let owners: Vec<Owner> = self.links.keys().copied().collect();
        for owner in owners {
            self.on(now, owner, out, |link, turn| link.close(None, turn));
        }
    }

    fn link(&mut self, now: Instant, owner: Owner) -> &mut Link {
        self.links
            .entry(owner)
            .or_insert_with(|| Link::new(owner, now))
    }

    /// Lets a link act, if there is one, and does what follows for all of them.
    fn on(
        &mut self,
        now: Instant,
        owner: Owner,
        out: &mut Outbox,
        act: impl FnOnce(&mut Link, &mut Turn<'_>),
    ) {
        let Some(link) = self.links.get_mut(&owner) else {
            return;
        };
        let mut turn = Turn {
            now,
            settings: &self.settings,
            is_loaded: matches!(self.load, Load::Done),
            pacer: &mut self.pacer,
            last_link: &mut self.last_link,
            outcomes: &mut self.outcomes,
            out,
        };
        let was_ready = link.is_ready();
        act(link, &mut turn);
        link.settle_phase(&mut turn);
        let is_ready = link.is_ready();
        if let Some(id) = link.connection() {
            self.connections.insert(id, owner);
        }
        let at = link.next_alarm(&self.settings);
        self.alarms.set(owner, &mut link.alarm, at);
        if link.is_over() {
            self.links.remove(&owner);
        }
        if was_ready != is_ready {
            self.choose_carrier(out);
        }
    }
}

/// What a link works with while it acts.
struct Turn<'a> {
    now: Instant,
    settings: &'a model::Upstream,
    /// Whether it is known what is borrowed, and under which names.
    is_loaded: bool,
    pacer: &'a mut Pacer,
    last_link: &'a mut u64,
    outcomes: &'a mut VecDeque<Outcome>,
    out: &'a mut Outbox,
}

impl Turn<'_> {
    fn name_link(&mut self) -> LinkId {
        *self.last_link = self.last_link.saturating_add(1);
        LinkId(*self.last_link)
    }
}
