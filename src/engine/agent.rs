//! Delivery to one connected user agent: what it was sent, what it acked, what waits on flash.
//!
//! Messages reach it in the order of their ids. While it is *live*, a new one is sent at once and
//! held in memory until it is acked or its window ends. While it is *catching up* (just connected,
//! reading slowly, or owed a message that had to be written first), new ones go to flash and are
//! fetched from there in their order; no message waits for another one's ack.

mod catching_up;
mod unsubscribing;
mod urgency;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use super::channels::Channels;
use super::counters::Counters;
use super::desk::Desk;
use super::outbox::{Fate, Outbox, Waiting};
use super::{RequestId, SessionId};
use crate::model::dialect::Dialect;
use crate::model::durability::Durability;
use crate::model::ids::{ChannelId, MessageId, Uaid};
use crate::model::limits::Limits;
use crate::model::message::{PushMessage, Urgency};
use crate::model::store::{Cursors, Deletion, StoreOp, Subscription};
use crate::model::time::Now;
use crate::model::version::{NewVersion, Version};
use crate::protocol::client_message::AckCode;
use crate::protocol::server_message::{self, Update};

/// A user agent whose hello has been answered.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) uaid: Uaid,
    session: SessionId,
    dialect: Dialect,
    pub(super) channels: Channels,
    /// The subscription whose end the storage has not confirmed: pages read before that may hold
    /// messages of it. There is one at most, because the session pauses for it.
    ending: Option<ChannelId>,
    /// Sent on this session and not acked; at most `unacked_per_session_max`.
    unacked: BTreeMap<MessageId, Unacked>,
    /// Others were sent when that list was full: their acks are taken by id. Stays so until the
    /// session ends, because an ack that comes twice cannot be told from another one.
    some_unlisted: bool,
    /// Some were not acked when their subscription ended. Their acks may still come, and would be
    /// taken for those of another message of the channel where they do not say of which.
    some_ended: bool,
    mode: Mode,
    /// The last messages sent here.
    cursors: Cursors,
    /// The page that is on its way is followed by the first one again.
    starts_again: bool,
    /// Acked while a page is on its way, which may bring them again.
    acked_meanwhile: BTreeSet<MessageId>,
    /// Less urgent messages are held back: they wait on flash.
    urgency_min: Urgency,
    /// Messages may wait there only because they were not urgent enough.
    some_held_back: bool,
    /// Messages on their way to flash that this session must fetch.
    to_fetch: usize,
    /// Bytes given to the socket that it has not taken yet.
    unsent_bytes: usize,
    /// Whether the desk will come back to see what was not acked.
    redelivery_set: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mode {
    Live,
    CatchingUp {
        /// A page is under way, of messages of at least this urgency.
        fetching: Option<Urgency>,
    },
}

#[derive(Debug)]
struct Unacked {
    channel: ChannelId,
    /// What it was sent as, if as a version update.
    version: Option<Version>,
    /// `None`: it may be sent again at once.
    sent_at: Option<Instant>,
    /// Sent as soon as it was accepted: the user agent cannot have seen it before.
    first_time: bool,
    place: Place,
}

/// Where an un-acked message is besides on its way.
#[derive(Debug)]
enum Place {
    /// In memory only: its window has not ended.
    Held(Held),
    /// On flash, on its way there, or refused there; with the request that waits for it, if it was
    /// sent before it went.
    Flash(Option<RequestId>),
    /// Nowhere: its TTL is 0.
    Nowhere,
}

#[derive(Debug)]
struct Held {
    message: Arc<PushMessage>,
    request: RequestId,
}

/// A push message that has been accepted for this user agent.
pub(super) struct Post {
    pub(super) request: RequestId,
    pub(super) message: Arc<PushMessage>,
}

impl Agent {
    /// One whose name was made just now: nothing can be on flash for it.
    pub(super) const fn new(uaid: Uaid, session: SessionId, dialect: Dialect) -> Self {
        Self {
            uaid,
            session,
            dialect,
            channels: Channels::new(),
            ending: None,
            unacked: BTreeMap::new(),
            some_unlisted: false,
            some_ended: false,
            mode: Mode::Live,
            cursors: Cursors::START,
            starts_again: false,
            acked_meanwhile: BTreeSet::new(),
            urgency_min: Urgency::VeryLow,
            some_held_back: false,
            to_fetch: 0,
            unsent_bytes: 0,
            redelivery_set: false,
        }
    }

    /// One that was here before, with what it is subscribed to.
    pub(super) fn returning(
        uaid: Uaid,
        session: SessionId,
        dialect: Dialect,
        subscriptions: Vec<Subscription>,
    ) -> Self {
        Self {
            channels: Channels::loaded(subscriptions),
            mode: Mode::CatchingUp { fetching: None },
            ..Self::new(uaid, session, dialect)
        }
    }

    pub(super) const fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Whether the next message is sent as soon as it is accepted, if nothing is in its way.
    pub(super) fn is_live(&self) -> bool {
        self.mode == Mode::Live
    }

    /// Whether nothing is owed to it.
    pub(super) fn is_quiet(&self) -> bool {
        self.is_live() && self.unacked.is_empty() && !self.some_unlisted && self.unsent_bytes == 0
    }

    /// How many messages it was sent and did not ack, as far as they are listed.
    pub(super) fn unacked_len(&self) -> usize {
        self.unacked.len()
    }

    /// How many of them are in memory only.
    pub(super) fn held_len(&self) -> usize {
        let held = |unacked: &&Unacked| matches!(unacked.place, Place::Held(_));
        self.unacked.values().filter(held).count()
    }

    /// Sends a message with TTL 0, or drops it: nobody waits for it.
    pub(super) fn deliver_now_or_never(&mut self, now: Now, post: &Post, desk: &mut Desk) {
        let text = self.frame(&post.message, desk);
        // A number that only the storage knows for certain may be that of another update.
        let update = post.message.payload.update();
        let is_certain = update.is_none_or(|update| matches!(update.version, NewVersion::Exact(_)));
        let has_room = self.has_room_for(text.len(), &desk.limits);
        if is_certain && has_room && self.wants(&post.message) {
            let version = version_of(&post.message);
            self.list(now, &post.message, version, true, Place::Nowhere, desk);
            self.send(text, &mut desk.out);
        }
        desk.out.accept(post.request);
    }

    /// Takes an accepted message. Returns whether its window must be watched.
    pub(super) fn deliver(&mut self, now: Now, post: Post, desk: &mut Desk) -> bool {
        let Post { request, message } = post;
        let must_replace_on_flash = self.must_replace_on_flash(&message, desk);
        let list_is_full = self.unacked.len() >= desk.limits.unacked_per_session_max;
        let must_wait = self.mode != Mode::Live || must_replace_on_flash || list_is_full;
        if must_wait || !self.wants(&message) {
            self.keep_and_fetch(message, None, request, desk);
            return false;
        }
        let text = self.frame(&message, desk);
        if !self.has_room_for(text.len(), &desk.limits) {
            self.keep_and_fetch(message, None, request, desk);
            return false;
        }
        self.cursors.advance(self.urgency_min, message.id);
        let held = Held {
            message: Arc::clone(&message),
            request,
        };
        let version = version_of(&message);
        self.list(now, &message, version, true, Place::Held(held), desk);
        self.send(text, &mut desk.out);
        if desk.durability == Durability::Relaxed {
            desk.out.accept_early(request);
        }
        true
    }

    /// Sends a message to flash, from where this session will fetch it if it is urgent enough.
    ///
    /// `lost`: as in [`StoreOp::Enqueue`].
    pub(super) fn keep_and_fetch(
        &mut self,
        message: Arc<PushMessage>,
        lost: Option<Dialect>,
        request: RequestId,
        desk: &mut Desk,
    ) {
        if !self.wants(&message) {
            return self.hold_back(message, lost, request, desk);
        }
        if self.mode == Mode::Live {
            self.mode = Mode::CatchingUp { fetching: None };
        }
        self.to_fetch = self.to_fetch.saturating_add(1);
        let fate = Fate {
            request,
            fetched_by: Some(self.session),
            handed: false,
        };
        desk.keep(self.uaid, message, lost, fate);
    }

    /// A message of [`keep_and_fetch`](Self::keep_and_fetch) is on flash, or was refused there.
    pub(super) fn kept(&mut self, now: Now, desk: &mut Desk) {
        self.to_fetch = self.to_fetch.saturating_sub(1);
        self.catch_up(now, desk);
    }

    /// The version of an update that names none, where all that the channel has had are known.
    pub(super) fn next_version(&mut self, channel: ChannelId, desk: &mut Desk) -> Version {
        let next = self
            .channels
            .next_version(channel, desk.version_clock.version());
        let safe_below = desk.version_clock.outlives_kill();
        if let Some(reserved) = self.channels.reserve(channel, next, safe_below) {
            desk.save_versions(self.uaid, vec![(channel, reserved)]);
        }
        self.channels.note_version(channel, next);
        next
    }

    /// The frame that carries one message.
    fn frame(&self, message: &PushMessage, desk: &Desk) -> String {
        match message.payload.update() {
            Some(update) => {
                let spelling = self.channels.spelling(message.channel);
                let version = update.version.version();
                let data = update.data.as_deref();
                server_message::updates(&[Update::new(message.channel, spelling, version, data)])
            }
            None => desk.notification(message),
        }
    }

    /// The socket has taken everything that it was given.
    pub(super) fn all_sent(&mut self, now: Now, desk: &mut Desk) {
        self.unsent_bytes = 0;
        self.catch_up(now, desk);
    }

    /// Takes an ack. An unknown message is no error: it may have been sent on an earlier session.
    pub(super) fn ack(&mut self, id: MessageId, code: AckCode, now: Now, out: &mut Outbox) {
        Counters::add(&mut out.counters.messages_acked);
        let unacked = self.unacked.remove(&id);
        if let Some(unacked) = &unacked {
            if matches!(self.mode, Mode::CatchingUp { fetching: Some(_) }) {
                self.acked_meanwhile.insert(id);
            }
            // Of a message that it has never seen this can only mean an unknown subscription.
            if code == AckCode::NotDelivered && unacked.first_time {
                let channel = unacked.channel;
                let uaid = self.uaid;
                out.store(StoreOp::Disown { uaid, channel }, Waiting::Nobody);
            }
        }
        let channel = unacked.as_ref().map(|unacked| unacked.channel);
        match unacked.map(|unacked| unacked.place) {
            Some(Place::Held(held)) => {
                out.never_write(self.uaid, &held.message);
                out.accept_acked(held.request, code);
            }
            Some(Place::Nowhere) => {
                if let Some(channel) = channel {
                    out.cost_nothing(self.uaid, channel);
                }
            }
            place @ (Some(Place::Flash(_)) | None) => {
                // Acked before it was written: it is in good hands, whatever becomes of the write.
                if let Some(Place::Flash(Some(request))) = place {
                    out.accept_acked(request, code);
                }
                let owner = Some(self.uaid);
                out.delete(now.monotonic, Deletion::Message { id, owner });
            }
        }
    }

    /// Takes an ack of a version: of everything that the channel was sent up to it.
    pub(super) fn ack_version(
        &mut self,
        channel: ChannelId,
        version: Version,
        now: Now,
        desk: &mut Desk,
    ) {
        let is_seen = |unacked: &Unacked| {
            unacked.channel == channel && unacked.version.is_some_and(|sent| sent <= version)
        };
        let all = self.unacked.iter();
        let seen: Vec<MessageId> = all
            .filter(|(_, unacked)| is_seen(unacked))
            .map(|(id, _)| *id)
            .collect();
        let all_is_listed = !self.some_unlisted && !self.some_held_back && self.is_live();
        if seen.is_empty() || !all_is_listed {
            // It was sent on an earlier session or when the list was full, or a lower one waits
            // on flash.
            let uaid = self.uaid;
            let deletion = Deletion::Update {
                uaid,
                channel,
                version,
                until: desk.last_message_id(),
            };
            desk.out.delete(now.monotonic, deletion);
        }
        for id in seen {
            self.ack(id, AckCode::Delivered, now, &mut desk.out);
        }
    }

    /// The one message of `channel` that is not acked, if there is exactly one for certain.
    pub(super) fn only_unacked(&self, channel: ChannelId) -> Option<MessageId> {
        if self.some_unlisted || self.some_ended {
            return None;
        }
        let mut of_channel = self
            .unacked
            .iter()
            .filter(|(_, unacked)| unacked.channel == channel);
        let (id, _) = of_channel.next()?;
        of_channel.next().is_none().then_some(*id)
    }

    /// The window of a held message has ended: it goes to flash, unless it was acked.
    pub(super) fn window_ended(&mut self, id: MessageId, desk: &mut Desk) {
        if let Some(held) = self.take_held(id, |held| Place::Flash(Some(held.request))) {
            self.keep_held(held, true, desk);
        }
    }

    /// The application server takes back a held message: it never goes to flash.
    pub(super) fn drop_held(&mut self, id: MessageId, out: &mut Outbox) {
        if let Some(held) = self.take_held(id, |_| Place::Nowhere) {
            out.release(held.message.cost_bytes());
            out.accept(held.request);
        }
    }

    /// The session ends: what only memory holds goes to flash, in its order.
    pub(super) fn leave(&mut self, desk: &mut Desk) {
        for (_, unacked) in std::mem::take(&mut self.unacked) {
            if let Place::Held(held) = unacked.place {
                self.keep_held(held, false, desk);
            }
        }
        let uaid = self.uaid;
        let versions = self.channels.unwritten(desk.version_clock.settled());
        if !versions.is_empty() {
            desk.save_versions(uaid, versions);
        }
    }

    /// `handed`: its user agent is still here.
    fn keep_held(&self, held: Held, handed: bool, desk: &mut Desk) {
        let fate = Fate {
            request: held.request,
            fetched_by: None,
            handed,
        };
        desk.keep(self.uaid, held.message, None, fate);
    }

    /// Whether an older message of this topic may be on flash, where it is replaced in the same
    /// transaction. It would stay behind if the newer one never went there.
    ///
    /// One that is only held goes there now. Dropped instead, it would be lost with a newer one that
    /// is refused or dies with the process.
    fn must_replace_on_flash(&mut self, newer: &PushMessage, desk: &mut Desk) -> bool {
        if newer.topic.is_none() {
            return false;
        }
        let mut held = None;
        let mut on_flash = self.some_unlisted || self.some_held_back;
        for (id, unacked) in &self.unacked {
            match &unacked.place {
                Place::Held(older) if replaces(newer, &older.message) => held = Some(*id),
                // Its topic is not known any more.
                Place::Flash(_) => on_flash |= unacked.channel == newer.channel,
                Place::Held(_) | Place::Nowhere => {}
            }
        }
        if let Some(older) = held {
            self.window_ended(older, desk);
        }
        on_flash || held.is_some()
    }

    /// Remembers a message that is being sent, so that its ack is understood.
    fn list(
        &mut self,
        now: Now,
        message: &PushMessage,
        version: Option<Version>,
        first_time: bool,
        place: Place,
        desk: &mut Desk,
    ) {
        self.watch_redelivery(now, desk);
        let sent_at = Some(now.monotonic);
        if let Some(again) = self.unacked.get_mut(&message.id) {
            (again.sent_at, again.version) = (sent_at, version);
            return;
        }
        if self.unacked.len() >= desk.limits.unacked_per_session_max {
            self.some_unlisted = true;
            return;
        }
        let unacked = Unacked {
            channel: message.channel,
            version,
            sent_at,
            first_time,
            place,
        };
        self.unacked.insert(message.id, unacked);
    }

    /// What of a message is held, which moves to `place`; `None` if it is somewhere else already.
    fn take_held(&mut self, id: MessageId, place: impl FnOnce(&Held) -> Place) -> Option<Held> {
        let unacked = self.unacked.get_mut(&id)?;
        let Place::Held(held) = &unacked.place else {
            return None;
        };
        let place = place(held);
        match std::mem::replace(&mut unacked.place, place) {
            Place::Held(held) => Some(held),
            Place::Flash(_) | Place::Nowhere => None,
        }
    }

    const fn has_room_for(&self, bytes: usize, limits: &Limits) -> bool {
        // A single message always fits, or a large one would never be sent.
        self.unsent_bytes == 0 || self.unsent_bytes.saturating_add(bytes) <= limits.unsent_bytes_max
    }

    fn send(&mut self, text: String, out: &mut Outbox) {
        Counters::add(&mut out.counters.notifications_sent);
        self.unsent_bytes = self.unsent_bytes.saturating_add(text.len());
        out.send(self.session, text);
    }
}

fn replaces(newer: &PushMessage, older: &PushMessage) -> bool {
    newer.channel == older.channel && newer.topic == older.topic
}

/// The version that a message carries by itself.
fn version_of(message: &PushMessage) -> Option<Version> {
    let update = message.payload.update()?;
    Some(update.version.version())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Input;
    use super::super::testing::{EMPTY_PAGE, KEPT, Out, Table, loaded, page, versions};
    use super::*;
    use crate::model::store::{EnqueueOutcome, StoreError, StoreReply};

    const WINDOW: Duration = Duration::from_millis(100);

    #[test]
    fn message_acked_within_the_window_is_answered_and_never_written() {
        let mut table = Table::new();
        let (id, _) = table.newcomer();
        let endpoint = table.register(id, 1);
        let (request, sent) = table.post(&endpoint, 60, None);
        let outs = table.ack(id, 1, &versions(&sent)[0], 100);
        assert_eq!(outs, [Out::Answered(request, 201)]);
        table.pass(WINDOW);
        table.pass(Duration::from_secs(1));
        assert!(table.asked.is_empty());
    }

    #[test]
    fn message_not_acked_within_the_window_is_written_then_answered_then_deleted() {
        let mut table = Table::new();
        let (id, _) = table.newcomer();
        let endpoint = table.register(id, 1);
        let (request, sent) = table.post(&endpoint, 60, None);
        assert_eq!(table.pass(WINDOW), []);
        let message = table.asked_to_keep();
        assert_eq!(table.stored(vec![KEPT]), [Out::Answered(request, 201)]);
        table.ack(id, 1, &versions(&sent)[0], 100);
        assert!(table.asked.is_empty());
        table.pass(Duration::from_millis(500));
        let [StoreOp::Delete(deletions)] = table.asked.as_slice() else {
            panic!("{:?}", table.asked);
        };
        let [Deletion::Message { id, .. }] = deletions.as_slice() else {
            panic!("{deletions:?}");
        };
        assert_eq!(*id, message.id);
    }

    #[test]
    fn message_acked_while_its_write_is_queued_is_accepted_whatever_becomes_of_the_write() {
        let mut table = Table::new();
        let (id, _) = table.newcomer();
        let endpoint = table.register(id, 1);
        let (request, sent) = table.post(&endpoint, 60, None);
        table.pass(WINDOW);
        let outs = table.ack(id, 1, &versions(&sent)[0], 100);
        assert_eq!(outs, [Out::Answered(request, 201)]);
        let full = StoreReply::Failed(StoreError::DiskFull);
        assert_eq!(table.stored(vec![full]), []);
    }

    #[test]
    fn full_disk_is_503_and_its_deletions_are_tried_again() {
        let mut table = Table::new();
        let (id, _) = table.newcomer();
        let endpoint = table.register(id, 1);
        let (request, sent) = table.post(&endpoint, 60, None);
        table.pass(WINDOW);
        let full = || StoreReply::Failed(StoreError::DiskFull);
        assert_eq!(table.stored(vec![full()]), [Out::Answered(request, 503)]);
        table.ack(id, 1, &versions(&sent)[0], 100);
        for _ in 0..3 {
            table.pass(Duration::from_millis(500));
            assert!(matches!(table.asked.as_slice(), [StoreOp::Delete(_)]));
            assert_eq!(table.stored(vec![full()]), []);
        }
    }

    #[test]
    fn message_with_ttl_0_is_answered_at_once_and_its_ack_touches_no_flash() {
        let mut table = Table::new();
        let (id, _) = table.newcomer();
        let endpoint = table.register(id, 1);
        let (request, outs) = table.post(&endpoint, 0, None);
        assert_eq!(outs[1..], [Out::Answered(request, 201)]);
        table.ack(id, 1, &versions(&outs)[0], 100);
        table.pass(Duration::from_secs(1));
        assert!(table.asked.is_empty());
    }

    #[test]
    fn held_message_replaced_by_topic_goes_to_flash_and_its_answer_waits_for_that() {
        let mut table = Table::new();
        let (id, _) = table.newcomer();
        let endpoint = table.register(id, 1);
        let (older, _) = table.post(&endpoint, 60, Some("a"));
        let (newer, outs) = table.post(&endpoint, 60, Some("a"));
        assert_eq!(outs, []);
        assert!(matches!(
            table.asked.as_slice(),
            [StoreOp::Enqueue { .. }, StoreOp::Enqueue { .. }]
        ));
        let message = table.asked_to_keep();
        table.all_sent(id);
        let refused = StoreReply::Enqueued(EnqueueOutcome::QueueFull);
        let outs = table.stored(vec![KEPT, refused]);
        let answers = [Out::Answered(older, 201), Out::Answered(newer, 429)];
        assert_eq!(outs, answers);
        let outs = table.stored(vec![page(vec![message])]);
        assert_eq!(versions(&outs).len(), 1);
    }

    #[test]
    fn messages_stay_in_order_while_the_user_agent_catches_up() {
        let mut table = Table::new();
        let (old, uaid) = table.newcomer();
        let endpoint = table.register(old, 1);
        table.again(&uaid);
        table.stored(vec![loaded(1)]);
        // The first page is under way: this one is not in it, and must not overtake it.
        let (request, outs) = table.post(&endpoint, 60, None);
        assert_eq!(outs, []);
        let message = table.asked_to_keep();
        assert_eq!(table.stored(vec![EMPTY_PAGE]), []);
        let outs = table.stored(vec![KEPT]);
        assert_eq!(outs, [Out::Answered(request, 201)]);
        let outs = table.stored(vec![page(vec![message])]);
        assert_eq!(versions(&outs).len(), 1);
        // Caught up: the next one is sent at once.
        let (_, outs) = table.post(&endpoint, 60, None);
        assert_eq!(versions(&outs).len(), 1);
        assert!(table.asked.is_empty());
    }

    #[test]
    fn page_that_cannot_be_read_closes_the_websocket() {
        let mut table = Table::new();
        let (_, uaid) = table.newcomer();
        let id = table.again(&uaid);
        table.stored(vec![StoreReply::Loaded(vec![])]);
        let outs = table.stored(vec![StoreReply::Failed(StoreError::Io)]);
        let reason = super::super::CloseReason::StorageFault;
        assert_eq!(outs, [Out::Closed(id, reason)]);
    }

    #[test]
    fn ack_with_empty_version_is_taken_only_if_it_can_mean_one_message() {
        let mut table = Table::new();
        let (id, _) = table.newcomer();
        let endpoint = table.register(id, 1);
        let (first, _) = table.post(&endpoint, 60, None);
        assert_eq!(table.ack(id, 1, "", 100), [Out::Answered(first, 201)]);
        table.post(&endpoint, 60, None);
        table.post(&endpoint, 0, None);
        assert_eq!(table.ack(id, 1, "", 100), []);
        assert_eq!(table.ack(id, 2, "", 100), []);
    }

    #[test]
    fn list_of_unacked_messages_is_bounded() {
        let limits = Limits {
            unacked_per_session_max: 1,
            ..Limits::default()
        };
        let mut table = Table::with(limits, Default::default());
        let (id, _) = table.newcomer();
        let endpoint = table.register(id, 1);
        let (_, outs) = table.post(&endpoint, 60, None);
        assert_eq!(versions(&outs).len(), 1);
        table.all_sent(id);
        // The next one comes from flash, and an ack without a version is not taken for the first.
        let (request, outs) = table.post(&endpoint, 60, None);
        assert_eq!(outs, []);
        let message = table.asked_to_keep();
        assert_eq!(table.stored(vec![KEPT]), [Out::Answered(request, 201)]);
        assert_eq!(versions(&table.stored(vec![page(vec![message])])).len(), 1);
        assert_eq!(table.ack(id, 1, "", 100), []);
    }

    #[test]
    fn message_that_expired_on_its_way_from_flash_is_not_sent() {
        let mut table = Table::new();
        let (_, uaid) = table.newcomer();
        let (other, _) = table.newcomer();
        let endpoint = table.register(other, 1);
        table.post(&endpoint, 5, None);
        table.pass(WINDOW);
        let message = table.asked_to_keep();
        table.stored(vec![KEPT]);
        table.again(&uaid);
        table.stored(vec![loaded(1)]);
        table.pass(Duration::from_secs(6));
        assert_eq!(table.stored(vec![page(vec![message])]), []);
    }

    #[test]
    fn subscription_taken_back_in_while_its_user_agent_says_hello_is_delivered_to() {
        let mut table = Table::new();
        let (old, uaid) = table.newcomer();
        let endpoint = table.register(old, 1);
        let session = SessionId(old);
        table.input(Input::Gone { session });
        table.again(&uaid);
        // It did not know the channel when it was asked.
        table.post(&endpoint, 60, None);
        let message = table.asked_to_keep();
        table.stored(vec![
            StoreReply::Loaded(vec![]),
            StoreReply::Enqueued(EnqueueOutcome::KeptAndRestored),
        ]);
        let outs = table.stored(vec![page(vec![message])]);
        assert_eq!(versions(&outs).len(), 1);
    }

    #[test]
    fn page_read_before_an_unregister_brings_nothing_of_it_back() {
        let mut table = Table::new();
        let (old, uaid) = table.newcomer();
        let endpoint = table.register(old, 1);
        table.post(&endpoint, 60, None);
        let id = table.again(&uaid);
        let message = match table.asked.first() {
            Some(StoreOp::Enqueue { message, .. }) => message.as_ref().clone(),
            other => panic!("{other:?}"),
        };
        table.stored(vec![KEPT, loaded(1)]);
        assert_eq!(table.unregister(id, 1), [Out::Paused(id)]);
        assert_eq!(table.stored(vec![page(vec![message])]), []);
        let outs = table.stored(vec![StoreReply::Done]);
        assert!(matches!(outs.as_slice(), [Out::Sent(..), Out::Resumed(_)]));
        let (request, outs) = table.post(&endpoint, 60, None);
        assert_eq!(outs, [Out::Answered(request, 410)]);
    }

    #[test]
    fn ack_with_empty_version_is_not_taken_for_a_message_behind_an_unregister() {
        let mut table = Table::new();
        let (id, _) = table.newcomer();
        let endpoint = table.register(id, 1);
        table.post(&endpoint, 60, None);
        table.unregister(id, 1);
        table.stored(vec![StoreReply::Done]);
        table.register(id, 1);
        let (request, outs) = table.post(&endpoint, 60, None);
        assert_eq!(versions(&outs).len(), 1);
        // It may be that of the first one, which was on its way for long.
        assert_eq!(table.ack(id, 1, "", 100), []);
        table.pass(Duration::from_secs(1));
        assert_eq!(table.stored(vec![KEPT]), [Out::Answered(request, 201)]);
    }
}
