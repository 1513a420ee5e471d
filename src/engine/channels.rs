//! The subscriptions of a connected user agent, as far as delivery needs to know them.

use std::collections::BTreeMap;

use crate::model::ids::ChannelId;
use crate::model::store::Subscription;
use crate::model::version::Version;

/// How many versions ahead are written down at once where they run ahead of the version clock.
const RESERVED: u64 = 64;

/// Which subscriptions there are, how they are spelled, and which versions they have had.
#[derive(Debug, Default)]
pub(super) struct Channels {
    /// In order. Most user agents have a handful: a tree's first node has room for eleven.
    known: Vec<ChannelId>,
    /// Of SimplePush channels; WebPush takes no memory for it.
    details: BTreeMap<ChannelId, Details>,
}

#[derive(Debug, Default)]
struct Details {
    spelling: Option<Box<str>>,
    last: Option<Version>,
    /// What of that is on flash, and perhaps some that are to come.
    written: Option<Version>,
}

impl Channels {
    pub(super) const fn new() -> Self {
        Self {
            known: Vec::new(),
            details: BTreeMap::new(),
        }
    }

    pub(super) fn loaded(subscriptions: Vec<Subscription>) -> Self {
        let mut channels = Self::new();
        channels.known.reserve_exact(subscriptions.len());
        for subscription in subscriptions {
            let Subscription {
                channel,
                spelling,
                last_version,
                is_restored: _,
            } = subscription;
            channels.known.push(channel);
            if spelling.is_some() || last_version.is_some() {
                let details = Details {
                    spelling,
                    last: last_version,
                    written: last_version,
                };
                channels.details.insert(channel, details);
            }
        }
        channels.known.sort_unstable();
        channels
    }

    pub(super) fn contains(&self, channel: ChannelId) -> bool {
        self.known.binary_search(&channel).is_ok()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    pub(super) fn insert(&mut self, channel: ChannelId) {
        if let Err(place) = self.known.binary_search(&channel) {
            if self.known.len() == self.known.capacity() {
                // From room for one on, which many a user agent is content with: a list of its own
                // begins with four.
                self.known.reserve_exact(self.known.len().max(1));
            }
            self.known.insert(place, channel);
        }
    }

    /// Takes a registration, in the spelling of this time.
    pub(super) fn register(&mut self, channel: ChannelId, spelling: Option<Box<str>>) {
        self.insert(channel);
        match self.details.get_mut(&channel) {
            Some(details) => details.spelling = spelling,
            None if spelling.is_some() => {
                self.details.entry(channel).or_default().spelling = spelling;
            }
            None => {}
        }
    }

    /// Nothing more is accepted for the channel.
    pub(super) fn end(&mut self, channel: ChannelId) {
        if let Ok(place) = self.known.binary_search(&channel) {
            self.known.remove(place);
        }
    }

    /// And nothing of it is left.
    pub(super) fn forget(&mut self, channel: ChannelId) {
        self.details.remove(&channel);
    }

    pub(super) fn spelling(&self, channel: ChannelId) -> Option<&str> {
        self.details.get(&channel)?.spelling.as_deref()
    }

    /// The version of an update that names none: above all that the channel has had.
    pub(super) fn next_version(&self, channel: ChannelId, clock: Version) -> Version {
        let last = self.details.get(&channel).and_then(|details| details.last);
        last.map_or(clock, |last| clock.max(last.next()))
    }

    /// The channel has had this version.
    pub(super) fn note_version(&mut self, channel: ChannelId, version: Version) {
        let last = &mut self.details.entry(channel).or_default().last;
        *last = (*last).max(Some(version));
    }

    /// The version to write down before `version` is given out, which nobody named; `None` if flash
    /// leads beyond it anyway: from `safe_below` on the version clock does not.
    ///
    /// A burst runs ahead of the clock. Known to this memory only, it would be forgotten with a kill,
    /// and the user agent would ignore everything until the clock has caught up.
    pub(super) fn reserve(
        &mut self,
        channel: ChannelId,
        version: Version,
        safe_below: Version,
    ) -> Option<Version> {
        let written = &mut self.details.entry(channel).or_default().written;
        if version < safe_below || *written >= Some(version) {
            return None;
        }
        *written = Version::new(version.as_u64().saturating_add(RESERVED)).or(Some(Version::MAX));
        *written
    }

    /// The versions that nothing but this memory knows, and that the version clock has not passed.
    pub(super) fn unwritten(&self, clock: Version) -> Vec<(ChannelId, Version)> {
        let unwritten = |details: &Details| {
            let last = details.last.filter(|last| *last >= clock)?;
            (details.written < Some(last)).then_some(last)
        };
        let all = self.details.iter();
        all.filter_map(|(channel, details)| Some((*channel, unwritten(details)?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANNEL: ChannelId = ChannelId::from_bytes([1; 16]);

    const fn version(number: u64) -> Version {
        Version::from_secs(number)
    }

    #[test]
    fn version_that_nobody_names_is_the_clock_or_one_above_the_last() {
        let mut channels = Channels::new();
        assert_eq!(channels.next_version(CHANNEL, version(100)), version(100));
        channels.note_version(CHANNEL, version(100));
        assert_eq!(channels.next_version(CHANNEL, version(100)), version(101));
        channels.note_version(CHANNEL, version(50));
        assert_eq!(channels.next_version(CHANNEL, version(100)), version(101));
        assert_eq!(channels.next_version(CHANNEL, version(200)), version(200));
        channels.note_version(CHANNEL, Version::MAX);
        assert_eq!(channels.next_version(CHANNEL, version(200)), Version::MAX);
    }

    #[test]
    fn burst_ahead_of_the_clock_is_written_down_once_for_many_versions() {
        let mut channels = Channels::new();
        let clock = version(100);
        let mut writes = Vec::new();
        for number in 100..=300 {
            let next = channels.next_version(CHANNEL, clock);
            assert_eq!(next, version(number));
            writes.extend(channels.reserve(CHANNEL, next, version(101)));
            channels.note_version(CHANNEL, next);
        }
        assert_eq!(writes, [165, 230, 295, 360].map(version));
        assert_eq!(channels.unwritten(clock), []);
        let last = channels.reserve(CHANNEL, Version::MAX, clock);
        assert_eq!(last, Some(Version::MAX));
    }

    #[test]
    fn only_versions_that_the_clock_has_not_passed_need_writing() {
        let mut channels = Channels::loaded(vec![Subscription {
            channel: CHANNEL,
            spelling: None,
            last_version: Some(version(100)),
            is_restored: false,
        }]);
        assert_eq!(channels.unwritten(version(100)), []);
        channels.note_version(CHANNEL, version(101));
        assert_eq!(channels.unwritten(version(102)), []);
        assert_eq!(channels.unwritten(version(101)), [(CHANNEL, version(101))]);
    }
}
