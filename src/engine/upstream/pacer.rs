//! When links may connect, so that all of them together stay below what is polite.

use std::time::{Duration, Instant};

/// A bucket of attempts. In no minute are there more than it was made for: half of them may come
/// at once, the other half comes back evenly.
#[derive(Debug)]
pub(super) struct Pacer {
    interval: Duration,
    /// How far attempts may run ahead of their even distances.
    burst: Duration,
    /// When the bucket is full again.
    full_at: Option<Instant>,
}

impl Pacer {
    pub(super) fn new(per_min_max: u32) -> Self {
        // With a single one a minute there is no half of it.
        let at_once = per_min_max.div_ceil(2).max(1);
        let later = per_min_max.saturating_sub(at_once).max(1);
        let interval = Duration::from_secs(60).checked_div(later);
        let interval = interval.unwrap_or(Duration::from_secs(60));
        Self {
            interval,
            burst: interval.saturating_mul(at_once.saturating_sub(1)),
            full_at: None,
        }
    }

    /// Takes an attempt at `wanted` or the first moment after it that has one.
    pub(super) fn take(&mut self, wanted: Instant) -> Instant {
        let full_at = self.full_at.map_or(wanted, |at| at.max(wanted));
        let slot = full_at.checked_sub(self.burst);
        let slot = slot.map_or(wanted, |slot| slot.max(wanted));
        self.full_at = full_at.checked_add(self.interval);
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_minute_has_more_attempts_than_it_may_and_none_is_refused() {
        for per_min_max in [1, 2, 3, 30, 600] {
            let start = Instant::now();
            let mut pacer = Pacer::new(per_min_max);
            let slots: Vec<Instant> = (0..2000).map(|_| pacer.take(start)).collect();
            assert_eq!(slots[0], start);
            assert!(slots.is_sorted());
            let max = usize::try_from(per_min_max).unwrap().max(2);
            for pair in slots.windows(max + 1) {
                let apart = pair[max] - pair[0];
                assert!(
                    apart >= Duration::from_secs(60) - Duration::from_millis(1),
                    "{per_min_max}"
                );
            }
        }
    }

    #[test]
    fn links_that_connect_now_and_then_never_wait() {
        let mut pacer = Pacer::new(30);
        let mut now = Instant::now();
        for _ in 0..100 {
            assert_eq!(pacer.take(now), now);
            now += Duration::from_secs(5);
        }
    }
}
