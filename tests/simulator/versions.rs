//! What is promised about versions, written down a second time.
//!
//! An update is what an application server puts, or what becomes of a message that it posts to a
//! SimplePush user agent. Its number is known at once if it was named, and otherwise from when it is
//! seen on a websocket.

#[path = "versions_on_flash.rs"]
mod versions_on_flash;

use std::collections::BTreeMap;
use std::time::Duration;

use uuid::Uuid;

use crate::checker::{Moment, SessionLog};
use crate::frames::Update;
use crate::tally::Tally;

/// The highest version: there is none above it.
pub(crate) const MAX: u64 = i64::MAX as u64;

/// An update as an application server knows it.
#[derive(Debug)]
pub(crate) struct Put {
    pub(crate) agent: usize,
    pub(crate) channel: Uuid,
    /// The version that it names.
    pub(crate) asked: Option<u64>,
    pub(crate) data: Option<String>,
    /// Of a message that was posted; what is put is kept for ever.
    pub(crate) ttl_secs: Option<u64>,
    pub(crate) posted: Moment,
    /// What the wall clock showed then.
    pub(crate) wall_secs: u64,
    /// Its endpoint was minted under a database that is gone.
    pub(crate) lost_endpoint: bool,
    pub(crate) fate: Fate,
}

/// What became of an update.
#[derive(Debug, Default)]
pub(crate) struct Fate {
    pub(crate) answered: Option<(u16, u64)>,
    pub(crate) token: Option<String>,
    pub(crate) version: Option<u64>,
    /// A version that nobody named lies between these.
    above: Option<u64>,
    below: Option<u64>,
    /// It was sent while its request was handled.
    pub(crate) handed: bool,
    pub(crate) received: bool,
    /// Up to its version, by anybody who may; or taken back by its application server, which may
    /// have no effect.
    pub(crate) acked: bool,
    /// By an ack that does not say of what.
    pub(crate) perhaps_acked: bool,
    gone: Option<Gone>,
    /// It was put behind a version that had been acked and could not be deleted: when that is tried
    /// again it may go with it. Its user agent would not look at it anyway.
    pub(crate) is_stale: bool,
    /// Its subscription was ended behind it.
    ended: bool,
}

/// It must not be sent on a session that says hello after `step`.
#[derive(Clone, Copy, Debug)]
struct Gone {
    step: u64,
    /// When its deletion was asked for.
    at: Duration,
    is: Deleted,
}

/// How far its deletion has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Deleted {
    /// On its way to flash, in front of everything that is asked later.
    Asked,
    /// That failed, and will be tried again.
    Failed,
    Done,
}

/// The versions that a channel has had.
#[derive(Debug, Default)]
struct Channel {
    puts: Vec<usize>,
    /// The highest that must never be forgotten, because it was written.
    written: Option<u64>,
    /// The highest of all.
    had: Option<u64>,
    /// Versions that were acked, and when.
    acks: Vec<(u64, u64)>,
    /// When its subscription was ended last.
    ended_step: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Versions {
    pub(crate) puts: Vec<Put>,
    channels: BTreeMap<(usize, Uuid), Channel>,
    /// The one whose request is being handled.
    posting: Option<usize>,
    /// Replies of the storage are being handled.
    pub(crate) reading_replies: bool,
    /// Deletions have failed, and were not all tried again yet.
    deletions_fail: bool,
    /// Gone, and perhaps not for good.
    undecided: Vec<usize>,
    /// What the gateway has written down of its version clock.
    clock_written: u64,
    /// Not the last time, though.
    clock_failed: bool,
    /// The wall clock when an update was accepted in this run; it must be in what is written.
    clock_used: u64,
}

impl Put {
    fn expires(&self) -> Option<u64> {
        // The second in which it was posted is not counted: it may have just begun.
        self.ttl_secs
            .map(|ttl_secs| self.posted.service_secs + ttl_secs + 1)
    }

    /// Whether it was answered with success.
    pub(crate) fn is_accepted(&self) -> bool {
        matches!(self.fate.answered, Some((200..=202, _)))
    }

    /// Whether its version may be `version`.
    fn may_be(&self, version: u64) -> bool {
        match self.fate.version {
            Some(known) => known == version,
            None => {
                let Fate { above, below, .. } = self.fate;
                let above = above.is_none_or(|above| above < version || version == MAX);
                above && below.is_none_or(|below| version < below || version == MAX)
            }
        }
    }

    /// Whether an update may be this one.
    fn explains(&self, update: &Update) -> bool {
        let refused = self.fate.answered.is_some() && !self.is_accepted();
        let never = self.ttl_secs == Some(0) && self.fate.answered.is_some();
        !self.fate.ended
            && (self.fate.handed || !(refused || never))
            && self.data == update.data
            && self.may_be(update.version)
    }

    /// Whether `version` is certainly not below its own, as far as can be told.
    pub(crate) fn is_reached_by(&self, version: u64) -> bool {
        match (self.fate.version, self.fate.above) {
            (Some(known), _) => known <= version,
            (None, above) => above.is_none_or(|above| above < version || version == MAX),
        }
    }
}

impl Versions {
    /// An application server sends an update, whose number is in its data, if it has some.
    pub(crate) fn posted(&mut self, mut put: Put) -> usize {
        let number = self.puts.len();
        let channel = self.channels.entry((put.agent, put.channel)).or_default();
        put.fate.version = put.asked;
        put.fate.above = channel.had;
        channel.puts.push(number);
        self.puts.push(put);
        self.posting = Some(number);
        number
    }

    /// Its request has been handled, up to an answer that comes later.
    pub(crate) fn posting_is_over(&mut self) {
        self.posting = None;
    }

    /// Its request has been answered.
    pub(crate) fn answered(
        &mut self,
        number: usize,
        status: u16,
        offline_status: u16,
        now: Moment,
    ) {
        let stored = self.reading_replies;
        let put = &mut self.puts[number];
        put.fate.answered = Some((status, now.step));
        if !put.is_accepted() {
            return;
        }
        match (put.ttl_secs, status) {
            (Some(_), status) => assert_eq!(status, 201, "of a posted message"),
            (None, 200) if offline_status == 202 => {
                assert!(put.fate.handed, "update {number}: 200, and never sent");
            }
            (None, status) => assert!(status == 200 || status == offline_status, "{status}"),
        }
        if put.ttl_secs.is_none() {
            self.clock_used = self.clock_used.max(put.wall_secs);
        }
        let (key, version) = ((put.agent, put.channel), put.fate.version);
        let began = self.channels[&key].ended_step;
        if let Some(version) = version.filter(|_| put.posted.step > began) {
            let channel = &self.channels[&key];
            let is_acked = channel.acks.iter().any(|(acked, _)| *acked >= version);
            put.fate.is_stale = is_acked && self.deletions_fail;
            self.had(key, version, stored);
        }
    }

    fn had(&mut self, key: (usize, Uuid), version: u64, written: bool) {
        let channel = self.channels.entry(key).or_default();
        channel.had = channel.had.max(Some(version));
        if written {
            channel.written = channel.written.max(Some(version));
        }
    }

    /// An update leaves the gateway.
    pub(crate) fn sent(&mut self, log: &SessionLog, channel: Uuid, update: &Update, now: Moment) {
        let key = (log.agent, channel);
        let posting = self.posting.filter(|number| {
            let put = &self.puts[*number];
            (put.agent, put.channel) == key
        });
        if let Some(number) = posting {
            let put = &self.puts[number];
            assert!(
                put.explains(update),
                "{update:?} sent for update {number}: {put:?}"
            );
            self.puts[number].fate.handed = true;
            self.learn(number, update.version);
            return;
        }
        let possible = self.possible(key, update);
        assert!(
            !possible.is_empty(),
            "{update:?} was never put, or is not above what was there before: {:?}",
            self.similar(key, update)
        );
        let alive = |number: &&usize| {
            let gone = self.puts[**number].fate.gone;
            gone.is_none_or(|gone| log.hello_step <= gone.step || gone.is == Deleted::Failed)
        };
        let alive: Vec<usize> = possible.iter().filter(alive).copied().collect();
        assert!(
            !alive.is_empty(),
            "{update:?} sent again after its ack: {:?}",
            self.similar(key, update)
        );
        self.within_its_time(key, &alive, now);
        if let [number] = alive.as_slice() {
            self.learn(*number, update.version);
        }
        self.had(key, update.version, true);
    }

    /// Whether a version that was sent at `step` still waits for its ack.
    pub(crate) fn is_unacked(&self, key: (usize, Uuid), version: u64, step: u64) -> bool {
        let mut acks = self.channels[&key].acks.iter();
        !acks.any(|(acked, at)| *acked >= version && *at >= step)
    }

    /// Whether a deletion of what an update can be has failed: it is then still there.
    pub(crate) fn has_failed(&self, possible: &[usize]) -> bool {
        let gone = |number: &usize| self.puts[*number].fate.gone;
        let mut gone = possible.iter().filter_map(gone);
        gone.any(|gone| gone.is == Deleted::Failed)
    }

    /// For whoever reads why a run has failed.
    fn similar(&self, key: (usize, Uuid), update: &Update) -> Vec<&Put> {
        let all = self.puts.iter();
        let of_channel = all.filter(|put| (put.agent, put.channel) == key);
        of_channel.filter(|put| put.data == update.data).collect()
    }

    /// Which updates it can be.
    pub(crate) fn possible(&self, key: (usize, Uuid), update: &Update) -> Vec<usize> {
        let all = self
            .channels
            .get(&key)
            .map_or(&[][..], |channel| &channel.puts);
        let explains = |number: &&usize| self.puts[**number].explains(update);
        all.iter().filter(explains).copied().collect()
    }

    /// One that takes the place of another is kept at least as long, and also as long as those
    /// behind it that are lower.
    fn within_its_time(&self, key: (usize, Uuid), possible: &[usize], now: Moment) {
        let is_in_time = |put: &Put| {
            let expires = put.expires();
            expires.is_none_or(|expires| now.service_secs < expires)
        };
        // One that may last so long gives that to all that came while it was there.
        let mut last_gone = Some(0);
        for number in &self.channels[&key].puts {
            let put = &self.puts[*number];
            let takes_over = last_gone.is_none_or(|step| step >= put.posted.step);
            if is_in_time(put) || takes_over {
                let gone = put.fate.gone.map(|gone| gone.step);
                last_gone = last_gone.and_then(|last| gone.map(|gone| gone.max(last)));
            }
        }
        let one = &self.puts[*possible.last().expect("it was put")];
        let is_behind = last_gone.is_none_or(|step| step >= one.posted.step);
        let mut possible = possible.iter().map(|number| &self.puts[*number]);
        assert!(
            is_behind || possible.any(is_in_time),
            "sent after its TTL: {one:?}"
        );
    }

    /// The version of an update has been seen.
    fn learn(&mut self, number: usize, version: u64) {
        let put = &mut self.puts[number];
        let key = (put.agent, put.channel);
        let (handed, is_news) = (put.fate.handed, put.fate.version.is_none());
        put.fate.version = Some(version);
        self.had(key, version, !handed);
        if is_news {
            // Those before it that nobody named either are lower.
            let channel = &self.channels[&key];
            for earlier in channel.puts.iter().filter(|earlier| **earlier < number) {
                let fate = &mut self.puts[*earlier].fate;
                if fate.version.is_none() {
                    fate.below = fate.below.or(Some(version)).min(Some(version));
                }
            }
        }
    }

    /// A user agent has received an update that was sent at `step`.
    pub(crate) fn received(
        &mut self,
        key: (usize, Uuid),
        update: &Update,
        step: u64,
        tally: &mut Tally,
    ) {
        // One that was ended meanwhile explains nothing any more.
        let last = self.possible(key, update).last().copied();
        let Some(last) = last else { return };
        let again = self.puts[last].fate.received;
        tally.add(if again {
            "update delivered again"
        } else {
            "update delivered"
        });
        if !again && update.data.is_some() {
            tally.add("update with data delivered");
        }
        for number in &self.channels[&key].puts {
            let put = &mut self.puts[*number];
            let known = put.fate.version.is_some();
            let reached = put.is_reached_by(update.version) && (known || *number <= last);
            if put.posted.step <= step && reached {
                put.fate.received = true;
            }
        }
    }

    /// The gateway has read an ack.
    ///
    /// `is_newest`: on the newest websocket. One on an older websocket does not reach what only the
    /// memory of the newest has.
    pub(crate) fn acked(&mut self, key: (usize, Uuid), version: u64, is_newest: bool, now: Moment) {
        let Some(channel) = self.channels.get_mut(&key) else {
            return;
        };
        channel.acks.push((version, now.step));
        for number in &channel.puts {
            let put = &mut self.puts[*number];
            if put.fate.ended || !put.is_reached_by(version) {
                continue;
            }
            put.fate.acked = true;
            if is_newest && put.fate.version.is_some() && put.fate.gone.is_none() {
                self.undecided.push(*number);
                put.fate.gone = Some(Gone {
                    step: now.step,
                    at: now.served,
                    is: Deleted::Asked,
                });
            }
        }
    }

    /// The gateway has read an ack that may mean any of what was received, and with it what is no higher,
    /// also if that was put behind it.
    pub(crate) fn perhaps_acked(&mut self, key: (usize, Uuid)) {
        let is_of = |put: &Put| (put.agent, put.channel) == key;
        let received = self
            .puts
            .iter()
            .filter(|put| is_of(put) && put.fate.received);
        let highest = received.filter_map(|put| put.fate.version).max();
        for put in self.puts.iter_mut().filter(|put| is_of(put)) {
            let is_reached = highest.is_some_and(|highest| put.is_reached_by(highest));
            put.fate.perhaps_acked |= put.fate.received || is_reached;
        }
    }

    /// An application server has taken back a message. Where that is an update by now it may come all
    /// the same, for those that it took the place of.
    pub(crate) fn deleted(&mut self, token: &str) {
        let of_token = |put: &&mut Put| put.fate.token.as_deref() == Some(token);
        if let Some(put) = self.puts.iter_mut().find(of_token) {
            put.fate.acked = true;
        }
    }

    /// A subscription has ended, or may have: its versions begin anew.
    pub(crate) fn ended(&mut self, key: (usize, Uuid), certainly: bool, step: u64) {
        let Some(channel) = self.channels.get_mut(&key) else {
            return;
        };
        (channel.had, channel.written) = (None, None);
        channel.ended_step = step;
        for number in &channel.puts {
            let fate = &mut self.puts[*number].fate;
            (fate.above, fate.below) = (None, None);
            fate.ended |= certainly;
        }
    }
}
