//! What the console knows at one moment, and where it asks for it.
//!
//! Never waits for the event loop longer than [`ANSWER_TIME_MAX`], and never asks it or counts
//! the database twice at a time.

use std::fs;
use std::path::Path;
use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use smol::channel::Sender;

use super::{Facts, SnapshotRequest};
use crate::engine::counters::Snapshot;
use crate::model::store::StoreError;
use crate::storage::{Reader, Totals, set_aside};

/// An event loop that has not answered by then is stuck: its turns take milliseconds.
pub(super) const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);
/// How long a snapshot is good enough: a scraper in a loop asks four times a second.
const SNAPSHOT_AGE_MAX: Duration = Duration::from_millis(250);
/// How long counted totals are good enough, at least.
const TOTALS_AGE_MIN: Duration = Duration::from_secs(5);
/// Counting a million messages takes a while on a slow card. Totals are kept this many times as
/// long as they took, so that reading the page all day takes 1/20 of a core at most.
const TOTALS_AGE_FACTOR: u32 = 20;

/// Where everything comes from.
#[derive(Debug)]
pub(super) struct Sources {
    pub(super) facts: Facts,
    requests: Sender<SnapshotRequest>,
    snapshot: Cached<Option<Snapshot>>,
    totals: Cached<Result<Totals, StoreError>>,
}

impl Sources {
    pub(super) fn new(facts: Facts, requests: Sender<SnapshotRequest>) -> Self {
        Self {
            facts,
            requests,
            snapshot: Cached::default(),
            totals: Cached::default(),
        }
    }

    pub(super) fn report(&self) -> Report {
        Report {
            snapshot: self.snapshot(),
            totals: self.totals(),
            watched_fault: self.facts.health.fault(),
            set_aside: set_aside::damaged(&self.facts.data_directory),
            written_bytes: self.facts.io_account.as_deref().and_then(written_bytes),
            resident_bytes: resident_bytes(),
        }
    }

    /// `None` when the event loop does not answer.
    pub(super) fn snapshot(&self) -> Option<Snapshot> {
        self.snapshot.get(|| (self.ask(), SNAPSHOT_AGE_MAX))
    }

    fn ask(&self) -> Option<Snapshot> {
        let (reply, answer) = mpsc::sync_channel(1);
        // Full means that the loop has not taken the request before, which has waited long enough.
        self.requests.try_send(SnapshotRequest { reply }).ok()?;
        answer.recv_timeout(ANSWER_TIME_MAX).ok()
    }

    fn totals(&self) -> Result<Totals, StoreError> {
        self.totals.get(|| {
            let start = Instant::now();
            // Opened anew: it takes less than counting, and holds no memory between two visits.
            let totals =
                Reader::open(&self.facts.data_directory).and_then(|reader| reader.totals());
            let keep = start.elapsed().saturating_mul(TOTALS_AGE_FACTOR);
            (totals, keep.max(TOTALS_AGE_MIN))
        })
    }
}

/// One look at everything.
#[derive(Debug)]
pub(super) struct Report {
    /// `None` when the event loop does not answer.
    pub(super) snapshot: Option<Snapshot>,
    pub(super) totals: Result<Totals, StoreError>,
    /// What is wrong with the disk or the database, whether or not a write has just failed for it.
    pub(super) watched_fault: Option<StoreError>,
    /// Names of databases that were damaged, and that the operator has not removed yet.
    pub(super) set_aside: Vec<String>,
    /// By the storage thread since the start; `None` where the kernel keeps no account of it.
    pub(super) written_bytes: Option<u64>,
    /// Memory of the process; `None` where the kernel does not say.
    pub(super) resident_bytes: Option<u64>,
}

impl Report {
    pub(super) fn state(&self) -> State {
        State::of(self.snapshot.as_ref(), self.watched_fault)
    }

    /// Whether the database has turned out to be damaged, and is in use still.
    pub(super) fn is_damaged(&self) -> bool {
        self.watched_fault == Some(StoreError::Corrupt)
    }
}

/// Whether the gateway does what it promises.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum State {
    Working,
    Stuck,
    StorageFault(StoreError),
}

impl State {
    pub(super) fn of(snapshot: Option<&Snapshot>, watched_fault: Option<StoreError>) -> Self {
        match snapshot {
            None => Self::Stuck,
            Some(snapshot) => watched_fault
                .or(snapshot.storage_fault)
                .map_or(Self::Working, Self::StorageFault),
        }
    }

    /// In a word or two, for people and programs.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Working => "ok",
            Self::Stuck => "stuck",
            Self::StorageFault(_) => "storage fault",
        }
    }

    /// Why it does not; `None` when all is well.
    pub(super) fn reason(self) -> Option<String> {
        match self {
            Self::Working => None,
            Self::Stuck => Some(format!(
                "The event loop has not answered for {} s: no push message is delivered. \
                 Restart edgepush if it stays like this, and keep its log for a report.",
                ANSWER_TIME_MAX.as_secs()
            )),
            Self::StorageFault(fault) => Some(format!(
                "The storage does not take everything: {fault}. Push messages for user agents that \
                 are away are turned away until it works again; those that are connected get theirs."
            )),
        }
    }
}

/// A value that is made anew when it is old. Whoever comes meanwhile waits for that one.
#[derive(Debug)]
struct Cached<T>(Mutex<Option<Kept<T>>>);

#[derive(Debug)]
struct Kept<T> {
    value: T,
    made: Instant,
    keep: Duration,
}

impl<T> Default for Cached<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Clone> Cached<T> {
    /// The value; `make` says how long it is to be kept from when it is there.
    fn get(&self, make: impl FnOnce() -> (T, Duration)) -> T {
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = &*place
            && kept.made.elapsed() < kept.keep
        {
            return kept.value.clone();
        }
        let (value, keep) = make();
        *place = Some(Kept {
            value: value.clone(),
            made: Instant::now(),
            keep,
        });
        value
    }
}

/// What a thread has handed to `write`, from its account at `path` (proc(5), `/proc/pid/io`).
///
/// `write_bytes` there would count whole pages, and not on every file system.
fn written_bytes(path: &Path) -> Option<u64> {
    number_after("wchar:", &fs::read_to_string(path).ok()?)
}

/// The memory that the process takes now (proc(5), `/proc/pid/status`).
fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    number_after("VmRSS:", &status)?.checked_mul(1024)
}

/// The number in the line of `text` that starts with `name`.
fn number_after(name: &str, text: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_value_is_made_once_while_it_is_young_and_again_when_it_is_old() {
        let cached = Cached::default();
        let hour = Duration::from_secs(3600);
        assert_eq!(cached.get(|| (1, hour)), 1);
        assert_eq!(cached.get(|| (2, hour)), 1);
        let cached = Cached::default();
        assert_eq!(cached.get(|| (1, Duration::ZERO)), 1);
        assert_eq!(cached.get(|| (2, Duration::ZERO)), 2);
    }

    #[test]
    fn accounts_of_the_kernel_are_read_by_name() {
        let account = "rchar: 1\nwchar: 4096\nwrite_bytes: 8192\n";
        assert_eq!(number_after("wchar:", account), Some(4096));
        assert_eq!(
            number_after("VmRSS:", "VmPeak:\t 9 kB\nVmRSS:\t    5 kB\n"),
            Some(5)
        );
        assert_eq!(number_after("syscw:", account), None);
        assert_eq!(number_after("wchar:", "wchar: much\n"), None);
        assert!(resident_bytes().is_some_and(|bytes| bytes > 64 << 10));
        assert!(written_bytes(Path::new("/proc/thread-self/io")).is_some());
        assert_eq!(written_bytes(Path::new("/nowhere")), None);
    }

    #[test]
    fn state_says_what_is_wrong_and_what_to_do() {
        let mut snapshot = Snapshot::default();
        assert_eq!(State::of(Some(&snapshot), None).reason(), None);
        snapshot.storage_fault = Some(StoreError::DiskFull);
        let reason = State::of(Some(&snapshot), None).reason().unwrap();
        assert!(
            reason.contains(&StoreError::DiskFull.to_string()),
            "{reason}"
        );
        snapshot.storage_fault = None;
        let watched = State::of(Some(&snapshot), Some(StoreError::Corrupt));
        assert_eq!(watched, State::StorageFault(StoreError::Corrupt));
        assert!(
            State::of(None, None)
                .reason()
                .unwrap()
                .contains("event loop")
        );
    }
}
