//! Versions of channels that were given out and may not be on flash: their user agents ignore what
//! is not above them, so nobody may forget them only because the disk takes no writes.

use std::collections::BTreeMap;

use super::desk::Desk;
use super::outbox::Waiting;
use super::{Engine, SWEEP_INTERVAL};
use crate::model::ids::{ChannelId, Uaid};
use crate::model::store::StoreOp;
use crate::model::time::Now;
use crate::model::version::Version;

/// Most of them; some 80 bytes each. Beyond it those of further channels are given to the storage
/// and to nobody else.
const UNSAVED_MAX: usize = 4096;

/// From when they are given to the storage until that says that it has them.
#[derive(Debug, Default)]
pub(super) struct UnsavedVersions(BTreeMap<(Uaid, ChannelId), Version>);

impl UnsavedVersions {
    fn note(&mut self, uaid: Uaid, versions: &[(ChannelId, Version)]) {
        for (channel, version) in versions {
            let key = (uaid, *channel);
            if self.0.len() < UNSAVED_MAX || self.0.contains_key(&key) {
                let noted = self.0.entry(key).or_insert(*version);
                *noted = (*noted).max(*version);
            }
        }
    }

    fn forget(&mut self, uaid: Uaid, versions: &[(ChannelId, Version)]) {
        for (channel, version) in versions {
            let key = (uaid, *channel);
            // A higher one has been noted since.
            if self.0.get(&key).is_some_and(|noted| noted <= version) {
                self.0.remove(&key);
            }
        }
    }

    /// The version of a channel that the storage may not know.
    pub(super) fn of(&self, uaid: Uaid, channel: ChannelId) -> Option<Version> {
        self.0.get(&(uaid, channel)).copied()
    }

    /// All those of a user agent.
    pub(super) fn of_all(&self, uaid: Uaid) -> impl Iterator<Item = (ChannelId, Version)> {
        let first = (uaid, ChannelId::from_bytes([0; 16]));
        let all = self.0.range(first..);
        all.take_while(move |((owner, _), _)| *owner == uaid)
            .map(|((_, channel), version)| (*channel, *version))
    }
}

impl Desk {
    /// Writes down the highest versions of some channels.
    pub(super) fn save_versions(&mut self, uaid: Uaid, versions: Vec<(ChannelId, Version)>) {
        self.unsaved_versions.note(uaid, &versions);
        let op = StoreOp::SaveVersions {
            uaid,
            versions: versions.clone(),
        };
        self.out.store(op, Waiting::Versions { uaid, versions });
    }

    /// The lowest version of an update that names none, as far as it can be told without the storage.
    pub(super) fn least_version(&self, uaid: Uaid, channel: ChannelId) -> Version {
        let shown = self.version_clock.shown();
        let unsaved = self.unsaved_versions.of(uaid, channel);
        unsaved.map_or(shown, |version| shown.max(version.next()))
    }
}

impl Engine {
    /// The storage has answered [`Desk::save_versions`].
    pub(super) fn versions_saved(
        &mut self,
        now: Now,
        uaid: Uaid,
        versions: &[(ChannelId, Version)],
        done: bool,
    ) {
        if done {
            self.desk.unsaved_versions.forget(uaid, versions);
        } else {
            // With the clocks, which wait for the same disk.
            self.save_time_at = now.monotonic.checked_add(SWEEP_INTERVAL);
        }
    }

    /// Tries again what failed.
    pub(super) fn save_versions_again(&mut self) {
        let mut all = BTreeMap::<Uaid, Vec<(ChannelId, Version)>>::new();
        for ((uaid, channel), version) in &self.desk.unsaved_versions.0 {
            all.entry(*uaid).or_default().push((*channel, *version));
        }
        for (uaid, versions) in all {
            self.desk.save_versions(uaid, versions);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing::{EMPTY_PAGE, KEPT, Table, channel_id, keyring, loaded, numbers};
    use super::super::{Input, SessionId};
    use crate::model::dialect::Dialect;
    use crate::model::durability::Durability;
    use crate::model::ids::DatabaseId;
    use crate::model::limits::Limits;
    use crate::model::message::PushMessage;
    use crate::model::store::{StoreError, StoreOp, StoreReply};
    use crate::model::version::{NewVersion, Version};
    use crate::protocol::keyring::{Endpoint, parse_uaid};

    const DONE: StoreReply = StoreReply::Done;
    const FAILED: StoreReply = StoreReply::Failed(StoreError::Io);

    /// A device that was sent version 500, acked it at once and has gone: its UAID and endpoint.
    fn gone_with_500(table: &mut Table) -> (String, String) {
        let (id, uaid) = table.device();
        let endpoint = table.register(id, 1);
        table.put(&endpoint, Some(500));
        table.ack_number(id, 1, 500);
        let session = SessionId(id);
        table.input(Input::Gone { session });
        (uaid, endpoint)
    }

    /// The number that the storage is asked to keep last.
    fn number(message: &PushMessage) -> NewVersion {
        message.payload.update().unwrap().version
    }

    #[test]
    fn version_that_could_not_be_written_is_not_given_out_again() {
        let mut table = Table::new();
        let (uaid, endpoint) = gone_with_500(&mut table);
        assert!(matches!(
            table.asked.as_slice(),
            [StoreOp::SaveTime { .. }, StoreOp::SaveVersions { .. }]
        ));
        table.stored(vec![DONE, FAILED]);
        table.put(&endpoint, None);
        let least = NewVersion::AtLeast(Version::from_secs(501));
        assert_eq!(number(&table.asked_to_keep()), least);
        table.stored(vec![FAILED]);

        table.device_again(&uaid);
        table.stored(vec![loaded(1)]);
        table.stored(vec![EMPTY_PAGE]);
        let (_, outs) = table.put(&endpoint, None);
        assert_eq!(numbers(&outs), [501]);
    }

    #[test]
    fn version_that_could_not_be_written_is_tried_again_until_it_is() {
        let mut table = Table::new();
        gone_with_500(&mut table);
        table.stored(vec![DONE, FAILED]);
        for reply in [FAILED, DONE] {
            table.pass(Duration::from_secs(60));
            let saved = |op: &StoreOp| matches!(op, StoreOp::SaveVersions { versions, .. } if versions == &[(channel_id(1), Version::from_secs(500))]);
            let place = table.asked.iter().position(saved).unwrap();
            let mut replies = vec![DONE; table.asked.len()];
            replies[place] = reply;
            table.stored(replies);
        }
        table.pass(Duration::from_secs(3600));
        let again = |op: &StoreOp| matches!(op, StoreOp::SaveVersions { .. });
        assert!(!table.asked.iter().any(again));
    }

    #[test]
    fn nothing_is_written_down_for_a_subscription_that_is_yet_to_be_taken_back_in() {
        let mut table = Table::new();
        let (_, uaid) = table.device();
        let token = keyring().seal_endpoint(&Endpoint {
            database: DatabaseId([9; 8]),
            uaid: parse_uaid(&uaid).unwrap(),
            channel: channel_id(1),
            restricted_to: None,
            dialect: Dialect::SimplePush,
        });
        table.put(&format!("/update/{token}"), None);
        let [StoreOp::Enqueue { message, .. }, StoreOp::SaveTime { .. }] = table.asked.as_slice()
        else {
            panic!("{:?}", table.asked);
        };
        let least = NewVersion::AtLeast(Version::from_secs(0));
        assert_eq!(number(message), least);
    }

    #[test]
    fn version_is_written_with_its_message_until_the_clock_is_known_to_lead_beyond_it() {
        let mut table = Table::new();
        table.set_wall(1000, false);
        let (id, _) = table.device();
        let endpoint = table.register(id, 1);
        let session = SessionId(id);
        table.input(Input::Gone { session });
        // The message is kept, and the clock that goes with it is saved or not.
        let noted_from = |table: &mut Table, replies: Vec<StoreReply>| {
            table.put(&endpoint, Some(7));
            let Some(StoreOp::Enqueue { noted_from, .. }) = table.asked.first() else {
                panic!("{:?}", table.asked);
            };
            let noted_from = noted_from.as_u64();
            table.stored(replies);
            noted_from
        };
        assert_eq!(noted_from(&mut table, vec![KEPT, FAILED]), 0);
        assert_eq!(
            noted_from(&mut table, vec![KEPT]),
            0,
            "it is tried again later"
        );
        table.pass(Duration::from_secs(60));
        let replies = vec![DONE; table.asked.len()];
        table.stored(replies);
        assert_eq!(noted_from(&mut table, vec![KEPT]), 1060);
    }

    #[test]
    fn update_that_is_refused_raises_no_version() {
        let limits = Limits {
            held_bytes_max: 256,
            ..Limits::default()
        };
        let mut table = Table::with(limits, Durability::Strict);
        let (id, _) = table.device();
        let endpoint = table.register(id, 1);
        table.put(&endpoint, Some(1));
        let (request, _) = table.put(&endpoint, Some(1000));
        assert_eq!(table.responses[&request].status, 503);
        table.ack_number(id, 1, 1);
        let (_, outs) = table.put(&endpoint, None);
        assert_eq!(numbers(&outs), [2]);
    }
}
