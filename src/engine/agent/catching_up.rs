//! What waits on flash for a connected user agent, page by page, and again where it was not acked.

use std::collections::BTreeMap;

use super::{Agent, Mode, Place, version_of};
use crate::engine::desk::Desk;
use crate::engine::outbox::{Outbox, Waiting};
use crate::model::dialect::Dialect;
use crate::model::ids::{ChannelId, MessageId};
use crate::model::limits::{Limits, MESSAGE_OVERHEAD_BYTES};
use crate::model::message::{Payload, PushMessage};
use crate::model::store::{Cursors, StoreOp};
use crate::model::time::Now;
use crate::model::version::Version;
use crate::protocol::server_message::{self, Update};

/// Most messages of one page from flash.
const PAGE_MESSAGES_MAX: u32 = 64;
/// The same for a SimplePush user agent, which gets a page as one frame of some 90 bytes for each
/// update (R21): more channels than any device has.
const PAGE_UPDATES_MAX: u32 = 512;

/// Most bytes of such a frame; the socket takes no larger one. Without data it holds 700 updates,
/// and more than a page: an update counts for at least [`MESSAGE_OVERHEAD_BYTES`] there.
const UPDATES_FRAME_BYTES_MAX: usize = 128 << 10;
const _: () =
    assert!(UPDATES_FRAME_BYTES_MAX >= PAGE_UPDATES_MAX as usize * MESSAGE_OVERHEAD_BYTES);

/// The highest version of each channel, with what it says.
type Updates = BTreeMap<ChannelId, (Version, Option<Box<str>>)>;

impl Agent {
    /// Whether nothing is owed to it, and nothing waits on flash until it wants that.
    pub(in crate::engine) fn has_everything(&self) -> bool {
        self.is_quiet() && !self.some_held_back
    }

    /// Asks for the next page if one is needed and the user agent keeps up.
    pub(in crate::engine) fn catch_up(&mut self, now: Now, desk: &mut Desk) {
        if self.mode != (Mode::CatchingUp { fetching: None }) || self.unsent_bytes > 0 {
            return;
        }
        let urgency_min = self.urgency_min;
        self.mode = Mode::CatchingUp {
            fetching: Some(urgency_min),
        };
        let unsent_bytes_max = desk.limits.unsent_bytes_max;
        let (messages_max, bytes_max) = match self.dialect {
            Dialect::WebPush => (PAGE_MESSAGES_MAX, unsent_bytes_max),
            Dialect::SimplePush => (
                PAGE_UPDATES_MAX,
                unsent_bytes_max.max(UPDATES_FRAME_BYTES_MAX),
            ),
        };
        let op = StoreOp::Fetch {
            uaid: self.uaid,
            after: self.cursors,
            urgency_min,
            now: desk.service_time(now),
            messages_max,
            bytes_max,
        };
        desk.out.store(op, Waiting::Page(self.session));
    }

    /// Sends a page of messages from flash.
    pub(in crate::engine) fn page(
        &mut self,
        messages: Vec<PushMessage>,
        more: bool,
        now: Now,
        desk: &mut Desk,
    ) {
        let service_time = desk.service_time(now);
        let acked = std::mem::take(&mut self.acked_meanwhile);
        let asked = self.asked_urgency();
        // What is read now must be in this page and wanted still.
        let read = asked.max(self.urgency_min);
        let mut updates = Updates::new();
        for message in messages {
            if !self.wants(&message) {
                continue;
            }
            self.cursors.advance(read, message.id);
            // Unregistered or acked since the page was read, or expired.
            if self.ending == Some(message.channel) || acked.contains(&message.id) {
                continue;
            }
            if message.expires_at() <= service_time {
                if let Some(version) = version_of(&message) {
                    // It lasts longer if a lower version has come behind it since the page was read.
                    // What comes from here on must be above it, or it would answer for that as well.
                    self.channels.note_version(message.channel, version);
                    self.starts_again |= self.to_fetch > 0;
                }
                continue;
            }
            if self.is_on_its_way(message.id, now, &desk.limits) {
                continue;
            }
            // Flash has messages of subscriptions only: one not known here was taken back in.
            self.channels.insert(message.channel);
            let version = self.sent_as(&message, desk);
            self.list(now, &message, version, false, Place::Flash(None), desk);
            match (self.dialect, version) {
                (Dialect::SimplePush, Some(version)) => {
                    add_highest(&mut updates, message, version);
                }
                (Dialect::WebPush, _) | (Dialect::SimplePush, None) => {
                    let text = self.frame(&message, desk);
                    self.send(text, &mut desk.out);
                }
            }
        }
        self.send_updates(&updates, &mut desk.out);
        let starts_again = std::mem::take(&mut self.starts_again);
        if starts_again {
            self.cursors = Cursors::START;
        }
        // Messages given to the storage thread behind this page are not in it, and neither are those
        // that have been asked for since.
        if !more && self.to_fetch == 0 && asked <= self.urgency_min && !starts_again {
            return self.has_caught_up();
        }
        self.mode = Mode::CatchingUp { fetching: None };
        self.catch_up(now, desk);
    }

    /// The version that a message from flash is sent as; `None` for a WebPush notification.
    ///
    /// A push message that a SimplePush user agent was sent before it became one gets its number here.
    fn sent_as(&mut self, message: &PushMessage, desk: &mut Desk) -> Option<Version> {
        let version = match (version_of(message), self.dialect) {
            (Some(version), _) => version,
            (None, Dialect::WebPush) => return None,
            (None, Dialect::SimplePush) => return Some(self.next_version(message.channel, desk)),
        };
        self.channels.note_version(message.channel, version);
        Some(version)
    }

    fn send_updates(&mut self, updates: &Updates, out: &mut Outbox) {
        let mut frames = Vec::new();
        let mut entries = Vec::new();
        let mut bytes = 0_usize;
        for (channel, (version, data)) in updates {
            let spelling = self.channels.spelling(*channel);
            let entry = Update::new(*channel, spelling, *version, data.as_deref());
            bytes = bytes.saturating_add(entry.len_bytes_max());
            if bytes > UPDATES_FRAME_BYTES_MAX && !entries.is_empty() {
                frames.push(server_message::updates(&entries));
                entries.clear();
                bytes = entry.len_bytes_max();
            }
            entries.push(entry);
        }
        if !entries.is_empty() {
            frames.push(server_message::updates(&entries));
        }
        for frame in frames {
            self.send(frame, out);
        }
    }

    /// Sends again what was not acked for so long (R23), and comes back as long as there is any.
    pub(in crate::engine) fn redeliver(&mut self, now: Now, desk: &mut Desk) {
        self.redelivery_set = false;
        if self.unacked.is_empty() && !self.some_unlisted {
            return;
        }
        self.fetch_again(now, desk);
        self.watch_redelivery(now, desk);
    }

    /// Sends everything again that was not acked: the user agent has said hello anew (R11).
    ///
    /// What only memory holds goes to flash first, so that all of it comes from there, once.
    pub(in crate::engine) fn repeat_all(&mut self, now: Now, desk: &mut Desk) {
        let all: Vec<MessageId> = self.unacked.keys().copied().collect();
        for id in all {
            self.window_ended(id, desk);
        }
        for unacked in self.unacked.values_mut() {
            unacked.sent_at = None;
        }
        self.fetch_again(now, desk);
    }

    /// Goes through what is on flash from its beginning.
    fn fetch_again(&mut self, now: Now, desk: &mut Desk) {
        if matches!(self.mode, Mode::CatchingUp { fetching: Some(_) }) {
            self.starts_again = true;
            return;
        }
        self.cursors = Cursors::START;
        self.mode = Mode::CatchingUp { fetching: None };
        self.catch_up(now, desk);
    }

    pub(super) fn watch_redelivery(&mut self, now: Now, desk: &mut Desk) {
        if self.redelivery_set || self.dialect != Dialect::SimplePush {
            return;
        }
        if let Some(at) = now.monotonic.checked_add(desk.limits.redelivery_interval) {
            self.redelivery_set = true;
            desk.redeliveries.push_back((at, self.session));
        }
    }

    /// Whether a message was sent here so lately that its ack may still come.
    fn is_on_its_way(&self, id: MessageId, now: Now, limits: &Limits) -> bool {
        let sent_at = self.unacked.get(&id).and_then(|unacked| unacked.sent_at);
        sent_at.is_some_and(|at| {
            now.monotonic.saturating_duration_since(at) < limits.redelivery_interval
        })
    }
}

/// Of one channel a frame has the highest version only.
fn add_highest(updates: &mut Updates, message: PushMessage, version: Version) {
    let data = match message.payload {
        Payload::Update(update) => update.data,
        Payload::Empty | Payload::Encrypted(_) | Payload::Raw(_) => None,
    };
    let is_highest = updates
        .get(&message.channel)
        .is_none_or(|(highest, _)| *highest <= version);
    if is_highest {
        updates.insert(message.channel, (version, data));
    }
}
