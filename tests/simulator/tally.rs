//! What has been exercised: a run that passes without having tried something proves nothing.

use std::collections::BTreeMap;

/// How often each kind of event has happened.
#[derive(Debug, Default)]
pub(crate) struct Tally(BTreeMap<&'static str, u64>);

impl Tally {
    pub(crate) fn add(&mut self, kind: &'static str) {
        *self.0.entry(kind).or_default() += 1;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (kind, count) in &other.0 {
            *self.0.entry(kind).or_default() += count;
        }
    }

    /// Prints all that was counted.
    ///
    /// # Panics
    ///
    /// If something else happened than `kinds`, or one of them never did.
    pub(crate) fn check(&self, kinds: &[&'static str]) {
        for (kind, count) in &self.0 {
            println!("{count:8} {kind}");
            assert!(kinds.contains(kind), "`{kind}` is not in the list");
        }
        for kind in kinds {
            assert!(self.0.contains_key(kind), "`{kind}` was never exercised");
        }
    }
}
