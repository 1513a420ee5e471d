//! Token buckets for many names, in a table of fixed size.
//!
//! Owns the table; what a name stands for and what is done when there is no token is its owner's.

use std::hash::{BuildHasher, Hash, RandomState};
use std::time::Duration;

/// Buckets that share a set compete for its places only, so that looking one up is a short walk.
const WAYS: usize = 8;
/// Sets of one table.
const SETS: usize = 256;
/// A table of 2,048 names takes this much, and nothing before its first token is taken. That many have
/// taken a token *lately*: a bucket that is full again needs no place.
const TABLE_BYTES: usize = size_of::<Bucket>() * WAYS * SETS;
const _: () = assert!(TABLE_BYTES == 32 << 10);

/// How fast tokens come back, and how many there can be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// From one token to the next, in nanoseconds.
    interval: u64,
    /// The same for all of them.
    full: u64,
}

impl Rate {
    /// `tokens` come back in each `period`; a full bucket has `burst`.
    pub(super) fn new(tokens: u32, period: Duration, burst: u32) -> Self {
        let interval = nanos(period).checked_div(tokens.into()).unwrap_or(u64::MAX);
        Self {
            interval,
            full: interval.saturating_mul(burst.into()),
        }
    }
}

/// The name's hash, and when it is full again, in nanoseconds since the start. All zero: nobody's.
///
/// A plain array, so that the table is made of pages that take no memory until they are used.
type Bucket = [u64; 2];

/// The buckets of all names. One that is not in the table is full.
///
/// When a set has no place left, the bucket that will be full first makes room: the least is forgotten
/// with it. To have a flooder's own forgotten, eight emptier ones must meet in its set, and nobody
/// outside knows which names do.
#[derive(Debug)]
pub(super) struct Buckets {
    rate: Rate,
    /// Empty until the first token is taken.
    table: Vec<Bucket>,
    hasher: RandomState,
}

impl Buckets {
    pub(super) fn new(rate: Rate) -> Self {
        Self {
            rate,
            table: Vec::new(),
            hasher: RandomState::new(),
        }
    }

    /// How long until there is a token for `name`; zero: there is one now. `now`: since the start.
    pub(super) fn wait(&self, name: &impl Hash, now: Duration) -> Duration {
        let hash = self.hasher.hash_one(name);
        let mut set = self.table.chunks_exact(WAYS).skip(set_of(hash));
        let found = set.next().and_then(|set| set.iter().find(|b| b[0] == hash));
        let full_at = found.map_or(0, |bucket| bucket[1]);
        let now = nanos(now);
        let after = full_at.max(now).saturating_add(self.rate.interval);
        let latest = now.saturating_add(self.rate.full);
        Duration::from_nanos(after.saturating_sub(latest))
    }

    /// Takes a token of `name`, of which there must be one.
    pub(super) fn take(&mut self, name: &impl Hash, now: Duration) {
        if self.table.is_empty() {
            self.table = vec![[0; 2]; WAYS.saturating_mul(SETS)];
        }
        let hash = self.hasher.hash_one(name);
        let now = nanos(now);
        let mut sets = self.table.chunks_exact_mut(WAYS).skip(set_of(hash));
        let Some(set) = sets.next() else { return };
        let own = set.iter().position(|bucket| bucket[0] == hash);
        let fullest = || (0..WAYS).min_by_key(|place| set[*place][1]);
        let Some(place) = own.or_else(fullest) else {
            return;
        };
        let full_at = if own.is_some() { set[place][1] } else { 0 };
        let after = full_at.max(now).saturating_add(self.rate.interval);
        set[place] = [hash, after];
    }

    /// Puts a token of `name` back. One whose bucket is not in the table has all of them anyway.
    pub(super) fn give_back(&mut self, name: &impl Hash) {
        let hash = self.hasher.hash_one(name);
        let mut sets = self.table.chunks_exact_mut(WAYS).skip(set_of(hash));
        let found = sets
            .next()
            .and_then(|set| set.iter_mut().find(|b| b[0] == hash));
        if let Some(bucket) = found {
            bucket[1] = bucket[1].saturating_sub(self.rate.interval);
        }
    }
}

fn set_of(hash: u64) -> usize {
    const _: () = assert!(SETS == 1 << u8::BITS);
    usize::from(hash as u8)
}

/// 584 years fit.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Takes a token if there is one.
    fn asks(buckets: &mut Buckets, name: u32, now: Duration) -> Result<(), Duration> {
        match buckets.wait(&name, now) {
            Duration::ZERO => {
                buckets.take(&name, now);
                Ok(())
            }
            wait => Err(wait),
        }
    }

    #[test]
    fn bucket_has_its_burst_and_then_one_token_an_interval() {
        let mut buckets = Buckets::new(Rate::new(4, SECOND, 3));
        for _ in 0..3 {
            assert_eq!(asks(&mut buckets, 1, millis(0)), Ok(()));
        }
        assert_eq!(asks(&mut buckets, 1, millis(0)), Err(millis(250)));
        assert_eq!(asks(&mut buckets, 1, millis(249)), Err(millis(1)));
        assert_eq!(asks(&mut buckets, 1, millis(250)), Ok(()));
        assert_eq!(asks(&mut buckets, 1, millis(250)), Err(millis(250)));
        // Being refused costs nothing: half a second later there are two.
        assert_eq!(asks(&mut buckets, 1, millis(750)), Ok(()));
        assert_eq!(asks(&mut buckets, 1, millis(750)), Ok(()));
        assert!(asks(&mut buckets, 1, millis(750)).is_err());
        // And never more than the burst.
        for _ in 0..3 {
            assert_eq!(asks(&mut buckets, 1, millis(60_000)), Ok(()));
        }
        assert!(asks(&mut buckets, 1, millis(60_000)).is_err());
    }

    #[test]
    fn token_that_is_given_back_can_be_taken_again_and_never_makes_more_than_the_burst() {
        let mut buckets = Buckets::new(Rate::new(1, SECOND, 2));
        buckets.give_back(&1);
        for _ in 0..100 {
            assert_eq!(asks(&mut buckets, 1, SECOND), Ok(()));
            buckets.give_back(&1);
        }
        buckets.give_back(&1);
        assert_eq!(asks(&mut buckets, 1, SECOND), Ok(()));
        assert_eq!(asks(&mut buckets, 1, SECOND), Ok(()));
        assert!(asks(&mut buckets, 1, SECOND).is_err());
    }

    #[test]
    fn names_have_buckets_of_their_own() {
        let mut buckets = Buckets::new(Rate::new(1, SECOND, 1));
        assert_eq!(asks(&mut buckets, 1, millis(0)), Ok(()));
        assert_eq!(asks(&mut buckets, 2, millis(0)), Ok(()));
        assert!(asks(&mut buckets, 1, millis(0)).is_err());
    }

    #[test]
    fn flooder_is_not_forgotten_for_any_number_of_others() {
        let mut buckets = Buckets::new(Rate::new(1, SECOND, 100));
        let flooder = 0;
        for _ in 0..100 {
            assert_eq!(asks(&mut buckets, flooder, millis(0)), Ok(()));
        }
        for other in 1..200_000 {
            assert_eq!(asks(&mut buckets, other, millis(0)), Ok(()));
        }
        assert!(asks(&mut buckets, flooder, millis(0)).is_err());
        assert_eq!(buckets.table.len() * size_of::<Bucket>(), TABLE_BYTES);
    }

    #[test]
    fn table_takes_no_memory_before_it_is_used() {
        let buckets = Buckets::new(Rate::new(1, SECOND, 1));
        assert_eq!(buckets.wait(&1, SECOND), Duration::ZERO);
        assert_eq!(buckets.table.capacity(), 0);
    }

    #[test]
    fn end_of_time_is_no_overflow() {
        let mut buckets = Buckets::new(Rate::new(1, Duration::MAX, u32::MAX));
        assert_eq!(asks(&mut buckets, 1, Duration::MAX), Ok(()));
        assert_eq!(asks(&mut buckets, 1, Duration::MAX), Ok(()));
    }
}
