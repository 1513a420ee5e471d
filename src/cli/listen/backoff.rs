//! How long to wait before the next attempt to connect.

use std::time::{Duration, Instant};

/// The first pause, and the longest.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A connection that lasted so long was a good one: the next pause is the shortest again. A gateway
/// that lets us in and throws us out at once is not asked every second.
const GOOD_CONNECTION: Duration = Duration::from_secs(10);

/// Counts failures.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    connected_at: Option<Instant>,
}

impl Backoff {
    /// It is connected; said again and again, the first time counts.
    pub(super) fn connected(&mut self, now: Instant) {
        self.connected_at.get_or_insert(now);
    }

    /// It is not any more.
    pub(super) fn disconnected(&mut self, now: Instant) {
        let since = self.connected_at.take();
        if since.is_some_and(|at| now.saturating_duration_since(at) >= GOOD_CONNECTION) {
            self.failures = 0;
        }
    }

    /// The pause after one more failure: doubled each time, and up to a half of it less, by
    /// `random`, so that a thousand user agents do not come back in the same moment.
    pub(super) fn next(&mut self, random: [u8; 2]) -> Duration {
        let whole = PAUSE_MIN
            .saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX))
            .min(PAUSE_MAX);
        self.failures = self.failures.saturating_add(1);
        let share = f64::from(u16::from_be_bytes(random)) / f64::from(u16::MAX);
        whole.mul_f64(share.mul_add(-0.5, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_doubles_up_to_a_minute() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u64> = (0..9).map(|_| backoff.next([0, 0]).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        backoff.failures = u32::MAX;
        assert_eq!(backoff.next([0xff, 0xff]), PAUSE_MAX / 2);
    }

    #[test]
    fn only_a_connection_that_lasted_makes_the_pause_short_again() {
        let start = Instant::now();
        let mut backoff = Backoff::default();
        for (lasted, pause) in [(9, 1), (9, 2), (10, 1), (0, 2)] {
            backoff.connected(start);
            backoff.connected(start + Duration::from_secs(5));
            backoff.disconnected(start + Duration::from_secs(lasted));
            assert_eq!(backoff.next([0, 0]).as_secs(), pause, "{lasted}");
        }
    }
}
