//! When to come back: one table of deadlines for everything that has a name.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Deadlines of sessions, soonest first. Each has one at most; its owner remembers which.
#[derive(Debug)]
pub(super) struct Deadlines<K> {
    table: BTreeSet<(Instant, K)>,
}

impl<K: Copy + Ord> Deadlines<K> {
    pub(super) const fn new() -> Self {
        Self {
            table: BTreeSet::new(),
        }
    }

    /// Moves the deadline of `key` from `slot` to `at`; `None` takes it away.
    pub(super) fn set(&mut self, key: K, slot: &mut Option<Instant>, at: Option<Instant>) {
        if let Some(old) = slot.take() {
            self.table.remove(&(old, key));
        }
        if let Some(at) = at {
            self.table.insert((at, key));
            *slot = Some(at);
        }
    }

    /// The soonest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.table.first().map(|(at, _)| *at)
    }

    /// Takes out one that has passed. Its owner must clear its slot.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<K> {
        let due = *self.table.first().filter(|(at, _)| *at <= now)?;
        self.table.remove(&due);
        Some(due.1)
    }
}

/// A point that many deadlines share, at most a second after `at`: ten thousand quiet user agents
/// wake the board once a second, not once each.
///
/// A clock that cannot hold it never reaches it: no deadline.
pub(super) fn coarse(started: Instant, at: Option<Instant>) -> Option<Instant> {
    let since = at?.saturating_duration_since(started);
    let whole = Duration::from_secs(since.as_secs().saturating_add(1));
    started.checked_add(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadline_that_was_moved_is_due_once_at_its_last_place() {
        let start = Instant::now();
        let at = |secs| Some(start + Duration::from_secs(secs));
        let mut deadlines = Deadlines::new();
        let mut slot = None;
        deadlines.set(1, &mut slot, at(1));
        deadlines.set(1, &mut slot, at(2));
        assert_eq!(deadlines.next(), at(2));
        assert_eq!(deadlines.pop_due(at(1).unwrap()), None);
        assert_eq!(deadlines.pop_due(at(2).unwrap()), Some(1));
        assert_eq!(deadlines.pop_due(at(9).unwrap()), None);
    }

    #[test]
    fn coarse_deadlines_of_one_second_fall_together() {
        let start = Instant::now();
        let after = |millis| Some(start + Duration::from_millis(millis));
        assert_eq!(coarse(start, after(300_100)), coarse(start, after(300_900)));
        assert!(coarse(start, after(300_900)) >= after(300_900));
        assert_eq!(coarse(start, None), None);
    }
}
