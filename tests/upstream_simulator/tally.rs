//! What has been exercised: a run that passes without having tried something proves nothing.

use std::collections::BTreeMap;

/// Everything that must have happened at least once over all seeds.
pub(crate) const KINDS: &[&str] = &[
    "batch failed",
    "borrowed",
    "both ends lose a connection",
    "clean stop",
    "crash",
    "database lost",
    "disorder",
    "duplicates",
    "local in place of borrowed",
    "main service away",
    "main service away for days",
    "main service forgets one",
    "main service reset",
    "messages not acted on",
    "posted",
    "posted at home",
    "posted to what is gone",
    "queue full",
    "register refused",
    "registered again",
    "registers refused",
    "sent on",
    "slow answers and acks",
    "the gateway loses a connection",
    "the main service closes a connection",
    "the main service loses a connection",
    "user agent gets another name",
];

#[derive(Debug, Default)]
pub(crate) struct Tally(BTreeMap<&'static str, u64>);

impl Tally {
    pub(crate) fn add(&mut self, kind: &'static str) {
        assert!(KINDS.contains(&kind), "`{kind}` is not in the list");
        *self.0.entry(kind).or_default() += 1;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (kind, count) in &other.0 {
            *self.0.entry(kind).or_default() += count;
        }
    }

    pub(crate) fn of(&self, kind: &'static str) -> u64 {
        self.0.get(kind).copied().unwrap_or(0)
    }
}
