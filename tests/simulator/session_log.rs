//! What one websocket has carried.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use edgepush::model::ids::MessageId;
use uuid::Uuid;

use super::URGENCY_NORMAL;
use super::subscriptions::name_of;
use crate::frames::Update;

/// What one websocket has carried.
#[derive(Debug, Default)]
pub(crate) struct SessionLog {
    pub(crate) agent: usize,
    /// As the answer to hello named it; empty before.
    pub(crate) uaid: String,
    pub(crate) hello_step: u64,
    /// Another hello on the same websocket.
    pub(crate) again_step: u64,
    /// What it wants at least, and whether it has ever said so.
    pub(crate) urgency_min: usize,
    pub(crate) asked_urgency: bool,
    pub(super) sent: BTreeSet<String>,
    /// Of each channel and urgency.
    pub(super) last: BTreeMap<(Uuid, usize), MessageId>,
    pub(super) updates: BTreeMap<(Uuid, u64, Option<String>), Repeats>,
    /// When a frame of updates was sent last.
    pub(super) updates_step: u64,
}

/// How often an update was sent.
#[derive(Debug)]
pub(super) struct Repeats {
    /// Since there was a reason to repeat it.
    pub(super) count: usize,
    pub(super) step: u64,
    pub(super) at: Duration,
}

impl SessionLog {
    pub(crate) fn new(agent: usize) -> Self {
        Self {
            agent,
            ..Self::default()
        }
    }

    /// Whether it wants version updates: they all have the usual urgency.
    pub(crate) const fn wants_updates(&self) -> bool {
        self.urgency_min <= URGENCY_NORMAL
    }

    pub(crate) fn name(&self) -> Option<String> {
        name_of(&self.uaid)
    }

    /// A channel has ended: its versions begin anew.
    pub(crate) fn forget(&mut self, channel: Uuid) {
        self.updates.retain(|(of, ..), _| *of != channel);
    }

    /// Whether an update was sent here so long ago that it may be repeated.
    pub(super) fn is_due(
        &self,
        channel: Uuid,
        update: &Update,
        interval: Duration,
        at: Duration,
    ) -> bool {
        let key = (channel, update.version, update.data.clone());
        let repeats = self.updates.get(&key);
        repeats.is_some_and(|repeats| at.saturating_sub(repeats.at) >= interval)
    }

    /// An update is sent, of which `puts` are all that it can be.
    pub(super) fn note(
        &mut self,
        channel: Uuid,
        update: &Update,
        puts: usize,
        interval: Duration,
        (step, at): (u64, Duration),
    ) {
        let is_due = self.is_due(channel, update, interval, at);
        let key = (channel, update.version, update.data.clone());
        let first = Repeats { count: 0, step, at };
        let repeats = self.updates.entry(key).or_insert(first);
        if repeats.count > 0 && (is_due || self.again_step > repeats.step) {
            repeats.count = 0;
        }
        repeats.count += 1;
        (repeats.step, repeats.at) = (step, at);
        assert!(
            repeats.count <= puts.max(1),
            "{update:?} repeated without a reason"
        );
    }

    /// When a version that is enough was sent last, if there is one.
    pub(super) fn sent_up_to(
        &self,
        channel: Uuid,
        is_enough: impl Fn(u64, u64) -> bool,
    ) -> Option<(u64, Duration)> {
        let all = self.updates.iter();
        let sent = all.filter(|((of, version, _), repeats)| {
            *of == channel && is_enough(*version, repeats.step)
        });
        sent.map(|(_, repeats)| (repeats.step, repeats.at)).max()
    }
}
