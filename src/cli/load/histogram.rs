//! Times, counted in classes: a percentile is right to 1 in 32, however many were counted.

use std::time::{Duration, Instant};

/// Classes for each doubling of the time, as a power of two: their width is at most 1/32 of what they
/// hold.
const CLASSES_BITS: u32 = 5;

/// Times of one kind.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max_micros: u64,
    /// The first beginning and the last end.
    span: Option<(Instant, Instant)>,
}

impl Histogram {
    /// Something took from `since` to `now`.
    pub(super) fn add(&mut self, since: Instant, now: Instant) {
        let time = now.saturating_duration_since(since);
        let (first, last) = self.span.unwrap_or((since, now));
        self.span = Some((first.min(since), last.max(now)));
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let class = class(micros);
        if self.counts.len() <= class {
            self.counts.resize(class.saturating_add(1), 0);
        }
        if let Some(count) = self.counts.get_mut(class) {
            *count = count.saturating_add(1);
        }
        self.total = self.total.saturating_add(1);
        self.max_micros = self.max_micros.max(micros);
    }

    pub(super) const fn count(&self) -> u64 {
        self.total
    }

    pub(super) const fn max_micros(&self) -> u64 {
        self.max_micros
    }

    /// From the first beginning to the last end.
    pub(super) fn span(&self) -> Duration {
        self.span.map_or(Duration::ZERO, |(first, last)| {
            last.saturating_duration_since(first)
        })
    }

    /// The time that so many of a thousand do not exceed, in microseconds; 0 without any.
    pub(super) fn per_mille_micros(&self, per_mille: u64) -> u64 {
        let rank = self.total.saturating_mul(per_mille).div_ceil(1000).max(1);
        let mut seen: u64 = 0;
        for (class, count) in self.counts.iter().enumerate() {
            seen = seen.saturating_add(*count);
            if seen >= rank {
                return last_of(class).min(self.max_micros);
            }
        }
        self.max_micros
    }
}

/// The first hold one value each, the others are of one width up to the next doubling.
const fn class(micros: u64) -> usize {
    let shift = shift_of(micros);
    let first = (shift as u64) << CLASSES_BITS;
    first.saturating_add(micros >> shift) as usize
}

const fn shift_of(micros: u64) -> u32 {
    (u64::BITS.saturating_sub(micros.leading_zeros()))
        .saturating_sub(CLASSES_BITS.saturating_add(1))
}

/// The largest value that counts to a class.
const fn last_of(class: usize) -> u64 {
    let class = class as u64;
    let shift = (class >> CLASSES_BITS).saturating_sub(1);
    let first = class.saturating_sub(shift << CLASSES_BITS);
    (first.saturating_add(1) << shift).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASSES: u64 = 1 << CLASSES_BITS;

    fn of(micros: impl IntoIterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::default();
        let now = Instant::now();
        for micros in micros {
            histogram.add(now, now + Duration::from_micros(micros));
        }
        histogram
    }

    #[test]
    fn every_value_is_in_its_class_and_classes_are_narrow() {
        for micros in (0..5000).chain((1..58).map(|bit| (1_u64 << bit) + 3)) {
            let last = last_of(class(micros));
            assert!(last >= micros, "{micros}: {last}");
            assert!(last - micros <= micros / CLASSES, "{micros}: {last}");
            assert_ne!(class(last), class(last + 1), "{micros}");
        }
    }

    #[test]
    fn span_is_from_the_first_beginning_to_the_last_end() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let mut histogram = Histogram::default();
        assert_eq!(histogram.span(), Duration::ZERO);
        for (since, now) in [(3, 4), (1, 2), (2, 7), (5, 6)] {
            histogram.add(at(since), at(now));
        }
        assert_eq!(histogram.span(), Duration::from_secs(6));
    }

    #[test]
    fn percentiles_are_those_of_the_values() {
        let histogram = of(1..=1000);
        for (per_mille, exact) in [(500, 500), (900, 900), (990, 990), (999, 999)] {
            let found = histogram.per_mille_micros(per_mille);
            assert!(
                (exact..=exact + exact / CLASSES).contains(&found),
                "{found}"
            );
        }
        assert_eq!(histogram.per_mille_micros(1000), 1000);
        assert_eq!((histogram.count(), histogram.max_micros()), (1000, 1000));
        assert_eq!(of([]).per_mille_micros(500), 0);
        assert_eq!(of([7]).per_mille_micros(1), 7);
    }
}
