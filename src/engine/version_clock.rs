//! The version of an update that names none: seconds since 1970, but never going back.

use std::time::Instant;

use super::SAVE_TIME_INTERVAL;
use crate::model::time::Now;
use crate::model::version::Version;

/// Follows the wall clock as long as that goes forward, and the monotonic clock where it does not:
/// a user agent that has seen a version ignores every lower one for ever.
#[derive(Debug)]
pub(super) struct VersionClock {
    at: Instant,
    /// What it showed then.
    secs: u64,
    /// What it shows since the last tick.
    shown: Version,
}

impl VersionClock {
    /// Goes on from what was `saved` last.
    ///
    /// A wall clock behind that has been lost or set back. What was shown since the save is not
    /// known then, but it was no more than the time between two saves.
    pub(super) const fn new(now: Now, saved: Version) -> Self {
        let (wall, saved) = (now.wall.as_secs(), saved.as_u64());
        let secs = if wall < saved {
            saved.saturating_add(SAVE_TIME_INTERVAL.as_secs())
        } else {
            wall
        };
        Self {
            at: now.monotonic,
            secs,
            shown: Version::from_secs(secs),
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

    /// As of the last tick.
    pub(super) const fn version(&self) -> Version {
        self.shown
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
    fn version_clock_of_a_board_that_lost_its_time_is_above_all_that_it_showed() {
        let saved = Version::from_secs(1_780_000_000);
        let now = |wall| Now {
            monotonic: Instant::now(),
            wall: UnixTime::from_secs(wall),
            wall_is_trusted: false,
        };
        let lost = VersionClock::new(now(0), saved);
        assert_eq!(lost.version().as_u64(), 1_780_003_600);
        let right = VersionClock::new(now(1_780_000_007), saved);
        assert_eq!(right.version().as_u64(), 1_780_000_007);
    }
}
