//! The only reader of the machine's clocks, and of what the system says about them.

use std::cell::Cell;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use log::info;

use crate::model::time::{ClockTrust, Now, UnixTime};

/// systemd-timesyncd touches this file each time it has set the clock from the network, for whoever
/// wants to know (systemd-timesyncd.service(8), since systemd 239). `/run` is empty after a boot.
///
/// The kernel knows it of any time service (`STA_UNSYNC` of adjtimex(2)), but has no file for it, and
/// no small and well-kept crate asks it in safe Rust: neither `rustix` nor `nix` has the call, and
/// `clock-steering`, which can set the clock, does not hand the flag out.
const SYNCHRONISED_FILE: &str = "/run/systemd/timesync/synchronized";

/// How often that file is looked for, at most: a look is a system call of a microsecond or two.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// The clocks of this machine.
#[derive(Debug)]
pub struct Clock {
    trust: ClockTrust,
    synchronised_file: PathBuf,
    /// Stays once it is set: the system does not take it back either.
    synchronised: Cell<bool>,
    last_look: Cell<Option<Instant>>,
}

impl Clock {
    /// Clocks of which the wall's counts as right by `trust`.
    pub fn new(trust: ClockTrust) -> Self {
        Self {
            trust,
            synchronised_file: SYNCHRONISED_FILE.into(),
            synchronised: Cell::new(false),
            last_look: Cell::new(None),
        }
    }

    /// Reads both clocks. Called once for each turn of the event loop.
    pub fn read(&self) -> Now {
        let monotonic = monotonic();
        Now {
            monotonic,
            wall: wall(),
            wall_is_trusted: match self.trust {
                ClockTrust::Auto => self.is_synchronised(monotonic),
                ClockTrust::Always => true,
                ClockTrust::Never => false,
            },
        }
    }

    fn is_synchronised(&self, now: Instant) -> bool {
        let recent = |last| now.saturating_duration_since(last) < LOOK_INTERVAL;
        if self.synchronised.get() || self.last_look.get().is_some_and(recent) {
            return self.synchronised.get();
        }
        self.last_look.set(Some(now));
        let synchronised = self.synchronised_file.exists();
        if synchronised {
            info!("clock synchronised by=systemd-timesyncd");
        }
        self.synchronised.set(synchronised);
        synchronised
    }
}

/// The monotonic clock alone.
pub fn monotonic() -> Instant {
    Instant::now()
}

/// The wall clock alone. Before 1970 counts as 1970: a board that has lost its clock must still start.
pub fn wall() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    UnixTime::from_secs(since.unwrap_or_default().as_secs())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn wall_clock_is_trusted_once_the_system_says_that_it_is_set() {
        let name = format!("edgepush-synchronised-{}", std::process::id());
        let file = std::env::temp_dir().join(name);
        let _ = fs::remove_file(&file);
        let clock = Clock {
            synchronised_file: file.clone(),
            ..Clock::new(ClockTrust::Auto)
        };
        let start = Instant::now();
        assert!(!clock.is_synchronised(start));
        assert!(!clock.read().wall_is_trusted);
        fs::write(&file, "").unwrap();
        assert!(!clock.is_synchronised(start + LOOK_INTERVAL / 2));
        assert!(clock.is_synchronised(start + LOOK_INTERVAL));
        fs::remove_file(&file).unwrap();
        assert!(clock.is_synchronised(start + 3 * LOOK_INTERVAL));
        assert!(clock.read().wall_is_trusted);
    }

    #[test]
    fn operator_decides_against_the_system() {
        assert!(Clock::new(ClockTrust::Always).read().wall_is_trusted);
        assert!(!Clock::new(ClockTrust::Never).read().wall_is_trusted);
    }
}
