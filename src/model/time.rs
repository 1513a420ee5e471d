//! Points in time. No clock is read here: see `io::clock`.

use std::time::{Duration, Instant};

use super::limits::TTL_SECS_MAX;
use super::message::Ttl;

/// One reading of both clocks, taken once for each turn of the event loop.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For deadlines. Never jumps; means nothing after a restart.
    pub monotonic: Instant,
    /// What the wall says, for people and for other machines. May jump: boards without a battery
    /// boot in 1970. Nothing is kept or dropped by it.
    pub wall: UnixTime,
    /// Whether the wall clock is known to be right. Only then may anybody be refused by it.
    pub wall_is_trusted: bool,
}

/// When the wall clock counts as right.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ClockTrust {
    /// Once the system says that it has been set from the network.
    #[default]
    Auto,
    /// Always: the operator knows that it is.
    Always,
    /// Never.
    Never,
}

/// Whole seconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct UnixTime(u64);

impl UnixTime {
    /// The given number of seconds since the epoch.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs)
    }

    /// Seconds since the epoch.
    pub const fn as_secs(self) -> u64 {
        self.0
    }
}

/// Whole seconds that the gateway has run on this database, all runs together.
///
/// The clock that push messages expire by: it only ever goes forward, at the speed of the
/// monotonic clock, so no jump of the wall clock expires a message early. The price: the time
/// that the board was switched off does not count.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct ServiceTime(u64);

impl ServiceTime {
    /// The given number of seconds of service.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs)
    }

    /// Seconds of service.
    pub const fn as_secs(self) -> u64 {
        self.0
    }

    /// The first second at which a push message received at `self` is no longer kept.
    ///
    /// One more than its TTL: it was received somewhere within the second `self`, and must not expire
    /// early. Stops at the end of time instead of overflowing: the TTL comes from outside.
    #[must_use]
    pub const fn after(self, ttl: Ttl) -> Self {
        Self(
            self.0
                .saturating_add(ttl.as_secs() as u64)
                .saturating_add(1),
        )
    }

    /// The longest TTL with which a message received at `start` is not kept beyond this point.
    #[must_use]
    pub const fn remaining_from(self, start: Self) -> Ttl {
        let secs = self.0.saturating_sub(start.0).saturating_sub(1);
        // Nothing else is kept for so long.
        if secs > TTL_SECS_MAX as u64 {
            Ttl::UNBOUNDED
        } else {
            Ttl::from_secs_lowered(secs)
        }
    }

    /// This point moved by how long the gateway has run since.
    #[must_use]
    pub const fn advanced(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by.as_secs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_accepted_at_the_end_of_a_second_does_not_expire_early() {
        let received_at = ServiceTime::from_secs(10).advanced(Duration::from_millis(900));
        let one_second = Ttl::from_secs_lowered(1);
        assert_eq!(received_at.after(one_second), ServiceTime::from_secs(12));
    }

    #[test]
    fn longest_ttl_at_the_end_of_time_does_not_overflow() {
        let end = ServiceTime::from_secs(u64::MAX);
        assert_eq!(end.after(Ttl::from_secs_lowered(u64::MAX)), end);
        assert_eq!(end.advanced(Duration::MAX), end);
    }
}
