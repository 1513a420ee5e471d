//! The version of an update that names none: seconds since 1970, but never going back.

use std::time::{Duration, Instant};

use crate::model::time::Now;
use crate::model::version::Version;

/// How far ahead of the clock the bound is written: after a kill the clock starts there, so a short
/// step keeps versions near the seconds that they look like, and a long one saves writes.
const BOUND_STEP: Duration = Duration::from_secs(300);

/// Follows the wall clock as long as that goes forward, and the monotonic clock where it does not:
/// a user agent that has seen a version ignores every lower one for ever.
///
/// Whenever it is asked, what is written down of it is a bound that it stays below, so that it goes
/// on above all that it showed, whatever the wall clock says after a crash. Only what it showed
/// before a bound behind a pause or a jump of the wall clock was on flash can be shown again. Nobody
/// asks, nothing is written.
#[derive(Debug)]
pub(super) struct VersionClock {
    at: Instant,
    /// What it showed then.
    secs: u64,
    /// What it shows since the last tick.
    shown: Version,
    /// Written down, or on its way there.
    bound: Version,
    /// Written down for certain.
    written: Version,
    /// Asked since the start.
    in_use: bool,
    /// Asked since the bound was looked at.
    asked: bool,
}

impl VersionClock {
    /// Goes on from what was `saved` last.
    ///
    /// A wall clock behind that has been lost or set back.
    pub(super) fn new(now: Now, saved: Version) -> Self {
        let secs = now.wall.as_secs().max(saved.as_u64());
        Self {
            at: now.monotonic,
            secs,
            shown: Version::from_secs(secs),
            bound: saved,
            written: saved,
            in_use: false,
            asked: false,
        }
    }

    /// Once for each turn of the event loop.
    pub(super) fn tick(&mut self, now: Now) {
        let running = now.monotonic.saturating_duration_since(self.at);
        let secs = self.secs.saturating_add(running.as_secs());
        let wall = now.wall.as_secs();
        if wall > secs {
            self.at = now.monotonic;
            self.secs = wall;
        }
        self.shown = Version::from_secs(secs.max(wall));
    }

    /// As of the last tick, for whoever accepts an update or numbers one: from here on it must not
    /// go back.
    pub(super) const fn version(&mut self) -> Version {
        self.in_use = true;
        self.asked = true;
        self.shown
    }

    /// As of the last tick, to compare with.
    pub(super) const fn shown(&self) -> Version {
        self.shown
    }

    /// The bound to write down, if it was asked and has come to the last one.
    pub(super) fn next_bound(&mut self) -> Option<Version> {
        let asked = std::mem::take(&mut self.asked);
        if !asked || self.shown < self.bound || self.bound == Version::MAX {
            return None;
        }
        let secs = self.shown.as_u64();
        self.bound = Version::from_secs(secs.saturating_add(BOUND_STEP.as_secs()));
        Some(self.bound)
    }

    /// A bound is on flash.
    pub(super) const fn written(&mut self, bound: Version) {
        self.written = bound;
    }

    /// No version from here on comes out of this clock behind a kill.
    pub(super) const fn outlives_kill(&self) -> Version {
        self.written
    }

    /// What is below this is neither given out again, nor behind a kill.
    pub(super) fn settled(&self) -> Version {
        self.shown.min(self.written)
    }

    /// The bound as it was given to the storage last.
    pub(super) const fn bound(&self) -> Version {
        self.bound
    }

    /// What to write down when it stops: nothing was lost since.
    pub(super) fn last(&self) -> Version {
        if self.in_use { self.shown } else { self.bound }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::time::UnixTime;

    #[test]
    fn version_clock_follows_the_wall_clock_forward_and_never_back() {
        let start = Instant::now();
        let now = |running: u64, wall: u64| Now {
            monotonic: start + Duration::from_secs(running),
            wall: UnixTime::from_secs(wall),
            wall_is_trusted: false,
        };
        let mut clock = VersionClock::new(now(0, 0), Version::from_secs(0));
        let mut shown = |running, wall| {
            clock.tick(now(running, wall));
            clock.version().as_u64()
        };
        assert_eq!(shown(5, 5), 5);
        assert_eq!(shown(6, 1_780_000_000), 1_780_000_000, "the clock was set");
        assert_eq!(shown(7, 1_780_000_001), 1_780_000_001);
        assert_eq!(shown(9, 3), 1_780_000_003, "and lost again");
        assert_eq!(shown(10, 1_779_999_999), 1_780_000_004);
        assert_eq!(shown(11, 1_780_000_100), 1_780_000_100);
    }

    #[test]
    fn version_clock_goes_on_above_all_that_it_showed_whatever_the_wall_clock_says() {
        let start = Instant::now();
        let now = |wall| Now {
            monotonic: start,
            wall: UnixTime::from_secs(wall),
            wall_is_trusted: false,
        };
        let mut clock = VersionClock::new(now(0), Version::from_secs(7));
        assert_eq!(clock.next_bound(), None, "nobody looked at it");
        clock.tick(now(1_780_000_000));
        clock.version();
        let bound = clock.next_bound().unwrap();
        assert_eq!(bound.as_u64(), 1_780_000_300);
        clock.tick(now(1_780_000_299));
        assert_eq!(clock.next_bound(), None);
        // Killed, and started with a clock of minutes ago, or of 1970.
        for wall in [1_780_000_100, 5] {
            let mut after = VersionClock::new(now(wall), bound);
            assert!(after.version() > clock.shown());
        }
        clock.tick(now(1_780_000_300));
        assert_eq!(clock.next_bound(), None, "nobody asked since");
        clock.version();
        assert_eq!(clock.next_bound().unwrap().as_u64(), 1_780_000_600);
        assert_eq!(
            clock.last().as_u64(),
            1_780_000_300,
            "stopped in good order"
        );
    }

    #[test]
    fn version_is_settled_once_a_bound_above_it_is_on_flash() {
        let now = |wall| Now {
            monotonic: Instant::now(),
            wall: UnixTime::from_secs(wall),
            wall_is_trusted: false,
        };
        let mut clock = VersionClock::new(now(7), Version::from_secs(7));
        clock.tick(now(1000));
        clock.version();
        let bound = clock.next_bound().unwrap();
        assert_eq!(clock.settled().as_u64(), 7, "the write may fail");
        clock.written(bound);
        assert_eq!(clock.settled(), clock.shown());
        assert!(clock.outlives_kill() > clock.shown());
    }
}
